"""Locks that keep two trainings of one key apart: one interface over three backends, with tokens that a writer shows.

A backend only says who may try. What makes a lock safe is `control.fencing`: each grant has a number, greater than all
before it, which is admitted durably in the file that everybody writes to; a write under a smaller number is refused
there. So a holder that was stopped, or cut off, or that a broken server forgot, can do no harm when it comes back.

Times are durations on monotonic clocks. The moment of a grant is kept only to be shown.
"""

import contextlib
import math
import os
import random
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol
from urllib.parse import urlsplit

from control.database import Database
from core.errors import ClusterError, TamenError, UsageError

TTL_SECONDS = 30.0
TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.25
"""Between two tries of one who waits, at most; the first come sooner."""
_FIRST_POLL_SECONDS = 0.005
_BEATS_PER_TTL = 4
"""Renewals in the life of a lease: two may be lost or late, and it is kept."""
_SHORTEST_TTL, _LONGEST_TTL = 0.1, 86_400.0
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

TABLES = """
CREATE TABLE IF NOT EXISTS lock_backend (
    one INTEGER PRIMARY KEY CHECK (one = 1), setting TEXT NOT NULL, identity TEXT NOT NULL
);
"""


class LockHeldError(ClusterError):
    """Somebody else has held the lock for as long as one was ready to wait."""


class LockLostError(ClusterError):
    """The lock is another's by now, so nothing may be written under it."""


class UnreachableError(ClusterError):
    """Who keeps the locks does not answer; it may before long."""


@dataclass(frozen=True, slots=True, order=True)
class FencingToken:
    """What a writer shows: the `number` of a grant of `lock`. A later grant has a greater one.

    Raises:
        UsageError: for a name that is not allowed, or a number below 1.
    """

    lock: str
    number: int

    def __post_init__(self) -> None:
        checked_lock_name(self.lock)
        if type(self.number) is not int or not 1 <= self.number < 2**53:
            raise UsageError(
                f"{self.number!r} is no fencing token",
                why="it must be a whole number from 1 up to 2^53",
                fix="take the token of a lock that is held",
            )


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that somebody holds.

    Attributes:
        owner: host, process and a mark of this one acquisition, "host:pid:mark".
        number: of the grant.
        ttl_seconds: for how long without a sign of life it stays the owner's.
        since: seconds since 1970 by the owner's clock, to be shown.
    """

    name: str
    owner: str
    number: int
    ttl_seconds: float
    since: float


class LockBackend(Protocol):
    """Who keeps locks. An owner's name is never used twice, so it stands for one acquisition.

    All methods raise `UnreachableError` when the answer may come another time, and end within seconds.
    """

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        """Return the number of a grant to `owner`, greater than `above`; None while another holds the lock.

        Whoever has been granted it already, and asks again since the answer was lost, gets the same answer.
        """
        ...

    def renew(self, name: str, owner: str) -> bool:
        """Let the lock be `owner`'s for another TTL; False when it is not `owner`'s any more."""
        ...

    def release(self, name: str, owner: str) -> None:
        """Give the lock back if it is `owner`'s."""
        ...

    def holders(self) -> list[Held]:
        """Return the locks that are held, sorted by name."""
        ...

    def take_away(self, name: str) -> Held | None:
        """Free the lock whoever holds it, and return who did."""
        ...

    def close(self) -> None:
        """Let go of connections and files; what is held in this process may be lost."""
        ...


class Floor(Protocol):
    """Where the greatest number of each lock is kept, whatever a backend forgets: `control.fencing.Fence`."""

    def highest(self, name: str) -> int: ...

    def admit(self, token: FencingToken) -> bool: ...


def checked_lock_name(name: str) -> str:
    """Return `name`, up to three plain names with colons between them, such as "training:hex5_2p".

    Raises:
        UsageError: when it is none.
    """
    parts = name.split(":")
    if len(parts) > 3 or any(_PART.fullmatch(part) is None or ".." in part for part in parts):
        raise UsageError(
            f"lock name {name!r} is not allowed",
            why="it is up to three names with ':' between, each of 1-64 letters, digits, '.', '_' or '-', without '..'",
            fix="write for example training:hex5_2p",
        )
    return name


def checked_seconds(value: float, *, what: str, least: float, most: float) -> float:
    """Return `value`. Raises UsageError when it is no number from `least` to `most`."""
    if not (math.isfinite(value) and least <= value <= most):
        raise UsageError(
            f"{what} {value} is not allowed",
            why=f"it must be a number of seconds from {least:g} to {most:g}",
            fix=f"choose for example {min(max(60.0, least), most):g}",
        )
    return value


