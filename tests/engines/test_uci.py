"""The UCI client: what engines say is read as the description has it, and engines that do not keep to it."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines.dialogue import Dialogue
from engines.errors import EngineFault
from engines.uci import Info, Limit, UciEngine, parse_best_move, parse_info

ENGINE = """
import sys
print("banner of a chess program", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[:1] == ["uci"]:
        print("id name Fake 1", "id author A. Nobody", "option name Hash type spin default 16", sep="\\n")
        print("option name Skill Level type spin default 20 min 0 max 20", "uciok", sep="\\n", flush=True)
    elif words[:1] == ["isready"]:
        print("readyok", flush=True)
    elif words[:1] == ["setoption"]:
        print("info string", line.strip(), flush=True)
    elif words[:1] == ["position"]:
        position = line.split(" ", 1)[1].strip()
    elif words[:1] == ["go"]:
        go = words[1:]
        REACTION
    elif words[:1] == ["stop"]:
        print("bestmove a2a4", flush=True)
    elif words[:1] == ["quit"]:
        break
"""
"""An engine in Python; REACTION is what it does when it is to search."""


def fake(reaction: str) -> Dialogue:
    return Dialogue([sys.executable, "-c", ENGINE.replace("REACTION", reaction)], engine="fake")


@pytest.mark.parametrize(
    ("line", "info"),
    [
        (
            "info depth 2 seldepth 3 multipv 1 score cp -5 nodes 71 nps 35500 hashfull 0 tbhits 0 time 2 pv e7e5 a7a8q",
            Info(depth=2, nodes=71, time_ms=2, centipawns=-5, line=("e7e5", "a7a8q")),
        ),
        ("info score mate -3 depth 9", Info(depth=9, mate=-3)),
        (
            "info score cp 30 lowerbound pv e2e4 wdl 1 2 3 nodes 8",
            Info(centipawns=30, bound="lower", line=("e2e4",), nodes=8),
        ),
        ("info currmove e2e4 currmovenumber 1", Info()),
        ("info depth x nodes 5", Info(nodes=5)),
        ("info depth 5 string depth 7", Info(depth=5)),
        ("info wdl depth 7", Info(depth=7)),
        ("info", Info()),
        ("info string NNUE evaluation enabled", None),
        ("bestmove e2e4", None),
        ("", None),
    ],
)
def test_an_info_line_is_read(line, info):
    assert parse_info(line) == info


@pytest.mark.parametrize(
    ("line", "moves"),
    [
        ("bestmove e2e4", ("e2e4", None)),
        ("bestmove E7E8Q ponder d7d8", ("e7e8q", "d7d8")),
        ("bestmove e2e4 ponder (none)", ("e2e4", None)),
        ("bestmove e2e4 ponder", ("e2e4", None)),
        ("bestmove (none)", (None, None)),
        ("bestmove 0000", (None, None)),
        ("bestmove", None),
        ("bestmove Nf3", None),
        ("info depth 1", None),
        ("", None),
    ],
)
def test_a_best_move_is_read(line, moves):
    assert parse_best_move(line) == moves


WORDS = st.sampled_from(
    ["info", "depth", "score", "cp", "mate", "pv", "string", "e2e4", "12", "-3", "lowerbound", "x"]
)


@given(st.text(max_size=40) | st.lists(WORDS, max_size=12).map(" ".join))
def test_any_line_is_read_or_passed_over(line):
    parse_info(line)
    parse_best_move(line)


@pytest.mark.parametrize("given_", [{}, {"depth": 1, "nodes": 1}, {"depth": 0}, {"movetime_ms": -1}])
def test_a_search_has_one_end(given_):
    with pytest.raises(UsageError):
        Limit(**given_)


def test_an_engine_introduces_itself_and_searches():
    with fake(
        'print("info depth", go[1], "score cp 12 pv e2e4", flush=True); print("bestmove e2e4 ponder e7e5", flush=True)'
    ) as dialogue:
        engine = UciEngine(dialogue)
        assert (engine.name, engine.author) == ("Fake 1", "A. Nobody")
        assert engine.options == {"Hash", "Skill Level"}
        engine.set_option("Skill Level", "3")
        with pytest.raises(UsageError, match="no option"):
            engine.set_option("Elo", "3")
        engine.new_game()
        best = engine.go("startpos", Limit(depth=4))
        assert (best.move, best.ponder, best.info) == (
            "e2e4",
            "e7e5",
            Info(depth=4, centipawns=12, line=("e2e4",)),
        )
        engine.quit()


def test_the_position_and_the_limit_are_told_as_they_are():
    told = 'position == "startpos moves d2d4" and go == ["nodes", "9"]'
    with fake(f'print("bestmove", "e2e4" if {told} else "(none)", flush=True)') as dialogue:
        engine = UciEngine(dialogue)
        assert engine.go("startpos moves d2d4", Limit(nodes=9)).move == "e2e4"
        assert engine.go("startpos", Limit(movetime_ms=5)).move is None


def test_a_search_without_end_is_stopped():
    with fake("pass") as dialogue:
        best = UciEngine(dialogue).go("startpos", Limit(depth=4), seconds=0.1)
    assert best.move == "a2a4"


@pytest.mark.parametrize(
    ("reaction", "kind"),
    [
        ("sys.exit(1)", "died"),
        ('sys.stdout.buffer.write(b"bestmove \\xff\\n"); sys.stdout.flush()', "garbled"),
        ('print("bestmove Nf3", flush=True)', "protocol"),
        ('print("x" * 70000, flush=True)', "too long"),
    ],
)
def test_an_engine_that_does_not_keep_to_the_protocol_is_told(reaction, kind):
    with fake(reaction) as dialogue:
        engine = UciEngine(dialogue)
        with pytest.raises(EngineFault) as fault:
            engine.go("startpos", Limit(depth=1))
    assert fault.value.kind == kind


def test_a_program_that_is_no_engine_is_told():
    hello = [sys.executable, "-c", "print('hello')"]
    with Dialogue(hello, engine="fake") as dialogue, pytest.raises(EngineFault, match="not running"):
        UciEngine(dialogue)
