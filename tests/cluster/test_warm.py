"""Warming plays with the real parts, so it breaks when one of them changes and it does not follow."""

import pytest

from cluster.warm import GAMES, warm
from games.catalog import make_game


def test_one_game_of_each_kind_is_warmed() -> None:
    kinds = {type(make_game(name)).__name__ for name in GAMES}
    assert kinds == {"TicTacToe", "ConnectFour", "Hex"}


@pytest.mark.parametrize("name", ["tic_tac_toe", "hex3-swap"])
def test_everyone_who_can_play_a_game_plays_it(name: str) -> None:
    warm(name)
