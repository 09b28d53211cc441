"""What a replay remembers of experience beyond the chunks that it still holds."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np

from core.errors import DataError
from replay.codec import decode_record, encode_record
from replay.records import Chunk

LEDGER_VERSION = 2


class SeenGames:
    """A set of games (or rows, where there are no games), by (actor, epoch, seq), kept as ranges of seq.

    An actor numbers them one by one and delivers them in order, so a life is one range however long it
    is. Deliveries that overtake each other or are missing cost a range each.
    """

    def __init__(self) -> None:
        self._ranges: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._missing = 0

    def add(self, actor: int, epoch: int, seqs: Iterable[int]) -> None:
        """Add games of one life."""
        self._add_ranges(actor, epoch, [(seq, seq) for seq in seqs])

    def has(self, actor: int, epoch: int, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self._ranges.get((actor, epoch), ()))

    def lives(self) -> Iterable[tuple[int, int]]:
        """Return the lives, (actor, epoch), of which games were seen."""
        return self._ranges.keys()

    def missing(self) -> int:
        """Return how many games lie between those that came, or before them, and did not come themselves."""
        return self._missing

    def to_array(self) -> np.ndarray:
        """Return int64 [n, 4]: actor, epoch, first seq and last seq of each range."""
        rows = ((*life, *span) for life, spans in self._ranges.items() for span in spans)
        return _int64(chain.from_iterable(rows), columns=4)

    def add_array(self, array: np.ndarray) -> None:
        """Add the games of an array that `to_array` made."""
        for actor, epoch, first, last in array.tolist():
            self._add_ranges(actor, epoch, [(first, last)])

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        return [
            f"the games seen of actor {actor} in its life {epoch} are no rising ranges with gaps between: {ranges}"
            for (actor, epoch), ranges in self._ranges.items()
            if any(first > last or first < 0 for first, last in ranges)
            or any(before[1] + 1 >= after[0] for before, after in pairwise(ranges))
        ] + ["the games that are missing were counted wrong"] * (
            self._missing != sum(_missing(ranges) for ranges in self._ranges.values())
        )

    def _add_ranges(self, actor: int, epoch: int, added: list[tuple[int, int]]) -> None:
        merged: list[tuple[int, int]] = []
        before = self._ranges.get((actor, epoch), [])
        for first, last in sorted(before + added):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        if merged:
            self._ranges[actor, epoch] = merged
            self._missing += _missing(merged) - _missing(before)


def _missing(ranges: list[tuple[int, int]]) -> int:
    """Return how many numbers from 0 on lie before or between rising ranges."""
    return ranges[-1][1] + 1 - sum(last - first + 1 for first, last in ranges) if ranges else 0


def _int64(numbers: Iterable[int], *, columns: int) -> np.ndarray:
    """Return numbers as int64 [n, columns]; by a list of tuples, 20,000 lives take twice as long."""
    return np.fromiter(numbers, np.int64).reshape(-1, columns)


@dataclass(slots=True)
class Ledger:
    """The counters of a replay, and which games it has seen.

    Attributes:
        run, game: whose experience it is.
        seen: every game ever accepted.
        next_epochs: by actor, the next life to give out,
        first_epoch: unless this is more.
        next_number: of the next chunk.
        total_rows, total_games: ever accepted.
        draws, sampled_rows: made for the learner, and rows drawn in all of them.
        sampler_state: int64 [k, 2], see `replay.samplers.Sampler.state`.
    """

    run: str
    game: str
    seen: SeenGames = field(default_factory=SeenGames)
    next_epochs: dict[int, int] = field(default_factory=dict)
    first_epoch: int = 0
    next_number: int = 0
    total_rows: int = 0
    total_games: int = 0
    draws: int = 0
    sampled_rows: int = 0
    sampler_state: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def new_epoch(self, actor: int) -> int:
        """Return a life that was never given to `actor` before."""
        epoch = max(self.next_epochs.get(actor, 0), self.first_epoch)
        self.next_epochs[actor] = epoch + 1
        return epoch

    def enter(self, chunk: Chunk) -> None:
        """Mark what is in a chunk as seen; its actor's life was evidently given out."""
        self.seen.add(chunk.actor, chunk.epoch, chunk.seqs)
        self.next_epochs[chunk.actor] = max(self.next_epochs.get(chunk.actor, 0), chunk.epoch + 1)

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        problems = []
        if min(self.total_rows, self.total_games, self.draws, self.next_number) < 0:
            problems.append("a counter is below 0")
        for actor, epoch in self.seen.lives():
            if epoch >= max(self.next_epochs.get(actor, 0), self.first_epoch):
                problems.append(f"actor {actor} could be given its life {epoch} again")
        return problems + self.seen.check_valid()

    def encode(self) -> bytes:
        """Return the ledger as sealed bytes."""
        epochs = _int64(chain.from_iterable(self.next_epochs.items()), columns=2)
        return encode_record(
            "replay ledger",
            LEDGER_VERSION,
            {
                "run": self.run,
                "game": self.game,
                "seen": self.seen.to_array(),
                "next_epochs": epochs,
                "first_epoch": self.first_epoch,
                "next_number": self.next_number,
                "total_rows": self.total_rows,
                "total_games": self.total_games,
                "draws": self.draws,
                "sampled_rows": self.sampled_rows,
                "sampler_state": self.sampler_state,
            },
        )

    @staticmethod
    def decode(data: bytes, *, source: str) -> "Ledger":
        """Return the ledger that was encoded. Raises DataError when it is damaged or of another version."""
        match decode_record(data, "replay ledger", LEDGER_VERSION, source=source):
            case {
                "run": str(run),
                "game": str(game),
                "seen": np.ndarray(ndim=2) as seen,
                "next_epochs": np.ndarray(ndim=2) as epochs,
                "first_epoch": int(first_epoch),
                "next_number": int(next_number),
                "total_rows": int(total_rows),
                "total_games": int(total_games),
                "draws": int(draws),
                "sampled_rows": int(sampled_rows),
                "sampler_state": np.ndarray(ndim=2) as sampler_state,
            } if (seen.shape[1:], epochs.shape[1:], sampler_state.shape[1:]) == (
                (4,),
                (2,),
                (2,),
            ) and seen.dtype == epochs.dtype == sampler_state.dtype == np.int64:
                ledger = Ledger(
                    run=run,
                    game=game,
                    next_epochs=dict(epochs.tolist()),
                    first_epoch=first_epoch,
                    next_number=next_number,
                    total_rows=total_rows,
                    total_games=total_games,
                    draws=draws,
                    sampled_rows=sampled_rows,
                    sampler_state=sampler_state,
                )
                ledger.seen.add_array(seen)
                return ledger
        raise DataError(
            f"{source} is no replay ledger",
            why="its fields are not those of one",
            fix="check where it comes from",
        )
