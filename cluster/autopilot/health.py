"""`tamen health`: how training stands, key by key, once or again and again; and who is told when that changes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.cli.stopping import StopRequest, stop_request
from cluster.cli.terminal import UNKNOWN, console, duration, is_live, percent, whole
from cluster.cli.verbs import print_json
from control.database import CONTROL_FILE
from core.errors import UsageError

if TYPE_CHECKING:
    from control.alerts import Alert, AlertBook, Change, Listener
    from control.health import HealthMonitor, HealthReport, KeyHealth
    from control.keys import Key

COMMAND_SECONDS = 10.0
"""After which a command that is told of an alert is ended."""
_STYLES = {
    "healthy": "green",
    "degraded": "yellow",
    "warning": "yellow",
    "unhealthy": "bold red",
    "critical": "bold red",
    "unknown": "dim",
}
_SAID_LENGTH = 200
_PIECE_SECONDS = 0.5


def show_health(
    runs: Path,
    settings: Sequence[str],
    *,
    every: float | None,
    on_alert: str | None,
    forget: str | None,
    prometheus: bool,
    as_json: bool,
) -> "HealthReport":
    """Return, and print, how training in `runs` stands.

    Args:
        settings: thresholds to judge by from now on, threshold=value.
        every: seconds between two looks; None: look once.
        on_alert: a command to run when an alert changes.
        forget: a key to leave out from now on.

    Raises:
        UsageError: for what does not go together or does not exist.
    """
    if prometheus and (as_json or every is not None):
        raise UsageError(
            f"--prometheus and {'--json' if as_json else '--watch'} do not go together",
            why="Prometheus reads one text, that of one look",
            fix="leave one of them out",
        )
    command = None if on_alert is None else parse_command(on_alert)
    if settings or forget is not None:
        _change(runs, settings, forget)
    looks = _Looks(runs, command)
    if every is not None:
        return _watch(looks, every, as_json=as_json).report
    look = looks.take()
    _show(look, runs, as_json=as_json, prometheus=prometheus)
    return look.report


def parse_command(text: str) -> list[str]:
    """Return a command as a list of arguments; there is no shell. Raises UsageError when there is no such program."""
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"the command {text!r} cannot be read", why=str(error), fix="close its quotes"
        ) from error
    if not command or shutil.which(command[0]) is None:
        raise UsageError(
            f"the command {text!r} cannot be run",
            why=f"there is no program {command[0]!r} here" if command else "it is empty",
            fix="give a program with its arguments; for pipes and the like: sh -c '…'",
        )
    return command


def run_command(command: Sequence[str], change: "Change", seconds: float = COMMAND_SECONDS) -> str | None:
    """Run a command that gets `change` as JSON on its stdin; return why that failed, None when it did not.

    It and what it started is ended after so many seconds.
    """
    told = {**asdict(change), "key": str(change.key)}
    # Files, not pipes: nobody waits for a command that does not read, or for one that it leaves behind.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(json.dumps(told).encode() + b"\n")
        given.seek(0)
        try:
            process = subprocess.Popen(command, stdin=given, stdout=said, stderr=said, start_new_session=True)
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"it took more than {seconds:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code == 0:
            return None
        words = _end_of(said)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {words}" if words else how


def _end_of(said: IO[bytes]) -> str:
    """Return the end of what a command said, in one line."""
    said.seek(-min(_SAID_LENGTH, said.seek(0, os.SEEK_END)), os.SEEK_END)
    text = said.read().decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text).strip()


def tell_command(book: "AlertBook", command: Sequence[str]) -> "Listener":
    """Run `command` once for each change that it was not told of; return how telling it has gone so far.

    After a failure the rest waits for the next look; a change that fails again and again is given up.
    """
    name = shlex.join(command)
    for change in book.pending(name):
        why = run_command(command, change)
        if why is None:
            book.told(name, change)
        elif not book.not_told(name, change, why):
            break
    return book.listener(name)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found; `listener` is the command that is told of alerts, if there is one."""

    report: "HealthReport"
    listener: "Listener | None"
    thresholds: dict[str, Any]


