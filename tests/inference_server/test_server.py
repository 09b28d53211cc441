"""One thread answers everyone: what runs together, what fails alone, and when new weights begin to count."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from time import monotonic, time
from typing import Any

import numpy as np
import pytest

from configs.schema import InferenceConfig
from core.errors import ClusterError, EvaluationError
from core.messages import Reply, Request
from core.metrics import NoMetrics
from inference_server import server as server_module
from inference_server.server import InferenceServer
from networks.tower import BoardNet
from tests.inference_server.brains import (
    TIMEOUT_SECONDS,
    Gate,
    ScriptedHost,
    a_host,
    a_request,
    assert_same_outputs,
    boards,
    damaged,
    outputs,
    some_weights,
)

Serve = Callable[..., InferenceServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that are stopped at the end: serve(host, max_batch_rows=64)."""
    started: list[InferenceServer] = []

    def start(
        host: Any,
        *,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
        **config: Any,
    ) -> InferenceServer:
        clocks = {"clock": clock, "wall_clock": wall_clock}
        server = InferenceServer(host, InferenceConfig(**config), metrics=NoMetrics(), **clocks)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop(TIMEOUT_SECONDS)
        assert not server.alive


def answer(future: Future[Reply]) -> Reply:
    return future.result(TIMEOUT_SECONDS)


def failure(future: Future[Reply]) -> EvaluationError:
    error = future.exception(TIMEOUT_SECONDS)
    assert isinstance(error, EvaluationError)
    return error


def numbers(future: Future[Reply]) -> list[int]:
    return answer(future).arrays["number"].tolist()


def test_callers_of_several_models_each_get_their_own_rows(serve: Serve) -> None:
    a, b = some_weights("a", version=3), some_weights("b", version=5)
    server = serve(a_host(a, b), max_batch_rows=16)
    asked = [(weights, boards(1 + seed % 7, seed=seed)) for seed in range(20) for weights in (a, b)]
    futures = [server.submit(Request(weights.model, arrays)) for weights, arrays in asked]

    for (weights, arrays), future in zip(asked, futures, strict=True):
        assert answer(future).weights_version == weights.version
        assert_same_outputs(answer(future).arrays, outputs(weights, arrays))


def test_what_came_during_a_forward_runs_together_in_the_next(serve: Serve) -> None:
    gate = Gate()
    host = ScriptedHost(before_evaluation=gate)
    server = serve(host)
    futures = [server.submit(a_request(0))]
    gate.wait_until_entered()
    futures += [server.submit(a_request(value, rows=2)) for value in (1, 2, 3)]
    gate.open()

    assert [numbers(future) for future in futures] == [[0], [1, 1], [2, 2], [3, 3]]
    assert [batch for _, batch, _ in host.batches] == [[0], [1, 1, 2, 2, 3, 3]]


def test_the_counters_tell_batches_requests_and_rows(serve: Serve) -> None:
    gate = Gate()
    server = serve(ScriptedHost(before_evaluation=gate))
    futures = [server.submit(a_request(0))]
    gate.wait_until_entered()
    futures += [server.submit(a_request(1, rows=3)), server.submit(a_request(2, rows=2))]
    gate.open()
    wait_for(futures, TIMEOUT_SECONDS)
    server.stop()

    stats = server.stats
    assert (stats.batches, stats.requests, stats.rows, stats.failed_requests) == (2, 3, 6, 0)
    assert stats.batch_rows[:3] == [1, 0, 1]  # one row, and five
    assert sum(stats.waits) == 3


