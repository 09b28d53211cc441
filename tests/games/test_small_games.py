"""Tic-tac-toe and connect four: lines, falling stones, and how a board and a game are written."""

import numpy as np
import pytest

from games.connect_four import ConnectFour
from games.grid import GridStates
from games.tic_tac_toe import TicTacToe

ROW = np.zeros(1, np.int32)


def played(game: TicTacToe | ConnectFour, moves: list[str]) -> GridStates:
    states = game.new_states(1)
    game.new(states, ROW)
    for move in moves:
        action = game.parse_action(move)
        assert game.legal(states, ROW)[0, action], move
        game.play(states, ROW, np.array([action], np.int16), ROW)
    return states


def outcome(game: TicTacToe | ConnectFour, states: GridStates) -> tuple[bool, float]:
    terminal, values = game.outcome(states, ROW)
    return bool(terminal[0]), float(values[0])


def test_three_in_a_row_win() -> None:
    game = TicTacToe()
    assert outcome(game, played(game, ["a1", "b1", "b2", "c1"])) == (False, 0)
    assert outcome(game, played(game, ["a1", "b1", "b2", "c1", "c3"])) == (True, -1)


def test_a_full_board_without_a_line_is_a_draw() -> None:
    game = TicTacToe()
    states = played(game, ["b2", "a1", "c1", "a3", "a2", "c2", "b1", "b3", "c3"])
    assert outcome(game, states) == (True, 0)


def test_the_last_cell_can_win() -> None:
    game = TicTacToe()
    states = played(game, ["a1", "b1", "c1", "a2", "b2", "c2", "b3", "a3", "c3"])
    assert outcome(game, states) == (True, -1)


@pytest.mark.parametrize(
    "moves",
    ["1122334", "1212121", "12233434474", "76655454414"],
    ids=["along a row", "up a column", "up to the right", "up to the left"],
)
def test_four_in_a_row_win(moves: str) -> None:
    game = ConnectFour()
    assert outcome(game, played(game, list(moves[:-1]))) == (False, 0)
    assert outcome(game, played(game, list(moves))) == (True, -1)


def test_four_do_not_go_around_the_edge() -> None:
    game = ConnectFour()
    # Three at the right end of the bottom row, one at the left end of the row above it.
    assert outcome(game, played(game, list("51617271"))) == (False, 0)


def test_a_full_column_is_closed() -> None:
    game = ConnectFour()
    states = played(game, list("333333"))
    assert game.legal(states, ROW)[0].tolist() == [True, True, False, True, True, True, True]


def test_tic_tac_toe_is_drawn_and_written_plainly() -> None:
    game = TicTacToe()
    assert game.render(played(game, ["b2", "a1"]), 0).splitlines() == [
        "   a b c",
        "1  o · ·",
        "2  · x ·",
        "3  · · ·",
    ]
    assert game.game_line([4, 0, 2], 0.0) == "tic_tac_toe,b2a1c1 draw"


def test_connect_four_is_drawn_and_written_plainly() -> None:
    game = ConnectFour()
    assert game.render(played(game, ["4", "4", "1"]), 0).splitlines()[-4:] == [
        "│ · · · ○ · · · │",
        "│ ● · · ● · · · │",
        "└───────────────┘",
        "  1 2 3 4 5 6 7",
    ]
    assert game.game_line([3, 3, 0], 1.0) == "connect_four,441 x"
    assert game.game_line([3, 3, 0], -1.0) == "connect_four,441 o"
