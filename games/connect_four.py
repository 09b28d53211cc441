"""Connect four: stones fall into columns, seven of six cells or a board of another size; four in a row win."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from core.errors import UsageError
from core.messages import Arrays, BoardSpec
from games import grid, notation
from games.grid import DRAWN, IN_PLAY, WON, GridStates

SMALLEST, LARGEST = 4, 9
_WIDTH, _HEIGHT = 7, 6  # as it is sold; such a board needs no size in its name
_ROOM = 64
"""Cells that a row of the pool has for any board, those behind the board always empty: a number that the compiler knows
makes one vector instruction of each step through them, and one word has a bit for each."""


class ConnectFour:
    """The rules of connect four. Player 0 moves ●. An action is a column, counted from the left.

    Args:
        width: how many columns, from 4 to 9, so that a digit names each.
        height: how many cells a column has, from 4 to 9. A board has at most 64 cells.

    Raises:
        UsageError: when the size is out of range.
    """

    num_symmetries = 2

    def __init__(self, width: int = _WIDTH, height: int = _HEIGHT) -> None:
        sides_fit = min(width, height) >= SMALLEST and max(width, height) <= LARGEST
        if not sides_fit or width * height > _ROOM:
            raise UsageError(
                f"connect four on {width} columns of {height} cells is not played here",
                why=f"there must be {SMALLEST} to {LARGEST} of both, and at most {_ROOM} cells on the board",
                fix=f"choose one such as {_name(*_nearest(width, height))}",
            )
        self.name = _name(width, height)
        self.width = width
        self.height = height
        self.num_actions = width
        self.max_plies = width * height
        self.board = BoardSpec(height=height, width=width, policy="columns")
        columns = np.arange(width, dtype=np.int16)
        cells = np.arange(width * height, dtype=np.int16).reshape(height, width)
        self.views = np.stack([columns, columns[::-1]])
        self._cell_views = np.stack([cells.ravel(), cells[:, ::-1].ravel()]).astype(np.uint16)
        self._starts = _starts(width, height)
        self._names = [str(column + 1) for column in range(width)]

    def new_states(self, capacity: int) -> GridStates:
        return grid.new_states(capacity, _ROOM)

    def new(self, states: GridStates, rows: np.ndarray) -> None:
        grid.reset_rows(*states, rows)

    def copy(self, states: GridStates, sources: np.ndarray, targets: np.ndarray) -> None:
        grid.copy_rows(*states, sources, targets)

    def play(
        self, states: GridStates, parents: np.ndarray, actions: np.ndarray, children: np.ndarray
    ) -> None:
        _play(*states, self.width, self.height, self._starts, parents, actions, children)

    def legal(self, states: GridStates, rows: np.ndarray) -> np.ndarray:
        return _legal(states.cells, states.results, self.width, rows)

    def to_play(self, states: GridStates, rows: np.ndarray) -> np.ndarray:
        return grid.players_to_move(states.plies, rows)

    def outcome(self, states: GridStates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return grid.outcomes(states.results, rows)

    def encode(
        self, states: GridStates, rows: np.ndarray, symmetries: np.ndarray
    ) -> tuple[Arrays, np.ndarray]:
        cells, views = grid.encode_cells(states.cells, states.plies, self._cell_views, 0, rows, symmetries)
        return {"cells": cells}, views

    def snapshot(self, states: GridStates, row: int) -> bytes:
        return grid.snapshot(states, row, name=self.name, num_cells=self.max_plies)

    def restore(self, states: GridStates, row: int, data: bytes) -> None:
        grid.restore(states, row, data, name=self.name, num_cells=self.max_plies)

    def action_name(self, action: int) -> str:
        return self._names[action]

    def parse_action(self, text: str) -> int:
        return notation.parse_name(text, self._names, game=self.name)

    def render(self, states: GridStates, row: int) -> str:
        stones = notation.stones(states.cells[row, : self.max_plies], empty="·", first="●", second="○")
        rows = [stones[start : start + self.width] for start in range(0, self.max_plies, self.width)]
        lines = [f"│ {' '.join(row)} │" for row in rows]
        return "\n".join([*lines, f"└{'─' * (2 * self.width + 1)}┘", f"  {' '.join(self._names)}"])

    def game_line(self, actions: Sequence[int], outcome: float) -> str:
        """Return a line such as `connect_four,4433522 x`: a digit a move, then x (moved first), o or draw."""
        return notation.game_line(self.name, "".join(self._names[action] for action in actions), outcome)


def _name(width: int, height: int) -> str:
    return "connect_four" if (width, height) == (_WIDTH, _HEIGHT) else f"connect_four_{width}x{height}"


def _starts(width: int, height: int) -> tuple[np.uint64, np.uint64]:
    """Return the cells from which a line of four may go on to the right, and to the left, as bits."""
    cells = np.arange(width * height)
    columns = cells % width
    bits = np.uint64(1) << cells.astype(np.uint64)
    return (bits[columns <= width - 4].sum(dtype=np.uint64), bits[columns >= 3].sum(dtype=np.uint64))


def _nearest(width: int, height: int) -> tuple[int, int]:
    """Return a size that is played: no wider than there are digits, and lowered until a word holds it."""
    width = min(max(width, SMALLEST), LARGEST)
    return width, min(max(height, SMALLEST), LARGEST, _ROOM // width)


@njit(cache=True, nogil=True)
def _play(cells, plies, results, width, height, starts, parents, actions, children):
    num_cells = width * height
    for i in range(len(parents)):
        parent, child, column = parents[i], children[i], actions[i]
        ply = plies[parent]
        stone = np.int8(1 - 2 * (ply & 1))
        line = height - 1
        for above in range(height):
            line -= cells[parent, above * width + column] != 0
        cell = line * width + column
        stones = np.uint64(1) << np.uint64(cell)
        for k in range(_ROOM):
            cells[child, k] = cells[parent, k]
            stones |= np.uint64(cells[parent, k] == stone) << np.uint64(k)
        cells[child, cell] = stone
        plies[child] = ply + 1
        if _has_four(stones, width, starts):
            results[child] = WON
        else:
            results[child] = DRAWN if ply + 1 == num_cells else IN_PLAY


@njit(cache=True, nogil=True, forceinline=True)
def _has_four(stones, width, starts):
    """Tell whether there are four in a line among the stones of one player; bit n of `stones` is cell n."""
    to_the_right, to_the_left = starts
    return (
        _lines(stones, 1) & to_the_right
        | _lines(stones, width)
        | _lines(stones, width + 1) & to_the_right
        | _lines(stones, width - 1) & to_the_left
    ) != 0


@njit(cache=True, nogil=True, forceinline=True)
def _lines(stones, step):
    """Return the cells where four stones begin, each `step` cells behind the one before."""
    pairs = stones & (stones >> np.uint64(step))
    return pairs & (pairs >> np.uint64(2 * step))


@njit(cache=True, nogil=True)
def _legal(cells, results, width, rows):
    legal = np.empty((len(rows), width), np.bool_)
    for i in range(len(rows)):
        in_play = results[rows[i]] == IN_PLAY
        for column in range(width):
            legal[i, column] = in_play & (cells[rows[i], column] == 0)
    return legal
