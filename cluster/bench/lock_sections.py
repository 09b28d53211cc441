"""Critical sections for `tamen bench locks`: a process that goes through them, and the log that proves them apart.

Each section writes twice under its token, when it enters and when it leaves, into a log in SQLite behind the fence. In
between it does what no two may do at a time: it adds one to a number that it has read. `judge` reads the log alone and
knows nothing of locks.
"""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Literal, NamedTuple

from control.database import Database
from control.fencing import Fence
from control.locks import Lock, LockLostError, UnreachableError

NAME = "bench:sections"
TABLES = """
CREATE TABLE IF NOT EXISTS section_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, worker INTEGER NOT NULL, pid INTEGER NOT NULL,
    token INTEGER NOT NULL, waited_ms REAL NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS section_total (one INTEGER PRIMARY KEY CHECK (one = 1), total INTEGER NOT NULL);
INSERT OR IGNORE INTO section_total VALUES (1, 0);
"""
POLL_SECONDS = 0.02
"""Of one who waits, at most; and as a mean, between two sections of a worker."""
PATIENCE_SECONDS = 120.0

What = Literal["enter", "leave", "refused", "kill", "stop", "restart", "restarted"]


class Line(NamedTuple):
    """A line of the log, in the order in which SQLite took them.

    Attributes:
        what: enter, leave: of a section. refused: of a writer whose token was too old. kill, stop: what was done to
            `pid`, before anything could follow from it. restart, restarted: of who keeps the locks.
        waited_ms: for the lock, of an enter.
        at: seconds of the machine's monotonic clock, which all its processes share.
    """

    what: What
    worker: int
    pid: int
    token: int
    waited_ms: float
    at: float


