"""Sound rows for tests of what stores and moves them: random stones on a board, no game that anybody played."""

import numpy as np

from core.seeds import derive_rng, derive_seed
from replay.shards import ShardAbout, pack_cells


def about(size: int = 5, *sources: str) -> ShardAbout:
    return ShardAbout(game=f"hex{size}", cells=size * size, sources=sources or ("a.trmph",))


def some_rows(games: int, *, size: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the rows of `games` games of random lengths, all positions of each in order."""
    rng = derive_rng(seed, "rows")
    made = [_rows_of(size * size, rng, derive_seed(seed, "game", number)) for number in range(games)]
    return {name: np.concatenate([one[name] for one in made]) for name in made[0]}


def _rows_of(cells: int, rng: np.random.Generator, game: int) -> dict[str, np.ndarray]:
    moves = rng.permutation(cells)[: rng.integers(1, cells + 1)]
    plies = len(moves)
    boards = np.zeros((plies + 1, cells), np.int8)
    for ply, move in enumerate(moves):
        boards[ply + 1 :, move] = 1 - 2 * (ply % 2)
    to_move = (1 - 2 * (np.arange(plies + 1) % 2)).astype(np.int8)
    return {
        "stones": pack_cells(boards * to_move[:, None]),
        "action": np.append(moves, -1).astype(np.int16),
        "outcome": to_move * np.int8(rng.integers(-1, 2)),
        "game": np.full(plies + 1, game, np.uint64),
        "ply": np.arange(plies + 1, dtype=np.int16),
        "plies": np.full(plies + 1, plies, np.int16),
    }
