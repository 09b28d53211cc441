"""Alerts: of each key and kind at most one is open; it escalates, eases and is resolved as its condition does.

They live in a file, so they survive whoever looks. What happened to them is kept too, numbered, for those who want to
be told: each listener has a place of its own in that list, so none misses what another has seen.
"""

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Literal, TypeAlias

from control.database import Database, Row
from control.keys import Key, parse_key

Severity: TypeAlias = Literal["warning", "critical"]
Happened: TypeAlias = Literal["opened", "escalated", "eased", "resolved"]

TABLES = """
CREATE TABLE IF NOT EXISTS health_alerts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    opened REAL NOT NULL,
    resolved REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS health_open_alerts ON health_alerts (key, kind) WHERE resolved IS NULL;
CREATE INDEX IF NOT EXISTS health_resolved_alerts ON health_alerts (key, number) WHERE resolved IS NOT NULL;
CREATE TABLE IF NOT EXISTS health_changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    alert INTEGER NOT NULL,
    happened TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS health_listeners (
    name TEXT PRIMARY KEY,
    told INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    given_up INTEGER NOT NULL DEFAULT 0,
    last_failure TEXT NOT NULL DEFAULT ''
);
"""
CHANGES_KEPT = 10_000
"""Who is further behind misses the oldest, save the newest change of an alert that is open."""
ATTEMPTS = 3
"""To tell a listener of one change; then it is told of the next."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule finds wrong at this moment."""

    key: Key
    kind: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that was found, from when to when.

    Attributes:
        number: unique and rising.
        opened: seconds since the epoch.
        resolved: likewise; None while it is open.
    """

    number: int
    key: Key
    kind: str
    severity: Severity
    message: str
    opened: float
    resolved: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to an alert.

    Attributes:
        number: unique and rising, without gaps; who is told of a change twice knows it by this.
        alert: number of the alert.
        at: seconds since the epoch.
    """

    number: int
    alert: int
    happened: Happened
    key: Key
    kind: str
    severity: Severity
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Listener:
    """How telling one listener goes: attempts that failed in all, changes given up, and why the last failed."""

    name: str
    failures: int = 0
    given_up: int = 0
    last_failure: str = ""


