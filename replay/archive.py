"""The files of a replay, in the folder of its run.

    replay/00000017.chunk     a stored chunk
    replay/ledger.sealed      what outlives the chunks, see replay.ledger
    games/00000000.trmph      the games of a thousand chunks as text, see replay.game_texts

The atomic write of a chunk's file commits it. The text of its games, the counters and the marks of seen games
follow from the chunk files and the ledger when the folder is opened again, so that a kill at any instant
leaves nothing half done. A file that is damaged keeps its name with `.damaged` behind it; none is deleted for
that.

Chunks that are used up at once need not be written: then there is the ledger alone, which is at most some seconds old.

One process at a time writes there: it holds a lock on `replay/.lock`, which the operating system takes from it when
it dies.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import DataError, TamenError
from core.files import sync_folder, unseal, write_atomic
from replay.codec import decode_record, encode_record
from replay.experience import Experience
from replay.game_texts import GameTexts
from replay.ledger import Ledger
from replay.records import Chunk

STORED_CHUNK_VERSION = 1

_NUMBERED = re.compile(r"(\d{8,})\.chunk(\.damaged)?")
# After its ledger was lost, a replay cannot know which lives it gave out; none reached this many.
EPOCH_LEAP = 1_000_000
# Chunks that were not written have numbers that the ledger may not know; a learner may still hold what they named.
_NUMBER_LEAP = 1_000_000
LEDGER_SECONDS = 5.0
"""How old the ledger on disk may grow where chunks are not written."""
DELETED_AT_ONCE = 32
"""Chunks whose files are deleted together: the ledger is written first, and grows with every life of an actor."""
LOCK_SECONDS = 30.0
"""For a process that wrote there before to be gone: Ray may begin anew while one that it has killed still ends."""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it lies on disk, with the counters of the replay when it was written.

    Attributes:
        total_rows, total_games: ever accepted, this chunk's included.
        draws, sampled_rows: made for the learner before it came.
        chunk: as `Chunk.encode` gives it.
    """

    total_rows: int
    total_games: int
    draws: int
    sampled_rows: int
    chunk: bytes

    def encode(self) -> bytes:
        """Return the stored chunk as sealed bytes."""
        return encode_record(
            "stored chunk",
            STORED_CHUNK_VERSION,
            {
                "total_rows": self.total_rows,
                "total_games": self.total_games,
                "draws": self.draws,
                "sampled_rows": self.sampled_rows,
                "chunk": self.chunk,
            },
        )

    @staticmethod
    def decode(data: bytes, *, source: str) -> "StoredChunk":
        """Return what was encoded. Raises DataError when it is damaged or of another version."""
        match decode_record(data, "stored chunk", STORED_CHUNK_VERSION, source=source):
            case {
                "total_rows": int(total_rows),
                "total_games": int(total_games),
                "draws": int(draws),
                "sampled_rows": int(sampled_rows),
                "chunk": bytes(chunk),
            }:
                return StoredChunk(total_rows, total_games, draws, sampled_rows, chunk)
        raise DataError(
            f"{source} is no stored chunk",
            why="its fields are not those of one",
            fix="check where it comes from",
        )


