"""The pool of boards that the compiled games share: players alternate, and only the last mover can have won.

Shapes: `R` rows of the pool, `B` rows of one call, `C` cells of the board, `V` views.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from core.errors import DataError

IN_PLAY, WON, DRAWN = 0, 1, 2
_HEADER = 3


class GridStates(NamedTuple):
    """A pool of boards.

    Attributes:
        cells: int8 [R, ≥ C]. The sign tells the owner, + for player 0 and - for player 1; 0 is an empty cell.
            What the magnitude tells, and what stands behind the first C, is the game's own.
        plies: int16 [R], moves made so far. The player to move is `plies & 1`.
        results: int8 [R], IN_PLAY, WON (by whoever moved last) or DRAWN.
    """

    cells: np.ndarray
    plies: np.ndarray
    results: np.ndarray


def new_states(capacity: int, width: int) -> GridStates:
    """Make a pool of `capacity` empty boards of `width` cells."""
    return GridStates(
        cells=np.zeros((capacity, width), np.int8),
        plies=np.zeros(capacity, np.int16),
        results=np.zeros(capacity, np.int8),
    )


@njit(cache=True, nogil=True)
def reset_rows(cells, plies, results, rows):
    """Empty the boards in `rows` [B]."""
    for row in rows:
        cells[row] = 0
        plies[row] = 0
        results[row] = IN_PLAY


@njit(cache=True, nogil=True, forceinline=True)
def copy_cells(cells, source, target):
    """Copy the cells of one board; slices of arrays would cost more than the copy."""
    for cell in range(cells.shape[1]):
        cells[target, cell] = cells[source, cell]


@njit(cache=True, nogil=True)
def copy_rows(cells, plies, results, sources, targets):
    """Copy boards sources[i] to targets[i]; [B] each."""
    for i in range(len(sources)):
        source, target = sources[i], targets[i]
        copy_cells(cells, source, target)
        plies[target] = plies[source]
        results[target] = results[source]


@njit(cache=True, nogil=True)
def players_to_move(plies, rows):
    """Return int8 [B]: the player to move."""
    players = np.empty(len(rows), np.int8)
    for i in range(len(rows)):
        players[i] = plies[rows[i]] & 1
    return players


@njit(cache=True, nogil=True)
def outcomes(results, rows):
    """Return (terminal bool [B], value float32 [B]): -1 where the game was won, by the player not to move."""
    terminal = np.empty(len(rows), np.bool_)
    values = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        result = results[rows[i]]
        terminal[i] = result != IN_PLAY
        values[i] = -1.0 if result == WON else 0.0
    return terminal, values


@njit(cache=True, nogil=True)
def encode_cells(cells, plies, cell_views, second_player_views, rows, symmetries):
    """Return (cells int8 [B, C] with the stones of the player to move 1, the other's -1; views int16 [B]).

    `cell_views` uint16 [V, C] is the cell that is seen at each place of each view; unsigned, for numba looks at
    every index that may be negative. The views of player 0 come first, one a symmetry; those of player 1 begin
    at `second_player_views`.
    """
    num_cells = cell_views.shape[1]
    seen = np.empty((len(rows), num_cells), np.int8)
    views = np.empty(len(rows), np.int16)
    for i in range(len(rows)):
        row = rows[i]
        player = plies[row] & 1
        view = symmetries[i] + second_player_views * player
        views[i] = view
        colour = np.int8(1 - 2 * player)
        for place in range(num_cells):
            seen[i, place] = cells[row, cell_views[view, place]] * colour
    # In one loop of its own, which the compiler turns into vector instructions.
    stones = seen.reshape(-1)
    for k in range(len(stones)):
        stones[k] = (stones[k] > 0) - (stones[k] < 0)
    return seen, views


def snapshot(states: GridStates, row: int, *, name: str, num_cells: int) -> bytes:
    """Return the board in `row` as bytes: the game's name, a zero, plies (2 bytes), result (1), cells (C)."""
    plies = int(states.plies[row]).to_bytes(2, "little")
    result = int(states.results[row]).to_bytes(1, "little")
    return name.encode() + b"\0" + plies + result + states.cells[row, :num_cells].tobytes()


def restore(states: GridStates, row: int, data: bytes, *, name: str, num_cells: int) -> None:
    """Put a snapshot into `row`. Raises DataError when its name or length is not this game's."""
    found, _, body = data.partition(b"\0")
    if found != name.encode():
        problem = f"it begins with {found[:20]!r} instead of the name"
    elif len(body) != _HEADER + num_cells:
        problem = f"it holds {len(body)} bytes of state, a board of {name} takes {_HEADER + num_cells}"
    else:
        states.plies[row] = int.from_bytes(body[:2], "little")
        states.results[row] = body[2]
        states.cells[row] = 0
        states.cells[row, :num_cells] = np.frombuffer(body, np.int8, offset=_HEADER)
        return
    raise DataError(
        f"this snapshot is not one of {name}", why=problem, fix="restore it with the game that made it"
    )


def dihedral_views(side: int) -> np.ndarray:
    """Return int16 [8, side²]: where each cell of a square board goes under its rotations and reflections."""
    board = np.arange(side * side).reshape(side, side)
    turned = [np.rot90(flipped, turns) for flipped in (board, board.T) for turns in range(4)]
    return np.stack([np.argsort(view, axis=None) for view in turned]).astype(np.int16)
