"""The GTP client: whole games against our own server, and engines that do not keep to the protocol."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UsageError
from engines.dialogue import Dialogue
from engines.errors import EngineFault
from engines.gtp import GtpEngine
from engines.gtp_moves import vertices_of
from games.catalog import make_game
from tests.engines.gtp_parties import RandomMind, served, table_of

LIST = ["=1 boardsize", "clear_board", "play", "genmove", ""]
"""How an engine introduces itself that knows what a game needs and no more."""


class Scripted:
    """A dialogue whose engine says what is written down for it, whatever it is asked."""

    engine = "fake"

    def __init__(self, lines: list[str]) -> None:
        self.sent: list[str] = []
        self._lines = list(lines)

    def send(self, lines: list[str], *, seconds: float) -> None:
        self.sent += lines

    def read_line(self, deadline: float, *, expected: str) -> str:
        if not self._lines:
            raise EngineFault("timeout", self.engine, why=f"{expected} did not come")
        return self._lines.pop(0)


def engine_of(*lines: str) -> GtpEngine:
    return GtpEngine(Scripted([*LIST, *lines]))  # pyright: ignore[reportArgumentType]


@settings(max_examples=30)
@given(
    st.sampled_from(["hex3", "hex4-swap", "tic_tac_toe", "connect_four", "open_spiel:go(board_size=5)"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 1),
)
def test_whole_games_are_played_alike_on_both_sides(name: str, seed: int, engines_player: int):
    """One player is the engine; the other plays at random, and takes its first move back and plays it again."""
    game = make_game(name)
    vertices = vertices_of(game)
    random = np.random.default_rng(seed)
    states, root = game.new_states(1), np.zeros(1, np.int32)
    game.new(states, root)
    with served(table_of(name, RandomMind(seed))) as pipes:
        engine = GtpEngine(pipes)  # pyright: ignore[reportArgumentType]
        engine.set_up(vertices)
        plies = 0
        while not game.outcome(states, root)[0][0]:
            player = int(game.to_play(states, root)[0])
            if player == engines_player:
                action = vertices.action(engine.generate(player))
            else:
                action = int(random.choice(np.flatnonzero(game.legal(states, root)[0])))
                engine.play(player, vertices.names[action])
                if plies < 2:
                    engine.undo()
                    engine.play(player, vertices.names[action])
            assert action is not None
            assert game.legal(states, root)[0, action]
            game.play(states, root, np.array([action], np.int16), root)
            plies += 1
        value = game.outcome(states, root)[1][0] * (1 if game.to_play(states, root)[0] == 0 else -1)
        assert engine.final_score()[:2] == {1.0: "B+", -1.0: "W+", 0.0: "0"}[float(value)]
        assert engine.ask("all_legal_moves") == ""
        engine.quit()


def test_many_commands_at_once_are_answered_in_their_order():
    with served(table_of("hex3")) as pipes:
        engine = GtpEngine(pipes)  # pyright: ignore[reportArgumentType]
        assert engine.name == "tamen random at hex3"
        assert engine.ask_all(["protocol_version", "known_command play"] * 300) == ["2", "true"] * 300


def test_of_several_refusals_the_first_is_told_and_the_engine_is_as_good_as_before():
    with served(table_of("hex3")) as pipes:
        engine = GtpEngine(pipes)  # pyright: ignore[reportArgumentType]
        with pytest.raises(EngineFault, match="refused") as refused:
            engine.ask_all(["play black a1", "play white a1", "play white z1", "play white b1"])
        assert refused.value.kind == "refused"
        assert "play white a1" in refused.value.why
        assert "b1" not in engine.ask("all_legal_moves")
        assert "●" in engine.board()


def test_what_hex_programs_say_is_understood():
    engine = engine_of("=2 pss", "", "=3 swap", "", "=4 C3", "", "=5 resign", "")
    assert [engine.generate(0) for _ in range(4)] == ["pass", "swap-pieces", "c3", "resign"]


def test_empty_lines_and_carriage_returns_between_responses_are_passed_over():
    engine = engine_of("", "\r", "=2 a1\r", "\r", " ", "=3 a2", "")
    assert [engine.generate(0), engine.generate(1)] == ["a1", "a2"]


@pytest.mark.parametrize(
    ("lines", "kind", "told"),
    [
        (["=3 a1", ""], "protocol", "=3 a1"),
        (["= a1", ""], "protocol", "= a1"),
        (["a1"], "protocol", "'a1'"),
        (["warning: no book", "=2 a1", ""], "protocol", "no book"),
        (["=2 a1 b1", ""], "protocol", "a1 b1"),
        (["=2", ""], "protocol", "''"),
        (["=2 a0", ""], "protocol", "a0"),
        (["=2 Z100", ""], "protocol", "z100"),
        (["?2 out of memory", ""], "refused", "out of memory"),
        (["=2 a1"], "timeout", "the end of"),
        ([], "timeout", "genmove black"),
        (["=2 a1", *(["more"] * 5000), ""], "too long", "4096"),
    ],
)
def test_what_is_no_move_is_told_with_what_was_expected(lines: list[str], kind: str, told: str):
    with pytest.raises(EngineFault) as fault:
        engine_of(*lines).generate(0)
    assert (fault.value.kind, fault.value.engine) == (kind, "fake")
    assert told in fault.value.why


@pytest.mark.parametrize(
    "lines",
    [
        ["=1 boardsize", "play", "genmove", ""],
        [*LIST[:1], "protocol_version", *LIST[1:], "=2 1", ""],
    ],
)
def test_an_engine_that_cannot_play_is_refused(lines: list[str]):
    with pytest.raises(EngineFault) as fault:
        GtpEngine(Scripted(lines))  # pyright: ignore[reportArgumentType]
    assert fault.value.kind == "protocol"


def test_a_command_is_one_line():
    with served(table_of("hex3")) as pipes:
        engine = GtpEngine(pipes)  # pyright: ignore[reportArgumentType]
        with pytest.raises(UsageError):
            engine.ask("play black a1\nquit")


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_that_dies_is_told_with_its_last_words():
    code = "import sys; input(); sys.stderr.write('no licence found'); sys.exit(3)"
    with Dialogue(program(code), engine="fake go") as dialogue, pytest.raises(EngineFault) as fault:
        GtpEngine(dialogue)
    assert fault.value.kind == "died"
    assert fault.value.what.startswith("fake go")
    assert "exit code 3" in fault.value.why
    assert "no licence found" in fault.value.why


def test_a_program_that_dies_of_a_signal_or_writes_garbage_or_no_line_is_told():
    for code, kind in (
        ("import os; input(); os.kill(os.getpid(), 11)", "died"),
        (
            "import sys; input(); sys.stdout.buffer.write(b'=1 \\xff\\n'); sys.stdout.flush(); input()",
            "garbled",
        ),
        (
            "import sys; input(); sys.stdout.write('=1 ' + 'x' * 70000); sys.stdout.flush(); input()",
            "too long",
        ),
    ):
        with Dialogue(program(code), engine="fake") as dialogue, pytest.raises(EngineFault) as fault:
            GtpEngine(dialogue)
        assert fault.value.kind == kind, fault.value


def test_a_program_that_says_nothing_is_not_waited_for():
    with Dialogue(program("import time; time.sleep(60)"), engine="fake") as dialogue:
        with pytest.raises(EngineFault) as fault:
            GtpEngine(dialogue, seconds=0.2)
        assert fault.value.kind == "timeout"


def test_a_program_that_is_not_there_is_told_before_anything_starts():
    with pytest.raises(UsageError, match="no-such-engine"):
        Dialogue(["no-such-engine"], engine="fake")
