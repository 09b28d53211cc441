"""One command a connection: what a daemon may do wrong, and that each game is told of once."""

import json
import threading
import time
from typing import Any

import pytest

from core.errors import UsageError
from engines.errors import EngineFault
from engines.forge_client import Endpoint, ForgeClient, Limits
from engines.forge_decisions import Choice, Decision
from engines.forge_protocol import GameRequest, Outcome
from engines.lines import MAX_LINE_BYTES
from tests.engines.scripted_daemon import Script, Talk, scripted

REQUEST = GameRequest(("red.dck", "blue.dck"), game_seconds=1)
RESULT = "GAME_RESULT: Ai(1)-Red won in 5ms"
IMPATIENT = Limits(connect_seconds=5.0, status_seconds=0.2, slack_seconds=-0.8)
"""Waits 0.2 s for a game."""
STATUS = ("FORGE DAEMON STATUS", "  Active games: 0", "  Total games played: 7", "  Memory: 1MB / 2MB")


def question(number: int, seat: int) -> str:
    names = ["Agent(1)-Red", "Agent(2)-Blue"]
    message: dict[str, Any] = {
        "decision_type": "confirm_action",
        "decision_id": number,
        "player": names[seat - 1],
    }
    message |= {"turn": 1, "phase": "MAIN1", "game_state": {"players": [{"name": name} for name in names]}}
    return "DECISION:" + json.dumps(message)


def answering(*lines: str) -> Script:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(*lines)

    return script


def fault_of(script: Script, limits: Limits | None = None) -> EngineFault:
    with scripted(script) as endpoint, pytest.raises(EngineFault) as caught:
        ForgeClient(endpoint, limits).play(REQUEST)
    assert str(endpoint) in caught.value.what
    return caught.value


def test_a_game_is_one_connection_and_one_command() -> None:
    heard: list[str | None] = []

    def script(talk: Talk) -> None:
        heard.append(talk.hear())
        talk.say(RESULT)
        heard.append(talk.hear())

    with scripted(script) as endpoint:
        outcome = ForgeClient(endpoint).play(REQUEST)
    assert outcome == Outcome(0, 5, seed=None, timed_out=False, error=None, decisions=())
    assert heard == [REQUEST.line(), None]


def test_a_result_after_a_timeout_is_read() -> None:
    with scripted(
        answering("GAME_TIMEOUT: Game exceeded 1 seconds", "GAME_RESULT: Draw in 1001ms")
    ) as endpoint:
        outcome = ForgeClient(endpoint).play(REQUEST)
    assert outcome.timed_out
    assert outcome.winner is None


def test_both_seats_are_asked_and_each_reply_follows_its_question() -> None:
    talked: list[str | None] = []
    asked: list[tuple[int, int]] = []

    def script(talk: Talk) -> None:
        talk.hear()
        for number, seat in ((0, 1), (0, 2), (1, 1)):
            talk.say(question(number, seat))
            talked.append(talk.hear())
        talk.say("GAME_RESULT: Agent(2)-Blue won in 9ms")

    def decide(game: int, decision: Decision) -> Choice:
        asked.append((game, decision.seat))
        return decision.seat == 0

    with scripted(script) as endpoint:
        outcome = ForgeClient(endpoint).play(GameRequest(REQUEST.decks, "interact"), decide)
    assert talked == ["y", "n", "y"]
    assert asked == [(0, 0), (0, 1), (0, 0)]
    assert [decision.choice for decision in outcome.decisions] == [True, False, True]


def test_a_choice_that_is_not_allowed_is_not_sent() -> None:
    after: list[str | None] = []

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(question(0, 1))
        after.append(talk.hear())

    with scripted(script) as endpoint, pytest.raises(UsageError, match="no choice"):
        ForgeClient(endpoint).play(GameRequest(REQUEST.decks, "interact"), lambda game, decision: 7)
    assert after == [None]


@pytest.mark.parametrize(
    ("sent", "kind", "told"),
    [
        (b"", "closed", "a result was expected"),
        (b"GAME_TIMEOUT: x\n", "closed", "a result was expected"),
        (b"GAME_RESULT: Ai(1)-R", "closed", "inside a line"),
        (b"GAME_RESULT: \xff\xfe\n", "garbled", "byte 13"),
        (b"x" * (MAX_LINE_BYTES + 10), "too long", "without an end"),
        (b"HTTP/1.1 400 Bad Request\r\n", "protocol", "HTTP/1.1"),
        (b"GAME_RESULT: Agent(1)-Nobody won in 1ms\n", "protocol", "Nobody"),
        (b"ERROR: Could not load deck: red.dck\n", "refused", "red.dck"),
    ],
)
def test_what_a_daemon_does_wrong_is_told_by_its_kind(sent: bytes, kind: str, told: str) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say_bytes(sent)

    fault = fault_of(script)
    assert fault.kind == kind
    assert told in fault.why


