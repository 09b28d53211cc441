"""The board behind a GTP server: what programs tell of a game, in whatever order they do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.gtp_table import GameTable
from games.catalog import make_game
from tests.engines.gtp_parties import RandomMind, table_of


def never() -> bool:
    return False


def generate(table: GameTable, player: int, *, play: bool = True) -> str:
    return table.generate(1 if player else 0, play=play, hurried=never)


def told(table: GameTable, *moves: str) -> GameTable:
    """Tell moves such as "b a1"."""
    for move in moves:
        colour, point = move.split()
        table.play(int(colour == "w"), point)
    return table


def test_moves_in_turn_are_played_and_taken_back():
    table = told(table_of("hex3"), "b a1", "w b2")
    assert "●" in table.render()
    assert table.to_play == 0
    table.undo()
    assert table.to_play == 1
    assert "b2" in table.legal()
    table.undo()
    with pytest.raises(UsageError, match="cannot undo"):
        table.undo()


@pytest.mark.parametrize("move", ["w a2", "b a2", "w z1", "w pass", "w swap-pieces", "w "])
def test_a_move_that_cannot_be_played_changes_nothing(move):
    table = told(table_of("hex3"), "b a1", "w a2", "b b1")
    before = table.render(), table.legal(), table.to_play
    colour, point = move.split(" ")
    with pytest.raises(UsageError, match="illegal move"):
        table.play(int(colour == "w"), point)
    assert (table.render(), table.legal(), table.to_play) == before


def test_in_hex_white_may_begin():
    table = told(table_of("hex3"), "w a3", "b c1")
    assert table.to_play == 1
    assert sorted(table.legal()) == ["a1", "a2", "b1", "b2", "b3", "c2", "c3"]
    told(table, "w b2", "b a1")
    assert "c1" not in table.legal()
    told(table, "w c2")  # left to right: white's sides
    assert table.winner() == 1
    table.undo()
    assert not table.terminal


def test_in_hex_white_may_generate_the_first_move():
    table = table_of("hex3")
    move = generate(table, 1)
    assert (move in table.legal(), table.to_play) == (False, 0)


def test_a_swap_told_as_the_plays_that_it_leads_to():
    # Black's a2 became white's b1; the GUI tells only what lies there, and has black move.
    table = told(table_of("hex3-swap"), "w b1")
    assert table.to_play == 0
    by_words = told(table_of("hex3-swap"), "b a2", "w swap-pieces")
    assert table.legal() == by_words.legal()
    assert table.render() == by_words.render()
    assert told(table, "b b2").to_play == 1


def test_of_white_nothing_else_is_asked_on_an_empty_board_with_the_swap_rule():
    with pytest.raises(UsageError, match="turn of black"):
        generate(table_of("hex3-swap"), 1)


def test_in_go_a_pass_stands_for_a_missing_move():
    table = told(table_of("open_spiel:go(board_size=5)"), "b c3", "b b2", "w d4")
    assert table.to_play == 0
    generate(table, 1)
    assert table.to_play == 0


def test_a_generated_move_out_of_turn_is_refused_in_hex():
    table = told(table_of("hex3"), "b a1")
    with pytest.raises(UsageError, match="turn of white"):
        generate(table, 0)
    assert table.to_play == 1


def test_asked_without_playing_nothing_is_played():
    table = told(table_of("hex3"), "b a1")
    before = table.render()
    assert generate(table, 1, play=False) in table.legal()
    assert table.render() == before


def test_who_has_lost_resigns_and_who_has_won_is_told_so():
    table = told(table_of("hex3"), "b a1", "w b1", "b a2", "w b2", "b a3")
    assert table.winner() == 0
    assert generate(table, 1) == "resign"
    with pytest.raises(UsageError, match="the game is over"):
        generate(table, 0)
    with pytest.raises(UsageError, match="over"):
        table.think(search=True, hurried=never)


def test_a_draw_has_no_winner():
    table = told(
        table_of("tic_tac_toe"), *("b a1", "w b1", "b c1", "w b2", "b a2", "w c2", "b b3", "w a3", "b c3")
    )
    assert table.winner() is None
    with pytest.raises(UsageError, match="over"):
        generate(table, 1)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_game_that_white_begins_is_that_of_black_turned_over(seed, black_begins):
    # What is told with colours and board exchanged leads to the same legal moves, exchanged, and the other winner.
    game = make_game("hex4")
    moves = np.random.default_rng(seed).permutation(16).tolist()
    straight, turned = table_of("hex4", RandomMind()), table_of("hex4", RandomMind())
    mirror = game.views[2].tolist()
    names = straight.vertices.names
    for ply, action in enumerate(moves):
        if straight.terminal:
            break
        player = ply % 2 if black_begins else 1 - ply % 2
        straight.play(player, names[action])
        turned.play(1 - player, names[mirror[action]])
        assert sorted(turned.legal()) == sorted(
            names[mirror[straight.vertices.action(name)]] for name in straight.legal()
        )
    assert turned.winner() == 1 - straight.winner()


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["a1", "b2", "c3", "swap", "undo", "pass", "x"])),
        max_size=12,
    )
)
def test_whatever_is_told_the_board_stays_one_of_the_game(steps):
    for name in ("hex3", "hex3-swap", "tic_tac_toe", "open_spiel:go(board_size=5)"):
        table = table_of(name)
        for player, text in steps:
            before = table.render()
            try:
                table.undo() if text == "undo" else table.play(player, text)
            except UsageError:
                assert table.render() == before
        assert bool(table.legal()) == (not table.terminal)
