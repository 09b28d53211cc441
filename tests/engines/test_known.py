"""Which programs a name may start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.known import KNOWN, at_level, known_command, parse_command


def test_only_listed_names_start_a_program():
    for protocol, name in (("gtp", "sh"), ("uci", "gnugo"), ("gtp", "../gnugo")):
        with pytest.raises(UsageError, match="no engine"):
            known_command(protocol, name, game="hex5")  # pyright: ignore[reportArgumentType]


def test_what_is_not_installed_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("engines.known._DEBIAN_GAMES", "/no/such/folder")
    with pytest.raises(UsageError, match="apt-get install stockfish"):
        known_command("uci", "stockfish", game="open_spiel:chess")


@pytest.mark.parametrize(("protocol", "name"), KNOWN)
def test_a_game_that_a_listed_program_does_not_play_is_refused_with_one_that_it_does(protocol, name):
    with pytest.raises(UsageError, match=rf"{name} does not play hex5[\s\S]*--game 'open_spiel:"):
        known_command(protocol, name, game="hex5")


@pytest.mark.system
@pytest.mark.parametrize(
    ("protocol", "name", "game"),
    [
        ("gtp", "gnugo", "open_spiel:go"),
        ("gtp", "gnugo", "open_spiel:go(board_size=19)"),
        ("uci", "stockfish", "open_spiel:chess"),
    ],
)
def test_listed_programs_are_found(protocol, name, game):
    assert known_command(protocol, name, game=game)[0].endswith(f"/{name}")


def test_a_command_is_cut_into_words_as_a_shell_does():
    assert parse_command("katahex=katahex gtp -config 'my file.cfg'") == (
        "katahex",
        ("katahex", "gtp", "-config", "my file.cfg"),
    )
    assert at_level(("x", "--level={level}", "{level}{level}"), 3) == ("x", "--level=3", "33")


@pytest.mark.parametrize("text", ["", "mohex", "mohex=", "mohex= ", "=mohex", "a b=mohex", "mohex='x"])
def test_another_way_to_write_it_is_refused(text):
    with pytest.raises(UsageError):
        parse_command(text)


@given(st.text(max_size=30))
def test_any_text_is_a_command_or_refused(text):
    try:
        name, words = parse_command(text)
    except UsageError:
        return
    assert name
    assert words
