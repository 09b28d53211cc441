"""The board behind a GTP server: what programs tell of a game, in whatever order they do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.gtp_table import GameTable
from games.catalog import make_game
from tests.engines.gtp_parties import RandomMind, table_of

GO = "open_spiel:go(board_size=5,komi=2.5)"


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


def test_white_may_generate_the_first_move_with_the_swap_rule_and_nobody_swaps_then():
    table = table_of("hex3-swap")
    move = generate(table, 1)
    assert table.to_play == 0
    assert sorted([*table.legal(), move]) == sorted(table.vertices.names[:9])


def test_in_go_two_passes_end_the_game_and_more_of_them_change_nothing():
    table = told(table_of(GO), "b c3", "w pass", "b pass")
    assert table.score() == "B+22.5"
    for player in (0, 1, 1, 0):
        assert generate(table, player, play=False) == "pass"
        assert generate(table, player) == "pass"
    told(table, "b pass", "w pass")
    assert table.score() == "B+22.5"
    for _ in range(7):
        table.undo()
    assert not table.terminal


def test_in_go_play_goes_on_after_two_passes_where_a_stone_is_told():
    table = told(table_of(GO), "b c3", "w pass", "b pass", "w d4")
    assert (table.terminal, table.to_play) == (False, 0)
    told(table, "b pass", "w pass", "b pass", "w pass")
    assert table.terminal
    told(table, "w e5", "w pass")
    assert (table.terminal, table.to_play) == (False, 0)
    table.undo()
    table.undo()
    assert table.terminal


def test_in_go_who_has_passed_may_be_asked_for_a_move():
    table = told(table_of(GO), "b c3", "w pass")
    assert generate(table, 1, play=False) in table.legal()
    assert not told(table, "w pass").terminal  # black has not passed
    assert told(table, "b pass").terminal


def test_in_go_a_pass_after_moves_in_a_row_does_not_end_the_game():
    assert told(table_of(GO), "b c3", "b b2", "b pass").to_play == 1


@given(st.integers(0, 2**32 - 1))
def test_the_score_of_go_says_who_has_won_and_agrees_with_the_rules(seed: int):
    random = np.random.default_rng(seed)
    table = table_of(GO)
    for ply in range(random.integers(30)):
        moves = table.legal()
        table.play(ply % 2, moves[random.integers(len(moves))])
        if table.terminal:
            break
    while not table.terminal:
        told(table, f"{'bw'[table.to_play]} pass")
    score, winner = table.score(), table.winner()
    if winner is None:  # by a position that came again
        assert score == "0"
    else:
        assert score[:2] == ("B+", "W+")[winner]
        assert (float(score[2:]) % 1, float(score[2:]) > 0) == (0.5, True)


def test_the_score_of_go_counts_stones_and_what_they_surround():
    table = table_of(GO)
    for row in range(1, 6):
        told(table, f"b b{row}", f"w d{row}")
    told(table, "b pass", "w pass")
    assert table.score() == "W+2.5"  # ten points each; the middle touches both
    table.undo()
    told(table, "w e1", "b c2", "w pass", "b pass")
    assert table.score() == "W+1.5"


def test_the_board_of_go_is_drawn_without_its_moves():
    assert told(table_of(GO), "b a1", "w e2").render().splitlines() == [
        "   A B C D E   ● black, ○ white",
        *(f" {row} · · · · · {row}" for row in (5, 4, 3)),
        " 2 · · · · ○ 2",
        " 1 ● · · · · 1",
        "   A B C D E",
    ]


def test_several_moves_are_played_or_none():
    table = table_of("hex3")
    table.play_all([(0, "a1"), (0, "a2"), (1, "b1")])
    before = table.render()
    with pytest.raises(UsageError, match="illegal move"):
        table.play_all([(0, "c3"), (1, "a1")])
    assert table.render() == before
    table.undo()
    assert "b1" in table.legal()


def test_in_go_a_pass_stands_for_a_missing_move():
    table = told(table_of("open_spiel:go(board_size=5)"), "b c3", "b b2", "w d4")
    assert table.to_play == 0
    generate(table, 1)
    assert table.to_play == 0


@pytest.mark.parametrize("game", ["hex3", "hex3-swap"])
def test_in_hex_a_colour_may_move_twice_in_a_row(game: str):
    table = told(table_of(game), "b a1", "b b1")
    assert (table.to_play, table.legal()) == (1, ["c1", "a2", "b2", "c2", "a3", "b3", "c3"])
    told(table, "w a2", "w b2", "b a3", "w c2")  # left to right: white's sides
    assert (table.winner(), table.score()) == (1, "W+")
    table.undo()
    assert (table.terminal, table.to_play) == (False, 1)


@pytest.mark.parametrize("begins", ["b", "w"])
def test_in_hex_moves_of_a_colour_may_be_generated_in_a_row(begins: str):
    table = told(table_of("hex3"), f"{begins} a1")
    player = int(begins == "w")
    moves = [generate(table, player), generate(table, player)]
    assert table.to_play == 1 - player
    table.undo()
    assert moves[0] not in table.legal()
    assert moves[1] in table.legal()
    assert table.to_play == 1 - player


@pytest.mark.parametrize("game", ["tic_tac_toe", "connect_four"])
def test_a_move_out_of_turn_is_refused_where_the_rules_have_no_pass(game: str):
    table = table_of(game)
    table.play(0, table.legal()[0])
    for out_of_turn in (lambda: table.play(0, table.legal()[-1]), lambda: generate(table, 0)):
        with pytest.raises(UsageError, match="illegal move") as refused:
            out_of_turn()
        assert refused.value.why == f"it is the turn of white, and {game} knows no pass"
        assert table.to_play == 1


@given(st.integers(0, 2**32 - 1))
def test_of_hex_the_order_of_stones_does_not_matter(seed: int):
    random = np.random.default_rng(seed)
    table = table_of("hex3")
    names = random.permutation(table.vertices.names).tolist()
    moves = [f"{'bw'[place % 2]} {name}" for place, name in enumerate(names)]
    ends = set[tuple[int | None, str]]()
    for order in (range(9), random.permutation(9)):
        table.clear()
        for place in order:
            if not table.terminal:
                told(table, moves[place])
        ends.add((table.winner(), table.score()))
    assert len(ends) == 1  # who has joined the sides of a full board


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
