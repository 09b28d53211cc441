"""Sound samples for tests of what stores and learns them: random ranges on random boards, made-up values."""

import numpy as np

from core.hands import BOARD_CARDS, Street
from core.seeds import derive_rng
from replay.hand_shards import HandShardAbout, hands_on

STACK = 20_000.0


def about(street: Street = "river", **facts: object) -> HandShardAbout:
    return HandShardAbout(street=street, stack=STACK, bet_sizes=(1.0,), about=facts)


def stored(ranges: np.ndarray) -> np.ndarray:
    """Return ranges [..., H] of any sum in units of their mean."""
    return (ranges / ranges.mean(-1, keepdims=True)).astype(np.float16)


def some_samples(count: int, *, street: Street = "river", seed: int = 0) -> dict[str, np.ndarray]:
    rng = derive_rng(seed, "samples")
    cards, hands = BOARD_CARDS[street], hands_on(street)
    boards = [rng.permutation(52)[:cards] for _ in range(count)]
    return {
        "board": np.array(boards, np.uint8).reshape(count, cards),
        "pot_half": rng.integers(100, 20_000, count).astype(np.float32),
        "ranges": stored(rng.gamma(0.5, size=(count, 2, hands))),
        "values": rng.uniform(-1, 1, (count, 2, hands)).astype(np.float16),
        "exploitability": rng.uniform(0, 0.003, count).astype(np.float32),
        "iterations": rng.integers(100, 1000, count).astype(np.int32),
        "number": np.arange(count, dtype=np.int64),
    }
