"""The replay: takes chunks from actors, keeps the newest on disk and at hand, draws rows for the learner."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.schema import ReplayConfig
from core.errors import DataError, TamenError
from core.seeds import derive_rng
from replay.archive import Archive
from replay.experience import Experience, problems_of
from replay.rate_limiter import LEAST_WAIT_SECONDS, Counts, PaceMeter, RateLimiter
from replay.records import Ack, Chunk, GameRecord
from replay.samplers import make_sampler
from replay.sampling import Sample, Wait
from replay.window import window_rows

# How many of the last episodes the mean return is taken over: as many as the field's other programs take.
_EPISODES_KEPT = 100

# While chunks cannot be stored, one of those that have some may try so often; a hundred actors may be waiting.
_TRY_AGAIN_SECONDS = 1.0

# A learner fetches chunks a moment after it was told their numbers; some may have left the window in between.
_LEFT_CHUNKS_KEPT = 16


class ObjectStore(Protocol):
    """Where the bytes of chunks are held for the learner."""

    def put(self, data: bytes) -> Any:
        """Keep `data` as long as the handle that is returned. Raises TamenError when there is no room."""
        ...


class LocalObjects:
    """The store of a run in one process: the bytes are their own handle."""

    def put(self, data: bytes) -> bytes:
        return data


@dataclass(frozen=True, slots=True)
class OpeningReport:
    """What a replay found in its folder.

    Attributes:
        chunks, rows: read again.
        damaged: names of the files that were set aside, to which `.damaged` was added.
        restored_texts: files of games that were missing and were written again.
    """

    chunks: int
    rows: int
    damaged: tuple[str, ...]
    restored_texts: int


@dataclass(frozen=True, slots=True)
class _Live:
    """A chunk that can be drawn from, and the bytes it takes."""

    rows: int
    size_bytes: int
    handle: Any


class ReplayBuffer:
    """Experience at rest. Calls come one at a time: it is not for several threads.

    What `add` has returned for is on disk, and in the buffer again after a crash at any instant: see
    `replay.archive`.

    Args:
        folder: of the run.
        config: sizes of the window and the rate limiter.
        run, experience: whose experience it is, and of what.
        seed: of the run; draw k depends on it, k and the rows at hand, so that a resumed run goes on.
        objects: where chunks are put for the learner.
        limited: whether actors pause for the learner; False where nobody learns.
        clock: monotonic seconds, by which it is judged how soon to ask again.

    Attributes:
        newest_game: the last one that was accepted in this life of the replay.

    Raises:
        DataError: when the folder holds the experience of another run or game, or of a newer release.
        TamenError: when the folder cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        config: ReplayConfig,
        *,
        run: str,
        experience: Experience,
        seed: int,
        objects: ObjectStore,
        limited: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._limiter = RateLimiter.of(config)
        self._limited = limited
        self._experience = experience
        self._seed = seed
        self._objects = objects
        self._archive = Archive(folder, run=run, experience=experience, persisted=config.persisted)
        self._ledger = self._archive.ledger
        self._sampler = make_sampler(config)
        self._clock = clock
        self._draws, self._inserts = PaceMeter(), PaceMeter()
        self._live: dict[int, _Live] = {}
        self._live_bytes = 0
        self._left: deque[tuple[int, Any]] = deque(maxlen=_LEFT_CHUNKS_KEPT)
        self.newest_game: GameRecord | None = None
        self._returns: deque[float] = deque(maxlen=_EPISODES_KEPT)
        self._duplicates = 0
        self._refused_chunks = 0
        self._rows_unused = 0
        self._not_stored: TamenError | None = None
        self._try_again_at = 0.0
        for number, chunk, data in self._archive.read():
            self._enter(number, chunk, len(data), objects.put(data))
        self._sampler.restore(self._ledger.sampler_state)
        self._shrink()
        self.opening_report = OpeningReport(
            chunks=len(self._live),
            rows=self._sampler.num_rows,
            damaged=tuple(self._archive.damaged),
            restored_texts=self._archive.restored_texts,
        )

    def open_epoch(self, actor: int) -> int:
        """Return a life for an actor that starts: a number never given to it before, and on disk by now.

        Raises:
            TamenError: when it cannot be written; the actor may ask again.
        """
        return self._archive.new_epoch(actor)

    def add(self, data: bytes) -> Ack:
        """Store a chunk that `Chunk.encode` made, without what came before, and acknowledge it.

        Raises:
            DataError: when it is damaged, foreign or wrong; sent again it would be refused again.
            TamenError: when it cannot be written (a full disk). It is as if it had not come; send it again.
        """
        try:
            chunk = self._checked(data)
        except DataError:
            self._refused_chunks += 1
            raise
        seen = self._ledger.seen
        new = {seq for seq in chunk.seqs if not seen.has(chunk.actor, chunk.epoch, seq)}
        duplicates = len(chunk.seqs) - len(new)
        if duplicates:
            chunk = chunk.only(new)
            data = chunk.encode()
        if new:
            self._store(chunk, data)
            if chunk.num_rows:
                self._inserts.note(chunk.num_rows, now_seconds=self._clock())
            self.newest_game = chunk.games[-1] if chunk.games else None
            self._returns.extend(chunk.episodes.total_reward.tolist())
            self._shrink()
        self._duplicates += duplicates
        return self._ack(accepted=len(new), duplicates=duplicates, rows=chunk.num_rows)

    def close(self) -> None:
        """Let go of the run's folder; the last call of all."""
        self._archive.close()

    def admission(self) -> Ack:
        """Return the acknowledgement of nothing, by which an actor learns whether to go on, or to send a chunk again.

        Raises:
            TamenError: for a second after a chunk could not be stored, with its words.
        """
        error = self._not_stored
        if error is not None and self._clock() < self._try_again_at:
            raise TamenError(error.what, why=error.why, fix=error.fix)
        return self._ack(accepted=0, duplicates=0, rows=0)

    def sample(self, num_rows: int) -> Sample | Wait:
        """Draw rows from the window as `config.sampler` says, or say when to ask again.

        Raises:
            UsageError: when so many rows may never be drawn, see `RateLimiter.check_sample`.
            TamenError: when a draw that is final could not be noted (a full disk); its rows are lost then.
        """
        counts, now = self._counts(), self._clock()
        if not self._limiter.may_sample(num_rows, counts) or not self._sampler.available(num_rows):
            inserts = self._inserts.pace(now_seconds=now)
            seconds = self._limiter.sample_wait_seconds(num_rows, counts, inserts) or LEAST_WAIT_SECONDS
            return Wait(seconds, self._reason_to_wait(num_rows, counts))
        rng = derive_rng(self._seed, "replay", self._ledger.draws)
        drawn = self._sampler.draw(num_rows, rng)
        self._ledger.draws += 1
        self._ledger.sampled_rows += num_rows
        self._draws.note(num_rows, now_seconds=now)
        if self._sampler.draws_are_final:
            self._ledger.sampler_state = self._sampler.state()
            self._archive.commit_draw()
            self._leave(self._sampler.exhausted())
        return Sample(
            drawn.chunk_ids, drawn.rows, self._ledger.draws, self._ledger.sampled_rows, drawn.importance
        )

    def update_priorities(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Take in how much there is to learn from rows that were drawn; see `Sampler.update`."""
        self._sampler.update(chunk_ids, rows, priorities)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        """Go on from the counters of a learner's checkpoint (see `Sample`); later draws are made again.

        Where draws are final nothing goes back: the learner goes on with the rows that follow.
        """
        if self._sampler.draws_are_final:
            return
        self._ledger.draws = draws
        self._ledger.sampled_rows = sampled_rows
        self._ledger.sampled_rows = self._limiter.clamped_samples(self._counts())

    def handles(self, chunk_ids: Iterable[int]) -> list[Any]:
        """Return what `ObjectStore.put` gave for each chunk; the last few that left the window are kept too.

        Raises:
            DataError: when one left it long ago; draw anew.
        """
        left = dict(self._left)
        handles = []
        for number in map(int, chunk_ids):
            if number not in self._live and number not in left:
                raise DataError(
                    f"chunk {number} cannot be had",
                    why="it has left the window since it was drawn, or never was in it",
                    fix="draw a new sample, and fetch its chunks sooner",
                )
            handles.append(self._live[number].handle if number in self._live else left[number])
        return handles

    def live_chunks(self) -> np.ndarray:
        """Return int64 [C]: the numbers of the chunks in the window, rising."""
        return np.array(list(self._live), np.int64)

    def stats(self) -> dict[str, float]:
        """Return counters by name; "samples_per_insert" is there once a row has come, "mean_return" once an episode.

        The latter is the mean over the last episodes that ended in this life of the replay, at most 100.
        """
        ledger = self._ledger
        stats: dict[str, float] = {
            "rows": self._sampler.num_rows,
            "chunks": len(self._live),
            "bytes": self._live_bytes,
            "window_rows": self._window_rows(),
            "total_rows": ledger.total_rows,
            "games": ledger.total_games,
            "draws": ledger.draws,
            "sampled_rows": ledger.sampled_rows,
            "pause_seconds": self._pause_seconds(),
            "duplicates": self._duplicates,
            "missing_games": ledger.seen.missing(),
            "refused_chunks": self._refused_chunks,
            "rows_unused": self._rows_unused,
            "damaged_files": len(self.opening_report.damaged),
        }
        if ledger.total_rows:
            stats["samples_per_insert"] = ledger.sampled_rows / ledger.total_rows
        if self._returns:
            stats["mean_return"] = float(np.mean(self._returns))
            stats["returns_counted"] = len(self._returns)
        return stats

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        ledger, live = self._ledger, list(self._live)
        problems = []
        if live != sorted(live) or live != self._archive.numbers():
            problems.append(f"chunks {live} are held, {self._archive.numbers()} are on disk")
        if live and ledger.next_number <= live[-1]:
            problems.append(f"the next chunk would be {ledger.next_number}, but {live[-1]} is there")
        if self._sampler.num_rows > ledger.total_rows:
            problems.append("more rows are held than ever came")
        if self._sampler.num_rows != sum(chunk.rows for chunk in self._live.values()):
            problems.append("the sampler knows of other rows than are held")
        if self._live_bytes != sum(chunk.size_bytes for chunk in self._live.values()):
            problems.append("the bytes that are held were counted wrong")
        return problems + ledger.check_valid() + self._sampler.check_valid()

    def _checked(self, data: bytes) -> Chunk:
        """Return the chunk in `data`. Raises DataError unless it is sound and of this run and game."""
        source = "a delivered chunk"
        chunk = Chunk.decode(data, source=source)
        self._archive.refuse_foreign(chunk.run, chunk.game, source=source)
        problems = problems_of(chunk, self._experience)
        if problems:
            raise DataError(
                f"{source} holds wrong values",
                why="; ".join(problems[:3]),
                fix="the actor that made it is at fault; the run goes on without this chunk",
            )
        return chunk

    def _store(self, chunk: Chunk, data: bytes) -> None:
        try:
            handle = self._objects.put(data)
            number = self._archive.store(chunk, data)
        except TamenError as error:
            self._not_stored, self._try_again_at = error, self._clock() + _TRY_AGAIN_SECONDS
            self._archive.free()
            raise
        self._not_stored = None
        self._enter(number, chunk, len(data), handle)

    def _enter(self, number: int, chunk: Chunk, size_bytes: int, handle: Any) -> None:
        self._sampler.add(number, chunk.num_rows)
        self._live[number] = _Live(chunk.num_rows, size_bytes, handle)
        self._live_bytes += size_bytes

    def _shrink(self) -> None:
        """Drop the oldest chunks that the window can do without, or that the bytes have no room for."""
        window, most_bytes = self._window_rows(), self._config.capacity_bytes or math.inf
        rows, held_bytes = self._sampler.num_rows, self._live_bytes
        leaving: list[int] = []
        for number, chunk in self._live.items():
            # Fewer than min_rows rows would never be drawn from.
            too_many = held_bytes > most_bytes and rows - chunk.rows >= self._config.min_rows
            if rows - chunk.rows < window and not too_many:
                break
            rows -= chunk.rows
            held_bytes -= chunk.size_bytes
            leaving.append(number)
        self._leave(leaving)

    def _leave(self, numbers: Sequence[int]) -> None:
        """Let the oldest chunks go."""
        if not numbers:
            return
        self._archive.drop(numbers)
        unused = self._sampler.drawable_rows
        for number in numbers:
            chunk = self._live.pop(number)
            self._sampler.remove(number)
            self._live_bytes -= chunk.size_bytes
            self._left.append((number, chunk.handle))
        if self._sampler.draws_are_final:
            self._rows_unused += unused - self._sampler.drawable_rows

    def _window_rows(self) -> int:
        # Rows that are used up in the order of arrival have no window: they leave when they are.
        if self._sampler.draws_are_final:
            return self._config.capacity_rows
        return window_rows(self._ledger.total_rows, self._config)

    def _ack(self, *, accepted: int, duplicates: int, rows: int) -> Ack:
        return Ack(
            accepted=accepted,
            duplicates=duplicates,
            rows=rows,
            pause_seconds=self._pause_seconds(),
            total_rows=self._ledger.total_rows,
        )

    def _pause_seconds(self) -> float:
        if not self._limited:
            return 0.0
        return self._limiter.insert_pause_seconds(self._counts(), self._draws.pace(now_seconds=self._clock()))

    def _counts(self) -> Counts:
        return Counts(
            inserted_rows=self._ledger.total_rows,
            sampled_rows=self._ledger.sampled_rows,
            live_rows=self._sampler.drawable_rows,
            draws_left=self._sampler.draws_left,
        )

    def _reason_to_wait(self, num_rows: int, counts: Counts) -> str:
        least = max(self._config.min_rows, num_rows if self._sampler.draws_are_final else 0)
        if counts.live_rows < least:
            return f"{counts.live_rows} of {least} rows have come"
        return f"each row may be drawn {self._config.samples_per_insert:g} times, and the actors are behind"
