"""Connect four as gumbel-mcts asks for a game: compiled functions on a board of 0 (empty) and 1 and 2 (the players)."""

import numpy as np
from numba import njit

HEIGHT, WIDTH = 6, 7


@njit(cache=True)
def fast_step(board, action, player):
    """Drop a stone into `board` [6, 7]; return (reward, winner, is over, board) as `GameLogic` does."""
    row = HEIGHT - 1
    while board[row, action] != 0:
        row -= 1
    board[row, action] = player
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        line = 1 + run_length(board, row, action, down, right) + run_length(board, row, action, -down, -right)
        if line >= 4:
            return 1.0, player, True, board
    for column in range(WIDTH):
        if board[0, column] == 0:
            return 0.0, 0, False, board
    return 0.0, 0, True, board


@njit(cache=True)
def run_length(board, row, column, down, right):
    """Count the stones beside a stone that are of its colour, in one direction."""
    player, count = board[row, column], 0
    row, column = row + down, column + right
    while 0 <= row < HEIGHT and 0 <= column < WIDTH and board[row, column] == player:
        count, row, column = count + 1, row + down, column + right
    return count


@njit(cache=True)
def get_valid_mask(board, player):
    """Return float32 [7]: 1 where the column has room."""
    mask = np.zeros(WIDTH, np.float32)
    for column in range(WIDTH):
        if board[0, column] == 0:
            mask[column] = 1.0
    return mask


class ConnectFourLogic:
    """Connect four as gumbel-mcts asks for a game."""

    NUM_ACTIONS = WIDTH
    BOARD_SHAPE = (HEIGHT, WIDTH)
    MAX_MOVES = HEIGHT * WIDTH
    MAX_LEGAL_MOVES = WIDTH
    PLAYER_1, PLAYER_2 = 1, 2
    fast_step = staticmethod(fast_step)
    get_valid_mask = staticmethod(get_valid_mask)
