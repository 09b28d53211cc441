"""Whether training goes well, key by key: what was recorded, how that stands, and the alerts that follow.

A key is healthy, degraded (any warning) or unhealthy (anything critical); where nothing is recorded that is unknown.
All of it is in a file, so it survives whoever records and whoever looks, and both may be several processes. Every event
is judged in the transaction that records it, so no alert comes or goes unseen; what only time brings about is judged
when somebody looks. The rules, and what is made of clocks that are wrong, are in control.health_rules.
"""

import json
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from sqlite3 import Connection

from pydantic import ValidationError

from configs.health import HealthConfig
from control import alerts
from control.alerts import Alert, AlertBook, Condition
from control.database import Database, Row, readable
from control.health_rules import (
    KeyRecord,
    Moment,
    Status,
    Training,
    brought_up,
    conditions,
    failed,
    running_seconds,
    status_of,
    succeeded,
)
from control.keys import Key, parse_key
from core.errors import DataError, UsageError
from core.names import checked_name
from core.processes import Process, this_process

TABLES = f"""
CREATE TABLE IF NOT EXISTS health_keys (
    key TEXT PRIMARY KEY,
    since REAL NOT NULL,
    games INTEGER,
    games_at REAL,
    models INTEGER,
    models_at REAL,
    win_rate REAL,
    failures INTEGER NOT NULL,
    last_failure TEXT NOT NULL,
    last_success REAL,
    training TEXT,
    ended_run TEXT,
    note TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS health_thresholds (one INTEGER PRIMARY KEY CHECK (one = 1), config TEXT NOT NULL);
{alerts.TABLES}
"""
_COLUMNS = tuple(field.name for field in fields(KeyRecord))
_REALS = ("since", "games_at", "models_at", "win_rate", "last_success")
_KEYS_QUERY = "SELECT * FROM health_keys ORDER BY key"
_THRESHOLDS_QUERY = "SELECT config FROM health_thresholds"
_REPLACE = (
    f"INSERT OR REPLACE INTO health_keys ({', '.join(_COLUMNS)})"  # noqa: S608 - names of our own fields
    f" VALUES ({', '.join('?' * len(_COLUMNS))})"
)
_MOST = 2**63 - 1
"""The greatest number that the file can hold."""


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """A key as it stands: what was recorded, how long it has been training (None: it is not), and its open alerts."""

    status: Status
    record: KeyRecord
    running_seconds: float | None
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All keys as they stand `at` a moment, in seconds since 1970; open alerts, critical ones first."""

    at: float
    status: Status
    keys: tuple[KeyHealth, ...]
    active_alerts: tuple[Alert, ...]

    @property
    def summary(self) -> str:
        """The whole in a line."""
        if not self.keys:
            return "nothing is recorded yet"
        training = sum(key.running_seconds is not None for key in self.keys)
        critical = sum(alert.severity == "critical" for alert in self.active_alerts)
        warnings = len(self.active_alerts) - critical
        told = [f"{critical} critical"] if critical else []
        told += [f"{warnings} warning{'s' * (warnings != 1)}"] if warnings else []
        keys = f"{len(self.keys)} key{'s' * (len(self.keys) != 1)}, {training} training"
        return f"{keys}; {' and '.join(told) or 'no alerts'}"


class HealthMonitor:
    """Takes what happens to keys, and says how they stand.

    Args:
        database: opened with `TABLES` among its tables.
        wall_clock: seconds since 1970.
        clock: monotonic seconds since the machine was started, the same for all of its processes.
        process: returns the process that calls.
    """

    def __init__(
        self,
        database: Database,
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        process: Callable[[], Process] = this_process,
    ) -> None:
        self._database = database
        self._wall_clock = wall_clock
        self._clock = clock
        self._process = process
        self.alerts = AlertBook(database)

    def record_training_start(self, key: Key, run: str, *, process: Process | None = None) -> None:
        """Note that a training begins. Of one key there is one at a time: another that runs has failed, unnoticed.

        The same run and process, told again, changes nothing.

        Args:
            key: what is trained.
            run: names the training.
            process: that ends no sooner than the training (default: the one that calls); when it is gone, the training
                has failed.

        Raises:
            UsageError: when the key or the run is no plain name.
        """
        checked_name(run, what="run")

        def start(record: KeyRecord, at: Moment) -> KeyRecord:
            owner = process or at.here
            if (running := record.training) is not None:
                if (running.run, running.process) == (run, owner):
                    return record
                record = failed(record, f"run {running.run} had not ended when run {run} began")
            return replace(record, training=Training(run, at.wall, at.clock, owner))

        self._record(key, start)

    def record_training_complete(
        self, key: Key, *, success: bool, run: str | None = None, reason: str = ""
    ) -> bool:
        """Note that a training has ended; return whether that counts.

        It does not when another run than `run` is under way, as that one is in its place; nor when the failure of `run`
        is told a second time.

        Args:
            key: what was trained.
            success: whether there is a new model; only that sets the time of the last success.
            run: which training (default: the one under way).
            reason: why it failed, for people.

        Raises:
            UsageError: when the key or the run is no plain name.
        """
        if run is not None:
            checked_name(run, what="run")
        counted = False

        def end(record: KeyRecord, at: Moment) -> KeyRecord:
            nonlocal counted
            if record.training is not None:
                counted = run in (None, record.training.run)
            else:
                counted = success or run is None or run != record.ended_run
            if not counted:
                return record
            return succeeded(record, at.wall, run) if success else failed(record, reason, run)

        self._record(key, end)
        return counted

    def record_training_pause(self, key: Key, run: str) -> None:
        """Note that training `run` was left on purpose, to be gone on with: neither a success nor a failure."""
        checked_name(run, what="run")

        def leave(record: KeyRecord, _: Moment) -> KeyRecord:
            return (
                replace(record, training=None) if record.training and record.training.run == run else record
            )

        self._record(key, leave)

    def record_data_update(self, key: Key, game_count: int) -> None:
        """Note how many games there are; data is new when there are more. Raises UsageError unless it is a count."""
        count = _checked_count(game_count, "games")

        def update(record: KeyRecord, at: Moment) -> KeyRecord:
            more = count > (record.games or 0)
            return replace(record, games=count, games_at=at.wall if more else record.games_at)

        self._record(key, update)

    def record_model(self, key: Key, count: int) -> None:
        """Note how many models there are; one is new when there are more. Raises UsageError unless it is a count."""
        checked = _checked_count(count, "models")

        def update(record: KeyRecord, at: Moment) -> KeyRecord:
            more = checked > (record.models or 0)
            return replace(record, models=checked, models_at=at.wall if more else record.models_at)

        self._record(key, update)

    def record_win_rate(self, key: Key, win_rate: float) -> None:
        """Note what share of its games the newest model wins. Raises UsageError unless it is between 0 and 1."""
        if not 0.0 <= win_rate <= 1.0:
            raise UsageError(
                f"win rate {win_rate!r} is not allowed",
                why="it is a share of games, from 0 to 1",
                fix="give wins plus half of the draws, by games played",
            )
        self._record(key, lambda record, _: replace(record, win_rate=float(win_rate)))

    def forget(self, key: Key) -> bool:
        """Forget a key that is trained no longer, and resolve its alerts; return whether it was known."""
        with self._database.write() as connection:
            kept = _config(connection.execute(_THRESHOLDS_QUERY).fetchall()).alerts_kept
            self.alerts.update(connection, [key], [], now=self._wall_clock(), kept=kept)
            deleted = connection.execute("DELETE FROM health_keys WHERE key = ?", (str(key),))
        return deleted.rowcount > 0

    @property
    def thresholds(self) -> HealthConfig:
        """What is judged by; it is in the file, so that all who look judge alike."""
        return _config(self._database.read(_THRESHOLDS_QUERY))

    def set_thresholds(self, config: HealthConfig) -> None:
        """Judge by `config` from now on, here and in every other process."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO health_thresholds VALUES (1, ?)", (config.model_dump_json(),)
            )

    def report(self) -> HealthReport:
        """Judge all keys now, bring their alerts up to date, and say how they stand.

        Trainings whose process is gone have failed. Nothing is written unless something has changed.
        """
        at, config = self._now(), self.thresholds
        before = [_record_of(row) for row in self._database.read(_KEYS_QUERY)]
        records = [brought_up(record, at) for record in before]
        found = [each for record in records for each in conditions(record, config, at)]
        active = self.alerts.active()
        if before != records or _severities(active) != _severities(found):
            with self._database.write() as connection:
                at = self._now()  # others may have written while this waited
                rows = connection.execute(_KEYS_QUERY).fetchall()
                records = [brought_up(_record_of(row), at) for row in rows]
                found = self._settle(connection, records, at)
                active = self.alerts.active()
        return _report(records, found, active, at)

    def _now(self) -> Moment:
        return Moment(self._wall_clock(), self._clock(), self._process())

    def _record(self, key: Key, event: Callable[[KeyRecord, Moment], KeyRecord]) -> None:
        """Change what is recorded of a key, and judge it."""
        parse_key(str(key))
        with self._database.write() as connection:
            at = self._now()
            row = connection.execute("SELECT * FROM health_keys WHERE key = ?", (str(key),)).fetchone()
            record = _record_of(row) if row else KeyRecord(key, since=at.wall)
            record = brought_up(replace(record, note=""), at)
            self._settle(connection, [event(record, at)], at)

    def _settle(self, connection: Connection, records: list[KeyRecord], at: Moment) -> list[Condition]:
        """Write `records` and their alerts; return what is wrong with them."""
        config = _config(connection.execute(_THRESHOLDS_QUERY).fetchall())
        found = [each for record in records for each in conditions(record, config, at)]
        connection.executemany(_REPLACE, [_row_of(record) for record in records])
        keys = [record.key for record in records]
        self.alerts.update(connection, keys, found, now=at.wall, kept=config.alerts_kept)
        return found


