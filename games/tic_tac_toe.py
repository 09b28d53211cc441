"""Tic-tac-toe: three in a row on nine cells."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from core.messages import Arrays, BoardSpec
from games import grid, notation
from games.grid import DRAWN, IN_PLAY, WON, GridStates

_CELLS = 9
_LINES = np.array(
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]], dtype=np.int8
)


class TicTacToe:
    """The rules of tic-tac-toe. Player 0 is x. An action is a cell, counted from the top left."""

    name = "tic_tac_toe"
    num_actions = _CELLS
    max_plies = _CELLS
    board = BoardSpec(height=3, width=3)
    num_symmetries = 8

    def __init__(self) -> None:
        self.views = grid.dihedral_views(3)
        self._cells_seen = np.argsort(self.views, axis=1).astype(np.uint16)
        self._names = notation.cell_names(3, 3)

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
        cells, views = grid.encode_cells(states.cells, states.plies, self._cells_seen, 0, rows, symmetries)
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
        stones = notation.stones(states.cells[row], empty="·", first="x", second="o")
        lines = [f"{number}  {' '.join(stones[3 * number - 3 : 3 * number])}" for number in (1, 2, 3)]
        return "\n".join(["   a b c", *lines])

    def game_line(self, actions: Sequence[int], outcome: float) -> str:
        """Return a line such as `tic_tac_toe,b2a1c3 x`: the moves, then x, o or draw."""
        return notation.game_line(self.name, "".join(self._names[action] for action in actions), outcome)


@njit(cache=True, nogil=True)
def _play(cells, plies, results, parents, actions, children):
    for i in range(len(parents)):
        parent, child, action = parents[i], children[i], actions[i]
        if child != parent:
            grid.copy_cells(cells, parent, child)
        ply = plies[parent]
        stone = 1 - 2 * (ply & 1)
        cells[child, action] = stone
        plies[child] = ply + 1
        if _has_line(cells, child, stone):
            results[child] = WON
        else:
            results[child] = DRAWN if ply + 1 == _CELLS else IN_PLAY


@njit(cache=True, nogil=True)
def _has_line(cells, row, stone):
    for line in range(8):
        a, b, c = _LINES[line]
        if cells[row, a] == stone and cells[row, b] == stone and cells[row, c] == stone:
            return True
    return False


@njit(cache=True, nogil=True)
def _legal(cells, results, rows):
    legal = np.empty((len(rows), _CELLS), np.bool_)
    for i in range(len(rows)):
        in_play = results[rows[i]] == IN_PLAY
        for cell in range(_CELLS):
            legal[i, cell] = in_play & (cells[rows[i], cell] == 0)
    return legal
