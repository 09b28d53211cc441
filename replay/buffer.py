"""The replay: takes chunks from actors, keeps the newest on disk and at hand, draws rows for the learner."""

import contextlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.schema import ReplayConfig
from core.errors import DataError, TamenError
from core.seeds import derive_rng
from games.game import Game
from replay.archive import Archive
from replay.rate_limiter import Counts, RateLimiter
from replay.records import Ack, Chunk, GameRecord
from replay.sampling import Sample, Wait, uniform_rows
from replay.window import window_rows

SAMPLE_WAIT_SECONDS = 0.2

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
    """A chunk that can be drawn from."""

    rows: int
    handle: Any


class ReplayBuffer:
    """Experience at rest. Calls come one at a time: it is not for several threads.

    What `add` has returned for is on disk, and in the buffer again after a crash at any instant: see
    `replay.archive`.

    Args:
        folder: of the run.
        config: sizes of the window and the rate limiter.
        run, game: whose experience it is.
        seed: of the run; draw k depends on it, k and the rows at hand, so that a resumed run goes on.
        objects: where chunks are put for the learner.
        limited: whether actors pause for the learner; False where nobody learns.

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
        game: Game,
        seed: int,
        objects: ObjectStore,
        limited: bool = True,
    ) -> None:
        self._config = config
        self._limiter = RateLimiter.of(config)
        self._limited = limited
        self._game = game
        self._seed = seed
        self._objects = objects
        self._archive = Archive(folder, run=run, game=game)
        self._ledger = self._archive.ledger
        self._live: dict[int, _Live] = {}
        self._left: deque[tuple[int, Any]] = deque(maxlen=_LEFT_CHUNKS_KEPT)
        self.newest_game: GameRecord | None = None
        self._duplicate_games = 0
        self._refused_chunks = 0
        for number, chunk, data in self._archive.read():
            self._live[number] = _Live(chunk.num_rows, objects.put(data))
        self._shrink()
        self.opening_report = OpeningReport(
            chunks=len(self._live),
            rows=self._counts().live_rows,
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
        """Store a chunk that `Chunk.encode` made, without the games that came before, and acknowledge it.

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
        new = {game.seq for game in chunk.games if not seen.has(chunk.actor, chunk.epoch, game.seq)}
        duplicates = len(chunk.games) - len(new)
        if duplicates:
            chunk = chunk.only(new)
            data = chunk.encode()
        if new:
            handle = self._objects.put(data)
            number = self._archive.store(chunk, data)
            self._live[number] = _Live(chunk.num_rows, handle)
            self.newest_game = chunk.games[-1]
            self._shrink()
        self._duplicate_games += duplicates
        return self._ack(accepted_games=len(new), duplicate_games=duplicates, rows=chunk.num_rows)

    def admission(self) -> Ack:
        """Return the acknowledgement of nothing, by which a paused actor learns whether to go on."""
        return self._ack(accepted_games=0, duplicate_games=0, rows=0)

    def sample(self, num_rows: int) -> Sample | Wait:
        """Draw rows uniformly from the window, with replacement, or say when to ask again.

        Raises:
            UsageError: when so many rows may never be drawn, see `RateLimiter.check_sample`.
        """
        counts = self._counts()
        if not self._limiter.may_sample(num_rows, counts):
            return Wait(SAMPLE_WAIT_SECONDS, self._reason_to_wait(counts))
        chunk_rows = np.array([chunk.rows for chunk in self._live.values()], np.int64)
        rng = derive_rng(self._seed, "replay", self._ledger.draws)
        chunk_ids, rows = uniform_rows(num_rows, self.live_chunks(), chunk_rows, rng=rng)
        self._ledger.draws += 1
        self._ledger.sampled_rows += num_rows
        return Sample(chunk_ids, rows, self._ledger.draws, self._ledger.sampled_rows)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        """Go on from the counters of a learner's checkpoint (see `Sample`); later draws are made again."""
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
        """Return counters by name; "samples_per_insert" is there once a row has come."""
        ledger, counts = self._ledger, self._counts()
        stats: dict[str, float] = {
            "rows": counts.live_rows,
            "chunks": len(self._live),
            "window_rows": window_rows(ledger.total_rows, self._config),
            "total_rows": ledger.total_rows,
            "games": ledger.total_games,
            "draws": ledger.draws,
            "sampled_rows": ledger.sampled_rows,
            "pause_seconds": self._pause_seconds(),
            "duplicate_games": self._duplicate_games,
            "missing_games": ledger.seen.missing(),
            "refused_chunks": self._refused_chunks,
            "damaged_files": len(self.opening_report.damaged),
        }
        if ledger.total_rows:
            stats["samples_per_insert"] = ledger.sampled_rows / ledger.total_rows
        return stats

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        ledger, live = self._ledger, list(self._live)
        problems = []
        if live != sorted(live) or live != self._archive.numbers():
            problems.append(f"chunks {live} are held, {self._archive.numbers()} are on disk")
        if live and ledger.next_number <= live[-1]:
            problems.append(f"the next chunk would be {ledger.next_number}, but {live[-1]} is there")
        if self._counts().live_rows > ledger.total_rows:
            problems.append("more rows are held than ever came")
        return problems

    def _checked(self, data: bytes) -> Chunk:
        """Return the chunk in `data`. Raises DataError unless it is sound and of this run and game."""
        source = "a delivered chunk"
        chunk = Chunk.decode(data, source=source)
        self._archive.refuse_foreign(chunk.run, chunk.game, source=source)
        problems = chunk.check_valid() or _misfits(chunk, self._game)
        if problems:
            raise DataError(
                f"{source} holds wrong values",
                why="; ".join(problems[:3]),
                fix="the actor that made it is at fault; the run goes on without this chunk",
            )
        return chunk

    def _shrink(self) -> None:
        """Drop the oldest chunks that the window can do without."""
        window = window_rows(self._ledger.total_rows, self._config)
        rows = self._counts().live_rows
        leaving = []
        for number, chunk in self._live.items():
            if rows - chunk.rows < window:
                break
            rows -= chunk.rows
            leaving.append(number)
        # The new chunk is safe whatever happens here; on a full disk the next one tries again.
        with contextlib.suppress(TamenError):
            if leaving:
                self._archive.drop(leaving)
                self._left.extend((number, self._live.pop(number).handle) for number in leaving)

    def _ack(self, *, accepted_games: int, duplicate_games: int, rows: int) -> Ack:
        return Ack(
            accepted_games=accepted_games,
            duplicate_games=duplicate_games,
            rows=rows,
            pause_seconds=self._pause_seconds(),
            total_rows=self._ledger.total_rows,
        )

    def _pause_seconds(self) -> float:
        return self._limiter.insert_pause_seconds(self._counts()) if self._limited else 0.0

    def _counts(self) -> Counts:
        return Counts(
            inserted_rows=self._ledger.total_rows,
            sampled_rows=self._ledger.sampled_rows,
            live_rows=sum(chunk.rows for chunk in self._live.values()),
        )

    def _reason_to_wait(self, counts: Counts) -> str:
        if counts.live_rows < self._config.min_rows:
            return f"{counts.live_rows} of {self._config.min_rows} rows have come"
        return f"each row may be drawn {self._config.samples_per_insert:g} times, and the actors are behind"


def _misfits(chunk: Chunk, game: Game) -> list[str]:
    """Return how a chunk does not fit the game it names, in words."""
    entries = {"cells": game.board.height * game.board.width, "policy": game.num_actions}
    problems = [
        f"column {name} has {chunk.columns[name].shape[1]} entries a row, {game.name} has {expected}"
        for name, expected in entries.items()
        if chunk.columns[name].shape[1] != expected
    ]
    problems += [
        f"game {record.seq} has moves that {game.name} does not have"
        for record in chunk.games
        if len(record.actions) > game.max_plies or (record.actions >= game.num_actions).any()
    ]
    return problems
