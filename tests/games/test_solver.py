"""The solvers against plain negamax over OpenSpiel's rules, and against what is known of small games."""

from typing import Any

import numpy as np
import pyspiel
import pytest

from core.errors import UsageError
from games.catalog import make_game
from games.game import Game, States
from games.hex_solver import HexTable
from games.solver import Solver, labelled_positions
from tests.games.random_games import play_random_games

ROW = np.zeros(1, np.int32)


def played(game: Game, moves: list[int]) -> States:
    states = game.new_states(1)
    game.new(states, ROW)
    for action in moves:
        game.play(states, ROW, np.array([action], np.int16), ROW)
    return states


def opening_values(name: str) -> dict[str, float]:
    game = make_game(name)
    values = Solver(game).action_values(played(game, []), 0)
    return {game.action_name(action): value for action, value in enumerate(values)}


def plain_value(state: Any, known: dict[tuple[str, int], float]) -> float:
    """The value for player 0, without shortcuts. A position is a board and a number of moves."""
    if state.is_terminal():
        return state.returns()[0]
    key = (str(state), state.move_number())
    if key not in known:
        best = min if state.current_player() else max
        known[key] = best(plain_value(state.child(action), known) for action in state.legal_actions())
    return known[key]


@pytest.mark.parametrize(
    ("name", "theirs", "games", "empty_cells"),
    [
        ("tic_tac_toe", "tic_tac_toe", 12, 9),
        ("hex3", "hex(board_size=3)", 12, 9),
        ("hex3-swap", "hex(board_size=3,swap=True)", 12, 9),
        ("hex4", "hex(board_size=4)", 12, 9),
        ("hex5", "hex(board_size=5)", 12, 9),
        ("connect_four", "connect_four", 200, 10),
        ("open_spiel:dots_and_boxes(num_rows=1)", "dots_and_boxes(num_rows=1)", 12, 7),
    ],
)
def test_every_move_has_the_value_that_plain_negamax_finds(
    name: str, theirs: str, games: int, empty_cells: int
) -> None:
    game, rules = make_game(name), pyspiel.load_game(theirs)
    solver, known = Solver(game), {}
    others = {row: rules.new_initial_state() for row in range(games)}
    compared = 0
    for ply, (states, rows, actions) in enumerate(play_random_games(game, games, seed=0)):
        for row, action in zip(rows.tolist(), actions.tolist(), strict=True):
            state = others[row]
            if game.max_plies - ply <= empty_cells:
                expected = np.full(game.num_actions, np.nan)
                for move in state.legal_actions():
                    sign = -1 if state.current_player() else 1
                    expected[move] = sign * plain_value(state.child(move), known)
                np.testing.assert_array_equal(solver.action_values(states, row), expected)
                assert solver.solve(states, row) == np.nanmax(expected)
                compared += 1
            state.apply_action(action)
    assert compared > 10


def test_tic_tac_toe_is_a_draw_whatever_the_first_move() -> None:
    assert set(opening_values("tic_tac_toe").values()) == {0.0}


def test_a_corner_is_answered_in_the_centre_alone() -> None:
    game = make_game("tic_tac_toe")
    values = Solver(game).action_values(played(game, [0]), 0)
    assert np.flatnonzero(values == 0).tolist() == [4]


@pytest.mark.parametrize(
    ("name", "winning"),
    [
        # The tables in HexWiki's "Small boards", from Queenbee (van Rijswijck 2000).
        ("hex3", "c1 a2 b2 c2 a3"),
        ("hex4", "d1 c2 b3 a4"),
    ],
)
def test_hex_is_won_by_the_first_player_with_these_openings_alone(name: str, winning: str) -> None:
    values = opening_values(name)
    assert {move for move, value in values.items() if value == 1} == set(winning.split())
    assert {value for move, value in values.items() if move not in winning} == {-1}


@pytest.mark.parametrize("name", ["hex3-swap", "hex4-swap"])
def test_with_a_swap_hex_is_won_by_the_second_player(name: str) -> None:
    assert {value for move, value in opening_values(name).items() if move != "swap"} == {-1}


def test_a_5x5_position_turned_by_180_degrees_has_the_same_values() -> None:
    game = make_game("hex5")
    moves = [game.parse_action(move) for move in ("c4", "d1", "b3", "a4", "a3", "e4", "d2", "c2")]
    values, turned = (
        Solver(game).action_values(played(game, game.views[view, moves].tolist()), 0) for view in (0, 1)
    )
    assert np.array_equal(values, turned[game.views[1]], equal_nan=True)
    assert {-1, 1} <= set(values.tolist())


def test_what_is_too_far_from_the_end_is_refused() -> None:
    for name in ("connect_four", "hex5"):
        game = make_game(name)
        with pytest.raises(UsageError, match="more than 1,000 positions"):
            Solver(game, max_positions=1000).solve(played(game, []), 0)


def test_a_position_that_was_given_up_leaves_nothing_wrong_in_the_table() -> None:
    cells = np.zeros(16, np.int8)
    given_up, fresh = HexTable(4), HexTable(4)
    for visits in range(1, 60):
        assert given_up.mover_wins(cells, 0, max_positions=visits) is None
    for cell in range(16):
        opening = np.where(np.arange(16) == cell, 1, 0).astype(np.int8)
        won = [table.mover_wins(opening, 1, max_positions=1_000_000) for table in (given_up, fresh)]
        assert won[0] == won[1]


def test_solving_leaves_the_position_as_it_is() -> None:
    game = make_game("tic_tac_toe")
    states = played(game, [0, 4])
    before = game.snapshot(states, 0)
    Solver(game).action_values(states, 0)
    assert game.snapshot(states, 0) == before


@pytest.mark.parametrize("name", ["tic_tac_toe", "hex3-swap", "hex4"])
def test_labelled_positions_are_distinct_and_in_each_the_move_matters(name: str) -> None:
    game = make_game(name)
    states, rows, perfect = labelled_positions(game, 40, np.random.default_rng(0))
    assert len({game.snapshot(states, row) for row in rows}) == 40
    solver = Solver(game)
    for row in rows:
        values = solver.action_values(states, row)
        assert np.array_equal(perfect[row], values == solver.solve(states, row))
        assert (values < np.nanmax(values)).any()


def test_the_same_generator_gives_the_same_positions() -> None:
    game = make_game("hex4")
    first, second = (labelled_positions(game, 20, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.perfect, second.perfect)
    assert [game.snapshot(first.states, row) for row in first.rows] == [
        game.snapshot(second.states, row) for row in second.rows
    ]


def test_positions_come_from_all_stages_of_the_game() -> None:
    game = make_game("hex4")
    positions = labelled_positions(game, 200, np.random.default_rng(4))
    assert set(range(1, 11)) <= set(positions.states.plies[positions.rows].tolist())


def test_more_positions_than_there_are_cannot_be_had() -> None:
    game = make_game("open_spiel:nim(pile_sizes=1;2)")
    with pytest.raises(UsageError, match="50 positions of open_spiel:nim"):
        labelled_positions(game, 50, np.random.default_rng(0))
