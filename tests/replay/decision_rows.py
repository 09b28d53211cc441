"""Rows of decisions in which the right choice can be seen: it is told by the sign of each of two numbers."""

from pathlib import Path

import numpy as np

from replay.decision_shards import DecisionAbout, DecisionWriter

FEATURES, SLOTS = 5, 4
ABOUT = DecisionAbout("a toy", 1, FEATURES, SLOTS)


def game_rows(game: int, count: int = 6) -> dict[str, np.ndarray]:
    """Return the rows of a game that its first seat won, if its number is even.

    Of kind 0 the slots 1 and 2 can be chosen, of kind 1 the slots 0 and 3; a number above 0 says the later of the two.
    """
    rng = np.random.default_rng(game)
    vector = rng.normal(0, 1, (count, FEATURES)).astype(np.float16)
    kind = rng.integers(0, 2, count).astype(np.int16)
    slots = np.array([[1, 2], [0, 3]])[kind]
    mask = np.zeros((count, SLOTS), bool)
    np.put_along_axis(mask, slots, True, axis=1)
    later = np.take_along_axis(vector, kind[:, None].astype(np.int64), axis=1)[:, 0] > 0
    outcome = np.where(np.arange(count) % 2 == game % 2, 1, -1).astype(np.float32)
    vector[:, 4] = outcome
    return {
        "vector": vector,
        "mask": mask,
        "choice": np.where(later, slots[:, 1], slots[:, 0]),
        "outcome": outcome,
        "value_weight": np.ones(count, np.float32),
        "kind": kind,
        "game": np.full(count, game, np.uint64),
        "ply": np.arange(count, dtype=np.int32),
    }


def write_games(folder: Path, games: int, *, first: int = 0, shard_rows: int = 100) -> DecisionWriter:
    writer = DecisionWriter(folder, ABOUT, shard_rows=shard_rows)
    for game in range(first, first + games):
        writer.add(game, game_rows(game), {"labels_missing": game % 3})
    writer.flush()
    return writer
