"""GTP's words: commands as they come from programs, responses as the protocol wants them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.gtp_text import Command, Head, parse_colour, parse_command, parse_head, response


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("name", Command("", "name", ())),
        ("12 play black a1", Command("12", "play", ("black", "a1"))),
        ("\tplay\tb  a1 \r", Command("", "play", ("b", "a1"))),
        ("7", Command("7", "", ())),
        ("boardsize 11 11 # HexGui", Command("", "boardsize", ("11", "11"))),
        ("pl\x07ay b a1", Command("", "play", ("b", "a1"))),
        ("7up", Command("", "7up", ())),
        ("", None),
        (" \t\r", None),
        ("# interrupt", None),
    ],
)
def test_a_command_is_read_as_the_protocol_has_it(line, command):
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "=3\n\n"),
        ("a1", "=3 a1\n\n"),
        ("one\n\n \ntwo\r", "=3 one\ntwo\n\n"),
        ("\n  a b\n1 .", "=3\n  a b\n1 .\n\n"),
        ("\n\n", "=3\n\n"),
    ],
)
def test_a_response_ends_with_its_only_empty_line(text, told):
    assert response("3", accepted=True, text=text) == told


@given(st.text(max_size=60), st.booleans(), st.sampled_from(["", "0", "41"]))
def test_whatever_a_response_says_it_is_one_response(text, accepted, number):
    told = response(number, accepted=accepted, text=text)

    assert told.endswith("\n\n")
    lines = told[:-2].split("\n")
    assert all(line.strip() for line in lines)
    head = parse_head(lines[0])
    assert head is not None
    assert (head.accepted, head.id) == (accepted, number)


@given(st.text(max_size=60))
def test_any_line_is_a_command_or_nothing(line):
    command = parse_command(line)
    assert command is None or command.id or command.name


@pytest.mark.parametrize(
    ("line", "head"),
    [
        ("=", Head(True, "", "")),
        ("=12 ok then", Head(True, "12", "ok then")),
        ("?3 unknown command", Head(False, "3", "unknown command")),
        ("= 3", Head(True, "", "3")),
        ("=3\r", Head(True, "3", "")),
        ("ok", None),
        ("", None),
        ("=x", None),
        ("==", None),
    ],
)
def test_the_head_of_a_response_is_known(line, head):
    assert parse_head(line) == head


def test_colours_are_words_or_letters():
    assert [parse_colour(word) for word in ("b", "Black", "W", "white")] == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="invalid color"):
        parse_colour("blue")
