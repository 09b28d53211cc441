"""What GTP asks about a position of Go beyond the rules: the board as text, and the score in points."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def stones_of(state: Any, size: int) -> np.ndarray:
    """Return int8 [size, size] of a `pyspiel.GoState`: 1 black, -1 white, 0 empty; row 0 is the lowest."""
    black, white = np.array(state.observation_tensor(0), np.int8).reshape(-1, size, size)[:2]
    return black - white


def area_score(stones: np.ndarray, komi: float) -> float:
    """Return black's points less white's and the komi: stones, and empty regions that touch one colour alone.

    All stones count as alive, as in the rules of Tromp and Taylor, by which OpenSpiel plays.
    """
    score = float(stones.sum()) - komi
    size = len(stones)
    left = {(row, column) for row in range(size) for column in range(size) if stones[row, column] == 0}
    while left:
        region, border = [left.pop()], set[int]()
        for row, column in region:  # which grows meanwhile
            for point in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if point in left:
                    left.remove(point)
                    region.append(point)
                elif 0 <= point[0] < size and 0 <= point[1] < size and stones[point]:
                    border.add(int(stones[point]))
        if len(border) == 1:
            score += border.pop() * len(region)
    return score


def board_text(stones: np.ndarray, columns: Sequence[str]) -> str:
    """Return the board as lines of text, the highest row first; `columns` are their names."""
    letters = "   " + " ".join(columns)
    lines = [
        f"{row + 1:>2} {' '.join('·●○'[stone] for stone in stones[row])} {row + 1}"
        for row in reversed(range(len(stones)))
    ]
    return "\n".join([f"{letters}   ● black, ○ white", *lines, letters])
