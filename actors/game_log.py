"""What a group of games plays, written down on its machine, so that the games outlive the process that plays them.

    <place>/lock       flocked by that process: free the moment it ends, however it does
    <place>/17, 18     the last two files of moves, a record for each step of the group

Games of a group are played in lockstep and none is longer than `max_plies`. So what the newest record has in play began
at most so many records ago: a file gets that many, and before the next one is begun the one before is deleted. A
record has its length and checksum. One that ends too soon was torn by a kill and is cut off; where one is damaged
otherwise nothing is gone on with. Nothing is synced: what the kernel has taken survives the process, and what a machine
takes with it nobody could go on with.

Only a game that is not over is gone on with, for one that is over may have been delivered. It is known to be over
because its last move is written down before it is handed over, and because nothing older ever stays without what is
newer: what cannot be written, or is to go, goes from the oldest file on, the lock last.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import struct
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from core.errors import DataError

_SEAL = struct.Struct("<II")
"""Bytes that follow, and their CRC-32."""
_HEAD = struct.Struct("<iII")
"""Version of the weights, G, F."""
_COLUMNS = (("keys", "<u8"), ("plies", "<i8"), ("actions", "<i2"), ("values", "<f4"), ("full", "?"))
STALE_SECONDS = 3600.0
"""After which what nobody has gone on with is deleted."""
SPARE_BYTES = 256 << 20
"""With less room on the disk nothing is begun to be written: others there need it more."""
MOST_TRIES = 3
"""Of processes to go on with games, until they are given up: it may be for one of them that each has died."""
_NEW_PLACES = 3
"""That are tried, should another process take each as soon as it is made."""


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


def decode(data: bytes, num_actions: int) -> tuple[list[Moves], int]:
    """Return the records of `data`, and where the last whole one ends.

    Raises:
        DataError: when one is there whole and is not what was written.
    """
    found: list[Moves] = []
    start = 0
    while start + _SEAL.size <= len(data):
        length, checksum = _SEAL.unpack_from(data, start)
        body = data[start + _SEAL.size : start + _SEAL.size + length]
        if len(body) < length:
            break
        if length < _HEAD.size or zlib.crc32(body) != checksum:
            raise DataError(
                "a step of a game log is damaged", why="its checksum is another", fix="look at the disk"
            )
        version, games, full = _HEAD.unpack_from(body)
        columns, at = {}, _HEAD.size
        for name, kind in _COLUMNS:
            columns[name] = np.frombuffer(body, kind, games, at)
            at += columns[name].nbytes
        policies = np.frombuffer(body, "<f2", full * num_actions, at).reshape(full, num_actions)
        found.append(Moves(**columns, policies=policies, version=version))
        start += _SEAL.size + length
    return found, start


class GameLog:
    """The log of one group, at a place that `lock` locks; see `claim`.

    Attributes:
        found: the steps of the group that was played here before, oldest first, of which some games may be over. For
            its reader to let go.
        trouble: why the newest step could not be written, in words.

    Raises:
        OSError: when the place cannot be read or written.
    """

    def __init__(self, place: Path, lock: int, *, num_actions: int, max_plies: int) -> None:
        self._place = place
        self._lock = lock
        self._records_per_file = max_plies
        self.trouble = ""
        numbers = _numbers(place)
        for number in numbers[:-2]:  # a process died before it had deleted it
            self._path(number).unlink()
        self._number = numbers[-1] if numbers else 0
        self._file = os.open(self._path(self._number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.found, self._records, self._end = self._read(numbers[-2:], num_actions)
            self._note_try()
            os.ftruncate(self._file, self._end)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, moves: Moves) -> None:
        """Write a step down. Where the disk refuses it, nothing stays of what is in play, and play goes on.

        Raises:
            OSError: when what is there cannot be deleted either. Nobody may play on then: who goes on with what is
                there would deliver those games again.
        """
        try:
            if self._records >= self._records_per_file:
                self._begin_file()
            self._write(moves.encode())
        except OSError as error:
            self._forget()
            self.trouble = f"games in play are not written down: {error.strerror}"
            return
        self.trouble = ""
        if self._trying:
            os.ftruncate(self._lock, 0)
            self._trying = False

    def close(self) -> None:
        """Leave it to whoever goes on with its games."""
        os.close(self._file)
        os.close(self._lock)

    def remove(self) -> None:
        """Delete it: nobody is to go on with its games."""
        with contextlib.suppress(OSError):
            _delete(self._place)
        self.close()

    def _read(self, numbers: list[int], num_actions: int) -> tuple[list[Moves], int, int]:
        """Return what is in the files, how many records the last has, and where they end; nothing of damaged ones."""
        found: list[Moves] = []
        records = end = 0
        try:
            for number in numbers:
                read, end = decode(self._path(number).read_bytes(), num_actions)
                found, records = found + read, len(read)
        except DataError:
            self._forget()
            return [], 0, 0
        return found, records, end

    def _note_try(self) -> None:
        """Count this process among those that go on with what was found, unless too many have died over it."""
        tries = os.fstat(self._lock).st_size
        if tries >= MOST_TRIES:
            self.found, self._records, self._end = [], 0, 0
            self._forget()
        self._trying = bool(self.found)
        os.ftruncate(self._lock, tries + 1 if self._trying else 0)

    def _begin_file(self) -> None:
        _check_room(self._place)
        # The newest alone has all that is in play. In this order there are never three.
        self._path(self._number - 1).unlink(missing_ok=True)
        file = os.open(self._path(self._number + 1), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(self._file)
        self._file, self._number, self._records, self._end = file, self._number + 1, 0, 0

    def _write(self, record: bytes) -> None:
        written = 0
        while written < len(record):
            written += os.pwrite(self._file, record[written:], self._end + written)
        self._records, self._end = self._records + 1, self._end + written

    def _forget(self) -> None:
        self._path(self._number - 1).unlink(missing_ok=True)
        os.ftruncate(self._file, 0)
        self._records = self._end = 0

    def _path(self, number: int) -> Path:
        return self._place / str(number)


def folder_of(machine: str, run: str) -> Path:
    """Return the folder of the logs of a run on a machine, which is made where it is not there.

    Args:
        machine: a name that no other has or will have.
        run: likewise, of one life of it: its configuration does not change.

    Raises:
        OSError: when it cannot be made, or others can write to it.
    """
    folder = _top() / machine / run
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def claim(folder: Path, *, num_actions: int, max_plies: int) -> GameLog:
    """Return a log in `folder` whose process has ended, or else a new one. The caller alone has it from here.

    Args:
        folder: of logs of one game, see `folder_of`.
        num_actions, max_plies: of the game.

    Raises:
        OSError: when nothing can be written there.
    """
    with contextlib.suppress(FileNotFoundError):  # the folder, which who left last may have deleted
        for place in sorted(folder.iterdir(), key=_newest, reverse=True):  # before what was left long ago
            if (lock := _lock(place)) is not None:
                with contextlib.suppress(OSError):  # what one disk cannot read is left alone
                    return _opened(place, lock, num_actions, max_plies)
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder)
    for _ in range(_NEW_PLACES):
        place = folder / os.urandom(8).hex()
        place.mkdir(parents=True)
        if (lock := _lock(place, new=True)) is not None:
            return _opened(place, lock, num_actions, max_plies)
    raise OSError(errno.EBUSY, "others lock each new file", str(folder))


def remove_logs(machine: str, run: str) -> None:
    """Delete what `folder_of` would give, with what nobody has gone on with there."""
    with contextlib.suppress(OSError):
        for place in (_top() / machine / run).iterdir():
            with contextlib.suppress(OSError):  # a process that is being killed may write yet
                _delete(place)


def remove_stale(*, older_than: float = STALE_SECONDS) -> None:
    """Delete, as far as it can, the logs of this user that nobody has gone on with for `older_than` seconds."""
    with contextlib.suppress(OSError):
        for place in list(_top().glob("*/*/*")):
            with contextlib.suppress(OSError):
                if time.time() - _newest(place) > older_than:
                    _delete_if_free(place)


def _top() -> Path:
    """Return the folder of all logs of this user, which nobody else can write to. Raises OSError if somebody can."""
    top = Path(tempfile.gettempdir()) / f"tamen-games-{os.geteuid()}"
    top.mkdir(mode=0o700, exist_ok=True)
    there = top.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "it is not this user's alone", str(top))
    return top


def _newest(place: Path) -> float:
    """Return when anything at a place was written last, in seconds since 1970; 0 where it is gone."""
    try:
        return max(path.stat().st_mtime for path in (place, *place.iterdir()))
    except OSError:
        return 0.0


def _check_room(folder: Path) -> None:
    if shutil.disk_usage(folder).free < SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _numbers(place: Path) -> list[int]:
    return sorted(int(file.name) for file in place.iterdir() if file.name.isdecimal())


def _opened(place: Path, lock: int, num_actions: int, max_plies: int) -> GameLog:
    try:
        return GameLog(place, lock, num_actions=num_actions, max_plies=max_plies)
    except BaseException:
        os.close(lock)
        raise


def _lock(place: Path, *, new: bool = False) -> int | None:
    """Return the descriptor that locks a place, None where another has it or it is gone. Raises OSError."""
    try:
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(place / "lock")):  # not one that was just deleted
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _delete_if_free(place: Path) -> None:
    if not (place / "lock").exists():  # its process died while it made or deleted it
        _delete(place)
    elif (lock := _lock(place)) is not None:
        try:
            _delete(place)
        finally:
            os.close(lock)


def _delete(place: Path) -> None:
    """Delete a place from the oldest file on, and the folders above that are empty then. Raises OSError."""
    for number in _numbers(place):
        (place / str(number)).unlink()
    (place / "lock").unlink(missing_ok=True)
    place.rmdir()
    with contextlib.suppress(OSError):
        place.parent.rmdir()
        place.parent.parent.rmdir()