class _Looks:
    """Looks at what is recorded in `runs`; as long as there is nothing, no file is made by looking."""

    def __init__(self, runs: Path, command: Sequence[str] | None) -> None:
        self._runs = runs
        self._command = command
        self._monitor: HealthMonitor | None = None

    def take(self) -> Look:
        from configs.health import HealthConfig
        from control.health import HealthReport

        if self._monitor is None and (self._runs / CONTROL_FILE).exists():
            self._monitor = _monitor(self._runs)
        if self._monitor is None:
            return Look(HealthReport(time.time(), "unknown", (), ()), None, HealthConfig().model_dump())
        report = self._monitor.report()
        listener = tell_command(self._monitor.alerts, self._command) if self._command else None
        return Look(report, listener, self._monitor.thresholds.model_dump())


def _monitor(runs: Path) -> "HealthMonitor":
    from control.database import Database
    from control.health import TABLES, HealthMonitor

    return HealthMonitor(Database(runs / CONTROL_FILE, TABLES))


def _change(runs: Path, settings: Sequence[str], forget: str | None) -> None:
    from configs.health import HEALTH, HealthConfig
    from control.keys import parse_key

    key = None if forget is None else parse_key(forget)
    if not (runs / CONTROL_FILE).exists():
        # What is refused leaves no file behind.
        if key is not None:
            raise _not_known(key, [], runs)
        HEALTH.override(HealthConfig(), settings)
    monitor = _monitor(runs)
    if settings:
        monitor.set_thresholds(HEALTH.override(monitor.thresholds, settings))
    if key is not None and not monitor.forget(key):
        raise _not_known(key, [str(each.record.key) for each in monitor.report().keys], runs)


def _not_known(key: "Key", known: list[str], runs: Path) -> UsageError:
    from configs.words import did_you_mean

    return UsageError(
        f"there is no key {str(key)!r}",
        why=f"{runs} knows {', '.join(known)}" if known else f"nothing is recorded in {runs}",
        fix=did_you_mean(str(key), known) if known else "leave --forget out",
    )


def _watch(looks: _Looks, every: float, *, as_json: bool) -> Look:
    """Look every so many seconds until Ctrl-C; return the last look."""
    target = console()
    live = Live(console=target, auto_refresh=False) if is_live(target) and not as_json else nullcontext()
    with stop_request() as stop, live as screen:
        seen, look = None, looks.take()
        while True:
            if screen is not None:
                screen.update(Group(*_parts(look)), refresh=True)
            elif as_json:
                print_json(_as_json(look))
            elif (now_seen := _gist(look)) != seen:
                seen = now_seen
                _print(target, look)
            with stop.at_once():
                _sleep(every, stop)
                look = looks.take()
            if stop.requested:
                return look


def _sleep(seconds: float, stop: StopRequest) -> None:
    # In pieces: a request that came just before would not wake it.
    end = time.monotonic() + seconds
    while not stop.requested and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _PIECE_SECONDS))


def _show(look: Look, runs: Path, *, as_json: bool, prometheus: bool) -> None:
    if as_json:
        print_json(_as_json(look))
    elif prometheus:
        from control.health_text import prometheus_text

        sys.stdout.write(prometheus_text(look.report))
    else:
        target = console()
        _print(target, look)
        worst = [key for key in _worst_first(look.report) if key.status != "healthy"]
        if look.report.status == "unknown":
            said = f"{runs / CONTROL_FILE} will tell of trainings by: tamen train --auto"
        else:
            said = f"next: tamen why {worst[0].record.key}" if worst else "next: tamen health --watch"
        target.print(Text(said), soft_wrap=True)


