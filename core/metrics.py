"""Every metric of the system, declared once, and the one way to write them.

    metrics.count("tamen_games_total", 12)
    metrics.gauge("tamen_learner_loss", 1.41, part="policy")
    metrics.observe("tamen_inference_batch_size", rows)

Whoever measures is given a `Metrics`; whoever starts it decides where the numbers go: nowhere (`NoMetrics`),
to Prometheus (`core.prometheus`) or to Ray (`cluster.monitoring.sinks`). Dashboards and alerts are made from this list
(`cluster.monitoring.dashboard`); docs/metrics.md says more of what is healthy.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

Kind = Literal["counter", "gauge", "histogram"]
Row = Literal["games", "brain", "replay", "learner", "engines", "machines", "control"]
"""Of a dashboard, from top to bottom."""


@dataclass(frozen=True, slots=True)
class Healthy:
    """What is healthy, both ends included: of a gauge its value, of a histogram its median, of a counter its growth.

    Attributes:
        low, high: the ends, in the metric's unit; None where there is none. A counter with `high` 0 counts mishaps.
        rises: of a counter, that it should never stand still while a run goes on.
    """

    low: float | None = None
    high: float | None = None
    rises: bool = False

    def __str__(self) -> str:
        if self.rises:
            return "rises"
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return "0" if self.high == 0 else f"below {self.high:g}"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: begins with "tamen_"; that of a counter, and no other, ends with "_total".
        unit: of its values: seconds, rows, games, ratio (0 to 1), …
        tags: what values are told apart by; every value is given with all of them.
        buckets: upper bounds of a histogram's buckets, rising, above 0.
        healthy: None where numbers do not tell.
        row: of the dashboard, where it is drawn.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    healthy: Healthy | None = None
    row: Row = "games"


def _counter(name: str, unit: str, text: str, *tags: str) -> MetricSpec:
    return MetricSpec(name, "counter", unit, text, tags)


def _progress(name: str, unit: str, text: str, *tags: str) -> MetricSpec:
    return MetricSpec(name, "counter", unit, text, tags, healthy=Healthy(rises=True))


def _mishaps(name: str, unit: str, text: str, *tags: str) -> MetricSpec:
    return MetricSpec(name, "counter", unit, text, tags, healthy=Healthy(high=0.0))


def _gauge(name: str, unit: str, text: str, *tags: str, healthy: Healthy | None = None) -> MetricSpec:
    return MetricSpec(name, "gauge", unit, text, tags, healthy=healthy)


def _histogram(
    name: str, unit: str, text: str, *buckets: float, healthy: Healthy | None = None
) -> MetricSpec:
    return MetricSpec(name, "histogram", unit, text, buckets=buckets, healthy=healthy)


def _in_row(row: Row, *specs: MetricSpec) -> tuple[MetricSpec, ...]:
    return tuple(replace(spec, row=row) for spec in specs)


_WAITS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_SYNCS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_DURATIONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_ENGINE_GAMES = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0),
)
_ROWS = tuple(2.0**k for k in range(17))
_PLIES = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 200.0, 400.0, 1000.0)

_GAMES = _in_row(
    "games",
    _progress("tamen_games_total", "games", "finished games or episodes the replay took in"),
    _progress("tamen_moves_total", "moves", "moves played, or steps of environments"),
    _histogram("tamen_game_duration_seconds", "seconds", "from a game's first move to its last", *_DURATIONS),
    _histogram("tamen_game_plies", "plies", "moves of a finished game", *_PLIES),
    _mishaps("tamen_games_set_aside_total", "games", "games given up because their evaluation failed twice"),
    _counter("tamen_episodes_ended_total", "episodes", "episodes by how they ended", "how"),
    _mishaps("tamen_requests_resent_total", "requests", "requests sent again because their answer was lost"),
    _counter("tamen_requests_spilled_total", "requests", "requests sent to another server than their home"),
    _mishaps("tamen_chunks_refused_total", "chunks", "chunks that the replay refused for what is in them"),
    _counter("tamen_actor_seconds_total", "seconds", "where the actors' time went", "activity"),
)
_BRAIN = _in_row(
    "brain",
    _progress("tamen_positions_evaluated_total", "positions", "positions answered, from the cache or not"),
    _mishaps("tamen_requests_failed_total", "requests", "requests that a server could not answer"),
    _counter("tamen_cache_hits_total", "positions", "positions answered from the cache"),
    _histogram("tamen_inference_batch_size", "rows", "positions of one batch", *_ROWS),
    _histogram("tamen_inference_wait_seconds", "seconds", "a request's wait before its batch began", *_WAITS),
    _gauge(
        "tamen_inference_busy_ratio",
        "ratio",
        "share of its time that a server evaluates",
        healthy=Healthy(0.7, 1.0),
    ),
    _histogram(
        "tamen_weights_sync_seconds",
        "seconds",
        "from publishing new weights to a server's first answer",
        *_SYNCS,
        healthy=Healthy(high=0.1),
    ),
    _gauge("tamen_weights_version", "version", "newest version of the weights"),
)
_REPLAY = _in_row(
    "replay",
    _gauge("tamen_replay_rows", "rows", "training rows the replay keeps"),
    _mishaps("tamen_replay_duplicates_total", "games", "games, or rows of no game, taken in before"),
    _gauge("tamen_samples_per_insert", "ratio", "rows the learner drew for each row that came in"),
)
_LEARNER = _in_row(
    "learner",
    _progress("tamen_learner_steps_total", "steps", "optimiser steps taken"),
    _mishaps("tamen_learner_steps_refused_total", "steps", "steps not taken because a number was not finite"),
    _mishaps("tamen_rows_too_old_total", "rows", "rows drawn and dropped because their weights were too old"),
    _gauge("tamen_learner_loss", "nats", "loss of the last steps", "part"),
    _gauge(
        "tamen_learner_data_wait_ratio",
        "ratio",
        "share of its time that the learner waits for rows",
        healthy=Healthy(high=0.95),
    ),
    _gauge("tamen_policy_lag_versions", "versions", "mean age of the weights that made the sampled rows"),
    _gauge("tamen_episode_return", "reward", "mean return of the last episodes", "of"),
    _gauge("tamen_policy_entropy", "nats", "entropy of the policy that learns"),
    _gauge(
        "tamen_policy_kl",
        "nats",
        "how far the policy has moved from the one that acted",
        healthy=Healthy(0.002, 0.02),
    ),
    _gauge(
        "tamen_policy_clip_ratio",
        "ratio",
        "share of the steps whose probability ratio was clipped",
        healthy=Healthy(0.02, 0.3),
    ),
    _gauge("tamen_policy_ratio_error", "ratio", "how far the net that learns began from the one that acted"),
    _gauge("tamen_strength_score", "ratio", "points won of points played in the newest match", "opponent"),
)
_MACHINES = _in_row(
    "machines",
    _mishaps("tamen_restarts_total", "restarts", "parts that died and were started again", "role"),
    _gauge(
        "tamen_effective_ratio",
        "ratio",
        "share of the time that actors should have played in which they did",
        healthy=Healthy(0.9, 1.0),
    ),
    _gauge("tamen_spare_actors", "actors", "that wait on all machines to play in the place of one that dies"),
    _counter("tamen_spot_notices_total", "notices", "machines whose cloud told that it takes them away"),
    _counter("tamen_games_lost_total", "games", "games lost with actors that left, died or vanished"),
    _counter("tamen_games_taken_over_total", "games", "games of actors that died with which others went on"),
    _gauge("tamen_mirror_seconds", "seconds", "what the newest round of mirroring the run took"),
    _gauge(
        "tamen_mirror_lag_seconds",
        "seconds",
        "age of the newest state that is mirrored whole",
        healthy=Healthy(high=300.0),
    ),
    _gauge(
        "tamen_mirror_behind",
        "yes or no",
        "1 while the mirror is older than four rounds and a minute, else 0",
        healthy=Healthy(high=0.0),
    ),
    _mishaps("tamen_mirror_failures_total", "rounds", "rounds of mirroring that failed"),
)
_ENGINES = _in_row(
    "engines",
    _progress("tamen_engine_games_total", "games", "games that engines played to their end", "outcome"),
    _histogram(
        "tamen_engine_game_duration_seconds",
        "seconds",
        "that a game took in its daemon",
        *_ENGINE_GAMES,
    ),
    _gauge(
        "tamen_engine_game_quantile_seconds",
        "seconds",
        "that a share of the games did not take longer than in their daemons",
        "quantile",
    ),
    _gauge("tamen_engine_games_left", "games", "games that are played or wait to be played"),
    _mishaps("tamen_engine_retries_total", "games", "games asked for again because they broke", "reason"),
    _mishaps("tamen_engine_games_set_aside_total", "games", "games given up after their last try", "reason"),
    _gauge(
        "tamen_engine_busy_ratio",
        "ratio",
        "share of its time that a daemon has a game in play",
        "daemon",
        healthy=Healthy(0.9, 1.0),
    ),
    _mishaps("tamen_engine_restarts_total", "restarts", "daemons that were started again", "daemon"),
)
SPECS: tuple[MetricSpec, ...] = (*_GAMES, *_BRAIN, *_REPLAY, *_LEARNER, *_MACHINES, *_ENGINES)

_BY_NAME = {spec.name: spec for spec in SPECS}


class Metrics(Protocol):
    """Where measured numbers go. Any thread may call; nothing here blocks.

    Values may be numpy scalars. All three raise ValueError for a name, kind or tags that are not as declared:
    a mistake in the program, which every implementation finds.
    """

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        """Add `amount` ≥ 0 to a counter."""
        ...

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        """Set a gauge to its present value."""
        ...

    def observe(self, name: str, value: float, /, **tags: str) -> None:
        """Add one measurement to a histogram."""
        ...


class NoMetrics:
    """Checks what it is given and keeps nothing."""

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        checked_amount(name, amount)
        checked_spec(name, "counter", tags)

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        checked_spec(name, "gauge", tags)

    def observe(self, name: str, value: float, /, **tags: str) -> None:
        checked_spec(name, "histogram", tags)


def spec_of(name: str) -> MetricSpec:
    """Return the specification of `name`. Raises ValueError when there is none."""
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"metric {name!r} is not declared in core/metrics.py{hint}")
    return _BY_NAME[name]


def checked_spec(name: str, kind: Kind, tags: Iterable[str]) -> MetricSpec:
    """Return the specification of `name`. Raises ValueError unless it is of this kind and has these tags."""
    spec = spec_of(name)
    if spec.kind != kind:
        raise ValueError(f"metric {name!r} is a {spec.kind}, not a {kind}")
    if set(spec.tags) != set(tags):
        raise ValueError(f"metric {name!r} takes the tags {sorted(spec.tags)}, not {sorted(tags)}")
    return spec


def checked_amount(name: str, amount: float) -> float:
    """Return `amount` as a Python number. Raises ValueError when a counter would go down."""
    if not amount >= 0:
        raise ValueError(f"counter {name!r} can only go up, not by {amount}")
    return float(amount)
