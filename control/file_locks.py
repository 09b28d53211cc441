"""Locks as files of one folder: who holds one keeps a file flocked, so it is free the moment its process ends.

A lock is a folder of generations, 000000000007, 000000000008, …; the newest is the present grant. A grant is made by
`link`, which exactly one process can do for each number, and no lock is held meanwhile: a process that is stopped
anywhere holds up nobody. A generation is over when

- nobody has it flocked: its process released it, or has died; or
- its beat, which the holder counts up, has not changed for its TTL on the waiter's own monotonic clock.

A waiter may link the successor of a generation that was the newest long ago, if it slept between two steps. That
must not count, so after its link it looks again for the very file that it judged (by its inode, which cannot be used
anew while it is open). Old generations go in ascending order, the last few stay: if the one it judged is there, none
above can have been removed, and its link was the first of that number. It may then remove its own, of which nobody
else decides anything.

A file that somebody has flocked is not removed, but for the one case above. Numbers of grants are in the files, synced
before they are linked, and each is greater than its predecessor's.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from control.locks import Held, Watch, checked_lock_name
from core.errors import DataError
from core.files import seal, sync_folder, unseal

KEPT_GENERATIONS = 8
_BEAT_BYTES = 8
_DIGITS = 12


class _Record(NamedTuple):
    """What a generation says of its grant. The first of a lock is nobody's, with number 0."""

    owner: str
    number: int
    ttl_seconds: float
    since: float


@dataclass(slots=True)
class _Generation:
    """An open generation file."""

    room: Path
    index: int
    descriptor: int
    beat: int = 0

    @property
    def path(self) -> Path:
        return _path(self.room, self.index)

    def is_linked(self) -> bool:
        """Whether the file that is open has its name still."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def is_newest(self) -> bool:
        return self.is_linked() and not _path(self.room, self.index + 1).exists()

    def is_flocked(self) -> bool:
        """Whether another has it flocked."""
        return _is_flocked(self.descriptor)

    def read(self) -> tuple[int, _Record]:
        """Return beat and record. Raises DataError when the file is damaged."""
        whole = os.pread(self.descriptor, 1 << 16, 0)
        data = unseal(whole[_BEAT_BYTES:], source=str(self.path))
        return int.from_bytes(whole[:_BEAT_BYTES], "little"), _decoded(data, source=self.path)

    def count_up(self) -> None:
        self.beat += 1
        os.pwrite(self.descriptor, self.beat.to_bytes(_BEAT_BYTES, "little"), 0)

    def close(self) -> None:
        os.close(self.descriptor)


class FileLocks:
    """A `control.locks.LockBackend` in `folder`, which all processes that use it see at the same path.

    Args:
        folder: on a file system with `flock` and `link`; made if it is not there.
        clock: monotonic seconds.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._watch = Watch(clock)
        self._mine: dict[str, _Generation] = {}
        self._using = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        room = self._room(name)
        with self._using:
            if (mine := self._mine.get(owner)) is not None:
                return mine.read()[1].number
            _found(room)
            with _opened_newest(room) as newest:
                if newest is None or not self._is_over(name, newest):
                    return None
                number = max(newest.read()[1].number, above) + 1
                granted = _succeed(newest, _Record(owner, number, ttl_seconds, time.time()))
                if granted is None:
                    return None
                self._mine[owner] = granted
            _remove_old(room, below=granted.index + 1 - KEPT_GENERATIONS)
            return number

    def renew(self, name: str, owner: str) -> bool:
        checked_lock_name(name)
        with self._using:
            mine = self._mine.get(owner)
            if mine is None or not mine.is_newest():
                return False
            mine.count_up()
            return True

    def release(self, name: str, owner: str) -> None:
        checked_lock_name(name)
        with self._using:
            mine = self._mine.pop(owner, None)
            if mine is not None:
                # By name and not by closing alone: a child that was forked meanwhile has the file open too.
                fcntl.flock(mine.descriptor, fcntl.LOCK_UN)
                mine.close()

    def holders(self) -> list[Held]:
        names = sorted(path.name.replace("+", ":") for path in self._folder.glob("[A-Za-z0-9]*/"))
        found = (self._holder(name) for name in names)
        return [held for held in found if held is not None]

    def take_away(self, name: str) -> Held | None:
        room = self._room(name)
        if not room.exists():
            return None
        with _opened_newest(room) as newest:
            if newest is None or not newest.is_flocked():
                return None
            before = newest.read()[1]
            nobody = _succeed(newest, before._replace(owner="", number=before.number + 1))
            if nobody is None:
                return None
            nobody.close()
            return Held(name, *before)

    def close(self) -> None:
        with self._using:
            for mine in self._mine.values():
                mine.close()
            self._mine.clear()

    def _is_over(self, name: str, generation: _Generation) -> bool:
        if not generation.is_flocked():
            return True
        beat, record = generation.read()
        shown = (generation.index, record.owner, beat)
        return self._watch.unchanged_seconds(name, shown) >= record.ttl_seconds

    def _holder(self, name: str) -> Held | None:
        with _opened_newest(self._room(name)) as newest:
            if newest is None or not newest.is_flocked():
                return None
            return Held(name, *newest.read()[1])

    def _room(self, name: str) -> Path:
        # No name has a plus, so no two have one folder.
        return self._folder / checked_lock_name(name).replace(":", "+")


