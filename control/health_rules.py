"""What is recorded of a key, and the rules that say what is wrong with it at a moment.

On clocks: how long a training runs is counted on the monotonic clock of the machine it runs on, which nobody sets, if
the machine was not started anew since; seen from elsewhere, on the clock on the wall. Other ages last longer than a
machine may be up, so they are counted on the wall. A time from the future, left by a clock that was wrong, counts as
now; that is written down, so that it grows old from then on, and said.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from configs.health import HealthConfig
from control.alerts import Condition, Severity
from control.keys import Key
from core.processes import Process, is_gone

Status: TypeAlias = Literal["healthy", "degraded", "unhealthy", "unknown"]

HOUR = 3600.0
AHEAD_SECONDS = 5.0
"""A time is from the future when it is further ahead; clocks of machines are set by less now and then."""
_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Moment:
    """When and where a look is taken.

    Attributes:
        wall: seconds since 1970.
        clock: monotonic seconds since the machine was started, the same for all of its processes.
        here: the process that looks.
    """

    wall: float
    clock: float
    here: Process


@dataclass(frozen=True, slots=True)
class Training:
    """A training that runs.

    Attributes:
        started: seconds since 1970.
        started_clock: the same moment on the monotonic clock of the machine of `process`.
        process: that ends no sooner than the training.
    """

    run: str
    started: float
    started_clock: float
    process: Process


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What was recorded of a key. Times are seconds since 1970; None is what was never recorded.

    Attributes:
        since: when it was first heard of.
        games_at: when `games` last rose.
        models_at: when `models` last rose.
        failures: trainings that failed since the last that succeeded.
        last_failure: why, in a line.
        ended_run: the training that ended last.
        note: what was wrong with its times, if anything, until the next event.
    """

    key: Key
    since: float
    games: int | None = None
    games_at: float | None = None
    models: int | None = None
    models_at: float | None = None
    win_rate: float | None = None
    failures: int = 0
    last_failure: str = ""
    last_success: float | None = None
    training: Training | None = None
    ended_run: str | None = None
    note: str = ""


def conditions(record: KeyRecord, config: HealthConfig, at: Moment) -> Iterator[Condition]:
    """Yield what is wrong with a key, given what `brought_up` returned; at a threshold all is well, save of failures.

    A model is stale by the last training that succeeded or the last model that came, data by the last game that came;
    where there was none, by the moment the key was first heard of.
    """

    def found(kind: str, severity: Severity, message: str) -> Condition:
        return Condition(record.key, kind, severity, message)

    running, limit = running_seconds(record.training, at), config.stalled_training_hours
    if record.training is not None and running is not None and running > limit * HOUR:
        told = f"run {record.training.run} has been training for {hours(running)}, more than {limit:g} h"
        yield found("stalled_training", "critical", told)
    if record.failures >= config.failures_warning:
        severity = "critical" if record.failures >= config.failures_critical else "warning"
        one = record.failures == 1
        told = f"{record.failures} training{' has' if one else 's in a row have'} failed"
        last = f"{': ' if one else ', the last: '}{record.last_failure}" if record.last_failure else ""
        yield found("failures", severity, told + last)
    age, limit = (
        at.wall - _newest(record.since, record.last_success, record.models_at),
        config.stale_model_hours,
    )
    if age > limit * HOUR:
        yield found("stale_model", "warning", f"no new model for {hours(age)}, more than {limit:g} h")
    age, limit = at.wall - _newest(record.since, record.games_at), config.stale_data_hours
    if record.games is not None and age > limit * HOUR:
        yield found("stale_data", "warning", f"no new games for {hours(age)}, more than {limit:g} h")
    if record.win_rate is not None and record.win_rate < config.min_win_rate:
        told = f"wins {record.win_rate:.1%} of its games, less than {config.min_win_rate:.1%}"
        yield found("low_win_rate", "warning", told)


def status_of(severities: Iterable[Severity]) -> Status:
    """Return how that stands which has open alerts of these severities."""
    present = set(severities)
    if "critical" in present:
        return "unhealthy"
    return "degraded" if present else "healthy"


def running_seconds(training: Training | None, at: Moment) -> float | None:
    """Return how long a training has been running; None when there is none."""
    if training is None:
        return None
    same_clock = training.process.boot == at.here.boot
    return max(0.0, at.clock - training.started_clock if same_clock else at.wall - training.started)


def brought_up(record: KeyRecord, at: Moment) -> KeyRecord:
    """Return `record` without times from the future, and without a training that has ended unnoticed."""
    record = _of_now(record, at.wall)
    training = record.training
    if training is not None and is_gone(training.process, at.here):
        return failed(record, f"process {training.process.pid} of run {training.run} is gone")
    return record


def failed(record: KeyRecord, reason: str, run: str | None = None) -> KeyRecord:
    """Return `record` after the failure of `run`, or of the training under way."""
    ended = run or (record.training.run if record.training else None)
    return replace(
        record,
        training=None,
        ended_run=ended,
        failures=record.failures + 1,
        last_failure=_one_line(reason),
    )


def succeeded(record: KeyRecord, now: float, run: str | None = None) -> KeyRecord:
    """Return `record` after `run`, or the training under way, has made a model."""
    ended = run or (record.training.run if record.training else None)
    return replace(record, training=None, ended_run=ended, failures=0, last_failure="", last_success=now)


def hours(seconds: float) -> str:
    """16200 -> "4.5 h"."""
    return f"{seconds / HOUR:.1f} h"


def _newest(since: float, *times: float | None) -> float:
    return max([since, *(at for at in times if at is not None)])


def _of_now(record: KeyRecord, now: float) -> KeyRecord:
    furthest = now

    def past(at: float) -> float:
        nonlocal furthest
        furthest = max(furthest, at)
        return now if at > now + AHEAD_SECONDS else at

    def past_or_none(at: float | None) -> float | None:
        return None if at is None else past(at)

    training = record.training
    changed = replace(
        record,
        since=past(record.since),
        games_at=past_or_none(record.games_at),
        models_at=past_or_none(record.models_at),
        last_success=past_or_none(record.last_success),
        training=None if training is None else replace(training, started=past(training.started)),
    )
    if furthest <= now + AHEAD_SECONDS:
        return record
    note = f"times up to {hours(furthest - now)} ahead count as now: a clock was or is wrong"
    return replace(changed, note=note)


def _one_line(text: str) -> str:
    """Return `text` as it can be shown on a terminal: in one line, without what moves the cursor."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(line.split())[:_REASON_LENGTH]