class AlertBook:
    """The alerts in a database that was opened with `TABLES`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def active(self) -> list[Alert]:
        """Return the alerts that are open, the critical ones first, then as they were opened."""
        rows = self._database.read(
            "SELECT * FROM health_alerts WHERE resolved IS NULL ORDER BY severity = 'warning', number"
        )
        return [_alert(row) for row in rows]

    def history(self, key: Key | None = None, limit: int = 100) -> list[Alert]:
        """Return the alerts of a key, or all, that were resolved, the newest `limit`, the last one first."""
        rows = self._database.read(
            "SELECT * FROM health_alerts WHERE resolved IS NOT NULL AND (?1 IS NULL OR key = ?1)"
            " ORDER BY resolved DESC, number DESC LIMIT ?2",
            (None if key is None else str(key), limit),
        )
        return [_alert(row) for row in rows]

    def update(
        self,
        connection: Connection,
        keys: Collection[Key],
        conditions: Sequence[Condition],
        *,
        now: float,
        kept: int,
    ) -> None:
        """Make the open alerts of `keys` those of `conditions`, in the transaction of `connection`.

        Args:
            conditions: of these keys, of each kind at most one.
            now: seconds since the epoch.
            kept: how many resolved ones of each key are remembered.
        """
        rows = connection.execute(
            "SELECT * FROM health_alerts WHERE resolved IS NULL AND key IN (SELECT value FROM json_each(?))",
            (json.dumps([str(key) for key in keys]),),
        )
        there = {(alert.key, alert.kind): alert for alert in map(_alert, rows)}
        found = {(condition.key, condition.kind): condition for condition in conditions}
        for place, condition in found.items():
            if place not in there:
                _open(connection, condition, now)
            elif there[place].severity != condition.severity:
                _reweigh(connection, there[place], condition, now)
        for place, alert in there.items():
            if place not in found:
                _resolve(connection, alert, now, kept)

    def pending(self, name: str) -> list[Change]:
        """Return what the listener `name` was not told of yet, in order.

        One that is new is told from the newest change of an alert that is open on; so it learns what is wrong now.
        """
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO health_listeners (name, told) VALUES (?, coalesce("
                " (SELECT min(newest) - 1 FROM (SELECT max(change.number) AS newest FROM health_changes AS change"
                "  JOIN health_alerts AS alert ON change.alert = alert.number WHERE alert.resolved IS NULL"
                "  GROUP BY alert.number)),"
                " (SELECT max(number) FROM health_changes), 0))",
                (name,),
            )
            rows = connection.execute(
                "SELECT * FROM health_changes"
                " WHERE number > (SELECT told FROM health_listeners WHERE name = ?) ORDER BY number",
                (name,),
            ).fetchall()
        return [_change(row) for row in rows]

    def told(self, name: str, change: Change) -> None:
        """Note that the listener `name` was told of `change`, and of all before it."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE health_listeners SET told = ?1, attempts = 0 WHERE name = ?2 AND told < ?1",
                (change.number, name),
            )

    def not_told(self, name: str, change: Change, why: str) -> bool:
        """Note that an attempt to tell of `change` failed; return whether it is given up, after `ATTEMPTS` of them."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE health_listeners SET attempts = attempts + 1, failures = failures + 1, last_failure = ?"
                " WHERE name = ?",
                (why, name),
            )
            given_up = connection.execute(
                "UPDATE health_listeners SET told = ?1, attempts = 0, given_up = given_up + 1"
                " WHERE name = ?2 AND attempts >= ?3 AND told < ?1",
                (change.number, name, ATTEMPTS),
            )
            return given_up.rowcount > 0

    def listener(self, name: str) -> Listener:
        """Return how telling `name` has gone so far."""
        rows = self._database.read(
            "SELECT name, failures, given_up, last_failure FROM health_listeners WHERE name = ?", (name,)
        )
        return Listener(**rows[0]) if rows else Listener(name)


def _open(connection: Connection, condition: Condition, now: float) -> None:
    made = connection.execute(
        "INSERT INTO health_alerts (key, kind, severity, message, opened) VALUES (?, ?, ?, ?, ?)",
        (str(condition.key), condition.kind, condition.severity, condition.message, now),
    )
    assert made.lastrowid is not None
    _note(connection, made.lastrowid, "opened", condition, now)


def _reweigh(connection: Connection, alert: Alert, condition: Condition, now: float) -> None:
    connection.execute(
        "UPDATE health_alerts SET severity = ?, message = ? WHERE number = ?",
        (condition.severity, condition.message, alert.number),
    )
    _note(
        connection,
        alert.number,
        "escalated" if condition.severity == "critical" else "eased",
        condition,
        now,
    )


def _resolve(connection: Connection, alert: Alert, now: float, kept: int) -> None:
    connection.execute("UPDATE health_alerts SET resolved = ? WHERE number = ?", (now, alert.number))
    connection.execute(
        "DELETE FROM health_alerts WHERE key = ?1 AND resolved IS NOT NULL AND number NOT IN"
        " (SELECT number FROM health_alerts WHERE key = ?1 AND resolved IS NOT NULL ORDER BY number DESC LIMIT ?2)",
        (str(alert.key), kept),
    )
    _note(connection, alert.number, "resolved", alert, now)


def _note(
    connection: Connection, number: int, happened: Happened, what: Condition | Alert, now: float
) -> None:
    connection.execute(
        "INSERT INTO health_changes (alert, happened, key, kind, severity, message, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, happened, str(what.key), what.kind, what.severity, what.message, now),
    )
    connection.execute(
        "DELETE FROM health_changes WHERE number <= (SELECT max(number) FROM health_changes) - ?"
        " AND number NOT IN (SELECT max(change.number) FROM health_changes AS change"
        "  JOIN health_alerts AS alert ON change.alert = alert.number WHERE alert.resolved IS NULL"
        "  GROUP BY alert.number)",
        (CHANGES_KEPT,),
    )


def _alert(row: Row) -> Alert:
    return dataclasses.replace(Alert(**row), key=parse_key(row["key"]))


def _change(row: Row) -> Change:
    return dataclasses.replace(Change(**row), key=parse_key(row["key"]))
