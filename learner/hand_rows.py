"""Batches of solved situations of hold'em, in an order that a seed and the number of samples drawn determine.

Samples lie in memory with their hands the weakest first, as a network sees them, and what each would win in a showdown:
13 kB for each.

Shapes: `R` samples, `H` hands that the board does not block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from core.errors import UsageError
from core.hands import HandValueSpec
from core.seeds import derive_rng
from learner.objective import ROW_ID, Columns
from poker.holdem import board_hands
from poker.showdowns import values_of_showdowns
from replay.hand_shards import HandShardInfo, load_hand_info, read_hand_shard


@dataclass(frozen=True, slots=True, eq=False)
class HandRows:
    """Samples in memory.

    Attributes:
        columns: [R, …], what `learner.hand_objective` reads, "exploitability" and "number".
        digests: of the shards.
    """

    columns: Columns
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns["number"])

    def take(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Return samples as a batch, with the columns of `ROW_ID`."""
        batch = {name: column[rows] for name, column in self.columns.items()}
        number = batch.pop("number")
        return batch | {name: number if name == "seq" else np.zeros_like(number) for name in ROW_ID}

    def batch(self, drawn: int, rows: int, *, seed: int) -> dict[str, np.ndarray]:
        """Return the `rows` samples that follow the first `drawn`: pass after pass, each in another order."""
        picked = []
        while rows > 0:
            number, place = divmod(drawn, len(self))
            picked.append(_order_of_pass(seed, number, len(self))[place : place + rows])
            drawn, rows = drawn + len(picked[-1]), rows - len(picked[-1])
        return self.take(np.concatenate(picked))

    def parts(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield all samples in their order, up to `size` at a time."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))


_ALIKE = ("later_bet_sizes", "network")
"""What else sidecars have to say alike of samples that are learnt from together."""


@lru_cache(maxsize=2)
def _order_of_pass(seed: int, number: int, count: int) -> np.ndarray:
    return derive_rng(seed, "hand rows", number).permutation(count)


def load_hand_rows(
    paths: Sequence[Path],
    spec: HandValueSpec,
    *,
    most: int | None = None,
    progress: Callable[[float, float, str], None] = lambda done, total, unit: None,
) -> HandRows:
    """Return the samples of shards, at most the first `most`.

    To find the order of hands takes 2 s for each flop, 0.1 s for each turn.

    Args:
        progress: told (done, total, unit) of what is read.

    Raises:
        UsageError: when there are none, or they are of another street, or were solved with different bet sizes.
        DataError: when a shard is damaged.
    """
    infos = [load_hand_info(path) for path in paths]
    _check_alike(paths, infos, spec)
    total = sum(info.count for info in infos)
    total = total if most is None else min(total, most)
    if total == 0:
        raise UsageError(
            "there are no samples",
            why=f"{len(paths)} shards hold none",
            fix="name shards that `tamen datagen` made",
        )
    columns = _empty(total, spec)
    start = 0
    for path, info in zip(paths, infos, strict=True):
        if start == total:
            break
        rows = read_hand_shard(path)
        rows["pot"] = (rows["pot_half"] / info.stack).astype(np.float32)
        stop = min(total, start + info.count)
        seen = as_seen({name: column[: stop - start] for name, column in rows.items()})
        for name, column in columns.items():
            column[start:stop] = seen[name]
        start = stop
        progress(start, total, "samples read")
    return HandRows(columns, tuple(info.digest for info in infos))


def as_seen(rows: Columns) -> dict[str, np.ndarray]:
    """Return rows of a shard with their hands the weakest first, and "showdown" float16 [R, 2, H] beside them.

    Args:
        rows: the columns of `replay.hand_shards`.
    """
    seen = {**rows, **{name: np.empty_like(rows["values"]) for name in ("ranges", "values", "showdown")}}
    boards, which = np.unique(np.sort(rows["board"], axis=1), axis=0, return_inverse=True)
    for number, board in enumerate(boards.tolist()):
        hands = board_hands(tuple(board))
        places = np.argsort(np.argsort(hands.numbers))
        own = np.flatnonzero(which.reshape(-1) == number)
        ranges = rows["ranges"][own][:, :, places]
        seen["ranges"][own], seen["values"][own] = ranges, rows["values"][own][:, :, places]
        seen["showdown"][own] = values_of_showdowns(hands, ranges.astype(np.float64) / ranges.shape[2])
    return seen


def _check_alike(paths: Sequence[Path], infos: Sequence[HandShardInfo], spec: HandValueSpec) -> None:
    for path, info in zip(paths, infos, strict=True):
        if info.street != spec.street:
            raise UsageError(
                f"{path} cannot be used",
                why=f"its samples are of the {info.street}, the network is for the {spec.street}",
                fix="name shards of one street",
            )
        if info.bet_sizes != infos[0].bet_sizes:
            raise UsageError(
                f"{path} and {paths[0]} cannot be mixed",
                why=f"they were solved with bets of {list(info.bet_sizes)} and {list(infos[0].bet_sizes)} pots",
                fix="fit a network of its own to each",
            )
        if other := [fact for fact in _ALIKE if info.about.get(fact) != infos[0].about.get(fact)]:
            raise UsageError(
                f"{path} and {paths[0]} cannot be mixed",
                why=f"they were made with another {' and another '.join(other)}",
                fix="fit a network of its own to each",
            )


def _empty(count: int, spec: HandValueSpec) -> dict[str, np.ndarray]:
    hands = (count, 2, spec.hands)
    return {
        "pot": np.empty(count, np.float32),
        "ranges": np.empty(hands, np.float16),
        "showdown": np.empty(hands, np.float16),
        "values": np.empty(hands, np.float16),
        "exploitability": np.empty(count, np.float32),
        "number": np.empty(count, np.int64),
    }
