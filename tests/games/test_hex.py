"""Hex: sides, views, the swap, and how a board and a game are written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UsageError
from games.grid import GridStates
from games.hex import Hex
from tests.games.random_games import play_random_games

ROW = np.zeros(1, np.int32)
BLUE, RED = 1, -1


def played(game: Hex, moves: str) -> GridStates:
    """Return a pool whose first row is the position after `moves`, separated by blanks."""
    states = game.new_states(1)
    game.new(states, ROW)
    for move in moves.split():
        action = game.parse_action(move)
        assert game.legal(states, ROW)[0, action], move
        game.play(states, ROW, np.array([action], np.int16), ROW)
    return states


def seen(game: Hex, states: GridStates) -> np.ndarray:
    """The board as the player to move sees it, [N, N]."""
    cells, _ = game.encode(states, ROW, ROW)
    return cells["cells"].reshape(game.size, game.size)


def joins_top_and_bottom(stones: np.ndarray) -> bool:
    """Plainly: whether True cells of a bool board [N, N] join its top and bottom rows."""
    size = len(stones)
    reached = {(0, column) for column in range(size) if stones[0, column]}
    edge = set(reached)
    while edge:
        around = {
            (r + dr, c + dc)
            for r, c in edge
            for dr, dc in ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0))
        }
        edge = {(r, c) for r, c in around if 0 <= r < size and 0 <= c < size and stones[r, c]} - reached
        reached |= edge
    return any((size - 1, column) in reached for column in range(size))


@settings(max_examples=30)
@given(size=st.integers(3, 9), seed=st.integers(0, 2**32 - 1))
def test_a_game_ends_exactly_when_the_last_mover_has_joined_the_own_sides(size: int, seed: int) -> None:
    game = Hex(size)
    for states, rows, actions in play_random_games(game, 3, seed=seed):
        players = game.to_play(states, rows)
        children = GridStates(*(array.copy() for array in states))
        game.play(children, rows, actions, rows)
        for row, player, won in zip(rows, players, game.outcome(children, rows)[0], strict=True):
            board = children.cells[row, : size * size].reshape(size, size)
            assert won == joins_top_and_bottom(board.T < 0 if player else board > 0)


@settings(max_examples=20)
@given(size=st.integers(3, 9), seed=st.integers(0, 2**32 - 1))
def test_in_every_view_own_joins_top_to_bottom_and_the_other_left_to_right(size: int, seed: int) -> None:
    game = Hex(size)
    states, _, _ = list(play_random_games(game, 4, seed=seed))[-1]
    rows = np.arange(4, dtype=np.int32)
    for symmetry in range(2):
        cells, views = game.encode(states, rows, np.full(4, symmetry, np.int32))
        assert np.array_equal(views, symmetry + 2 * game.to_play(states, rows))
        # The other player has just won.
        for board in cells["cells"].reshape(4, size, size):
            assert joins_top_and_bottom(board.T == -1)


def test_blue_joins_top_to_bottom() -> None:
    game = Hex(3)
    states = played(game, "b1 a1 b2 a2 b3")
    assert [part.tolist() for part in game.outcome(states, ROW)] == [[True], [-1.0]]


def test_red_joins_left_to_right() -> None:
    game = Hex(3)
    states = played(game, "a1 a2 b1 b2 a3 c2")
    assert [part.tolist() for part in game.outcome(states, ROW)] == [[True], [-1.0]]


def test_the_other_diagonal_does_not_touch() -> None:
    game = Hex(3)
    states = played(game, "a1 c1 b2 c2 c3")
    assert not game.outcome(states, ROW)[0][0]


def test_only_the_first_answer_may_swap() -> None:
    game = Hex(5, swap=True)
    for moves, may_swap in (
        ("", False),
        ("a2", True),
        ("a2 b2", False),
        ("a2 swap", False),
        ("a2 swap c1", False),
    ):
        assert game.legal(played(game, moves), ROW)[0, 25] == may_swap


def test_a_swap_makes_the_stone_red_and_mirrors_it() -> None:
    game = Hex(5, swap=True)
    states = played(game, "d2 swap")
    expected = np.zeros((5, 5))
    expected[3, 1] = RED
    assert np.array_equal(np.sign(states.cells[0, :25]).reshape(5, 5), expected)
    assert game.to_play(states, ROW) == 0
    assert not game.legal(states, ROW)[0, game.parse_action("b4")]
    assert game.legal(states, ROW)[0, game.parse_action("d2")]


def test_a_swapped_stone_keeps_its_side() -> None:
    game = Hex(3, swap=True)
    # b1, at blue's top, becomes a2, at red's left.
    states = played(game, "b1 swap a1 b2 b1 c2")
    assert game.outcome(states, ROW)[0][0]


def test_without_the_rule_there_is_no_swap() -> None:
    game = Hex(5)
    assert game.num_actions == 25
    with pytest.raises(UsageError, match="'swap' is not a move of hex5"):
        game.parse_action("swap")


def test_a_stone_that_may_be_swapped_looks_own_and_after_the_swap_the_other_s() -> None:
    game = Hex(5, swap=True)
    for action in range(25):
        name = game.action_name(action)
        before, after = (seen(game, played(game, moves)) for moves in (name, f"{name} swap"))
        assert np.array_equal(before, -after)
        assert (before.sum(), np.abs(before).sum()) == (1, 1)


@pytest.mark.parametrize("size", [2, 20, 0, -1])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="from 3 to 19"):
        Hex(size)


def test_cells_are_named_by_column_letter_and_row_number() -> None:
    game = Hex(13)
    assert [game.parse_action(text) for text in ("a1", "b1", "a2", "M13")] == [0, 1, 13, 168]
    assert (game.action_name(0), game.action_name(168)) == ("a1", "m13")


def test_a_game_is_written_as_a_trmph_line() -> None:
    game = Hex(5, swap=True)
    moves = [game.parse_action(move) for move in ("a1", "b2", "c3")]
    assert game.game_line(moves, 1.0) == "#5,a1b2c3 b"
    assert game.game_line([*moves[:1], 25, *moves[1:]], -1.0) == "#5,a1swapb2c3 r"


def test_the_board_is_drawn_slanted_with_coordinates_and_goals() -> None:
    game = Hex(3)
    assert game.render(played(game, "b2 c1"), 0).splitlines() == [
        "     a b c   ● joins top and bottom",
        "   ╔═══════╗",
        "  1 ╲ · · ○ ╲ 1",
        "   2 ╲ · ● · ╲ 2",
        "    3 ╲ · · · ╲ 3",
        "       ╚═══════╝",
        "         a b c   ○ joins left and right",
    ]


def test_the_largest_board_is_drawn_straight() -> None:
    lines = Hex(19).render(played(Hex(19), "a10 s19"), 0).splitlines()
    assert {line.index("╲") - row for row, line in enumerate(lines[2:-2])} == {4}
    assert lines[11] == f"{' ' * 9} 10 ╲ ●{' ·' * 18} ╲ 10"
