"""The built-in games against OpenSpiel's, move by move. Players and actions have the same numbers in both."""

from typing import Any

import numpy as np
import pyspiel
import pytest

from games.catalog import make_game
from games.game import Game
from tests.games.random_games import play_random_games


@pytest.mark.parametrize(
    ("name", "theirs", "count"),
    [
        ("tic_tac_toe", "tic_tac_toe", 1000),
        ("connect_four", "connect_four", 1000),
        ("connect_four_5x4", "connect_four(rows=4,columns=5)", 1000),
        ("connect_four_9x7", "connect_four(rows=7,columns=9)", 200),
        ("connect_four_8x8", "connect_four(rows=8,columns=8)", 200),
        ("hex3", "hex(board_size=3)", 1000),
        ("hex5", "hex(board_size=5)", 1000),
        ("hex5-swap", "hex(board_size=5,swap=True)", 1000),
        ("hex8", "hex(board_size=8)", 500),
        ("hex13-swap", "hex(board_size=13,swap=True)", 200),
        ("hex19", "hex(board_size=19)", 50),
    ],
)
def test_random_games_go_the_same_way_in_open_spiel(name: str, theirs: str, count: int) -> None:
    game = make_game(name)
    others = [pyspiel.load_game(theirs).new_initial_state() for _ in range(count)]
    states, everyone = None, np.arange(count)
    for states, rows, actions in play_random_games(game, count, seed=0):
        assert np.array_equal(game.legal(states, rows), legal_in(others, rows, game))
        assert game.to_play(states, rows).tolist() == [others[row].current_player() for row in rows]
        for row, action in zip(rows, actions.tolist(), strict=True):
            others[row].apply_action(action)
    # Values are for the player to move, who at the end is the one that did not move last.
    values = game.outcome(states, everyone)[1] * (1 - 2 * game.to_play(states, everyone))
    assert all(other.is_terminal() for other in others)
    assert values.tolist() == [other.returns()[0] for other in others]


def legal_in(others: list[Any], rows: np.ndarray, game: Game) -> np.ndarray:
    legal = np.zeros((rows.size, game.num_actions), bool)
    for i, row in enumerate(rows):
        legal[i, others[row].legal_actions()] = True
    return legal


@pytest.mark.parametrize(
    ("name", "theirs"), [("hex5", "hex(board_size=5)"), ("hex11-swap", "hex(swap=True)")]
)
def test_hex_moves_have_the_names_that_open_spiel_gives_them(name: str, theirs: str) -> None:
    game, state = make_game(name), pyspiel.load_game(theirs).new_initial_state()
    state.apply_action(0)
    for action in state.legal_actions():
        assert game.action_name(action) == state.action_to_string(1, action)
