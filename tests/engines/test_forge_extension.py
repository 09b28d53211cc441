"""A connection that stays open: detected, in any order, and each game told of once whatever goes wrong."""

import itertools
import json
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UsageError
from engines.errors import EngineFault
from engines.forge_client import Endpoint, Finished, Limits
from engines.forge_extension import GREETING, ForgeConnection
from engines.forge_protocol import GameRequest, Outcome
from engines.turns import Turns
from tests.engines.scripted_daemon import Script, Talk, scripted

DECKS = ("red.dck", "blue.dck")
IMPATIENT = Limits(connect_seconds=5.0, status_seconds=0.2, slack_seconds=-0.8)
HELLO = f"{GREETING} games=2 waiting=4"


def requests(count: int, **fields: Any) -> list[GameRequest]:
    return [GameRequest(DECKS, game_seconds=1, seed=seed, **fields) for seed in range(count)]


def serving(rest: Callable[[Talk], None], *, hello: str = HELLO) -> Script:
    def script(talk: Talk) -> None:
        assert talk.hear() == GREETING
        talk.say(hello)
        rest(talk)

    return script


def opened(endpoint: Endpoint, limits: Limits | None = None) -> ForgeConnection:
    connection = ForgeConnection.opened(endpoint, limits)
    assert connection is not None
    return connection


def result(tag: int | str, seconds: int = 1) -> str:
    return f"@{tag} GAME_RESULT: Draw in {seconds}ms"


def kinds(ends: list[Finished]) -> list[tuple[int, str]]:
    return sorted((place, end.kind if isinstance(end, EngineFault) else "played") for place, end in ends)


def hear_commands(talk: Talk, count: int) -> list[tuple[int, str]]:
    heard = [talk.hear() or "" for _ in range(count)]
    return [(int(line[1 : line.index(" ")]), line[line.index(" ") + 1 :]) for line in heard]


@pytest.mark.parametrize(
    "answer", [["ERROR: Unknown command. Use NEWGAME, STATUS, or SHUTDOWN"], ["ERROR: no"], []]
)
def test_a_daemon_without_it_is_detected(answer: list[str]) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(*answer)

    with scripted(script) as endpoint:
        assert ForgeConnection.opened(endpoint) is None


@pytest.mark.parametrize(
    "answer", ["", "HELLO tamen/2", f"{GREETING} games=0 waiting=1", "220 mail.example ESMTP"]
)
def test_what_is_neither_yes_nor_no_is_a_fault(answer: str) -> None:
    with scripted(serving(lambda talk: None, hello=answer)) as endpoint, pytest.raises(EngineFault) as caught:
        ForgeConnection.opened(endpoint)
    assert caught.value.kind == "protocol"


def test_no_answer_at_all_is_a_fault() -> None:
    with scripted(Talk.be_silent) as endpoint, pytest.raises(EngineFault) as caught:
        ForgeConnection.opened(endpoint, IMPATIENT)
    assert caught.value.kind == "timeout"


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_results_come_in_any_order_and_no_more_games_wait_than_may(
    count: int, waiting: int, seed: int
) -> None:
    order = random.Random(seed)
    waited: list[int] = []

    def rest(talk: Talk) -> None:
        held: list[tuple[int, str]] = []
        for told in range(count):
            held += hear_commands(talk, min(waiting, count - told) - len(held))
            waited.append(len(held) if talk.heard_all() else waiting + 1)
            tag, command = held.pop(order.randrange(len(held)))
            talk.say(f"@{tag} GAME_RESULT: Draw in {command.split()[-1]}ms")
        talk.hear()

    with scripted(serving(rest, hello=f"{GREETING} games=1 waiting={waiting}")) as endpoint:
        connection = opened(endpoint)
        ends = list(connection.play_batch(requests(count)))
        assert connection.is_quiet()
        connection.close()
    assert sorted(place for place, _ in ends) == list(range(count))
    for place, end in ends:  # each result went to the game that it is of
        assert isinstance(end, Outcome)
        assert end.milliseconds == place
    assert max(waited) == min(waiting, count)


