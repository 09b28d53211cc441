"""Positions of random play from all plies, for benchmarks that should meet what games meet."""

import numpy as np

from core.seeds import derive_rng
from games.game import Game, States


def random_positions(game: Game, count: int, *, seed: int) -> dict[str, np.ndarray]:
    """Return `count` encoded positions of uniformly random play, from all plies: named arrays [count, ...]."""
    states = game.new_states(count)
    rows = np.arange(count, dtype=np.int32)
    play_at_random(game, states, rows, seed=seed)
    arrays, _ = game.encode(states, rows, np.zeros(count, np.int8))
    return dict(arrays)


def play_at_random(game: Game, states: States, rows: np.ndarray, *, seed: int) -> None:
    """Begin a game in every row, int32 [B], and play at random to a random ply, at most to the last undecided one."""
    rng = derive_rng(seed, "random positions")
    game.new(states, rows)
    stop_at = rng.integers(game.max_plies, size=len(rows))
    for ply in range(game.max_plies):
        legal = game.legal(states, rows)
        playing = np.flatnonzero((stop_at > ply) & legal.any(axis=1))
        if not len(playing):
            return
        actions = np.where(legal[playing], rng.random((len(playing), game.num_actions)), -1.0).argmax(axis=1)
        ended = _play_if_undecided(game, states, rows[playing], actions.astype(np.int16))
        stop_at[playing[ended]] = 0


def _play_if_undecided(game: Game, states: States, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Play one move in every row and take it back where it ends the game; return bool [B] where it did."""
    before = [game.snapshot(states, int(row)) for row in rows]
    game.play(states, rows, actions, rows)
    ended = game.outcome(states, rows)[0]
    for index in np.flatnonzero(ended):
        game.restore(states, int(rows[index]), before[index])
    return ended
