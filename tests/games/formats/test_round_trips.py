"""What is written is read again as it was, in each form and across them."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from games.formats.reading import form_of, read_game, write_game
from games.formats.record import (
    Form,
    GameText,
    GameTextError,
    Word,
    cell_name,
    column_letters,
    column_number,
    parse_cell,
)
from games.formats.trmph import write_trmph
from games.hex import Hex
from tests.games.formats.game_texts import game_texts

FORMS: tuple[Form, ...] = ("trmph", "hexworld", "sgf")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_reads_what_it_wrote(form: Form) -> None:
    @settings(max_examples=50)
    @given(game_texts(form))
    def check(game: GameText) -> None:
        text = write_game(game, form)
        assert form_of(text) == form
        assert read_game(text) == game
        assert read_game(f"  {text}\n") == game

    check()


@pytest.mark.parametrize("there", FORMS)
@pytest.mark.parametrize("here", FORMS)
def test_what_one_form_can_say_survives_another(here: Form, there: Form) -> None:
    @settings(max_examples=25)
    @given(game_texts("trmph"))
    def check(game: GameText) -> None:
        moved = read_game(write_game(read_game(write_game(game, here)), there))
        assert replace(moved, form="trmph") == game

    check()


@given(game_texts("trmph"))
def test_the_address_of_the_site_changes_nothing(game: GameText) -> None:
    assert read_game(write_trmph(game, address=True)) == game


@given(st.sampled_from(FORMS).flatmap(game_texts), st.text(max_size=3), st.integers(0, 200))
def test_a_damaged_text_is_read_or_refused_and_nothing_else(game: GameText, dirt: str, place: int) -> None:
    text = write_game(game, game.form)
    with suppress(GameTextError):
        read_game(text[:place] + dirt + text[place + 1 :])


@given(st.integers(0, 10**6))
def test_columns_have_letters(column: int) -> None:
    assert column_number(column_letters(column)) == column


def test_columns_go_on_behind_z() -> None:
    assert [column_letters(column) for column in (0, 25, 26, 51, 52, 701, 702)] == [
        "a", "z", "aa", "az", "ba", "zz", "aaa",
    ]  # fmt: skip


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_cells_have_names(width: int, height: int, data: st.DataObject) -> None:
    cell = data.draw(st.integers(0, width * height - 1))
    assert parse_cell(cell_name(cell, width), width, height) == cell


@given(st.lists(st.integers(0, 25), max_size=20), st.sampled_from([1.0, -1.0]))
def test_our_own_games_are_read(actions: list[int], outcome: float) -> None:
    game = Hex(5, swap=True)
    read = read_game(game.game_line(actions, outcome))
    assert [25 if move == Word.SWAP_PIECES else move for move in read.moves] == actions
    assert read.winner == (0 if outcome > 0 else 1)


@pytest.mark.parametrize("word", set(Word) - {Word.SWAP_PIECES})
def test_what_trmph_has_no_word_for_is_not_written(word: Word) -> None:
    with pytest.raises(DataError, match=f"a game with {word.name.lower().replace('_', ' ')} cannot"):
        write_trmph(GameText("sgf", 5, 5, (1, word), None))


def test_trmph_knows_square_boards_only() -> None:
    with pytest.raises(DataError, match="5×6"):
        write_trmph(GameText("sgf", 5, 6, (1,), None))
