"""What the actors add to their parts, without any Ray."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.ray_actors import Assignment, InferenceActor, ReplayActor, SelfPlayActor
from core.errors import ClusterError
from core.metrics import NoMetrics
from tests.cluster.fake_ray import FakeMethod, FakeRay
from tests.cluster.tiny import tiny_config, tiny_run
from tests.inference_server.brains import Gate, ScriptedHost, some_weights, tally
from tests.replay.experience import a_chunk


class FakeStore:
    """A store that has version 0, of which `get` returns the bytes, and nothing newer."""

    def __init__(self, data: bytes | int = 0) -> None:
        self.wait_newer = FakeMethod(None)
        self.get = FakeMethod(data)


@pytest.mark.parametrize(("seconds", "met"), [(1e9, [1, 0, 1, 0, 1, 1]), (-1.0, [1, 0, 0, 0, 0, 0])])
def test_a_server_meets_batches_of_every_size_it_has_time_for_before_its_first_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, met: list[int]
) -> None:
    store = FakeStore(some_weights(game="tic_tac_toe").to_bytes())
    monkeypatch.setattr("cluster.ray_actors.WARM_UP_SECONDS", seconds)
    monkeypatch.setattr("cluster.ray_client.ray", FakeRay())
    monkeypatch.setattr("cluster.ray_actors.ray.get_actor", lambda name: store)
    monkeypatch.setattr("cluster.ray_actors.RayMetrics", lambda tags: NoMetrics())
    config = tiny_config(inference__max_batch_rows=32, inference__cache_positions=0)
    given = Assignment(config, tiny_run(tmp_path / "run", config), 0, {"store": ["store"]}, True)
    actor = InferenceActor(given)
    asyncio.run(actor.warm_up())
    actor._server.stop()

    stats = actor._server.stats
    assert stats.batch_rows[:6] == met
    assert stats.failed_requests == 0


def test_a_server_whose_serving_thread_has_died_does_not_answer_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ray_client.ray", FakeRay())
    monkeypatch.setattr("cluster.ray_actors.ray.get_actor", lambda name: FakeStore())
    monkeypatch.setattr("cluster.ray_actors.RayMetrics", lambda tags: NoMetrics())
    config = tiny_config()
    given = Assignment(config, tiny_run(tmp_path / "run", config), 0, {"store": ["store"]}, True)
    actor = InferenceActor(given)
    assert asyncio.run(actor.stats())["version"] is None
    actor._server.stop()

    with pytest.raises(ClusterError, match="serving thread has died"):
        asyncio.run(actor.stats())


def serving(
    host: ScriptedHost, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> InferenceActor:
    """Return an inference actor whose models are those of `host`."""
    ray = FakeRay()
    monkeypatch.setattr("cluster.ray_client.ray", ray)
    monkeypatch.setattr("cluster.ray_actors.ray.get_actor", lambda name: FakeStore())
    monkeypatch.setattr("cluster.ray_actors.ray.get_runtime_context", ray.get_runtime_context)
    monkeypatch.setattr("cluster.ray_actors.RayMetrics", lambda tags: NoMetrics())
    monkeypatch.setattr("cluster.ray_actors.parts.make_host", lambda config, fetch: host)
    config = tiny_config(**settings)
    return InferenceActor(Assignment(config, tiny_run(folder, config), 0, {"store": ["store"]}, True))


def test_a_burst_beyond_the_bound_waits_with_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    host = ScriptedHost(before_evaluation=gate)
    actor = serving(host, tmp_path / "run", monkeypatch, inference__max_queued_rows=8)
    queued: list[int] = []

    async def burst() -> list[tuple[dict[str, Any], int, str]]:
        asked = [asyncio.create_task(actor.infer("main", tally(number))) for number in range(50)]
        await asyncio.to_thread(gate.wait_until_entered)
        while len(queued) < 20:  # each time, all who wait look at the queue
            await asyncio.sleep(0.002)
            queued.append(actor._server._batcher.queued_rows)
        gate.open()
        return await asyncio.gather(*asked)

    replies = asyncio.run(burst())
    actor._server.stop()

    assert max(queued) == 8
    assert max(len(numbers) for _, numbers, _ in host.batches) <= 8
    assert [arrays["number"].tolist() for arrays, _, _ in replies] == [[number] for number in range(50)]
    assert {node for _, _, node in replies} == {"here"}


def test_callers_that_are_gone_take_nothing_from_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    actor = serving(ScriptedHost(before_evaluation=gate), tmp_path / "run", monkeypatch)

    async def ask() -> tuple[dict[str, Any], int, str]:
        first = asyncio.create_task(actor.infer("main", tally(0)))
        await asyncio.to_thread(gate.wait_until_entered)
        gone = [asyncio.create_task(actor.infer("main", tally(number, rows=3))) for number in (1, 2)]
        waits = asyncio.create_task(actor.infer("main", tally(3, rows=2)))
        while actor._server._batcher.queued_rows < 3 + 3 + 2:
            await asyncio.sleep(0.001)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        gate.open()
        await first
        return await waits

    arrays, _, _ = asyncio.run(ask())
    assert arrays["number"].tolist() == [3, 3]
    assert actor._server.alive
    assert actor._server._batcher.queued_rows == 0
    actor._server.stop()


def test_an_actor_counts_its_streams_from_where_those_of_the_actor_before_it_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[int] = []
    monkeypatch.setattr("cluster.ray_client.ray", FakeRay())
    monkeypatch.setattr(
        "cluster.ray_actors.ray.get_actor", lambda name: SimpleNamespace(open_epoch=FakeMethod(0))
    )
    monkeypatch.setattr("cluster.ray_actors.RayClient", lambda servers, first_home: begins.append(first_home))
    monkeypatch.setattr("cluster.ray_actors.RayMetrics", lambda tags: NoMetrics())
    monkeypatch.setattr("cluster.ray_actors.parts.make_player", lambda config, **given: None)
    config = tiny_config(actors__groups_per_actor=3)
    folder = tiny_run(tmp_path / "run", config)
    for index in range(3):
        SelfPlayActor(Assignment(config, folder, index, {"inference": ["one"], "replay": ["replay"]}, True))

    assert begins == [0, 3, 6]


def test_where_nobody_learns_no_chunk_is_kept_for_a_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[bytes] = []
    monkeypatch.setattr("cluster.ray_client.ray.put", put.append)
    config = tiny_config()
    folder = tiny_run(tmp_path / "test", config)
    replays: list[ReplayActor] = []
    for number, learns in enumerate((False, True, True)):
        replays.append(ReplayActor(Assignment(config, folder, 0, {}, learns)))
        assert replays[-1].add(a_chunk([number]).encode()).accepted == 1

    # Of the lives with a learner, the first read one chunk and took in one, the second two and one.
    assert len(put) == 5
    assert replays[-1].stats()["games"] == 3