def _is_flocked(descriptor: int) -> bool:
    """Whether another has the file flocked; asking holds up nobody else who asks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _path(room: Path, index: int) -> Path:
    return room / f"{index:0{_DIGITS}}"


def _indices(room: Path) -> list[int]:
    """Return the numbers of the generations that are there, sorted."""
    try:
        return sorted(int(name) for name in os.listdir(room) if len(name) == _DIGITS and name.isdecimal())
    except FileNotFoundError:
        return []


@contextmanager
def _opened_newest(room: Path) -> Iterator[_Generation | None]:
    """Open the newest generation; None when it went while one looked."""
    generation = None
    with contextlib.suppress(FileNotFoundError):
        if indices := _indices(room):
            descriptor = os.open(_path(room, indices[-1]), os.O_RDWR | os.O_CLOEXEC)
            generation = _Generation(room, indices[-1], descriptor)
    try:
        yield generation
    finally:
        if generation is not None:
            generation.close()


def _found(room: Path) -> None:
    """Make the folder of a lock, with a first generation in it from the beginning."""
    if room.exists():
        return
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=room.parent))
    try:
        first = _path(temporary, 0)
        first.write_bytes(_encoded(_Record("", 0, 0.0, 0.0)))
        with contextlib.suppress(
            OSError
        ):  # another was faster: a folder that holds something is not replaced
            temporary.rename(room)
            sync_folder(room.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(room)


def _succeed(before: _Generation, record: _Record) -> _Generation | None:
    """Make the generation after `before`, flocked, if `before` is the newest still; None if another was faster."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=before.room)
    mine = _Generation(before.room, before.index + 1, descriptor)
    granted = linked = False
    try:
        os.write(descriptor, _encoded(record))
        os.fsync(descriptor)
        # One who clears away may look at it before it is flocked, or have removed it: then another time.
        with contextlib.suppress(FileExistsError, FileNotFoundError, BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(temporary, mine.path)
            linked = True
        granted = linked and before.is_linked()
        if linked and not granted:
            mine.path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if not granted:
            mine.close()
    if not granted:
        return None
    sync_folder(before.room)
    return mine


def _remove_old(room: Path, *, below: int) -> None:
    """Remove generations below number `below` in ascending order, up to one that somebody has flocked.

    Also what processes left that died between making a file and linking it.
    """
    for index in _indices(room):
        if index >= below or not _removed(_path(room, index)):
            break
    for path in room.glob(".*"):
        _removed(path)


def _removed(path: Path) -> bool:
    """Remove a file unless somebody has it flocked."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _is_flocked(descriptor):
                return False
            path.unlink()
        finally:
            os.close(descriptor)
    return True


def _encoded(record: _Record) -> bytes:
    return bytes(_BEAT_BYTES) + seal(json.dumps(record._asdict()).encode())


def _decoded(data: bytes, *, source: Path) -> _Record:
    try:
        return _Record(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{source} is no record of a lock",
            why=str(error),
            fix="when nothing runs, remove its folder: numbers of grants are kept in the database too",
        ) from error
