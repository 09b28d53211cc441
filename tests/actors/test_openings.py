"""Random openings are legal, undecided, different where the game allows it, and told again by their seed."""

import numpy as np
import pytest

from actors.openings import random_openings
from core.errors import UsageError
from games.catalog import make_game


def cells_after(game, opening) -> bytes:
    states, row = game.new_states(1), np.zeros(1, np.int32)
    game.new(states, row)
    for action in opening:
        assert game.legal(states, row)[0, action]
        game.play(states, row, np.array([action], np.int16), row)
    assert not game.outcome(states, row)[0][0]
    return game.encode(states, row, np.zeros(1, np.int8))[0]["cells"].tobytes()


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "hex5", "hex5-swap"])
@pytest.mark.parametrize("plies", [2, 4])
def test_openings_are_legal_undecided_and_lead_to_different_positions(name, plies):
    game = make_game(name)

    openings = random_openings(game, pairs=20, plies=plies, seed=3)

    assert [len(opening) for opening in openings] == [plies] * 20
    assert len({cells_after(game, opening) for opening in openings}) == 20


def test_a_small_game_repeats_itself_only_when_it_has_to():
    openings = random_openings(make_game("tic_tac_toe"), pairs=30, plies=1, seed=0)

    assert len(openings) == 30
    assert len(set(openings)) == 9


def test_move_orders_of_one_position_are_one_opening():
    game = make_game("hex3")
    openings = random_openings(game, pairs=200, plies=3, seed=1)

    # 9 · 8 · 7 orders, of which the first player's two moves make one position in either order.
    assert len({cells_after(game, opening) for opening in openings[:150]}) == 150


def test_the_seed_tells_the_openings_and_more_pairs_only_add_to_them():
    game = make_game("connect_four")

    assert random_openings(game, pairs=9, plies=4, seed=5)[:6] == random_openings(
        game, pairs=6, plies=4, seed=5
    )
    assert random_openings(game, pairs=6, plies=4, seed=5) != random_openings(game, pairs=6, plies=4, seed=6)


def test_no_plies_is_the_starting_position():
    assert random_openings(make_game("hex5"), pairs=2, plies=0, seed=0) == [(), ()]


def test_an_opening_that_outlasts_the_game_is_refused():
    with pytest.raises(UsageError, match="tic_tac_toe cannot be opened with 9 random plies"):
        random_openings(make_game("tic_tac_toe"), pairs=1, plies=9, seed=0)
