"""The ways between actors, against servers that fail, die or say nothing, without any Ray."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorUnavailableError, ObjectStoreFullError, OutOfDiskError

from cluster.on_ray.client import (
    PATIENCE_SECONDS,
    RETRY_SECONDS,
    NamedServer,
    RayClient,
    call,
    in_one_line,
    in_one_place,
    located,
)
from cluster.on_ray.routing import FIRST_PROBATION_SECONDS, LONGEST_PROBATION_SECONDS, Located
from core.errors import DataError, EvaluationError, TamenError
from core.messages import Request
from tests.cluster.fake_ray import FakeMethod, FakeRay, NoRoom, remote_error

REQUEST = Request("main", {"cells": np.zeros((4, 9), np.int8)})


class FakeServer:
    """An inference actor of which the answer to everything is known."""

    def __init__(self, answer: Any) -> None:
        self.infer = FakeMethod(answer)

    def turns(self, answer: Any) -> None:
        self.infer.answer = answer


GOOD = ({"value": np.zeros(4, np.float32)}, 7)
BROKEN = EvaluationError("the brain failed on a batch", why="RuntimeError: test", fix="none")
DEAD = ActorUnavailableError("it is being restarted", None)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr("cluster.on_ray.client.ray", fake)
    return fake


def a_client(ray: FakeRay, *servers: FakeServer) -> RayClient:
    return RayClient(at("here", *servers), clock=ray.clock, sleep=ray.sleep)


def at(node: str, *servers: FakeServer) -> list[Located]:
    return [Located(server, node) for server in servers]


def ask(client: RayClient, *, timeout_seconds: float = 1.0) -> Any:
    """Return what comes of one request, None when nothing does within the time."""
    handle = client.submit((REQUEST,))
    answer = client.wait_any([handle], timeout_seconds=timeout_seconds)
    assert answer is None or answer[0] == handle
    return answer and answer[1]


def calls(*servers: FakeServer) -> tuple[int, ...]:
    return tuple(server.infer.calls for server in servers)


def test_requests_go_to_the_server_that_owes_least(ray: FakeRay) -> None:
    first, second = FakeServer(None), FakeServer(None)
    client = a_client(ray, first, second)
    for _ in range(6):
        client.submit((REQUEST,))

    assert calls(first, second) == (3, 3)
    assert client.spilled_requests == 3


def test_each_stream_keeps_to_one_server(ray: FakeRay) -> None:
    servers = [FakeServer(GOOD), FakeServer(GOOD)]
    client = a_client(ray, *servers)
    pending: dict[Hashable, int] = {client.submit((REQUEST,), stream=stream): stream for stream in range(4)}
    assert calls(*servers) == (2, 2)
    for _ in range(20):
        before = calls(*servers)
        answer = client.wait_any(pending, timeout_seconds=1.0)
        assert answer is not None
        stream = pending.pop(answer[0])
        pending[client.submit((REQUEST,), stream=stream)] = stream
        assert servers[stream % 2].infer.calls == before[stream % 2] + 1

    assert client.spilled_requests == 0


def test_the_streams_of_one_client_go_on_where_those_of_another_end(ray: FakeRay) -> None:
    servers = [FakeServer(None) for _ in range(3)]
    for actor in range(3):
        client = RayClient(at("here", *servers), first_home=actor, clock=ray.clock, sleep=ray.sleep)
        client.submit((REQUEST,))

    assert calls(*servers) == (1, 1, 1)


def test_the_sides_of_a_match_are_streams_of_their_own(ray: FakeRay) -> None:
    servers = [FakeServer(GOOD), FakeServer(GOOD)]
    client = a_client(ray, *servers)
    sides = [Request(model, REQUEST.arrays) for model in "ab"]
    for asked in ([sides[0]], sides, [sides[1]], [sides[1]], sides):
        handle = client.submit(tuple(asked))
        client.wait_any([handle], timeout_seconds=1.0)

    assert calls(*servers) == (3, 4)
    assert client.spilled_requests == 0


def test_a_server_on_another_node_is_asked_when_no_near_one_answers(ray: FakeRay) -> None:
    far, near = FakeServer(GOOD), FakeServer(GOOD)
    client = RayClient([*at("there", far), *at("here", near)], clock=ray.clock, sleep=ray.sleep)
    for _ in range(3):
        ask(client)
    assert calls(far, near) == (0, 3)

    near.turns(DEAD)
    assert ask(client) is not None  # sent again, to the one server that is left
    assert calls(far, near) == (1, 4)
    assert client.spilled_requests == 1


def test_servers_of_which_none_is_nearer_are_asked_in_turn(ray: FakeRay) -> None:
    servers = [FakeServer(None), FakeServer(None)]
    client = RayClient(in_one_place(servers), clock=ray.clock, sleep=ray.sleep)
    for stream in range(4):
        client.submit((REQUEST,), stream=stream)

    assert calls(*servers) == (2, 2)


def test_servers_that_ray_knows_no_more_are_left_out(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"run/inference": "a handle"}

    def get_actor(name: str) -> str:
        if name not in there:
            raise ValueError(f"Failed to look up actor with name {name!r}")
        return there[name]

    monkeypatch.setattr(ray, "get_actor", get_actor, raising=False)
    named = (NamedServer("run/inference-1", "there"), NamedServer("run/inference", "here"))
    assert located(named) == [("a handle", "here")]
    assert located(named[:1]) == []  # a restarted evaluator begins with none, and is told


@pytest.mark.parametrize("failure", [BROKEN, DEAD], ids=["it cannot answer", "it is away"])
def test_a_server_that_fails_at_once_does_not_draw_the_requests(failure: Exception, ray: FakeRay) -> None:
    failing, good = FakeServer(failure), FakeServer(GOOD)
    client = a_client(ray, failing, good)
    answers = [ask(client) for _ in range(100)]

    assert failing.infer.calls == 1
    assert all(not isinstance(answer, EvaluationError) for answer in answers[1:])


def test_a_failing_server_is_tried_again_ever_more_seldom(ray: FakeRay) -> None:
    failing, good = FakeServer(BROKEN), FakeServer(GOOD)
    client = a_client(ray, failing, good)
    tried = []
    while ray.now < 600.0:
        before = failing.infer.calls
        ask(client)
        ray.now += 0.125
        if failing.infer.calls > before:
            tried.append(ray.now)
    pauses = np.diff(tried)

    assert pauses[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0], abs=0.25)
    assert pauses[-1] == pytest.approx(LONGEST_PROBATION_SECONDS, abs=0.25)


def test_a_server_that_answers_again_begins_with_the_first_probation(ray: FakeRay) -> None:
    failing, good = FakeServer(BROKEN), FakeServer(GOOD)
    client = a_client(ray, failing, good)
    for _ in range(8):
        ask(client)
        ray.now += LONGEST_PROBATION_SECONDS
    for answer in (GOOD, BROKEN):
        failing.turns(answer)
        ask(client)
    before = failing.infer.calls
    ask(client)
    assert failing.infer.calls == before
    ray.now += FIRST_PROBATION_SECONDS
    ask(client)
    assert failing.infer.calls == before + 1


def test_when_all_servers_fail_they_are_asked_all_the_same(ray: FakeRay) -> None:
    servers = [FakeServer(BROKEN), FakeServer(BROKEN)]
    client = a_client(ray, *servers)

    assert [isinstance(ask(client), EvaluationError) for _ in range(6)] == [True] * 6


def test_what_was_lost_is_sent_again_when_due_while_others_are_answered(ray: FakeRay) -> None:
    dying, good = FakeServer(DEAD), FakeServer(GOOD)
    client = a_client(ray, dying, good)
    lost, answered = client.submit((REQUEST,)), client.submit((REQUEST,))

    assert (client.wait_any([lost, answered], timeout_seconds=1.0) or (None,))[0] == answered
    assert (ray.now, ray.slept, client.resent_requests) == (0.0, 0.0, 0)
    assert (client.wait_any([lost], timeout_seconds=1.0) or (None,))[0] == lost
    assert (ray.now, client.resent_requests) == (RETRY_SECONDS, 1)


def test_waiting_for_what_is_due_later_takes_no_longer_than_was_asked(ray: FakeRay) -> None:
    client = a_client(ray, FakeServer(DEAD))

    assert ask(client, timeout_seconds=RETRY_SECONDS / 2) is None
    assert ray.now == RETRY_SECONDS / 2
    assert client.resent_requests == 0


def test_the_replies_of_one_handle_keep_the_order_of_its_requests(ray: FakeRay) -> None:
    servers = [FakeServer(DEAD), FakeServer((GOOD[0], 8))]
    client = a_client(ray, *servers)
    handle = client.submit((REQUEST, REQUEST))
    servers[0].turns((GOOD[0], 9))
    ray.now += 1.0
    answer = client.wait_any([handle], timeout_seconds=5.0)

    assert answer is not None
    assert not isinstance(answer[1], EvaluationError)
    assert [reply.weights_version for reply in answer[1]] == [8, 8]


def test_a_failed_request_fails_its_handle_once(ray: FakeRay) -> None:
    client = a_client(ray, FakeServer(BROKEN))
    handle = client.submit((REQUEST, REQUEST))

    assert client.wait_any([handle], timeout_seconds=1.0) == (handle, BROKEN)
    assert client.wait_any([handle], timeout_seconds=1.0) is None


def test_a_server_that_says_nothing_for_too_long_is_given_up_though_others_answer(ray: FakeRay) -> None:
    silent = FakeServer(None)
    client = a_client(ray, silent)
    waiting = client.submit((REQUEST,))
    assert client.wait_any([waiting], timeout_seconds=PATIENCE_SECONDS - 1.0) is None
    silent.turns(GOOD)
    ray.now += 2.0
    client.submit((REQUEST,))
    answer = client.wait_any([waiting], timeout_seconds=1.0)

    assert answer is not None
    assert answer[0] == waiting
    assert isinstance(answer[1], EvaluationError)
    assert "silent for 120 s" in answer[1].why


def test_a_server_that_stays_away_is_given_up_with_the_reason(ray: FakeRay) -> None:
    error = ask(a_client(ray, FakeServer(DEAD)), timeout_seconds=2 * PATIENCE_SECONDS)

    assert isinstance(error, EvaluationError)
    assert "it is being restarted" in error.why
    assert PATIENCE_SECONDS <= ray.now <= PATIENCE_SECONDS + 2 * RETRY_SECONDS


def test_what_a_server_owes_that_has_left_is_sent_to_the_others_at_once(ray: FakeRay) -> None:
    leaves, stays = FakeServer(None), FakeServer(GOOD)
    client = a_client(ray, leaves)
    handles = [client.submit((REQUEST, REQUEST), stream=stream) for stream in range(2)]
    client.meet(at("here", stays))
    answered = [client.wait_any(handles, timeout_seconds=1.0) for _ in handles]

    assert {answer[0] for answer in answered if answer} == set(handles)
    assert calls(leaves, stays) == (4, 4)
    assert (client.resent_requests, ray.now) == (4, 0.0)


def test_a_server_that_comes_is_asked_and_those_that_stay_keep_what_they_owe(ray: FakeRay) -> None:
    first, second, third = FakeServer(None), FakeServer(None), FakeServer(GOOD)
    client = a_client(ray, first, second)
    for _ in range(2):
        client.submit((REQUEST,))
    client.meet(at("here", first, second, third))
    client.wait_any([0], timeout_seconds=0.0)
    ask(client)

    assert calls(first, second, third) == (1, 1, 1)
    assert client.resent_requests == 0


def test_answers_that_came_while_nobody_looked_count_however_late_it_is(ray: FakeRay) -> None:
    client = a_client(ray, FakeServer(GOOD))
    handles = [client.submit((REQUEST, REQUEST)) for _ in range(2)]
    ray.now += 2 * PATIENCE_SECONDS
    answers = [client.wait_any(handles, timeout_seconds=1.0) for _ in handles]

    assert [answer and answer[0] for answer in answers] == handles
    assert not any(isinstance(answer and answer[1], EvaluationError) for answer in answers)


@pytest.mark.parametrize("wrap", [remote_error, lambda error: remote_error(remote_error(error))])
def test_what_a_remote_call_raised_is_raised_here_as_it_was(
    wrap: Callable[[Exception], Exception], ray: FakeRay
) -> None:
    wrong = DataError("a chunk is wrong", why="test", fix="none")
    with pytest.raises(DataError) as caught:
        call(FakeMethod(wrap(wrong)))

    assert caught.value is wrong
    assert 'File "part.py"' in str(caught.value.__cause__)
    assert ask(a_client(ray, FakeServer(wrap(BROKEN)))) is BROKEN


def test_an_unexpected_error_of_a_remote_call_stays_what_ray_made_of_it(ray: FakeRay) -> None:
    with pytest.raises(ZeroDivisionError, match="by zero") as caught:
        call(FakeMethod(remote_error(ZeroDivisionError("by zero"))))

    assert 'File "part.py"' in str(caught.value)


def test_an_error_is_told_in_one_line_without_its_traceback() -> None:
    full = TamenError("it could not be\nwritten", why="no space\nleft", fix="make some")

    assert in_one_line(full) == in_one_line(remote_error(full)) == "it could not be written: no space left"
    assert in_one_line(remote_error(OSError("first\nsecond"))) == "OSError: first"
    assert in_one_line(remote_error(ValueError())) == "ValueError: no more is known"


@pytest.mark.parametrize("error", [ObjectStoreFullError, OutOfDiskError])
def test_a_request_for_which_there_is_no_room_is_sent_when_there_is(
    error: type[Exception], ray: FakeRay
) -> None:
    server = FakeServer(None)
    server.infer = method = NoRoom(GOOD, times=2, error=error)  # pyright: ignore[reportAttributeAccessIssue]
    client = a_client(ray, server)
    assert isinstance(ask(client, timeout_seconds=5.0), tuple)

    assert (ray.now, client.resent_requests, method.calls) == (2 * RETRY_SECONDS, 1, 1)


def test_where_room_never_comes_a_request_fails_with_the_reason(ray: FakeRay) -> None:
    server = FakeServer(None)
    server.infer = NoRoom(GOOD, times=10**6)  # pyright: ignore[reportAttributeAccessIssue]
    error = ask(a_client(ray, server), timeout_seconds=2 * PATIENCE_SECONDS)

    assert isinstance(error, EvaluationError)
    assert error.why == "ObjectStoreFullError: Local disk is full"


def test_a_client_that_knows_no_server_waits_for_one(ray: FakeRay) -> None:
    client, server = a_client(ray), FakeServer(GOOD)
    handle = client.submit((REQUEST, REQUEST))
    assert client.wait_any([handle], timeout_seconds=60.0) is None
    client.meet(at("here", server))
    answer = client.wait_any([handle], timeout_seconds=1.0)

    assert answer is not None
    assert answer[0] == handle
    assert not isinstance(answer[1], EvaluationError)
    assert ray.now <= 60.0 + RETRY_SECONDS
    assert client.resent_requests == server.infer.calls == 2


def test_a_client_to_which_no_server_is_named_says_so(ray: FakeRay) -> None:
    client = a_client(ray, FakeServer(None))
    handle = client.submit((REQUEST,))
    client.meet([])
    answer = client.wait_any([handle], timeout_seconds=2 * PATIENCE_SECONDS)

    assert answer is not None
    assert isinstance(answer[1], EvaluationError)
    assert answer[1].why == "no inference server is known"
    assert PATIENCE_SECONDS <= ray.now <= PATIENCE_SECONDS + 2 * RETRY_SECONDS