def test_a_refused_game_leaves_the_others_be() -> None:
    def rest(talk: Talk) -> None:
        (first, _), (second, _), (third, _) = hear_commands(talk, 3)
        talk.say(f"@{second} ERROR: Could not load deck: x", result(third), result(first))
        (fourth, _) = hear_commands(talk, 1)[0]
        talk.say(result(fourth))

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        assert kinds(list(connection.play_batch(requests(3)))) == [
            (0, "played"),
            (1, "refused"),
            (2, "played"),
        ]
        assert kinds(list(connection.play_batch(requests(1)))) == [(0, "played")]
        connection.close()


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["GAME_RESULT: Draw in 1ms"], "protocol"),  # no id
        ([result(77)], "protocol"),  # of no game
        ([result("01")], "protocol"),
        ([result(-1)], "protocol"),
        (["@1 "], "protocol"),
        ([result(1), result(1)], "protocol"),  # twice
        ([result(1), "@1 GAME_TIMEOUT: late"], "protocol"),
        (["@2 GAME_RESULT: Agent(1)-Red won in 1ms"], "protocol"),  # of another mode
        ([], "closed"),
        ([result(2)], "closed"),
    ],
)
def test_a_fault_ends_every_game_that_can_have_begun_and_each_once(lines: list[str], kind: str) -> None:
    def rest(talk: Talk) -> None:
        hear_commands(talk, 4)
        talk.say(*lines)

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        ends = kinds(list(connection.play_batch(requests(6))))
    done = 1 if lines and lines[0] in (result(1), result(2)) else 0
    # The daemon says that it plays two at a time; those that waited behind them are not told of.
    assert [place for place, _ in ends] == list(range(2 + done))
    assert [end for _, end in ends].count("played") == done
    assert [end for _, end in ends].count(kind) == 2
    assert connection.is_broken


def test_silence_ends_them_too() -> None:
    def rest(talk: Talk) -> None:
        hear_commands(talk, 2)
        talk.say(result(2))
        talk.be_silent()

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint, Limits(slack_seconds=-0.8))
        assert kinds(list(connection.play_batch(requests(2)))) == [(0, "timeout"), (1, "played")]
        assert connection.is_broken


@pytest.mark.parametrize("comes_late", [False, True])
def test_a_game_that_hangs_fails_alone_and_before_the_others_have_ended(*, comes_late: bool) -> None:
    may_end = threading.Event()

    def rest(talk: Talk) -> None:
        (hangs, _), *others = hear_commands(talk, 4)
        for tag, _ in others[:-1]:
            talk.say(result(tag))
        assert may_end.wait(20)
        late = [result(hangs)] if comes_late else []
        talk.say(*late, result(others[-1][0]))
        talk.hear()

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint, Limits(slack_seconds=-0.5))
        ends: list[Finished] = []
        for end in connection.play_batch([*requests(3), replace(requests(1)[0], game_seconds=600)]):
            ends.append(end)
            if kinds([end]) == [(0, "timeout")]:
                may_end.set()
        assert [place for place, _ in ends] == [1, 2, 0, 3]
        assert kinds(ends) == [(0, "timeout"), (1, "played"), (2, "played"), (3, "played")]
        assert connection.is_quiet() == comes_late  # it is of use when nothing of it is left at the daemon
        assert connection.is_broken != comes_late
        connection.close()


def test_games_behind_those_that_hang_are_not_blamed() -> None:
    def rest(talk: Talk) -> None:
        hear_commands(talk, 4)
        talk.be_silent()

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint, Limits(slack_seconds=-0.8))
        assert kinds(list(connection.play_batch(requests(6)))) == [(0, "timeout"), (1, "timeout")]
        assert connection.is_broken


def test_games_that_wait_behind_those_of_another_connection_are_not_blamed() -> None:
    turns, impatient = Turns(), Limits(slack_seconds=-0.8)
    with scripted(serving(Talk.be_silent, hello=f"{GREETING} games=1 waiting=4")) as endpoint:
        first, second = (ForgeConnection.opened(endpoint, impatient, turns) for _ in range(2))
        assert first is not None
        assert second is not None
        hung = first.play_batch(requests(2))
        assert kinds([next(hung)]) == [(0, "timeout")]
        # The daemon has not begun any other game, and will not as long as that one has its only place.
        assert kinds(list(second.play_batch(requests(2)))) == []
        assert kinds(list(hung)) == []
        assert first.is_broken
        assert second.is_broken


