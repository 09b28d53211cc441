"""The fence around what a lock protects: a write under an old token is refused, in the transaction that would write.

The greatest number of each lock is kept in the SQLite file that is written to, so it outlives whoever keeps the locks:

- A grant counts from when its number is admitted here, and a number is admitted once. Two holders never share one,
  even if a Redis that lost its memory, or a file that a power failure took back, gives the same number twice.
- A backend is told the greatest number when it is asked, and gives a greater one: a lost counter never runs behind.
- From the admission of a later grant on, not only from its first write, the one before is refused.
- A grant that was taken away by hand is outrun by one number that nobody has.

A process that is stopped in the middle of a transaction holds the file until it goes on or dies, as with any SQLite
file. A transaction takes milliseconds; the file's `BUSY_SECONDS` bound the wait of others.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from control.database import Database
from control.locks import FencingToken, LockLostError, checked_lock_name

TABLES = """
CREATE TABLE IF NOT EXISTS fences (name TEXT PRIMARY KEY, highest INTEGER NOT NULL);
"""


class Fence:
    """Refuses tokens that are smaller than one it has seen.

    Args:
        database: with `TABLES`, and with what is protected.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def highest(self, name: str) -> int:
        """Return the greatest number that lock `name` has had; 0 before the first."""
        rows = self._database.read("SELECT highest FROM fences WHERE name = ?", (checked_lock_name(name),))
        return rows[0]["highest"] if rows else 0

    def admit(self, token: FencingToken) -> bool:
        """Take note of a new grant; False, and nothing changes, when a number as great has been seen."""
        with self._database.write() as connection:
            return self._raise(connection, token)

    def outrun(self, name: str) -> int:
        """Refuse whoever holds lock `name` from now on, and return the number that nobody has."""
        with self._database.write() as connection:
            number = self._seen(connection, checked_lock_name(name)) + 1
            self._raise(connection, FencingToken(name, number))
        return number

    @contextmanager
    def write(self, token: FencingToken) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction that `token` allows; see `Database.write`.

        Raises:
            LockLostError: when a greater token has been seen; nothing is written.
        """
        with self._database.write() as connection:
            self.check(connection, token)
            yield connection

    def check(self, connection: sqlite3.Connection, token: FencingToken) -> None:
        """Let pass who writes in a transaction of their own; call it in that transaction, before the first write.

        Raises:
            LockLostError: when a greater token has been seen.
        """
        seen = self._seen(connection, token.lock)
        if token.number < seen:
            raise LockLostError(
                f"{token.lock} is another's by now",
                why=f"this writer has token {token.number}, and {seen} has been given since",
                fix="nothing was written; stop this work, and look with `tamen locks` who goes on",
            )
        self._raise(connection, token)

    @staticmethod
    def _seen(connection: sqlite3.Connection, name: str) -> int:
        row = connection.execute("SELECT highest FROM fences WHERE name = ?", (name,)).fetchone()
        return row[0] if row else 0

    @staticmethod
    def _raise(connection: sqlite3.Connection, token: FencingToken) -> bool:
        done = connection.execute(
            "INSERT INTO fences VALUES (?, ?) ON CONFLICT (name)"
            " DO UPDATE SET highest = excluded.highest WHERE excluded.highest > fences.highest",
            (token.lock, token.number),
        )
        return done.rowcount == 1
