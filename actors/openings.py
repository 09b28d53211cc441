"""Random openings, so that players who always move alike still play different games."""

from typing import TypeAlias

import numpy as np

from core.errors import UsageError
from core.seeds import derive_rng
from games.game import Game, States

Opening: TypeAlias = tuple[int, ...]
"""Moves from the start of a game."""

_TRIES = 32


def random_openings(game: Game, *, pairs: int, plies: int, seed: int) -> list[Opening]:
    """Return `pairs` openings of `plies` random moves that leave the game undecided.

    They lead to different positions, as their snapshots tell, as long as some are found; a small game repeats
    itself. Opening p derives from (seed, p) and from those before it.

    Raises:
        UsageError: when random games are over before `plies` moves.
    """
    states = game.new_states(1)
    seen: set[bytes] = set()
    openings: list[Opening] = []
    for pair in range(pairs):
        opening = _draw_opening(game, states, plies=plies, rng=derive_rng(seed, "opening", pair), seen=seen)
        if opening is None:
            raise UsageError(
                f"{game.name} cannot be opened with {plies} random plies",
                why=f"in {_TRIES} tries the game was over by then (it lasts {game.max_plies} at most)",
                fix="choose fewer plies, such as 2",
            )
        openings.append(opening)
    return openings


def _draw_opening(
    game: Game, states: States, *, plies: int, rng: np.random.Generator, seen: set[bytes]
) -> Opening | None:
    """Return an opening to a position that is not in `seen` and add it, or else the last that was drawn."""
    opening = None
    for _ in range(_TRIES):
        drawn = _random_moves(game, states, plies=plies, rng=rng)
        if drawn is None:
            continue
        opening = drawn
        position = game.snapshot(states, 0)
        if position not in seen:
            seen.add(position)
            break
    return opening


def _random_moves(game: Game, states: States, *, plies: int, rng: np.random.Generator) -> Opening | None:
    """Play random moves from the start in row 0; None when they end the game."""
    row = np.zeros(1, np.int32)
    game.new(states, row)
    moves = []
    for _ in range(plies):
        legal = np.flatnonzero(game.legal(states, row)[0])
        if len(legal) == 0:
            return None
        moves.append(int(rng.choice(legal)))
        game.play(states, row, np.array(moves[-1:], np.int16), row)
    return None if game.outcome(states, row)[0][0] else tuple(moves)
