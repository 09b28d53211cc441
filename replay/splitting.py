"""Which games are kept apart for validation: decided for each game by itself, from its number alone.

So all rows of a game are on one side, in this data set and in every other that holds the game, whatever else is in them
and however they were shuffled. A greater share keeps the games of a smaller one apart, and more.
"""

import numpy as np

from core.seeds import mix_keys, unit_floats

# Fixed for ever: another would let games that models were judged by into what they learn from.
_SALT = 0x7A6D656E


def is_validation(games: np.ndarray, share: float) -> np.ndarray:
    """Return bool [R]: whether rows of `games` uint64 [R] belong to the `share` of games kept for validation."""
    return unit_floats(mix_keys(games, _SALT)) < share
