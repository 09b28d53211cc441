"""Trainings of the autopilot, stage by stage: what is done of each is written down, and done once.

A training is begun by who holds the lock of its key, and everything is written under the token of that lock
(`control.fencing`): who lost it and wakes up later writes nothing. Who takes the lock next finds the training where it
was left and goes on with it.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from control.database import Database, Row
from control.fencing import Fence
from control.keys import Key, parse_key
from control.locks import FencingToken
from core.errors import DataError

TABLES = """
CREATE TABLE IF NOT EXISTS trainings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    reason TEXT NOT NULL,
    began REAL NOT NULL,
    ended REAL,
    made TEXT NOT NULL DEFAULT '{}',
    failures INTEGER NOT NULL DEFAULT 0,
    success INTEGER,
    message TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS one_training_a_key ON trainings (key) WHERE ended IS NULL;
"""
SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Training:
    """A training as it is written down.

    Attributes:
        number: of it, among all.
        key: what is trained.
        reason: why it was begun.
        began, ended: seconds since 1970; ended is None while it is under way.
        made: what each finished stage has made, plain JSON, by the stage's name; each with its "seconds".
        success, message: how it ended.
    """

    number: int
    key: Key
    reason: str
    began: float
    ended: float | None
    made: Mapping[str, Mapping[str, Any]]
    success: bool | None
    message: str

    @property
    def model_id(self) -> str | None:
        """The model that came of it."""
        return self.made.get("register", {}).get("id")

    @property
    def promoted(self) -> bool:
        """Whether that became champion."""
        return self.made.get("evaluate", {}).get("verdict") == "accept"

    @property
    def export_seconds(self) -> float | None:
        """How long making the data set took; None where that has not come to its end, as in the next two."""
        return self._seconds("export")

    @property
    def training_seconds(self) -> float | None:
        return self._seconds("fit")

    @property
    def evaluation_seconds(self) -> float | None:
        return self._seconds("evaluate")

    def _seconds(self, stage: str) -> float | None:
        return self.made.get(stage, {}).get(SECONDS)

    def as_json(self) -> dict[str, Any]:
        """Return how it ended, or how far it is, as plain JSON."""
        return {
            "training": self.number,
            "key": str(self.key),
            "reason": self.reason,
            "success": self.success,
            "model_id": self.model_id,
            "promoted": self.promoted,
            "message": self.message,
            "export_seconds": self.export_seconds,
            "training_seconds": self.training_seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "began": self.began,
            "ended": self.ended,
        }


class Trainings:
    """Those in a database.

    Args:
        database: opened with `TABLES` and those of `control.fencing`.
        wall_clock: seconds since 1970, to be shown.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        database: Database,
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._fence = Fence(database)
        self._wall_clock = wall_clock
        self._clock = clock

    def begin(self, key: Key, token: FencingToken, *, reason: str) -> Training:
        """Return the training of a key that was left unfinished, or else a new one, begun for a `reason`.

        Raises:
            LockLostError: when the lock is another's by now, as in all methods that write.
        """
        with self._fence.write(token) as connection:
            row = connection.execute(
                "SELECT number FROM trainings WHERE key = ? AND ended IS NULL", (str(key),)
            ).fetchone()
            if row is not None:
                number = row["number"]
            else:
                number = connection.execute(
                    "INSERT INTO trainings (key, reason, began) VALUES (?, ?, ?)",
                    (str(key), reason, self._wall_clock()),
                ).lastrowid
                assert number is not None  # of an INSERT there is one
        return self.get(number)

    def once(
        self, training: Training, token: FencingToken, stage: str, work: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return what a stage has made, plain JSON: as it is written down, or else made now by `work`."""
        present = self.get(training.number).made
        if stage in present:
            return present[stage]
        began = self._clock()
        made = {**work(), SECONDS: round(self._clock() - began, 3)}
        with self._fence.write(token) as connection:
            everything = {**json.loads(_unended(connection, training)["made"]), stage: made}
            connection.execute(
                "UPDATE trainings SET made = ? WHERE number = ?", (json.dumps(everything), training.number)
            )
        return made

    def note_failure(self, training: Training, token: FencingToken, message: str) -> int:
        """Note that a stage of a training failed, which may be tried again; return how often that happened."""
        with self._fence.write(token) as connection:
            _unended(connection, training)
            connection.execute(
                "UPDATE trainings SET failures = failures + 1, message = ? WHERE number = ?",
                (message, training.number),
            )
            return connection.execute(
                "SELECT failures FROM trainings WHERE number = ?", (training.number,)
            ).fetchone()[0]

    def end(self, training: Training, token: FencingToken, *, success: bool, message: str) -> Training:
        """Write down how a training ended."""
        with self._fence.write(token) as connection:
            _unended(connection, training)
            connection.execute(
                "UPDATE trainings SET ended = ?, success = ?, message = ? WHERE number = ?",
                (self._wall_clock(), success, message, training.number),
            )
        return self.get(training.number)

    def get(self, number: int) -> Training:
        """Return a training by its number."""
        (row,) = self._database.read("SELECT * FROM trainings WHERE number = ?", (number,))
        return _training(row)

    def under_way(self) -> list[Training]:
        """Return those that have not ended, the oldest first."""
        rows = self._database.read("SELECT * FROM trainings WHERE ended IS NULL ORDER BY number")
        return [_training(row) for row in rows]

    def newest(self, count: int, key: Key | None = None) -> list[Training]:
        """Return the last `count`, of one key or of all, the newest first."""
        where, values = ("WHERE key = ?", [str(key)]) if key else ("", [])
        rows = self._database.read(
            f"SELECT * FROM trainings {where} ORDER BY number DESC LIMIT ?",  # noqa: S608 - no text from outside
            [*values, count],
        )
        return [_training(row) for row in rows]


def lock_of(key: Key) -> str:
    """Return the name of the lock that keeps two trainings of a key apart."""
    return f"training:{key}"


def _unended(connection: sqlite3.Connection, training: Training) -> Row:
    row = connection.execute(
        "SELECT made FROM trainings WHERE number = ? AND ended IS NULL", (training.number,)
    ).fetchone()
    if row is None:
        raise DataError(
            f"training {training.number} of {training.key} has ended",
            why="nothing can be added to it",
            fix="begin another; this should not happen",
        )
    return row


def _training(row: Row) -> Training:
    return Training(
        number=row["number"],
        key=parse_key(row["key"]),
        reason=row["reason"],
        began=row["began"],
        ended=row["ended"],
        made=json.loads(row["made"]),
        success=None if row["success"] is None else bool(row["success"]),
        message=row["message"],
    )
