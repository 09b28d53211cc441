"""Random games, many side by side."""

from collections.abc import Iterator

import numpy as np

from games.game import Game, States


def play_random_games(
    game: Game, count: int, *, seed: int
) -> Iterator[tuple[States, np.ndarray, np.ndarray]]:
    """Before each ply, yield (pool, rows still in play int32 [B], a legal action for each int16 [B]).

    Every other row prefers the last action of all, for that is hex's swap, which chance seldom takes.
    """
    rng = np.random.default_rng(seed)
    states = game.new_states(count)
    rows = np.arange(count, dtype=np.int32)
    game.new(states, rows)
    while rows.size:
        preferences = np.where(game.legal(states, rows), rng.random((rows.size, game.num_actions)), -1)
        preferences[::2, -1] *= 2
        actions = preferences.argmax(axis=1).astype(np.int16)
        yield states, rows, actions
        game.play(states, rows, actions, rows)
        rows = rows[~game.outcome(states, rows)[0]]


def positions(game: Game, count: int, *, seed: int) -> tuple[States, np.ndarray]:
    """Return (pool, rows int32 [count]) with positions in play from all stages of random games."""
    rng = np.random.default_rng(seed)
    kept = game.new_states(count)
    filled = 0
    while filled < count:
        for states, rows, _ in play_random_games(game, 16, seed=int(rng.integers(2**32))):
            chosen = rows[rng.random(rows.size) < 0.2][: count - filled]
            for row in chosen:
                game.restore(kept, filled, game.snapshot(states, row))
                filled += 1
    return kept, np.arange(count, dtype=np.int32)
