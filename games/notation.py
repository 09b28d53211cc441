"""Text forms that the games share: names of cells, what a person typed, one line a finished game."""

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from core.errors import UsageError


def cell_names(height: int, width: int) -> list[str]:
    """Return the names of the cells from the top left: column letter, then row number ("a1" … )."""
    return [f"{ascii_lowercase[column]}{row + 1}" for row in range(height) for column in range(width)]


def parse_name(typed: str, names: Sequence[str], *, game: str) -> int:
    """Return the place of `typed` in `names`, whatever its case. Raises UsageError when it is not there."""
    plain = typed.strip().lower()
    if plain not in names:
        raise UsageError(
            f"{typed!r} is not a move of {game}",
            why=f"its moves are called {names[0]}, {names[1]}, … {names[-1]}",
            fix=f"type a move such as {names[len(names) // 2]}",
        )
    return names.index(plain)


def stones(cells: np.ndarray, *, empty: str, first: str, second: str) -> list[str]:
    """Return one character for each of `cells`: positive for the first player, negative the second."""
    return [first if cell > 0 else second if cell < 0 else empty for cell in cells]


def game_line(game: str, moves: str, outcome: float) -> str:
    """Return `game,moves x`; the last word is x (who moved first won), o or draw."""
    winner = "x" if outcome > 0 else "o" if outcome < 0 else "draw"
    return f"{game},{moves} {winner}"