@pytest.mark.parametrize("data", [b"@1 GAME_RES", b"@1 \xff\n", b"@1 " + b"x" * 70_000])
def test_bytes_that_are_no_line_break_it(data: bytes) -> None:
    def rest(talk: Talk) -> None:
        hear_commands(talk, 1)
        talk.say_bytes(data)

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        ((place, end),) = connection.play_batch(requests(1))
    assert place == 0
    assert isinstance(end, EngineFault)
    assert end.kind in ("closed", "garbled", "too long")


def question(tag: int, number: int) -> str:
    names = ["Agent(1)-Red", "Agent(2)-Blue"]
    message: dict[str, Any] = {"decision_type": "announce_value", "decision_id": number, "player": names[0]}
    message |= {"turn": 1, "phase": "MAIN1", "game_state": {"players": [{"name": name} for name in names]}}
    return f"@{tag} DECISION:" + json.dumps(message)


def test_replies_go_to_the_game_that_asked() -> None:
    def rest(talk: Talk) -> None:
        (first, _), (second, _) = hear_commands(talk, 2)
        replies: dict[int, list[str]] = {first: [], second: []}
        for number, tag in enumerate([second, first, second]):
            talk.say(question(tag, number))
            ((came, reply),) = hear_commands(talk, 1)
            replies[came].append(reply)
        assert replies == {first: ["1"], second: ["100", "102"]}
        talk.say(result(first), result(second))

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        decide = lambda game, decision: 100 * game + decision.number  # noqa: E731
        ends = list(connection.play_batch(requests(2, mode="interact"), decide))
        connection.close()
    assert kinds(ends) == [(0, "played"), (1, "played")]


def test_a_choice_that_is_not_allowed_closes_it() -> None:
    after: list[str | None] = []

    def rest(talk: Talk) -> None:
        ((tag, _),) = hear_commands(talk, 1)
        talk.say(question(tag, 0))
        after.append(talk.hear())

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        with pytest.raises(UsageError, match="no choice"):
            list(connection.play_batch(requests(1, mode="interact"), lambda game, decision: -5))
        assert connection.is_broken
    assert after == [None]


def test_games_that_nobody_waits_for_are_given_up() -> None:
    after: list[str | None] = []

    def rest(talk: Talk) -> None:
        hear_commands(talk, 3)
        talk.say(result(2))
        after.append(talk.hear())

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        batch = connection.play_batch(requests(3))
        assert next(batch)[0] == 1
        batch.close()
        assert connection.is_broken
    assert after == [None]


def test_a_batch_that_is_left_after_its_last_game_breaks_nothing() -> None:
    def rest(talk: Talk) -> None:
        ((tag, _),) = hear_commands(talk, 1)
        talk.say(result(tag))
        talk.hear()

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        batch = connection.play_batch(requests(1))
        assert next(batch)[0] == 0
        batch.close()
        assert connection.is_quiet()
        connection.close()


def test_the_status_is_asked_for_over_it() -> None:
    lines = [
        "X STATUS",
        "  Active games: 1",
        "  Total games played: 2",
        "  Memory: 3MB / 4MB",
        "  Max concurrent: 5",
    ]

    def rest(talk: Talk) -> None:
        for tag, line in itertools.product((1, 2), lines):
            if line is lines[0]:
                assert hear_commands(talk, 1) == [(tag, "STATUS")]
            talk.say(f"@{tag} {line}")

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        assert [connection.status().games_played for _ in range(2)] == [2, 2]
        connection.close()


def test_a_status_that_fails_breaks_it() -> None:
    def rest(talk: Talk) -> None:
        hear_commands(talk, 1)
        talk.say("@9 X STATUS")

    with scripted(serving(rest)) as endpoint:
        connection = opened(endpoint)
        with pytest.raises(EngineFault):
            connection.status()
        assert connection.is_broken


def test_what_comes_unasked_makes_it_unfit() -> None:
    with scripted(serving(lambda talk: talk.say("@1 hello"))) as endpoint:
        connection = opened(endpoint)
        while connection.is_quiet():  # until it has come; the test's own limit bounds it
            pass
        assert not connection.is_broken
        connection.close()
        assert not connection.is_quiet()
