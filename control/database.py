"""One SQLite file that several processes share: what the control plane has to remember.

It is in WAL mode, so readers never wait for a writer. Each write is one transaction that takes the file's write lock
at its beginning: what it reads is what it changes. A commit is on disk when it returns.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from core.errors import ClusterError, DataError, UsageError

Row: TypeAlias = sqlite3.Row

_APPLICATION = int.from_bytes(b"tmen", "big")
FORMAT = 2
CONTROL_FILE = "control.sqlite"
"""In the folder of runs: all that is remembered but the models."""
BUSY_SECONDS = 10.0


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Raise DataError where what was written down of something makes no sense."""
    try:
        yield
    except (LookupError, TypeError, ValueError, UsageError) as error:
        raise DataError(
            f"what is recorded of {what} cannot be read",
            why=f"{type(error).__name__}: {error.what if isinstance(error, UsageError) else error}",
            fix="bring back a copy of control.sqlite, or move it away with the files -wal and -shm beside it",
        ) from error


class Database:
    """The file at `path`, which is made if it is not there; it may be used from several threads.

    Args:
        path: of the file.
        tables: statements `CREATE TABLE IF NOT EXISTS …` of who uses it, and of indices.

    Raises:
        DataError: when the file is damaged, no database, or one of another program or format.
        ClusterError: when others keep it locked for `BUSY_SECONDS`.
    """

    def __init__(self, path: Path, tables: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._using = threading.RLock()
        with self._told():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._prepare(tables)

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return what a SELECT finds."""
        with self._told(), self._using:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction, which is taken back when the block raises.

        Within another one of the same thread it is that one, which ends with the outer block.
        """
        with self._told(), self._using:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has taken it back already
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        with self._using:
            self._connection.close()

    def _prepare(self, tables: str) -> None:
        connection = self._connection
        connection.execute("BEGIN")  # one view: another process may be making the file just now
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        form = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        connection.execute("COMMIT")
        if (owner, form) != (_APPLICATION, FORMAT) and not (empty and owner == 0):
            if owner == _APPLICATION:
                raise DataError(
                    f"{self.path} was written by another version of this program",
                    why=f"it is of format {form}, this version has {FORMAT}",
                    fix="use that version, or give another folder with --runs",
                )
            raise DataError(
                f"{self.path} is not this program's",
                why=f"it is of application {owner:#x}, format {form}; wanted are {_APPLICATION:#x} and {FORMAT}",
                fix="move it away, or give another folder with --runs",
            )
        self._begin_wal()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        for statement in filter(str.strip, tables.split(";")):
            connection.execute(statement)
        connection.execute("COMMIT")

    def _begin_wal(self) -> None:
        # SQLite does not wait by itself where two switch a new file at the same time.
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise ClusterError(
                    f"{self.path} is locked",
                    why=f"another process has been writing to it for {BUSY_SECONDS:.0f} s",
                    fix="look for one that hangs with `fuser`, and try again",
                ) from error
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                raise DataError(
                    f"{self.path} has not the tables that it should",
                    why=f"{error}: another version of this program has made it, or it is damaged",
                    fix="use that version, or move it away with the files -wal and -shm beside it",
                ) from error
            raise DataError(
                f"{self.path} cannot be used",
                why=str(error) if self.path.is_file() or not self.path.exists() else "it is no file",
                fix="see to the disk, its room and its permissions",
            ) from error
        except sqlite3.IntegrityError:
            raise  # of the caller's making, who knows what it means
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path} is damaged",
                why=str(error),
                fix="move it away with the files -wal and -shm beside it; or bring back a copy of it",
            ) from error
