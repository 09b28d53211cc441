"""How moves are written in GTP, beside what OpenSpiel calls them."""

import pyspiel
import pytest

from core.errors import UsageError
from engines.gtp_moves import vertices_of
from games.catalog import make_game


@pytest.mark.parametrize("size", [5, 9, 19])
def test_points_of_go_are_called_as_openspiel_calls_them(size):
    vertices = vertices_of(make_game(f"open_spiel:go(board_size={size})"))
    state = pyspiel.load_game(f"go(board_size={size})").new_initial_state()

    theirs = [
        state.action_to_string(0, action).removeprefix("B ").lower() for action in state.legal_actions()
    ]
    assert list(vertices.names) == theirs
    assert (vertices.board_size, vertices.pass_action, vertices.komi) == (str(size), size**2, 7.5)


@pytest.mark.parametrize(
    ("parameters", "komi"), [("(board_size=9,komi=5.5)", 5.5), ("(komi=-3.0,board_size=9)", -3.0)]
)
def test_the_komi_is_the_games_own(parameters, komi):
    assert vertices_of(make_game(f"open_spiel:go{parameters}")).komi == komi


@pytest.mark.parametrize(
    "name", ["hex3", "hex5-swap", "tic_tac_toe", "connect_four", "open_spiel:go(board_size=5)"]
)
def test_every_move_is_read_as_it_is_written(name):
    game = make_game(name)
    vertices = vertices_of(game)

    assert [vertices.action(text) for text in vertices.names] == list(range(game.num_actions))
    assert [vertices.action(text.upper()) for text in vertices.names] == list(range(game.num_actions))
    assert vertices.action("resign") is None
    assert vertices.action("i9" if "go" in name else "z99") is None


def test_hex_tells_both_sides_and_knows_two_words_for_the_swap():
    vertices = vertices_of(make_game("hex5-swap"))
    assert (vertices.board_size, vertices.num_points) == ("5 5", 25)
    assert vertices.names[25] == "swap-pieces"
    assert vertices.action("swap") == 25
    assert vertices_of(make_game("hex5")).action("swap") is None


@pytest.mark.parametrize("name", ["open_spiel:chess", "open_spiel:breakthrough", "open_spiel:go(handicap=2)"])
def test_a_game_without_words_is_refused(name):
    with pytest.raises(UsageError, match="GTP"):
        vertices_of(make_game(name))
