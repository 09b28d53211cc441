"""Which autopilots go round over a folder of runs, what each does at this moment, and who is asked to leave off.

A row an autopilot, of which the newest `ENDED_KEPT` that have ended are kept. It outlives the processes that work for
it: when one dies another goes on in its place.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from control.database import Database, Row
from core.errors import DataError
from core.processes import Process, is_gone, is_of, this_process

TABLES = """
CREATE TABLE IF NOT EXISTS autopilots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    asked TEXT NOT NULL,
    guard TEXT NOT NULL,
    process TEXT NOT NULL,
    began REAL NOT NULL,
    lives INTEGER NOT NULL DEFAULT 0,
    seen REAL NOT NULL,
    doing TEXT NOT NULL DEFAULT '{}',
    stop INTEGER NOT NULL DEFAULT 0,
    ended REAL,
    message TEXT NOT NULL DEFAULT ''
);
"""
ENDED_KEPT = 100
SILENT_SECONDS = 30.0
"""After which one that cannot be looked at, being on another machine or in a container, is taken for gone."""


@dataclass(frozen=True, slots=True)
class Present:
    """An autopilot as it is written down.

    Attributes:
        number: of it, among all.
        asked: what it was begun with, plain JSON.
        guard, process: that sees to it that its work is done, and that does it.
        began, seen, ended: seconds since 1970; ended is None while it goes round.
        restarts: how often its process has died, and another gone on.
        doing: plain JSON: "key", "stage", "since", and "done", "total", "unit" once they are known; {} between stages.
        stop: whether it is asked to leave off.
        message: how it ended.
    """

    number: int
    asked: Mapping[str, Any]
    guard: Process
    process: Process
    began: float
    restarts: int
    seen: float
    doing: Mapping[str, Any]
    stop: bool
    ended: float | None
    message: str

    def state(self, here: Process, now: float) -> str:
        """Return "running", "stopping", "ended", or "gone" when nobody works for it any more."""
        if self.ended is not None:
            return "ended"
        if all(self._is_gone(each, here, now) for each in (self.guard, self.process)):
            return "gone"
        return "stopping" if self.stop else "running"

    def _is_gone(self, process: Process, here: Process, now: float) -> bool:
        silent = abs(now - self.seen) > SILENT_SECONDS  # a clock that is far ahead says nothing
        return is_gone(process, here) or (silent and not is_of(process, here))


class Presence:
    """The autopilots of a database that was opened with `TABLES`.

    Args:
        wall_clock: seconds since 1970, to be shown.
    """

    def __init__(self, database: Database, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall_clock = wall_clock

    def enter(self, asked: Mapping[str, Any]) -> int:
        """Write down a new autopilot, which this process guards, and return its number; those that are gone end."""
        now, text, here = self._wall_clock(), json.dumps(dict(asked), allow_nan=False), this_process()
        for each in self.everybody():
            if each.state(here, now) == "gone":
                self.leave(each.number, "its processes died")
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM autopilots WHERE ended IS NOT NULL AND number <= (SELECT number FROM autopilots"
                " WHERE ended IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (ENDED_KEPT,),
            )
            number = connection.execute(
                "INSERT INTO autopilots (asked, guard, process, began, seen) VALUES (?1, ?2, ?2, ?3, ?3)",
                (text, _this_process(), now),
            ).lastrowid
        assert number is not None  # of an INSERT there is one
        return number

    def take_over(self, number: int) -> None:
        """Note that from now on this process works for an autopilot; that before it, if there was one, is dead."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE autopilots SET process = ?, seen = ?, lives = lives + 1, doing = '{}' WHERE number = ?",
                (_this_process(), self._wall_clock(), number),
            )

    def guard(self, number: int) -> None:
        """Note that from now on this process guards an autopilot."""
        with self._database.write() as connection:
            connection.execute("UPDATE autopilots SET guard = ? WHERE number = ?", (_this_process(), number))

    def report(self, number: int, doing: Mapping[str, Any]) -> None:
        """Note what an autopilot does."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE autopilots SET seen = ?, doing = ? WHERE number = ?",
                (self._wall_clock(), json.dumps(dict(doing)), number),
            )

    def is_asked_to_stop(self, number: int) -> bool:
        rows = self._database.read("SELECT stop FROM autopilots WHERE number = ?", (number,))
        return bool(rows and rows[0]["stop"])

    def ask_to_stop(self, number: int) -> None:
        """Note that an autopilot is to leave off; it looks for that several times a second."""
        with self._database.write() as connection:
            connection.execute("UPDATE autopilots SET stop = 1 WHERE number = ?", (number,))

    def leave(self, number: int, message: str) -> None:
        """Note that an autopilot has come to its end."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE autopilots SET ended = ?, message = ?, doing = '{}' WHERE number = ? AND ended IS NULL",
                (self._wall_clock(), message, number),
            )

    def get(self, number: int) -> Present:
        """Return an autopilot. Raises DataError when there is none of that number."""
        rows = self._database.read("SELECT * FROM autopilots WHERE number = ?", (number,))
        if not rows:
            raise DataError(
                f"there is no autopilot {number} in {self._database.path}",
                why="it was never begun here, or ended long ago",
                fix="begin another: tamen train --auto KEYS",
            )
        return _present(rows[0])

    def everybody(self) -> list[Present]:
        """Return all autopilots that have not ended, and the newest that have; the newest first."""
        rows = self._database.read("SELECT * FROM autopilots ORDER BY number DESC")
        return [_present(row) for row in rows]


def _this_process() -> str:
    return json.dumps(asdict(this_process()))


def _present(row: Row) -> Present:
    return Present(
        number=row["number"],
        asked=json.loads(row["asked"]),
        guard=Process(**json.loads(row["guard"])),
        process=Process(**json.loads(row["process"])),
        began=row["began"],
        restarts=max(0, row["lives"] - 1),
        seen=row["seen"],
        doing=json.loads(row["doing"]),
        stop=bool(row["stop"]),
        ended=row["ended"],
        message=row["message"],
    )