def _report(
    records: list[KeyRecord], found: list[Condition], active: list[Alert], at: Moment
) -> HealthReport:
    # Of an open alert the file has the message it was opened with; its figures have grown since.
    messages = {(each.key, each.kind): each.message for each in found}
    current = tuple(
        replace(alert, message=messages.get((alert.key, alert.kind), alert.message)) for alert in active
    )
    of_key: dict[Key, list[Alert]] = {record.key: [] for record in records}
    for alert in current:
        of_key[alert.key].append(alert)
    keys = tuple(
        KeyHealth(
            status=status_of(alert.severity for alert in of_key[record.key]),
            record=record,
            running_seconds=running_seconds(record.training, at),
            alerts=tuple(of_key[record.key]),
        )
        for record in records
    )
    status = status_of(alert.severity for alert in current) if keys else "unknown"
    return HealthReport(at.wall, status, keys, current)


def _severities(found: Iterable[Alert | Condition]) -> dict[tuple[Key, str], str]:
    return {(each.key, each.kind): each.severity for each in found}


def _config(rows: list[Row]) -> HealthConfig:
    if not rows:
        return HealthConfig()
    try:
        return HealthConfig.model_validate_json(rows[0]["config"])
    except ValidationError as error:
        raise DataError(
            "the thresholds of health cannot be read",
            why=f"another version of this program has written them: {error.errors()[0]['msg']}",
            fix="set them again with that version, or move runs/control.sqlite away",
        ) from error


def _row_of(record: KeyRecord) -> tuple[object, ...]:
    training = None if record.training is None else json.dumps(asdict(record.training))
    written = {"key": str(record.key), "training": training}
    return tuple(written[name] if name in written else getattr(record, name) for name in _COLUMNS)


@readable("keys")
def _record_of(row: Row) -> KeyRecord:
    values = {**row, "key": parse_key(row["key"])}
    if row["training"] is not None:
        training = json.loads(row["training"])
        values["training"] = Training(**{**training, "process": Process(**training["process"])})
    for name in _REALS:
        if values[name] is not None:
            values[name] = float(values[name])
    return KeyRecord(**values)


def _checked_count(count: int, what: str) -> int:
    try:
        checked = operator.index(count)
    except TypeError:
        checked = -1
    if not 0 <= checked <= _MOST:
        raise UsageError(
            f"{count!r} {what} are not allowed",
            why="their number is a whole one, of at least 0",
            fix=f"give how many {what} there are",
        )
    return checked
