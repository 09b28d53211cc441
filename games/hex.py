"""Hex: two players lay stones on a rhombus of hexagons, each to join two opposite sides. There are no draws.

A cell (r, c) touches (r-1, c), (r-1, c+1), (r, c-1), (r, c+1), (r+1, c-1) and (r+1, c).
"""

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np
from numba import njit

from core.errors import UsageError
from core.messages import Arrays, BoardSpec
from games import grid, notation
from games.grid import IN_PLAY, WON, GridStates

SMALLEST, LARGEST = 3, 19

# A stone's magnitude is 1 + the sides of its owner that its group touches.
_FIRST_SIDE, _LAST_SIDE = 1, 2
_BOTH_SIDES = _FIRST_SIDE | _LAST_SIDE
_TRANSPOSED = 2  # the first view of red


class Hex:
    """The rules of Hex on N×N cells. Player 0, blue, joins top to bottom; player 1, red, left to right.

    Actions 0 … N²-1 are cells, row by row from the top left. With the swap rule there is one more, N²: red
    may answer the first stone by making it its own, mirrored in the diagonal through a1, so that it is worth
    to red what it was worth to blue ("swap pieces").

    Args:
        size: N, from 3 to 19.
        swap: whether red may swap.

    Raises:
        UsageError: when the size is out of range.
    """

    num_symmetries = 2

    def __init__(self, size: int, *, swap: bool = False) -> None:
        if not SMALLEST <= size <= LARGEST:
            raise UsageError(
                f"hex boards of size {size} are not played here",
                why=f"the size must be from {SMALLEST} to {LARGEST}",
                fix=f"choose one such as hex{min(max(size, SMALLEST), LARGEST)}",
            )
        self.name = f"hex{size}-swap" if swap else f"hex{size}"
        self.size = size
        self.board = BoardSpec(height=size, width=size, extra_actions=int(swap), goal_edges=True)
        self.num_actions = self.board.num_actions
        self.max_plies = self.num_actions
        self.views = _views(size, self.num_actions)
        self._num_cells = size * size
        self._cell_views = self.views[:, : self._num_cells].astype(np.uint16)
        self._neighbours = _neighbours(size)
        self._sides = _sides(size)
        self._names = notation.cell_names(size, size) + ["swap"] * swap

    def new_states(self, capacity: int) -> GridStates:
        return grid.new_states(capacity, self._num_cells + 1)

    def new(self, states: GridStates, rows: np.ndarray) -> None:
        grid.reset_rows(*states, rows)

    def copy(self, states: GridStates, sources: np.ndarray, targets: np.ndarray) -> None:
        grid.copy_rows(*states, sources, targets)

    def play(
        self, states: GridStates, parents: np.ndarray, actions: np.ndarray, children: np.ndarray
    ) -> None:
        mirrored = self._cell_views[_TRANSPOSED]
        _play(*states, self._neighbours, self._sides, mirrored, parents, actions, children)

    def skip_turn(self, states: GridStates, row: int) -> None:
        """Give the turn to the other player, which the rules never do: for positions that others set up."""
        states.plies[row] += 1
        if states.plies[row] == 1:  # at which red might swap
            states.plies[row] += 2

    def legal(self, states: GridStates, rows: np.ndarray) -> np.ndarray:
        return _legal(*states, self._num_cells, self.num_actions, rows)

    def to_play(self, states: GridStates, rows: np.ndarray) -> np.ndarray:
        return grid.players_to_move(states.plies, rows)

    def outcome(self, states: GridStates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return grid.outcomes(states.results, rows)

    def encode(
        self, states: GridStates, rows: np.ndarray, symmetries: np.ndarray
    ) -> tuple[Arrays, np.ndarray]:
        """See `Game`. While red may swap, the one stone on the board is shown as red's own."""
        cells, views = grid.encode_cells(
            states.cells, states.plies, self._cell_views, _TRANSPOSED, rows, symmetries
        )
        if self.board.extra_actions:
            # After a swap blue sees just what red sees now, one stone of the other's, but may not take it.
            cells[states.plies[rows] == 1] *= -1
        return {"cells": cells}, views

    def snapshot(self, states: GridStates, row: int) -> bytes:
        return grid.snapshot(states, row, name=self.name, num_cells=self._num_cells)

    def restore(self, states: GridStates, row: int, data: bytes) -> None:
        grid.restore(states, row, data, name=self.name, num_cells=self._num_cells)

    def action_name(self, action: int) -> str:
        return self._names[action]

    def parse_action(self, text: str) -> int:
        return notation.parse_name(text, self._names, game=self.name)

    def render(self, states: GridStates, row: int) -> str:
        stones = notation.stones(states.cells[row, : self._num_cells], empty="·", first="●", second="○")
        return _rhombus(stones, self.size)

    def game_line(self, actions: Sequence[int], outcome: float) -> str:
        """Return a .trmph line such as `#5,c3b2a4 b`: the moves, then the winner, b(lue) or r(ed).

        A swap, for which .trmph has no word of its own, stands as `swap` among the moves: `#5,a2swapc3 r`.
        """
        moves = "".join(self._names[action] for action in actions)
        return f"#{self.size},{moves} {'b' if outcome > 0 else 'r'}"


def _views(size: int, num_actions: int) -> np.ndarray:
    """Return int16 [4, A]: blue as is, turned by 180°; red transposed, and turned: all join top to bottom."""
    board = np.arange(size * size).reshape(size, size)
    views = np.tile(np.arange(num_actions, dtype=np.int16), (4, 1))
    # Each of the four undoes itself, so where a cell goes is where it comes from.
    for view, seen in enumerate((board, board[::-1, ::-1], board.T, board.T[::-1, ::-1])):
        views[view, : size * size] = seen.ravel()
    return views


def _neighbours(size: int) -> np.ndarray:
    """Return uint16 [N², 6]: the cells that each cell touches; N², which is always empty, stands for none."""
    neighbours = np.full((size * size, 6), size * size, np.uint16)
    for row in range(size):
        for column in range(size):
            for k, (down, right) in enumerate(((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0))):
                if 0 <= row + down < size and 0 <= column + right < size:
                    neighbours[row * size + column, k] = (row + down) * size + column + right
    return neighbours


def _sides(size: int) -> np.ndarray:
    """Return int8 [2, N²]: for each player, the own sides that a stone on each cell touches by itself."""
    rows, columns = np.divmod(np.arange(size * size), size)
    along = np.stack([rows, columns])
    return ((along == 0) * _FIRST_SIDE + (along == size - 1) * _LAST_SIDE).astype(np.int8)


def _rhombus(stones: Sequence[str], size: int) -> str:
    """Return the slanted board: ● joins the lines at top and bottom, ○ those at left and right."""
    letters = " ".join(ascii_lowercase[:size])
    line = "═" * (2 * size + 1)
    lines = [f"     {letters}   ● joins top and bottom", f"   ╔{line}╗"]
    for row in range(size):
        lines.append(
            f"{' ' * row}{row + 1:>3} ╲ {' '.join(stones[row * size : (row + 1) * size])} ╲ {row + 1}"
        )
    indent = " " * size
    return "\n".join([*lines, f"{indent}    ╚{line}╝", f"{indent}      {letters}   ○ joins left and right"])


@njit(cache=True, nogil=True)
def _play(cells, plies, results, neighbours, sides, mirrored, parents, actions, children):
    num_cells = len(neighbours)
    pending = np.empty(num_cells, np.uint16)
    for i in range(len(parents)):
        parent, child, action = parents[i], children[i], actions[i]
        if child != parent:
            grid.copy_cells(cells, parent, child)
        player = plies[parent] & 1
        plies[child] = plies[parent] + 1
        if action == num_cells:
            action = _take_first_stone(cells, child, mirrored)
        won = _place(cells, child, action, player, neighbours, sides, pending)
        results[child] = WON if won else IN_PLAY


@njit(cache=True, nogil=True)
def _take_first_stone(cells, row, mirrored):
    """Remove the only stone and return the cell where it stands mirrored."""
    first = 0
    while cells[row, first] == 0:
        first += 1
    cells[row, first] = 0
    return mirrored[first]


@njit(cache=True, nogil=True)
def _place(cells, row, cell, player, neighbours, sides, pending):
    """Place a stone and tell whether it joins its owner's sides.

    All stones of a group carry the sides that it touches. A group is walked through only when it first
    touches one, so that a stone is walked through at most once in a game.
    """
    colour = 1 - 2 * player
    touched = sides[player, cell]
    for k in range(6):
        stone = cells[row, neighbours[cell, k]] * colour
        if stone > 0:
            touched |= stone - 1
    cells[row, cell] = colour * (1 + touched)
    if touched == _BOTH_SIDES:
        return True
    if touched != 0:
        _spread(cells, row, cell, touched, colour, neighbours, pending)
    return False


@njit(cache=True, nogil=True)
def _spread(cells, row, cell, touched, colour, neighbours, pending):
    """Mark all stones joined to `cell` that touch no side yet; `pending` uint16 [N²] is scratch."""
    pending[0] = cell
    num_pending = 1
    while num_pending > 0:
        num_pending -= 1
        walked = pending[num_pending]
        for k in range(6):
            neighbour = neighbours[walked, k]
            if cells[row, neighbour] == colour:
                cells[row, neighbour] = colour * (1 + touched)
                pending[num_pending] = neighbour
                num_pending += 1


@njit(cache=True, nogil=True)
def _legal(cells, plies, results, num_cells, num_actions, rows):
    legal = np.empty((len(rows), num_actions), np.bool_)
    for i in range(len(rows)):
        row = rows[i]
        in_play = results[row] == IN_PLAY
        for cell in range(num_cells):
            legal[i, cell] = in_play & (cells[row, cell] == 0)
        if num_actions > num_cells:
            legal[i, num_cells] = plies[row] == 1
    return legal