class Archive:
    """Reads and writes the files of one replay, and keeps its ledger.

    Args:
        run_folder: folder of the run; it and the two inside are made when they are missing.
        run, experience: whose experience it is, and of what.
        persisted: whether chunks are written.
        clock: monotonic seconds.

    Raises:
        DataError: when the ledger is of another run or game, or of another version.
        TamenError: when the folder cannot be read or written, or another process writes there.

    Attributes:
        ledger: counters and seen games; `read` and `store` bring it up to date.
        damaged: names of the files that were set aside.
        restored_texts: texts of games that were missing and were written again.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        run: str,
        experience: Experience,
        persisted: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replay = run_folder / "replay"
        self._games = run_folder / "games"
        self._texts = GameTexts(self._games, experience)
        self._persisted = persisted
        self._clock = clock
        self._held: set[int] = set()
        self._undeleted: list[int] = []
        self._ledger_due = clock() + LEDGER_SECONDS
        self.ledger = Ledger(run, experience.name)
        self.damaged: list[str] = []
        self.restored_texts = 0
        with _touching(run_folder):
            for folder in (self._replay, self._games):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._replay / ".lock")
            _remove_half_written(self._replay)
            self._open_ledger()

    def read(self) -> Iterator[tuple[int, Chunk, bytes]]:
        """Yield (number, chunk, encoded chunk) of each intact chunk by arrival; call once, to the end.

        Raises:
            DataError: when one is of another run or game, or of another version.
            TamenError: when one cannot be read.
        """
        for number in self.numbers():
            with _touching(self.chunk_file(number)):
                data = self._read_intact(self.chunk_file(number))
            if data is None:
                continue
            source = str(self.chunk_file(number))
            stored = StoredChunk.decode(data, source=source)
            chunk = Chunk.decode(stored.chunk, source=source)
            self.refuse_foreign(chunk.run, chunk.game, source=source)
            if number >= self.ledger.next_number:
                self._count(number, stored)
            self.ledger.enter(chunk)
            with _touching(self._games):
                if not self._texts.has(number):
                    self._texts.append(number, chunk)
                    self.restored_texts += 1
            self._held.add(number)
            yield number, chunk, stored.chunk
        self._finish_reading()

    def new_epoch(self, actor: int) -> int:
        """Return a life that `actor` never had, on disk by now. Raises TamenError when it cannot be."""
        epoch = self.ledger.new_epoch(actor)
        self.write_ledger()
        return epoch

    def store(self, chunk: Chunk, data: bytes) -> int:
        """Make a chunk durable, if it is to be, and return its number. `data` is the chunk, encoded.

        Raises:
            TamenError: when it cannot be written; then nothing of it is left.
        """
        number = self.ledger.next_number
        stored = StoredChunk(
            total_rows=self.ledger.total_rows + chunk.num_rows,
            total_games=self.ledger.total_games + chunk.num_games,
            draws=self.ledger.draws,
            sampled_rows=self.ledger.sampled_rows,
            chunk=data,
        )
        if self._persisted:
            self._write(number, stored, chunk)
        self._held.add(number)
        self._count(number, stored)
        self.ledger.enter(chunk)
        if not self._persisted and self._clock() >= self._ledger_due:
            self.write_ledger()
        return number

    def drop(self, numbers: Sequence[int]) -> None:
        """Let the oldest chunks go.

        Their files are deleted some dozen at a time, once the ledger covers them, at the latest when they are an
        eighth of what is held, or by `free`. Those that a crash leaves are read again.
        """
        self._held.difference_update(numbers)
        if not self._persisted:
            return
        self._undeleted += numbers
        if len(self._undeleted) >= min(DELETED_AT_ONCE, max(1, len(self._held) // 8)):
            with contextlib.suppress(TamenError):
                self._delete()

    def free(self) -> None:
        """Delete what may go, now that there is no room for more. What fails is tried by the next call."""
        if self._undeleted:
            with contextlib.suppress(TamenError):
                self._delete()

    def close(self) -> None:
        """Let another process, or another archive of this one, write there. Nothing may be stored after that."""
        self._lock.release()

    def commit_draw(self) -> None:
        """Make a draw durable that must not be made again, if the chunks it was made from are."""
        if self._persisted:
            self.write_ledger()

    def write_ledger(self) -> None:
        """Make the ledger durable. Raises TamenError when it cannot be written."""
        with _touching(self._ledger_file):
            write_atomic(self._ledger_file, self.ledger.encode())
        self._ledger_due = self._clock() + LEDGER_SECONDS

    def numbers(self) -> list[int]:
        """Return the numbers of the chunks that it keeps, rising: those of the files, if chunks are written."""
        if not self._persisted:
            return sorted(self._held)
        on_disk = {_number(path) for path in self._replay.glob("*.chunk") if _NUMBERED.fullmatch(path.name)}
        return sorted(on_disk.difference(self._undeleted))

    def chunk_file(self, number: int) -> Path:
        return self._replay / f"{number:08d}.chunk"

    def refuse_foreign(self, run: str, game: str, *, source: str) -> None:
        """Raise DataError unless `run` and `game` are those of this replay."""
        if (run, game) != (self.ledger.run, self.ledger.game):
            raise DataError(
                f"{source} is of run {run!r} and game {game!r}",
                why=f"this replay is of run {self.ledger.run!r} and game {self.ledger.game!r}",
                fix="give this run another name, or move the folder away",
            )

    def _delete(self) -> None:
        self.write_ledger()
        with _touching(self._replay):
            for number in self._undeleted:
                self.chunk_file(number).unlink(missing_ok=True)
            sync_folder(self._replay)
        self._undeleted.clear()

    @property
    def _ledger_file(self) -> Path:
        return self._replay / "ledger.sealed"

    def _open_ledger(self) -> None:
        existed = self._ledger_file.exists()
        data = self._read_intact(self._ledger_file) if existed else None
        self._lost_ledger = data is None and (existed or self._free_number() > 0)
        if data is not None:
            source = str(self._ledger_file)
            ledger = Ledger.decode(data, source=source)
            self.refuse_foreign(ledger.run, ledger.game, source=source)
            self.ledger = ledger

    def _finish_reading(self) -> None:
        self.ledger.next_number = max(self.ledger.next_number, self._free_number())
        if not self._persisted:
            self.ledger.next_number += _NUMBER_LEAP
            if self._lost_ledger:  # above all numbers there were, and those after an earlier loss
                self.ledger.next_number = max(self.ledger.next_number, time.time_ns() // 1_000_000)
        if self._lost_ledger:
            self.ledger.first_epoch = max(self.ledger.next_epochs.values(), default=0) + EPOCH_LEAP
        self.write_ledger()

    def _write(self, number: int, stored: StoredChunk, chunk: Chunk) -> None:
        with _touching(self.chunk_file(number)):
            try:
                write_atomic(self.chunk_file(number), stored.encode())
                self._texts.append(number, chunk)
            except BaseException:
                self.chunk_file(number).unlink(missing_ok=True)
                raise

    def _count(self, number: int, stored: StoredChunk) -> None:
        self.ledger.next_number = number + 1
        self.ledger.total_rows = stored.total_rows
        self.ledger.total_games = stored.total_games
        self.ledger.draws = stored.draws
        self.ledger.sampled_rows = stored.sampled_rows

    def _read_intact(self, path: Path) -> bytes | None:
        """Return the bytes of a sealed file, or set it aside and return None when they are damaged."""
        data = path.read_bytes()
        try:
            unseal(data, source=str(path))
        except DataError:
            path.rename(path.with_name(f"{path.name}.damaged"))
            sync_folder(path.parent)
            self.damaged.append(path.name)
            return None
        return data

    def _free_number(self) -> int:
        """Return the lowest number above those of all chunk files, damaged ones too, and of all texts."""
        chunks = [_number(path) for path in self._replay.iterdir() if _NUMBERED.fullmatch(path.name)]
        return max(1 + max(chunks, default=-1), self._texts.next_number())


def _locked(path: Path) -> FileLock:
    """Return the lock of this process, which is let go when all who were given it are. Raises TamenError."""
    lock = FileLock(path, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise TamenError(
            f"{path.parent} is being written by another process",
            why=f"it has held {path} for {LOCK_SECONDS:g} s",
            fix=f"end it (`fuser {path}` tells its number), then run the same command again",
        ) from error
    return lock


def _number(path: Path) -> int:
    return int(path.name.split(".")[0])


def _remove_half_written(folder: Path) -> None:
    """Remove what a killed `write_atomic` leaves under its temporary name."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _touching(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TamenError(
            f"{path} could not be read or written",
            why=str(error),
            fix="see to the disk; nothing that was acknowledged is lost, and the rest is sent again",
        ) from error
