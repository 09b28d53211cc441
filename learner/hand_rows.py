"""Batches of solved situations of hold'em, in an order that a seed and the number of samples drawn determine.

Samples lie in memory as they lie in shards, which takes 9 kB for each.

Shapes: `R` samples, `H` hands that the board does not block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from core.errors import UsageError
from core.hands import HandValueSpec
from core.seeds import derive_rng
from learner.objective import ROW_ID, Columns
from poker.holdem import RIVER_CARDS, TURN_CARDS, board_hands, weakest_first
from poker.showdowns import values_of_showdowns
from replay.hand_shards import BOARD_CARDS, HandShardInfo, load_hand_info, read_hand_shard


@dataclass(frozen=True, slots=True, eq=False)
class HandRows:
    """Samples in memory.

    Attributes:
        columns: [R, …], what `learner.hand_objective` reads but for the order of hands, "exploitability" and "number".
        orders: int16 [boards, H], hands from the weakest to the strongest, where that order is wanted; else none.
        boards: int64 [R], which of `orders` is of each sample.
        digests: of the shards.
    """

    columns: Columns
    orders: np.ndarray | None
    boards: np.ndarray
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.boards)

    def take(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Return samples as a batch, with the columns of `ROW_ID`."""
        batch = {name: column[rows] for name, column in self.columns.items()}
        if self.orders is not None:
            batch["weakest_first"] = self.orders[self.boards[rows]]
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


@lru_cache(maxsize=2)
def _order_of_pass(seed: int, number: int, count: int) -> np.ndarray:
    return derive_rng(seed, "hand rows", number).permutation(count)


def load_hand_rows(paths: Sequence[Path], spec: HandValueSpec, *, most: int | None = None) -> HandRows:
    """Return the samples of shards, at most the first `most`.

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
        for name, column in columns.items():
            column[start:stop] = rows[name][: stop - start]
        start = stop
    orders, boards = _orders(columns["board"], spec)
    if orders is not None:
        columns["showdown"] = showdown_values(columns["board"], columns["ranges"], boards)
    return HandRows(columns, orders, boards, tuple(info.digest for info in infos))


def _check_alike(paths: Sequence[Path], infos: Sequence[HandShardInfo], spec: HandValueSpec) -> None:
    for path, info in zip(paths, infos, strict=True):
        if BOARD_CARDS[info.street] != spec.cards:
            raise UsageError(
                f"{path} cannot be used",
                why=f"its samples are of the {info.street}, the network is for {spec.cards} cards on the board",
                fix="name shards of one street",
            )
        if info.bet_sizes != infos[0].bet_sizes:
            raise UsageError(
                f"{path} and {paths[0]} cannot be mixed",
                why=f"they were solved with bets of {list(info.bet_sizes)} and {list(infos[0].bet_sizes)} pots",
                fix="fit a network of its own to each",
            )


def _empty(count: int, spec: HandValueSpec) -> dict[str, np.ndarray]:
    return {
        "board": np.empty((count, spec.cards), np.uint8),
        "pot": np.empty(count, np.float32),
        "ranges": np.empty((count, 2, spec.hands), np.float16),
        "values": np.empty((count, 2, spec.hands), np.float16),
        "exploitability": np.empty(count, np.float32),
        "number": np.empty(count, np.int64),
    }


def _orders(boards: np.ndarray, spec: HandValueSpec) -> tuple[np.ndarray | None, np.ndarray]:
    if spec.order != "strength":
        return None, np.zeros(len(boards), np.int64)
    if spec.cards not in (TURN_CARDS, RIVER_CARDS):
        raise UsageError(
            f"hands on {spec.cards} cards have no order of strength",
            why="they are compared on boards of four or five cards",
            fix="fit with order=numbers",
        )
    different, which = np.unique(np.sort(boards, axis=1), axis=0, return_inverse=True)
    return np.stack([order_of(tuple(board)) for board in different.tolist()]), which.reshape(-1)


def showdown_values(boards: np.ndarray, ranges: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return float16 [R, 2, H]: what hands would win in a showdown at once, as "values" are.

    Args:
        boards: uint8 [R, cards].
        ranges: float16 [R, 2, H], in units of their mean.
        which: int64 [R], equal for rows of equal boards.
    """
    values = np.empty_like(ranges)
    by_board = np.argsort(which, kind="stable")
    for rows in np.split(by_board, np.flatnonzero(np.diff(which[by_board])) + 1):
        hands = board_hands(tuple(sorted(boards[rows[0]].tolist())))
        numbered = np.argsort(hands.numbers)
        found = values_of_showdowns(
            hands, ranges[rows].astype(np.float64)[:, :, np.argsort(numbered)] / ranges.shape[2]
        )
        values[rows] = found[:, :, numbered]
    return values


def order_of(board: tuple[int, ...]) -> np.ndarray:
    """Return int16 [H], the numbers of the hands that a board does not block, the weakest first."""
    hands = board_hands(board)
    return hands.numbers[np.argsort(weakest_first(hands), kind="stable")].astype(np.int16)
