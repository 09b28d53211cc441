"""Connect four: stones fall into seven columns of six cells; four in a row win."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from core.messages import Arrays, BoardSpec
from games import grid, notation
from games.grid import DRAWN, IN_PLAY, WON, GridStates

_HEIGHT, _WIDTH = 6, 7
_CELLS = _HEIGHT * _WIDTH

# The cells from which a line of four may go on to the right, or to the left, as bits.
_FROM_THE_LEFT = np.uint64(sum(0b0001111 << row * _WIDTH for row in range(_HEIGHT)))
_FROM_THE_RIGHT = np.uint64(sum(0b1111000 << row * _WIDTH for row in range(_HEIGHT)))


class ConnectFour:
    """The rules of connect four. Player 0 moves ●. An action is a column, counted from the left."""

    name = "connect_four"
    num_actions = _WIDTH
    max_plies = _CELLS
    board = BoardSpec(height=_HEIGHT, width=_WIDTH, policy="columns")
    num_symmetries = 2

    def __init__(self) -> None:
        columns = np.arange(_WIDTH, dtype=np.int16)
        cells = np.arange(_CELLS, dtype=np.int16).reshape(_HEIGHT, _WIDTH)
        self.views = np.stack([columns, columns[::-1]])
        self._cell_views = np.stack([cells.ravel(), cells[:, ::-1].ravel()]).astype(np.uint16)
        self._names = [str(column + 1) for column in range(_WIDTH)]

    def new_states(self, capacity: int) -> GridStates:
        return grid.new_states(capacity, _CELLS)

    def new(self, states: GridStates, rows: np.ndarray) -> None:
        grid.reset_rows(*states, rows)

    def copy(self, states: GridStates, sources: np.ndarray, targets: np.ndarray) -> None:
        grid.copy_rows(*states, sources, targets)

    def play(
        self, states: GridStates, parents: np.ndarray, actions: np.ndarray, children: np.ndarray
    ) -> None:
        _play(*states, parents, actions, children)

    def legal(self, states: GridStates, rows: np.ndarray) -> np.ndarray:
        return _legal(states.cells, states.results, rows)

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
        return grid.snapshot(states, row, name=self.name, num_cells=_CELLS)

    def restore(self, states: GridStates, row: int, data: bytes) -> None:
        grid.restore(states, row, data, name=self.name, num_cells=_CELLS)

    def action_name(self, action: int) -> str:
        return self._names[action]

    def parse_action(self, text: str) -> int:
        return notation.parse_name(text, self._names, game=self.name)

    def render(self, states: GridStates, row: int) -> str:
        stones = notation.stones(states.cells[row], empty="·", first="●", second="○")
        lines = [f"│ {' '.join(stones[start : start + _WIDTH])} │" for start in range(0, _CELLS, _WIDTH)]
        return "\n".join([*lines, f"└{'─' * (2 * _WIDTH + 1)}┘", f"  {' '.join(self._names)}"])

    def game_line(self, actions: Sequence[int], outcome: float) -> str:
        """Return a line such as `connect_four,4433522 x`: a digit a move, then x (moved first), o or draw."""
        return notation.game_line(self.name, "".join(self._names[action] for action in actions), outcome)


@njit(cache=True, nogil=True)
def _play(cells, plies, results, parents, actions, children):
    for i in range(len(parents)):
        parent, child, column = parents[i], children[i], actions[i]
        ply = plies[parent]
        stone = np.int8(1 - 2 * (ply & 1))
        height = _HEIGHT - 1
        for above in range(_HEIGHT):
            height -= cells[parent, above * _WIDTH + column] != 0
        cell = height * _WIDTH + column
        stones = np.uint64(1) << np.uint64(cell)
        for k in range(_CELLS):
            cells[child, k] = cells[parent, k]
            stones |= np.uint64(cells[parent, k] == stone) << np.uint64(k)
        cells[child, cell] = stone
        plies[child] = ply + 1
        if _has_four(stones):
            results[child] = WON
        else:
            results[child] = DRAWN if ply + 1 == _CELLS else IN_PLAY


@njit(cache=True, nogil=True, forceinline=True)
def _has_four(stones):
    """Tell whether there are four in a line among the stones of one player; bit n of `stones` is cell n."""
    return (
        _lines(stones, 1) & _FROM_THE_LEFT
        | _lines(stones, _WIDTH)
        | _lines(stones, _WIDTH + 1) & _FROM_THE_LEFT
        | _lines(stones, _WIDTH - 1) & _FROM_THE_RIGHT
    ) != 0


@njit(cache=True, nogil=True, forceinline=True)
def _lines(stones, step):
    """Return the cells where four stones begin, each `step` cells behind the one before."""
    pairs = stones & (stones >> np.uint64(step))
    return pairs & (pairs >> np.uint64(2 * step))


@njit(cache=True, nogil=True)
def _legal(cells, results, rows):
    legal = np.empty((len(rows), _WIDTH), np.bool_)
    for i in range(len(rows)):
        in_play = results[rows[i]] == IN_PLAY
        for column in range(_WIDTH):
            legal[i, column] = in_play & (cells[rows[i], column] == 0)
    return legal