class Watch:
    """Judges by the watcher's own monotonic clock for how long something has shown no sign of life."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}

    def unchanged_seconds(self, name: str, shown: object) -> float:
        """Return how long ago `name` showed for the first time what it shows now."""
        now = self._clock()
        before, since = self._seen.get(name, (None, now))
        if before != shown:
            since = now
            self._seen[name] = (shown, now)
        return now - since


class Lock:
    """A lock by name. `with lock as holder:` waits for it, keeps it alive from a thread, and gives it back.

    It is not reentrant. One object serves one thread at a time; `lost` and `token` may be read from any.

    Args:
        name: see `checked_lock_name`.
        backend: who keeps locks for this run.
        floor: where each grant's number is admitted.
        ttl_seconds: without a sign of life for so long, the lock is another's to take. It is renewed from a thread
            four times in that time; work that never lets threads run (one long call into C) loses it.
        timeout_seconds: how long `with` and `acquire` wait.
        poll_seconds: between two tries, at most, as a mean: tries are jittered.
        clock: monotonic seconds.

    Raises:
        UsageError: for a name or a number that is not allowed.
    """

    def __init__(
        self,
        name: str,
        backend: LockBackend,
        floor: Floor,
        *,
        ttl_seconds: float = TTL_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = checked_lock_name(name)
        self.ttl_seconds = checked_seconds(ttl_seconds, what="TTL", least=_SHORTEST_TTL, most=_LONGEST_TTL)
        self._timeout_seconds = _checked_timeout(timeout_seconds)
        self._poll_seconds = checked_seconds(poll_seconds, what="poll time", least=0.001, most=60.0)
        self._backend = backend
        self._floor = floor
        self._clock = clock
        self._hold: _Hold | None = None

    @property
    def token(self) -> FencingToken:
        """What to show to the fenced resource. Raises LockLostError when the lock is not held."""
        if self._hold is None:
            raise not_held(self.name)
        return self._hold.token

    @property
    def lost(self) -> bool:
        """Whether it was held, and is (or must be taken for) another's: stop the work."""
        return self._hold is not None and self._hold.lost

    def acquire(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the lock, and return whether it is held now.

        Args:
            timeout_seconds: how long to wait (None: as the lock was made); 0: one try.

        Raises:
            UnreachableError: when who keeps the locks has not answered to the end.
            UsageError: when this object holds the lock already.
        """
        if self._hold is not None:
            raise UsageError(
                f"{self.name} is already acquired here",
                why="a lock is not reentrant: it would wait for itself",
                fix="release it first, or use another Lock object and wait",
            )
        limit = self._timeout_seconds if timeout_seconds is None else _checked_timeout(timeout_seconds)
        deadline, pause = self._clock() + limit, _FIRST_POLL_SECONDS
        owner = new_owner()
        while True:
            trouble = None
            try:
                if self._try(owner):
                    return True
            except UnreachableError as error:
                trouble = error
            left = deadline - self._clock()
            if left <= 0:
                if trouble is not None:
                    self._give_back(owner)  # it may have been granted, and only the answer was lost
                    raise trouble
                return False
            pause = min(pause, self._poll_seconds)
            time.sleep(min(left, pause * random.uniform(0.5, 1.5)))
            pause *= 1.5

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held, or is another's by now."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.stop()
            self._give_back(hold.owner)
            hold.join()

    def __enter__(self) -> "Lock":
        """Wait for the lock. Raises LockHeldError when somebody else had it all the time."""
        if not self.acquire():
            raise self._held_by_another()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _try(self, owner: str) -> bool:
        above = self._floor.highest(self.name)
        asked_at = self._clock()
        number = self._backend.try_acquire(self.name, owner, ttl_seconds=self.ttl_seconds, above=above)
        if number is None:
            return False
        hold = _Hold(self, self._backend, FencingToken(self.name, number), owner, asked_at, self._clock)
        admitted = False
        try:
            # Refused is a number that is not the greatest any more: this process was stopped between the two
            # lines, or the backend forgot its counter and another's number was admitted meanwhile.
            admitted = self._floor.admit(hold.token) and not hold.lost
        finally:
            if not admitted:
                hold.stop()
                self._give_back(owner)
        self._hold = hold if admitted else None
        return admitted

    def _give_back(self, owner: str) -> None:
        with contextlib.suppress(UnreachableError):  # its TTL frees it
            self._backend.release(self.name, owner)

    def _held_by_another(self) -> LockHeldError:
        held = next((each for each in self._backend.holders() if each.name == self.name), None)
        whose = f"{held.owner} holds it with token {held.number}" if held else "it changed hands all the time"
        return LockHeldError(
            f"{self.name} is held by another process",
            why=f"{whose}, and {self._timeout_seconds:g} s were not enough",
            fix=f"wait for it; if that process is no more of use, `tamen locks --break {self.name}`",
        )


class _Hold:
    """One acquisition: a thread renews it, and its own clock says when it must be taken for lost."""

    def __init__(
        self,
        lock: Lock,
        backend: LockBackend,
        token: FencingToken,
        owner: str,
        asked_at: float,
        clock: Callable[[], float],
    ) -> None:
        self.token = token
        self.owner = owner
        self._ttl_seconds = lock.ttl_seconds
        self._backend = backend
        self._clock = clock
        self._good_until = asked_at + lock.ttl_seconds
        self._lost = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lock {lock.name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        # A process that was stopped knows from its clock, before its thread has run.
        self._lost = self._lost or self._clock() >= self._good_until
        return self._lost

    def stop(self) -> None:
        self._stopping.set()

    def join(self) -> None:
        self._thread.join(self._ttl_seconds)

    def _beat(self) -> None:
        period = self._ttl_seconds / _BEATS_PER_TTL
        while not self._stopping.wait(period) and not self.lost:
            asked_at = self._clock()
            try:
                if self._backend.renew(self.token.lock, self.owner):
                    self._good_until = asked_at + self._ttl_seconds
                else:
                    self._lost = True
            except UnreachableError:
                continue  # until it answers, or the time is over
            except (TamenError, OSError):
                self._lost = True


def new_owner() -> str:
    """Return a name for one acquisition by this process: "host:pid:mark"."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64] or "host"
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"


def not_held(name: str) -> LockLostError:
    """Return the error of one who would use a lock that is not held."""
    return LockLostError(
        f"{name} is not held",
        why="it was released, or never acquired",
        fix="acquire it, and write while it is held",
    )


def _checked_timeout(seconds: float) -> float:
    return checked_seconds(seconds, what="timeout", least=0.0, most=7 * 86_400.0)


@dataclass(frozen=True, slots=True)
class LockSetting:
    """Which backend keeps the locks of a run.

    Attributes:
        kind: file: files beside the runs. redis: a Redis server. ray: the lease actor of a Ray cluster.
        text: as it is configured and stored: "file", "ray", "redis://HOST:PORT/NUMBER"; never with a password.
        identity: of the run's locks among those of other runs in one Redis; "" before it is fixed.
    """

    kind: Literal["file", "redis", "ray"]
    text: str
    identity: str = ""


def parse_setting(text: str) -> LockSetting:
    """Return what `text` means: file, ray, or redis://[USER@]HOST[:PORT][/NUMBER] (rediss: with TLS).

    Raises:
        UsageError: when it is none of them, or holds a password.
    """
    if text == "file":
        return LockSetting("file", text)
    if text == "ray":
        return LockSetting("ray", text)
    try:
        url = urlsplit(text)
        host, port, number = url.hostname, url.port or 6379, int(url.path.strip("/") or 0)
    except ValueError:
        host, port, number, url = None, 0, 0, urlsplit("")
    if url.scheme not in ("redis", "rediss") or not host or url.query or url.fragment or number < 0:
        raise UsageError(
            f"{_without_password(text)!r} is no place for locks",
            why="locks are kept by file, ray, or redis://HOST:PORT/NUMBER",
            fix="write for example redis://127.0.0.1:6379/0",
        )
    if url.password is not None:
        raise UsageError(
            "the address of Redis holds a password",
            why="it would be stored, and seen in lists of processes",
            fix="leave it out, and set TAMEN_REDIS_PASSWORD",
        )
    user = f"{url.username}@" if url.username else ""
    shown = f"[{host}]" if ":" in host else host
    return LockSetting("redis", f"{url.scheme}://{user}{shown}:{port}/{number}")


def fix_backend(database: Database, wanted: LockSetting | None) -> LockSetting:
    """Return the backend of the run whose file `database` is; the first process that asks decides.

    Args:
        database: with `TABLES`.
        wanted: what this process is configured for; None: whatever was fixed, or files.

    Raises:
        UsageError: when another has been fixed: two kinds of lock would not keep each other out.
    """
    with database.write() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO lock_backend VALUES (1, ?, ?)",
            ((wanted or parse_setting("file")).text, secrets.token_hex(8)),
        )
        text, identity = connection.execute("SELECT setting, identity FROM lock_backend").fetchone()
    if wanted is not None and wanted.text != text:
        raise UsageError(
            f"the locks here are kept by {text}, not by {wanted.text}",
            why=f"the first process fixed that in {database.path}; locks of two kinds do not keep each other out",
            fix=f"say {text} as it did, or nothing; for another backend take another folder with --runs",
        )
    fixed = parse_setting(text)
    return LockSetting(fixed.kind, fixed.text, identity)


def _without_password(text: str) -> str:
    return re.sub(r":[^:@/]*@", ":…@", text)
