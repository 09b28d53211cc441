"""A table of leases: who holds which lock, for one process to keep and others to ask.

Grants are in SQLite before they are given, so whoever takes over the table goes on with greater numbers and the same
holders; each of them has a whole TTL from then on to be heard of, since a monotonic clock means nothing to the next
process. Renewals stay in memory.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control.database import Database
from control.locks import Held, UnreachableError, checked_lock_name

TABLES = """
CREATE TABLE IF NOT EXISTS lease_epoch (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, owner TEXT, number INTEGER NOT NULL, ttl_seconds REAL NOT NULL, since REAL NOT NULL
);
"""


@dataclass(slots=True)
class _Lease:
    held: Held
    good_until: float


class LeaseTable:
    """A `control.locks.LockBackend`. There is one at a time: the newest has the greatest epoch, and the others stop.

    Args:
        database: with `TABLES`; nobody else writes to these tables.
        clock: monotonic seconds.
        wall: seconds since 1970, only kept to be shown.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._clock = clock
        self._wall = wall
        self._using = threading.RLock()
        with database.write() as connection:
            connection.execute(
                "INSERT INTO lease_epoch VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET epoch = epoch + 1"
            )
            self.epoch: int = connection.execute("SELECT epoch FROM lease_epoch").fetchone()[0]
            rows = connection.execute("SELECT * FROM leases WHERE owner IS NOT NULL").fetchall()
        now = clock()
        self._leases = {row["name"]: _Lease(Held(**dict(row)), now + row["ttl_seconds"]) for row in rows}

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        checked_lock_name(name)
        with self._using:
            self._be_newest(self._epoch_there())
            return self._granted(name, owner, ttl_seconds=ttl_seconds, above=above)

    def renew(self, name: str, owner: str) -> bool:
        checked_lock_name(name)
        with self._using:
            lease, now = self._leases.get(name), self._clock()
            if lease is None or lease.held.owner != owner or now >= lease.good_until:
                return False
            self._be_newest(self._epoch_there())
            lease.good_until = now + lease.held.ttl_seconds
            return True

    def release(self, name: str, owner: str) -> None:
        checked_lock_name(name)
        with self._using:
            lease = self._leases.get(name)
            if lease is not None and lease.held.owner == owner:
                self.take_away(name)

    def holders(self) -> list[Held]:
        with self._using:
            now = self._clock()
            return sorted((each.held for each in self._leases.values() if now < each.good_until), key=_name)

    def take_away(self, name: str) -> Held | None:
        checked_lock_name(name)
        with self._using:
            lease = self._leases.get(name)
            if lease is None:
                return None
            with self._writing() as connection:
                connection.execute("UPDATE leases SET owner = NULL WHERE name = ?", (name,))
            del self._leases[name]
            return lease.held if self._clock() < lease.good_until else None

    def close(self) -> None:
        self._database.close()

    def _granted(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        lease, now = self._leases.get(name), self._clock()
        if lease is not None and lease.held.owner == owner and now < lease.good_until:
            lease.good_until = now + ttl_seconds
            return lease.held.number
        if lease is not None and now < lease.good_until:
            return None
        with self._writing() as connection:
            row = connection.execute("SELECT number FROM leases WHERE name = ?", (name,)).fetchone()
            held = Held(name, owner, max(row[0] if row else 0, above) + 1, ttl_seconds, self._wall())
            connection.execute(
                "INSERT OR REPLACE INTO leases (name, owner, number, ttl_seconds, since) VALUES (?, ?, ?, ?, ?)",
                (name, owner, held.number, ttl_seconds, held.since),
            )
        self._leases[name] = _Lease(held, now + ttl_seconds)
        return held.number

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._database.write() as connection:
            self._be_newest(connection.execute("SELECT epoch FROM lease_epoch").fetchone()[0])
            yield connection

    def _epoch_there(self) -> int:
        return self._database.read("SELECT epoch FROM lease_epoch")[0]["epoch"]

    def _be_newest(self, epoch: int) -> None:
        if epoch != self.epoch:
            raise UnreachableError(
                "this table of leases has been replaced",
                why=f"its epoch is {self.epoch}, and one of epoch {epoch} has taken over",
                fix="ask the newer one",
            )


def _name(held: Held) -> str:
    return held.name