@dataclass(frozen=True, slots=True)
class Order:
    """What one process is to do.

    Attributes:
        worker: its number; who replaces it has the same.
        sections: to be in the log at the end.
        hold_ms: the longest that one lasts.
        acknowledged: file that has a byte for each section that this worker knows to be done.
        address: of the Ray cluster to join; None: none.
    """

    folder: str
    worker: int
    sections: int
    ttl_seconds: float
    hold_ms: float
    acknowledged: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the log shows.

    Attributes:
        violations: lines that no two writers apart could leave: a token smaller than one before, one that two have, a
            section left that is not open.
        cut: sections that were open when the next was entered.
        unexplained: those of them whose process had neither been killed nor stopped, while the locks were kept.
        left: sections that came to their end.
        refused: writes that the fence did not take.
        recovery_ms: from each kill or stop until another entered, where the locks were kept all the time.
        restart_ms: from each end of who keeps the locks until a section was entered after its return.
        acquire_ms: how long each that entered had waited, sorted.
    """

    violations: int
    cut: int
    unexplained: int
    left: int
    refused: int
    recovery_ms: list[float]
    restart_ms: list[float]
    acquire_ms: list[float]


def append(connection: Connection, line: Line) -> None:
    """Add `line` to the log."""
    connection.execute(
        "INSERT INTO section_log (what, worker, pid, token, waited_ms, at) VALUES (?, ?, ?, ?, ?, ?)", line
    )


def read_log(database: Database) -> list[Line]:
    """Return all lines."""
    rows = database.read("SELECT what, worker, pid, token, waited_ms, at FROM section_log ORDER BY seq")
    return [Line(*row) for row in rows]


def judge(lines: Sequence[Line]) -> Verdict:
    """Return what the log shows; see `Verdict`."""
    violations = cut = unexplained = 0
    highest, opened, since = 0, None, 0
    owners: dict[int, tuple[int, int]] = {}
    for number, line in enumerate(lines):
        if line.what not in ("enter", "leave"):
            continue
        writer = line.worker, line.pid
        violations += line.token < highest or owners.setdefault(line.token, writer) != writer
        if line.what == "enter":
            violations += line.token == highest
            if opened is not None:
                cut += 1
                unexplained += not _explained(lines, opened.pid, since, number)
            opened, since = line, number
        else:
            violations += opened is None or opened.token != line.token
            opened = None
        highest = max(highest, line.token)
    return Verdict(
        violations=violations,
        cut=cut,
        unexplained=unexplained,
        left=sum(line.what == "leave" for line in lines),
        refused=sum(line.what == "refused" for line in lines),
        recovery_ms=_times(lines, begins=("kill", "stop"), after=None),
        restart_ms=_times(lines, begins=("restart",), after="restarted"),
        acquire_ms=sorted(line.waited_ms for line in lines if line.what == "enter"),
    )


def _explained(lines: Sequence[Line], pid: int, first: int, last: int) -> bool:
    between = lines[first:last]
    struck = any(line.what in ("kill", "stop") and line.pid == pid for line in between)
    return struck or any(line.what in ("restart", "restarted") for line in between) or _away(lines, first)


def _away(lines: Sequence[Line], number: int) -> bool:
    """Whether nobody kept the locks at this line."""
    before = (line.what for line in reversed(lines[:number]))
    return next((what for what in before if what in ("restart", "restarted")), "restarted") == "restart"


def _times(lines: Sequence[Line], *, begins: tuple[What, ...], after: What | None) -> list[float]:
    found: list[float] = []
    for number, line in enumerate(lines):
        if line.what not in begins:
            continue
        returned = after is None
        for later in lines[number + 1 :]:
            returned = returned or later.what == after
            if after is None and later.what == "restart":
                break
            if returned and later.what == "enter" and later.pid != line.pid:
                found.append((later.at - line.at) * 1000)
                break
    return found


def go_through(lock: Lock, database: Database, order: Order) -> None:
    """Go through sections until the log has `order.sections` of this worker; what was cut short is done again."""
    fence, done = Fence(database), _left(database, order.worker)
    while done < order.sections:
        begun = time.monotonic()
        try:
            if not lock.acquire(PATIENCE_SECONDS):
                continue
        except UnreachableError:
            continue
        try:
            _section(lock, fence, order, waited_ms=(time.monotonic() - begun) * 1000)
            done += 1
        except LockLostError:
            with database.write() as connection:
                append(connection, _line("refused", order, lock.token.number))
        finally:
            lock.release()
        # Who polls has no turn against one who takes it again at once.
        time.sleep(random.uniform(0.0, 2 * POLL_SECONDS))


def _section(lock: Lock, fence: Fence, order: Order, *, waited_ms: float) -> None:
    token = lock.token
    with fence.write(token) as connection:
        append(connection, _line("enter", order, token.number, waited_ms))
        (total,) = connection.execute("SELECT total FROM section_total").fetchone()
    time.sleep(random.uniform(0.0, order.hold_ms / 1000))
    with fence.write(token) as connection:
        append(connection, _line("leave", order, token.number))
        connection.execute("UPDATE section_total SET total = ?", (total + 1,))
    with Path(order.acknowledged).open("ab", buffering=0) as file:
        file.write(b".")


def _line(what: What, order: Order, token: int, waited_ms: float = 0.0) -> Line:
    return Line(what, order.worker, os.getpid(), token, waited_ms, time.monotonic())


def _left(database: Database, worker: int) -> int:
    found = "SELECT count(*) FROM section_log WHERE worker = ? AND what = 'leave'"
    return database.read(found, (worker,))[0][0]


def _sleep(seconds: float, /) -> None:
    threading.Event().wait(seconds)


def main() -> None:
    """Do what the order on the command line says, in a process of one's own."""
    # faketime 0.9.10 refuses to sleep until a moment of a monotonic clock that it does not fake.
    time.sleep = _sleep
    order = Order(**json.loads(sys.argv[1]))
    if order.address is not None:
        from cluster import environment

        environment.prepare_ray(order.address)
        from cluster.on_ray.address import connect

        connect(order.address, cpus=1)
    from cluster.autopilot import locks

    database = Database(Path(order.folder) / locks.CONTROL_FILE, locks.TABLES + TABLES)
    with locks.open_locks(database) as opened:
        lock = Lock(
            NAME, opened.backend, opened.fence, ttl_seconds=order.ttl_seconds, poll_seconds=POLL_SECONDS
        )
        go_through(lock, database, order)


if __name__ == "__main__":
    main()