BAD_REQUESTS = {
    "another model": Request("nobody", boards(2)),
    "another array name": Request("main", {"stones": np.zeros((2, 9), np.int8)}),
    "another dtype": Request("main", {"cells": np.zeros((2, 9), np.int64)}),
    "another shape": Request("main", {"cells": np.zeros((2, 4, 4), np.int8)}),
    "no rows": Request("main", {"cells": np.zeros((0, 9), np.int8)}),
    "no arrays": Request("main", {}),
    "a number for an array": Request("main", {"cells": np.int8(1)}),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("bad", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_fails_alone(serve: Serve, bad: Request) -> None:
    server = serve(a_host(some_weights()), idle_wait_ms=50.0)  # long enough for the three to run together
    before = server.submit(Request("main", boards(3)))
    wrong = server.submit(bad)
    after = server.submit(Request("main", boards(2, seed=1)))

    assert failure(wrong).fix
    assert_same_outputs(answer(before).arrays, outputs(some_weights(), boards(3)))
    assert_same_outputs(answer(after).arrays, outputs(some_weights(), boards(2, seed=1)))
    assert server.stats.failed_requests == 1
    assert server.alive


def test_a_forward_that_raises_fails_its_batch_and_the_server_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = some_weights(channels=4)  # runs in torch

    def broken(net: BoardNet, inputs: object) -> None:
        raise RuntimeError("out of memory")

    server = serve(a_host(weights))
    with monkeypatch.context() as patch:
        patch.setattr(BoardNet, "forward", broken)
        assert failure(server.submit(Request("main", boards(2)))).why == "out of memory"

    assert_same_outputs(answer(server.submit(Request("main", boards(2)))).arrays, outputs(weights, boards(2)))


def test_even_a_failure_nobody_thought_of_reaches_every_caller_of_the_batch(serve: Serve) -> None:
    def surprise(batch: list[int]) -> None:
        if 13 in batch:
            raise ZeroDivisionError("surprise")

    server = serve(ScriptedHost(before_evaluation=surprise), idle_wait_ms=50.0)
    futures = [server.submit(a_request(value)) for value in (12, 13, 14)]

    assert {failure(future).why for future in futures} == {"ZeroDivisionError: surprise"}
    assert numbers(server.submit(a_request(1))) == [1]


def test_offered_weights_answer_from_the_next_batch_on_and_never_within_one(serve: Serve) -> None:
    gate = Gate()
    host = ScriptedHost(before_evaluation=gate, loaded=1)
    server = serve(host)
    during = server.submit(a_request(1))
    gate.wait_until_entered()
    server.offer(some_weights(version=2))
    after = server.submit(a_request(2))
    gate.open()

    assert (answer(during).weights_version, answer(after).weights_version) == (1, 2)
    assert server.stats.weights_swaps == 1


def test_of_several_offers_the_last_counts(serve: Serve) -> None:
    gate = Gate()
    server = serve(ScriptedHost(before_evaluation=gate))
    server.submit(a_request(1))
    gate.wait_until_entered()
    for version in (1, 2, 3):
        server.offer(some_weights(version=version))
    after = server.submit(a_request(2))
    gate.open()

    assert answer(after).weights_version == 3
    assert server.stats.weights_swaps == 1


def test_every_reply_is_of_one_version_while_weights_change(serve: Serve) -> None:
    versions = {version: some_weights(version=version) for version in range(6)}
    expected = {version: outputs(weights, boards(4)) for version, weights in versions.items()}
    server = serve(a_host(versions[0]), max_batch_rows=8, cache_positions=64)
    futures = []
    for weights in versions.values():
        server.offer(weights)
        futures += [server.submit(Request("main", boards(4))) for _ in range(5)]

    seen = [answer(future).weights_version for future in futures]
    assert seen == sorted(seen)
    assert seen[-1] == 5
    for future in futures:
        assert_same_outputs(answer(future).arrays, expected[answer(future).weights_version])


def test_weights_with_a_wrong_digest_are_refused_and_the_old_ones_answer_on(serve: Serve) -> None:
    server = serve(a_host(some_weights(version=1)))
    answer(server.submit(Request("main", boards(2))))
    server.offer(damaged(some_weights(version=2)))
    reply = answer(server.submit(Request("main", boards(2))))
    reply = answer(server.submit(Request("main", boards(2))))

    assert reply.weights_version == 1
    assert_same_outputs(reply.arrays, outputs(some_weights(version=1), boards(2)))
    assert server.stats.weights_refused == 1
    assert "digest" in server.stats.last_refusal


def test_weights_that_cannot_be_loaded_for_any_reason_leave_the_server_alive(serve: Serve) -> None:
    class OutOfMemory(ScriptedHost):
        def prepare(self, weights: Any) -> Any:
            raise RuntimeError("out of memory")

    server = serve(OutOfMemory())
    server.offer(some_weights(version=2))

    assert answer(server.submit(a_request(1))).weights_version == 0
    assert answer(server.submit(a_request(2))).weights_version == 0
    assert server.stats.weights_refused == 1


def test_a_cancelled_request_does_not_disturb_its_neighbours(serve: Serve) -> None:
    gate = Gate()
    server = serve(ScriptedHost(before_evaluation=gate))
    first = server.submit(a_request(0))
    gate.wait_until_entered()
    futures = [server.submit(a_request(value, rows=2)) for value in (1, 2, 3, -4, 5)]
    assert futures[1].cancel()
    assert futures[3].cancel()
    gate.open()

    assert numbers(first) == [0]
    assert [numbers(futures[k]) for k in (0, 2, 4)] == [[1, 1], [3, 3], [5, 5]]
    assert futures[1].cancelled()
    assert server.alive


def test_a_request_larger_than_a_batch_is_answered_whole(serve: Serve) -> None:
    server = serve(a_host(some_weights()), max_batch_rows=8)
    large = server.submit(Request("main", boards(50)))
    small = server.submit(Request("main", boards(2, seed=1)))

    assert_same_outputs(answer(large).arrays, outputs(some_weights(), boards(50)))
    assert_same_outputs(answer(small).arrays, outputs(some_weights(), boards(2, seed=1)))


def test_the_server_tells_callers_to_hold_back_when_its_queue_is_full(serve: Serve) -> None:
    gate = Gate()
    server = serve(ScriptedHost(before_evaluation=gate), max_queued_rows=4)
    server.submit(a_request(0))
    gate.wait_until_entered()
    futures = [server.submit(a_request(1, rows=3))]
    assert not server.full
    futures.append(server.submit(a_request(2)))
    assert server.full
    gate.open()
    wait_for(futures, TIMEOUT_SECONDS)

    assert not server.full


def test_stopping_answers_what_is_queued(serve: Serve) -> None:
    gate = Gate()
    server = serve(ScriptedHost(before_evaluation=gate), max_batch_rows=2)
    server.submit(a_request(0))
    gate.wait_until_entered()
    futures = [server.submit(a_request(value, model=model)) for value in range(6) for model in "ab"]
    gate.open()
    server.stop(TIMEOUT_SECONDS)

    assert not server.alive
    assert [numbers(future) for future in futures] == [[value] for value in range(6) for _ in "ab"]


def test_a_request_that_comes_between_an_offer_and_the_stop_is_answered(serve: Serve) -> None:
    class SlowToLoad(ScriptedHost):
        def install(self, ready: Any) -> None:
            gate(ready)

    gate = Gate()
    server = serve(SlowToLoad())
    server.offer(some_weights(version=1))
    gate.wait_until_entered()
    future = server.submit(a_request(5))
    server.stop(0.0)
    gate.open()

    assert numbers(future) == [5]


class AwayStore:
    """Fails at every fetch and counts them, while it is `away`."""

    def __init__(self) -> None:
        self.away = True
        self.fetches = 0

    def __call__(self, model: str) -> None:
        if self.away:
            self.fetches += 1
            raise ClusterError("the store does not answer", why="it restarts", fix="wait")


def test_a_model_that_cannot_be_fetched_is_tried_once_for_all_who_wait(serve: Serve) -> None:
    now, gate, store = [100.0], Gate(), AwayStore()

    def fetch(model: str) -> None:
        if model == "away":
            store(model)

    server = serve(ScriptedHost(before_evaluation=gate, fetch=fetch), clock=lambda: now[0], idle_wait_ms=0.0)
    here = server.submit(a_request(1))
    gate.wait_until_entered()
    waiting = [server.submit(a_request(value, model="away")) for value in range(5)]
    gate.open()

    assert numbers(here) == [1]
    assert {failure(future).what for future in waiting} == {"the store does not answer"}
    assert store.fetches == 1
    assert server.stats.failed_requests == 5


def test_a_failed_fetch_is_remembered_for_a_second_and_no_longer(serve: Serve) -> None:
    now, store = [100.0], AwayStore()
    server = serve(ScriptedHost(fetch=store), clock=lambda: now[0], idle_wait_ms=0.0)
    for now[0] in (100.0, 100.9, 101.0):
        assert failure(server.submit(a_request(1))).why == "it restarts"
    assert store.fetches == 2
    store.away = False
    now[0] = 101.5
    assert failure(server.submit(a_request(1))).why == "it restarts"
    now[0] = 102.0

    assert numbers(server.submit(a_request(1))) == [1]


def test_weights_that_are_offered_end_the_absence_of_their_model(serve: Serve) -> None:
    store = AwayStore()
    server = serve(ScriptedHost(fetch=store), clock=lambda: 100.0, idle_wait_ms=0.0)
    failure(server.submit(a_request(1)))
    store.away = False
    server.offer(some_weights(version=2))

    assert answer(server.submit(a_request(1))).weights_version == 2


def test_a_stopped_server_refuses_instead_of_leaving_its_caller_to_wait(serve: Serve) -> None:
    server = serve(ScriptedHost())
    server.stop(TIMEOUT_SECONDS)

    assert "stopped" in failure(server.submit(a_request(1))).what


def test_the_time_from_publication_to_the_first_answer_is_measured_once_a_version(serve: Serve) -> None:
    now = [100.0]
    server = serve(ScriptedHost(), wall_clock=lambda: now[0])
    answer(server.submit(a_request(1)))
    assert (server.stats.synced_version, server.stats.sync_seconds) == (-1, 0.0)
    for version, published_at, answered_at, seconds in ((1, 99.5, 100.25, 0.75), (2, 101.0, 100.9, 0.0)):
        server.offer(some_weights(version=version), published_at=published_at)
        now[0] = answered_at
        answer(server.submit(a_request(1)))
        now[0] += 10
        answer(server.submit(a_request(1)))
        assert (server.stats.synced_version, server.stats.sync_seconds) == (version, seconds)
    server.offer(some_weights(version=3))
    answer(server.submit(a_request(1)))

    assert server.stats.synced_version == 2, "nobody said when version 3 was published"


class SlowToPrepare(ScriptedHost):
    """Makes weights ready once the gate is opened."""

    def __init__(self, gate: Gate, *, on_cpu: bool) -> None:
        super().__init__()
        self._gate = gate
        self.on_cpu = on_cpu

    def prepare(self, weights: Any) -> Any:
        self._gate(weights)
        return weights


def test_on_a_cpu_batches_wait_a_moment_for_weights_that_are_being_made_ready(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PREPARATION_SECONDS", TIMEOUT_SECONDS)
    gate = Gate()
    server = serve(SlowToPrepare(gate, on_cpu=True))
    offering = threading.Thread(target=server.offer, args=[some_weights(version=2)])
    offering.start()
    gate.wait_until_entered()
    asked = server.submit(a_request(1))
    with pytest.raises(TimeoutError):
        asked.result(0.1)
    gate.open()
    assert answer(asked).weights_version == 2
    offering.join(TIMEOUT_SECONDS)


def test_weights_that_take_too_long_to_be_made_ready_hold_up_no_batch(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "PREPARATION_SECONDS", 0.01)
    gate = Gate()
    server = serve(SlowToPrepare(gate, on_cpu=True))
    offering = threading.Thread(target=server.offer, args=[some_weights(version=2)])
    offering.start()
    gate.wait_until_entered()
    assert answer(server.submit(a_request(1))).weights_version == 0
    gate.open()
    offering.join(TIMEOUT_SECONDS)


def test_elsewhere_weights_are_made_ready_while_batches_are_answered(serve: Serve) -> None:
    gate = Gate()
    server = serve(SlowToPrepare(gate, on_cpu=False))
    offering = threading.Thread(target=server.offer, args=[some_weights(version=2)])
    offering.start()
    gate.wait_until_entered()
    assert answer(server.submit(a_request(1))).weights_version == 0
    gate.open()
    offering.join(TIMEOUT_SECONDS)

    assert answer(server.submit(a_request(1))).weights_version == 2
