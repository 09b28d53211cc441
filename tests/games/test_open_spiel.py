"""What the adapter refuses, and how it numbers players."""

import sys

import numpy as np
import pytest

from core.errors import DataError, UsageError
from games.open_spiel import OpenSpielGame

ROW = np.zeros(1, np.int32)


@pytest.mark.parametrize(
    ("short_name", "message"),
    [
        ("brekthrough", "did you mean breakthrough"),
        ("zzzz", "choose one such as"),
        ("breakthrough(stones=3)", "Unknown parameter 'stones'"),
        ("breakthrough(rows=", "does not make the game"),
        ("breakthrough(rows=-3)", "does not make the game"),
        ("kuhn_poker", "perfect information, no chance"),
        ("backgammon", "no chance"),
        ("matrix_rps", "moves in turn"),
    ],
)
def test_what_it_cannot_play_is_refused_with_the_reason(short_name: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        OpenSpielGame(short_name)
    assert message in str(refusal.value)


def test_without_open_spiel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(UsageError, match="pip install open_spiel"):
        OpenSpielGame("breakthrough")


def test_no_network_is_fed_from_it() -> None:
    game = OpenSpielGame("breakthrough")
    states = game.new_states(1)
    game.new(states, ROW)
    with pytest.raises(UsageError, match="cannot be shown to a network"):
        game.encode(states, ROW, ROW)
    with pytest.raises(UsageError, match="cannot be shown to a network"):
        _ = game.board


def test_who_moves_first_is_player_0_whatever_open_spiel_calls_them() -> None:
    game = OpenSpielGame("chess")
    states = game.new_states(1)
    game.new(states, ROW)
    assert states[0].current_player() == 1
    assert game.to_play(states, ROW) == 0


def test_who_is_mated_has_lost() -> None:
    game = OpenSpielGame("chess")
    states = game.new_states(1)
    game.new(states, ROW)
    for name in ("f3", "e5", "g4", "Qh4#"):
        action = next(a for a in states[0].legal_actions() if states[0].action_to_string(a) == name)
        game.play(states, ROW, np.array([action], np.int16), ROW)
    assert game.to_play(states, ROW) == 0
    assert [part.tolist() for part in game.outcome(states, ROW)] == [[True], [-1.0]]


def test_a_snapshot_with_an_illegal_move_is_refused() -> None:
    game = OpenSpielGame("tic_tac_toe")
    states = game.new_states(1)
    for moves in ([4, 4], [9], [-1], [0, 3, 1, 4, 2, 5]):
        data = b"open_spiel:tic_tac_toe\0" + np.array(moves, "<i2").tobytes()
        with pytest.raises(DataError, match="is not legal"):
            game.restore(states, 0, data)


def test_a_position_shows_the_moves_by_number_and_name() -> None:
    game = OpenSpielGame("breakthrough(rows=4,columns=2)")
    states = game.new_states(1)
    game.new(states, ROW)
    picture = game.render(states, 0)
    for action in states[0].legal_actions():
        assert f"{action}={states[0].action_to_string(action)}" in picture
    assert game.game_line(states[0].legal_actions()[:2], 1.0).endswith(" x")
