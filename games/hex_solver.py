"""Who wins a Hex position with perfect play, for boards up to 5×5: depth-first search over bitboards.

There are no draws, so that a position is either won for the player to move or lost. Two things keep the tree
small: a move that joins the sides is found before any other is tried, and a threat to join them is answered.
All openings on 4×4 together visit about 10⁵ positions; 5×5 is in reach from some six stones on.
"""

import numpy as np
from numba import njit

LARGEST_SOLVED = 5
_CELL_BITS = LARGEST_SOLVED * LARGEST_SOLVED


class HexTable:
    """What is known of the positions on one size of board; it fills while positions are solved.

    Args:
        size: of the board, at most LARGEST_SOLVED.
        entries: of the table, a power of two, 8 bytes each; a newer position replaces the older one there.
    """

    def __init__(self, size: int, *, entries: int = 1 << 22) -> None:
        self._shape = _board_shape(size)
        self._table = np.zeros(entries, np.int64)

    def mover_wins(self, cells: np.ndarray, player: int, *, max_positions: int) -> bool | None:
        """Tell whether `player`, who is to move, wins; None when more than `max_positions` had to be visited.

        `cells` int8 [N²] has blue's stones positive, red's negative. Nobody may have joined the sides yet.
        """
        blue, red = _bits(cells > 0), _bits(cells < 0)
        mover, waiter = (red, blue) if player else (blue, red)
        visits_left = np.array([max_positions], np.int64)
        won = _mover_wins(mover, waiter, player, *self._shape, self._table, visits_left)
        return None if visits_left[0] < 0 else won


def _bits(stones: np.ndarray) -> int:
    return int((1 << np.flatnonzero(stones)).sum())


def _board_shape(size: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return (N, sides int64 [2, 2] by player, outer columns int64 [2], cells int64 [N²] from the middle)."""
    cells = np.arange(size * size)
    rows, columns = np.divmod(cells, size)
    edges = [_bits(rows == 0), _bits(rows == size - 1), _bits(columns == 0), _bits(columns == size - 1)]
    sides = np.array(edges, np.int64).reshape(2, 2)
    down, right = rows - (size - 1) / 2, columns - (size - 1) / 2
    middle_first = np.argsort(down**2 + right**2 + down * right, kind="stable")
    return size, sides, sides[1].copy(), middle_first


@njit(cache=True, nogil=True)
def _joined(stones, player, size, sides, outer_columns):
    """Tell whether `stones` join both sides of `player`."""
    reached = stones & sides[player, 0]
    while True:
        if reached & sides[player, 1]:
            return True
        to_right = (reached << 1 | reached >> (size - 1)) & ~outer_columns[0]
        to_left = (reached >> 1 | reached << (size - 1)) & ~outer_columns[1]
        up_and_down = reached << size | reached >> size
        grown = reached | stones & (to_right | to_left | up_and_down)
        if grown == reached:
            return False
        reached = grown


@njit(cache=True, nogil=True)
def _joining_cells(stones, taken, player, size, sides, outer_columns, cells):
    """Return the empty cells, as bits, that would each join both sides of `player`."""
    joining = 0
    for cell in cells:
        bit = 1 << cell
        if not taken & bit and _joined(stones | bit, player, size, sides, outer_columns):
            joining |= bit
    return joining


@njit(
    "boolean(int64, int64, int64, int64, int64[:, ::1], int64[::1], int64[::1], int64[::1], int64[::1])",
    cache=True,
    nogil=True,
)
def _mover_wins(mover, waiter, player, size, sides, outer_columns, cells, table, visits_left):
    """Tell whether `player` wins, who has the stones `mover` and moves. An entry is (key + 1) · 2 + won."""
    key = (mover << _CELL_BITS | waiter) << 1 | player
    slot = (key * 0x9E3779B97F4A7C15 >> 32) & (len(table) - 1)
    if table[slot] >> 1 == key + 1:
        return table[slot] & 1 == 1
    visits_left[0] -= 1
    if visits_left[0] < 0:
        return False

    taken = mover | waiter
    won = _joining_cells(mover, taken, player, size, sides, outer_columns, cells) != 0
    if not won:
        threats = _joining_cells(waiter, taken, 1 - player, size, sides, outer_columns, cells)
        for cell in cells:
            bit = 1 << cell
            answers = threats & ~bit == 0
            if taken & bit or not answers:
                continue
            won = not _mover_wins(
                waiter, mover | bit, 1 - player, size, sides, outer_columns, cells, table, visits_left
            )
            if visits_left[0] < 0:
                return False
            if won:
                break
    table[slot] = (key + 1) << 1 | won
    return won
