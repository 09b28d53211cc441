"""What a group of games plays, written down on its machine, so that the games outlive the process that plays them.

    <place>/lock       flocked by that process: free the moment it ends, however it does
    <place>/17, 18     the last two files of moves, a record for each step of the group

Games of a group are played in lockstep and none is longer than `max_plies`. So what the newest record has in play began
at most so many records ago: a file gets that many, and then the one before the last is deleted. A record has its length
and checksum, so what a kill has torn is seen and cut off. Nothing is synced: what the kernel has taken survives the
process, and what a machine takes with it nobody could go on with.

Only a game that is not over is gone on with. As its last move is written down before it is handed over, one that may
have been delivered is known to be over.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

_SEAL = struct.Struct("<II")
"""Bytes that follow, and their CRC-32."""
_HEAD = struct.Struct("<iII")
"""Version of the weights, G, F."""
_COLUMNS = (("keys", "<u8"), ("plies", "<i8"), ("actions", "<i2"), ("values", "<f4"), ("full", "?"))
STALE_SECONDS = 3600.0
"""After which what nobody has gone on with is deleted."""
MOST_TRIES = 3
"""Of processes to go on with games, until they are given up: it may be for one of them that each has died."""


@dataclass(frozen=True, slots=True)
class Moves:
    """One move in each of G games, F of which were searched in full. A: actions.

    Attributes:
        keys: uint64 [G], by which the games are known.
        plies: int64 [G], moves before this one, opening included.
        actions: int16 [G].
        values: float32 [G], of the position before it, from the view of the player to move.
        full: bool [G], whether that was searched in full.
        policies: float16 [F, A], of those that were.
        version: of the weights.
    """

    keys: np.ndarray
    plies: np.ndarray
    actions: np.ndarray
    values: np.ndarray
    full: np.ndarray
    policies: np.ndarray
    version: int

    def of(self, chosen: np.ndarray) -> Self:
        """Return the moves of some games, `chosen` bool [G]."""
        columns = {name: getattr(self, name)[chosen] for name, _ in _COLUMNS}
        return type(self)(**columns, policies=self.policies[chosen[self.full]], version=self.version)

    def encode(self) -> bytes:
        """Return it as a record."""
        head = _HEAD.pack(self.version, len(self.keys), len(self.policies))
        columns = [np.ascontiguousarray(getattr(self, name), kind).tobytes() for name, kind in _COLUMNS]
        body = b"".join([head, *columns, np.ascontiguousarray(self.policies, "<f2").tobytes()])
        return _SEAL.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes, num_actions: int) -> Iterator[tuple[Moves, int]]:
    """Yield each record of `data`, and where it ends; nothing from the first on that is not whole."""
    start = 0
    while start + _SEAL.size <= len(data):
        length, checksum = _SEAL.unpack_from(data, start)
        start += _SEAL.size
        body = data[start : start + length]
        if len(body) < length or zlib.crc32(body) != checksum or length < _HEAD.size:
            return
        start += length
        version, games, full = _HEAD.unpack_from(body)
        columns, at = {}, _HEAD.size
        for name, kind in _COLUMNS:
            columns[name] = np.frombuffer(body, kind, games, at)
            at += columns[name].nbytes
        policies = np.frombuffer(body, "<f2", full * num_actions, at).reshape(full, num_actions)
        yield Moves(**columns, policies=policies, version=version), start


class GameLog:
    """The log of one group, at a place that `lock` locks; see `claim`.

    Attributes:
        found: the steps of the group that was played here before, oldest first; some of its games may be over.
        trouble: why the newest step could not be written, in words.
    """

    def __init__(self, place: Path, lock: int, *, num_actions: int, max_plies: int) -> None:
        self._place = place
        self._lock = lock
        self._most = max_plies
        self.found: list[Moves] = []
        self.trouble = ""
        self._number, self._count, self._end = 0, 0, 0
        for self._number in sorted(int(file.name) for file in place.iterdir() if file.name.isdecimal()):
            read = list(decode(self._path(self._number).read_bytes(), num_actions))
            self.found += [moves for moves, _ in read]
            self._count, self._end = len(read), read[-1][1] if read else 0
        self._file = self._open(self._number)
        os.ftruncate(self._file, self._end)
        self._tries: int | None = os.fstat(lock).st_size
        if self._tries >= MOST_TRIES:
            self.found = []
            self._forget()
        os.pwrite(lock, b".", self._tries)

    def append(self, moves: Moves) -> None:
        """Write a step down. Where the disk refuses it, nothing stays of what is in play, and play goes on.

        What stayed could be gone on with from where it ends, though the games may be over and delivered.
        """
        try:
            if self._count >= self._most:
                self._turn_over()
            self._write(moves.encode())
        except OSError as error:
            self.trouble = f"games in play are not written down: {error.strerror}"
            self._forget()
        else:
            self.trouble = ""
            if self._tries is not None:
                os.ftruncate(self._lock, 0)
                self._tries = None

    def remove(self) -> None:
        """Delete it: nobody is to go on with its games."""
        shutil.rmtree(self._place, ignore_errors=True)
        os.close(self._file)
        os.close(self._lock)

    def _turn_over(self) -> None:
        file = self._open(self._number + 1)
        os.close(self._file)
        self._path(self._number - 1).unlink(missing_ok=True)
        self._file, self._number, self._count, self._end = file, self._number + 1, 0, 0
        os.utime(self._lock)  # it is not stale

    def _write(self, record: bytes) -> None:
        written = 0
        while written < len(record):
            written += os.pwrite(self._file, record[written:], self._end + written)
        self._count, self._end = self._count + 1, self._end + written

    def _forget(self) -> None:
        self._path(self._number - 1).unlink(missing_ok=True)
        os.ftruncate(self._file, 0)
        self._count = self._end = 0

    def _path(self, number: int) -> Path:
        return self._place / str(number)

    def _open(self, number: int) -> int:
        return os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def folder_of(machine: str, run: str) -> Path:
    """Return the folder of the logs of a run on a machine, which is made where it is not there.

    Args:
        machine: a name that no other has or will have.
        run: likewise, of one life of it: its configuration does not change.

    Raises:
        OSError: when it cannot be made, or another user made it.
    """
    top = _top()
    top.mkdir(mode=0o700, exist_ok=True)
    if top.is_symlink() or top.stat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it is another user's", str(top))
    folder = top / machine / run
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def claim(folder: Path, *, num_actions: int, max_plies: int) -> GameLog:
    """Return a log in `folder` whose process has ended, or else a new one. The caller alone has it from here.

    Args:
        folder: of logs of one game, see `folder_of`.
        num_actions, max_plies: of the game.

    Raises:
        OSError: when nothing can be written there.
    """
    for place in sorted(folder.iterdir()):
        if (lock := _lock(place)) is not None:
            return GameLog(place, lock, num_actions=num_actions, max_plies=max_plies)
    while True:
        place = folder / os.urandom(8).hex()
        place.mkdir(mode=0o700)
        if (lock := _lock(place)) is not None:  # else another was faster, and has it
            return GameLog(place, lock, num_actions=num_actions, max_plies=max_plies)


def remove_logs(machine: str, run: str) -> None:
    """Delete what `folder_of` would give, with what nobody has gone on with there."""
    folder = _top() / machine / run
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another run's are there
        folder.parent.rmdir()


def remove_stale(*, older_than: float = STALE_SECONDS) -> None:
    """Delete the logs of this user that nobody has played or gone on with for `older_than` seconds."""
    for path in _top().glob("*/*/*/lock"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than and (lock := _lock(path.parent)) is not None:
                shutil.rmtree(path.parent, ignore_errors=True)
                os.close(lock)
                for folder in path.parents[1:3]:
                    folder.rmdir()  # fails, and ends it, where there are others


def _top() -> Path:
    return Path(tempfile.gettempdir()) / f"tamen-games-{os.geteuid()}"


def _lock(place: Path) -> int | None:
    """Return the descriptor that locks a place, None where another has it or it is gone."""
    try:
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(place / "lock")):  # not one that was just deleted
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
