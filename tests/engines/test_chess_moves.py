"""Chess moves as UCI writes them, on OpenSpiel's board."""

import random

import pyspiel
import pytest

from core.errors import UsageError
from engines.chess_moves import check_chess, moves_by_name, position_text
from games.catalog import make_game


def after(*moves: str) -> pyspiel.State:
    state = pyspiel.load_game("chess").new_initial_state()
    for move in moves:
        state.apply_action(moves_by_name(state)[move])
    return state


def test_castling_and_taking_in_passing_are_moves_of_king_and_pawn():
    state = after("e2e4", "a7a6", "g1f3", "a6a5", "f1c4", "a5a4", "b2b4")
    state.apply_action(moves_by_name(state)["a4b3"])
    assert "P" in str(state)
    state.apply_action(moves_by_name(state)["e1g1"])
    assert "RNBQ1RK1" in str(state)
    assert position_text(state) == "startpos moves e2e4 a7a6 g1f3 a6a5 f1c4 a5a4 b2b4 a4b3 e1g1"


def test_a_promotion_names_the_piece():
    state = after("a2a4", "b7b5", "a4b5", "a7a6", "b5a6", "h7h6", "a6a7", "h6h5")
    assert {name for name in moves_by_name(state) if name.startswith("a7b8")} == {
        "a7b8q",
        "a7b8r",
        "a7b8b",
        "a7b8n",
    }


@pytest.mark.parametrize("seed", range(5))
def test_every_legal_move_has_a_name_of_its_own_by_which_the_game_is_told(seed):
    luck = random.Random(seed)
    state = after()
    told = []
    while not state.is_terminal():
        moves = moves_by_name(state)
        assert sorted(moves.values()) == sorted(state.legal_actions())
        told.append(luck.choice(sorted(moves)))
        state.apply_action(moves[told[-1]])
    assert position_text(state).split()[2:] == told


def test_other_games_are_refused():
    check_chess(make_game("open_spiel:chess"))
    with pytest.raises(UsageError, match="hex5"):
        check_chess(make_game("hex5"))