def _print(target: Console, look: Look) -> None:
    for part in _parts(look):
        target.print(part, soft_wrap=isinstance(part, Text))


def _parts(look: Look) -> list[Text | Table]:
    """Return what there is to show, from the whole to the details."""
    report, listener = look.report, look.listener
    at = time.strftime("%H:%M:%S", time.localtime(report.at))
    parts: list[Text | Table] = [
        Text.assemble((report.status, _STYLES[report.status]), f": {report.summary}", (f"  ({at})", "dim"))
    ]
    if report.keys:
        parts.append(_table(report))
    for alert in report.active_alerts:
        since = _age(report.at - alert.opened)
        label = (f"{alert.severity:8} ", _STYLES[alert.severity])
        parts.append(Text.assemble(label, f"{alert.key}: {alert.message}", (f"  (for {since})", "dim")))
    for key in report.keys:
        if key.record.note:
            parts.append(Text(f"{key.record.key}: {key.record.note}", style="yellow"))
    if listener is not None and listener.failures:
        words = f"--on-alert failed {listener.failures} times, {listener.given_up} changes were given up: "
        parts.append(Text(words + listener.last_failure, style="yellow"))
    if changed := _changed(look.thresholds):
        parts.append(Text(f"thresholds: {' '.join(changed)}", style="dim"))
    return parts


def _table(report: "HealthReport") -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("training")
    for heading in ("failed", "models", "games", "wins"):
        table.add_column(heading, justify="right")
    table.add_column("succeeded")
    for key in _worst_first(report):
        record = key.record
        training = record.training
        age = None if record.last_success is None else report.at - record.last_success
        table.add_row(
            str(record.key),
            Text(key.status, style=_STYLES[key.status]),
            f"{training.run}, {duration(key.running_seconds)}" if training else UNKNOWN,
            str(record.failures),
            whole(record.models),
            whole(record.games),
            percent(record.win_rate, 1),
            UNKNOWN if age is None else f"{_age(age)} ago",
        )
    return table


def _worst_first(report: "HealthReport") -> "list[KeyHealth]":
    order = ("unhealthy", "degraded", "healthy")
    return sorted(report.keys, key=lambda key: order.index(key.status))


def _gist(look: Look) -> object:
    """Return what of a look is worth a word when it changes: all but ages."""
    keys = [(key.status, replace(key.record, games=None, games_at=None)) for key in look.report.keys]
    alerts = [(alert.number, alert.severity) for alert in look.report.active_alerts]
    return keys, alerts, look.listener, look.thresholds


def _as_json(look: Look) -> dict[str, Any]:
    report = look.report
    return {
        "status": report.status,
        "summary": report.summary,
        "at": report.at,
        "keys": [_key_as_json(key) for key in report.keys],
        "alerts": [_alert_as_json(alert) for alert in report.active_alerts],
        "on_alert": None if look.listener is None else asdict(look.listener),
        "thresholds": look.thresholds,
    }


def _key_as_json(key: "KeyHealth") -> dict[str, Any]:
    record = key.record
    told = asdict(record)
    return {
        **{name: told[name] for name in told if name not in ("ended_run", "training")},
        "key": str(record.key),
        "status": key.status,
        "training": record.training
        and {
            "run": record.training.run,
            "started": record.training.started,
            "seconds": key.running_seconds,
            "host": record.training.process.host,
            "pid": record.training.process.pid,
        },
    }


def _alert_as_json(alert: "Alert") -> dict[str, Any]:
    return {
        name: value for name, value in {**asdict(alert), "key": str(alert.key)}.items() if name != "resolved"
    }


def _changed(thresholds: dict[str, Any]) -> list[str]:
    from configs.health import HealthConfig

    usual = HealthConfig().model_dump()
    return [f"{name}={value:g}" for name, value in thresholds.items() if value != usual[name]]


def _age(seconds: float) -> str:
    """5400 -> "1.5 h"."""
    seconds = max(0.0, seconds)
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