def test_a_longer_line_is_read_where_that_was_asked_for() -> None:
    broken = "GAME_ERROR: " + "x" * 2 * MAX_LINE_BYTES
    with scripted(answering(broken, "GAME_RESULT: Draw in 1ms")) as endpoint:
        outcome = ForgeClient(endpoint, Limits(line_bytes=3 * MAX_LINE_BYTES)).play(REQUEST)
    assert len(outcome.error or "") == 2 * MAX_LINE_BYTES


@pytest.mark.parametrize("before", [(), ("SEED: 1",), ("GAME_TIMEOUT: x",)])
def test_silence_ends_at_the_deadline(before: tuple[str, ...]) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(*before)
        talk.be_silent()

    assert fault_of(script, IMPATIENT).kind == "timeout"


def test_a_daemon_that_talks_for_ever_is_left_at_the_deadline() -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        while True:
            talk.say_bytes(b"x")
            time.sleep(0.01)

    assert fault_of(script, IMPATIENT).kind == "timeout"


def test_nobody_there_is_told_as_such() -> None:
    with scripted(answering(RESULT)) as endpoint:
        pass
    with pytest.raises(EngineFault, match="is not running") as caught:
        ForgeClient(endpoint).play(REQUEST)
    assert caught.value.kind == "died"


def test_a_batch_ends_with_the_first_fault_that_is_no_refusal() -> None:
    left = iter([RESULT, "ERROR: Could not load deck: x", "GAME_RESULT: Draw in 1ms", "nonsense", RESULT])
    lock = threading.Lock()

    def script(talk: Talk) -> None:
        talk.hear()
        with lock:
            line = next(left)
        talk.say(line)

    with scripted(script) as endpoint:
        ends = list(ForgeClient(endpoint).play_batch([REQUEST] * 6))
    assert [place for place, _ in ends] == [0, 1, 2, 3]
    assert [getattr(end, "kind", "played") for _, end in ends] == ["played", "refused", "played", "protocol"]
    assert next(left) == RESULT


@pytest.mark.parametrize("behind", [RESULT, "GAME_RESULT: Ai(2)-Blue won in 5ms", "DECISION:{}", "x"])
def test_what_comes_behind_a_result_is_a_fault(behind: str) -> None:
    fault = fault_of(answering(RESULT, behind))
    assert fault.kind == "protocol"
    assert "nothing after the result" in fault.why


def test_a_connection_that_stays_open_behind_its_result_costs_no_game() -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(RESULT)
        talk.be_silent()

    with scripted(script) as endpoint:
        assert ForgeClient(endpoint).play(REQUEST).winner == 0


def test_the_status_is_asked_for() -> None:
    with scripted(answering(*STATUS, "  Max concurrent: 10")) as endpoint:
        assert ForgeClient(endpoint).status().games_played == 7


@pytest.mark.parametrize(("lines", "kind"), [(STATUS, "closed"), ((*STATUS, "more"), "protocol")])
def test_a_status_that_is_not_whole_is_a_fault(lines: tuple[str, ...], kind: str) -> None:
    with scripted(answering(*lines)) as endpoint, pytest.raises(EngineFault) as caught:
        ForgeClient(endpoint).status()
    assert caught.value.kind == kind


def test_a_hanging_daemon_does_not_tell_its_status() -> None:
    with scripted(Talk.be_silent) as endpoint, pytest.raises(EngineFault) as caught:
        ForgeClient(endpoint, IMPATIENT).status()
    assert caught.value.kind == "timeout"


def test_a_game_to_decide_needs_somebody_who_decides() -> None:
    with scripted(answering(question(0, 1))) as endpoint, pytest.raises(ValueError, match="who decides"):
        ForgeClient(endpoint).play(GameRequest(REQUEST.decks, "interact"))


def test_an_endpoint_is_on_loopback_unless_told() -> None:
    assert Endpoint(17171).host == "127.0.0.1"
