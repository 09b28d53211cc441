"""What the actors add to their parts, without any Ray."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.on_ray.actors import ACTORS, Assignment, InferenceActor, ReplayActor, SelfPlayActor
from cluster.on_ray.checkout import code_here
from core.errors import ClusterError, TamenError
from core.metrics import NoMetrics
from tests.cluster.fake_ray import FakeMethod, FakeRay, Reference
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
    monkeypatch.setattr("cluster.on_ray.actors.WARM_UP_SECONDS", seconds)
    monkeypatch.setattr("cluster.on_ray.client.ray", FakeRay())
    monkeypatch.setattr("cluster.on_ray.actors.ray.get_actor", lambda name: store)
    monkeypatch.setattr("cluster.on_ray.actors.RayMetrics", lambda tags: NoMetrics())
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
    monkeypatch.setattr("cluster.on_ray.client.ray", FakeRay())
    monkeypatch.setattr("cluster.on_ray.actors.ray.get_actor", lambda name: FakeStore())
    monkeypatch.setattr("cluster.on_ray.actors.RayMetrics", lambda tags: NoMetrics())
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
    monkeypatch.setattr("cluster.on_ray.client.ray", ray)
    monkeypatch.setattr("cluster.on_ray.actors.ray.get_actor", lambda name: FakeStore())
    monkeypatch.setattr("cluster.on_ray.actors.ray.get_runtime_context", ray.get_runtime_context)
    monkeypatch.setattr("cluster.on_ray.actors.RayMetrics", lambda tags: NoMetrics())
    monkeypatch.setattr("cluster.on_ray.actors.parts.make_host", lambda config, fetch: host)
    config = tiny_config(**settings)
    return InferenceActor(Assignment(config, tiny_run(folder, config), 0, {"store": ["store"]}, True))


def test_a_burst_beyond_the_bound_waits_with_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    host = ScriptedHost(before_evaluation=gate)
    actor = serving(host, tmp_path / "run", monkeypatch, inference__max_queued_rows=8)
    queued: list[int] = []

    async def burst() -> list[tuple[dict[str, Any], int]]:
        asked = [asyncio.create_task(actor.infer("main", tally(number))) for number in range(50)]
        await asyncio.to_thread(gate.wait_until_entered)
        while len(queued) < 20:
            await asyncio.sleep(0.002)
            queued.append(actor._server._batcher.queued_rows)
        gate.open()
        return await asyncio.gather(*asked)

    replies = asyncio.run(burst())
    actor._server.stop()

    assert max(queued) == 8
    assert max(len(numbers) for _, numbers, _ in host.batches) <= 8
    assert [arrays["number"].tolist() for arrays, _ in replies] == [[number] for number in range(50)]


def test_callers_that_are_gone_take_nothing_from_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    actor = serving(ScriptedHost(before_evaluation=gate), tmp_path / "run", monkeypatch)

    async def ask() -> tuple[dict[str, Any], int]:
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

    arrays, _ = asyncio.run(ask())
    assert arrays["number"].tolist() == [3, 3]
    assert actor._server.alive
    assert actor._server._batcher.queued_rows == 0
    actor._server.stop()


def test_an_actor_counts_its_streams_from_where_those_of_the_actor_before_it_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[int] = []
    monkeypatch.setattr("cluster.on_ray.client.ray", FakeRay())
    monkeypatch.setattr(
        "cluster.on_ray.actors.ray.get_actor", lambda name: SimpleNamespace(open_epoch=FakeMethod(0))
    )
    monkeypatch.setattr(
        "cluster.on_ray.actors.RayClient", lambda servers, first_home: begins.append(first_home)
    )
    monkeypatch.setattr("cluster.on_ray.actors.RayMetrics", lambda tags: NoMetrics())
    monkeypatch.setattr("cluster.on_ray.actors.parts.make_player", lambda config, **given: None)
    config = tiny_config(actors__groups_per_actor=3)
    folder = tiny_run(tmp_path / "run", config)
    for index in range(3):
        SelfPlayActor(Assignment(config, folder, index, {"inference": ["one"], "replay": ["replay"]}, True))

    assert begins == [0, 3, 6]


def test_where_nobody_learns_no_chunk_is_kept_for_a_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[bytes] = []
    monkeypatch.setattr("cluster.on_ray.client.ray.put", put.append)
    config = tiny_config()
    folder = tiny_run(tmp_path / "test", config)
    replays: list[ReplayActor] = []
    for number, learns in enumerate((False, True, True)):
        replays.append(ReplayActor(Assignment(config, folder, 0, {}, learns)))
        assert replays[-1].add(a_chunk([number]).encode()).accepted == 1

    # Of the lives with a learner, the first read one chunk and took in one, the second two and one.
    assert len(put) == 5
    stats = replays[-1].stats()
    assert stats["games"] == 3
    assert stats["process_seconds"] > 0


def test_on_rays_pages_each_actor_tells_its_part_its_run_and_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.on_ray.actors.socket.gethostname", lambda: "worker-3")
    config = tiny_config()
    given = Assignment(config, tiny_run(tmp_path / "hex", config), 0, {}, False, called="replay")

    assert repr(ReplayActor(given)) == "replay of hex on worker-3"
    assert all(kind.__repr__ is not object.__repr__ for kind in ACTORS.values())


def test_those_who_wait_for_room_come_in_as_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    host = ScriptedHost(before_evaluation=gate)
    actor = serving(host, tmp_path / "run", monkeypatch, inference__max_queued_rows=8)

    async def burst() -> None:
        asked = [asyncio.create_task(actor.infer("main", tally(number))) for number in range(60)]
        await asyncio.to_thread(gate.wait_until_entered)
        asked[20].cancel()  # one who waits leaves; those behind it come in all the same
        gate.open()
        late = actor.infer("main", tally(100))
        await asyncio.wait_for(asyncio.gather(*asked, late, return_exceptions=True), 30)

    asyncio.run(burst())
    actor._server.stop()

    came = [int(number) for _, numbers, _ in host.batches for number in numbers]
    assert came == [number for number in range(60) if number != 20] + [100]


def test_who_waits_does_not_look_again_until_a_batch_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, looks = Gate(), [0]
    actor = serving(
        ScriptedHost(before_evaluation=gate), tmp_path / "run", monkeypatch, inference__max_queued_rows=8
    )
    monkeypatch.setattr("cluster.on_ray.actors.ROOM_SECONDS", 60.0)
    full = type(actor._server).full.fget
    assert full is not None

    def look(server: Any) -> bool:
        looks[0] += 1
        return full(server)

    monkeypatch.setattr(type(actor._server), "full", property(look))

    async def burst() -> int:
        asked = [asyncio.create_task(actor.infer("main", tally(number))) for number in range(50)]
        await asyncio.to_thread(gate.wait_until_entered)
        await asyncio.sleep(0.05)
        before = looks[0]
        await asyncio.sleep(0.1)
        looked = looks[0] - before
        gate.open()
        await asyncio.wait_for(asyncio.gather(*asked), 30)
        return looked

    assert asyncio.run(burst()) == 0
    actor._server.stop()


@pytest.mark.parametrize("role", list(ACTORS))
def test_no_part_begins_in_a_process_that_would_run_other_code(role: str, tmp_path: Path) -> None:
    config = tiny_config()
    given = Assignment(
        config, tiny_run(tmp_path / "run", config), 0, {}, True, code=replace(code_here(), digest="another")
    )
    refused = object.__new__(ACTORS[role])
    with pytest.raises(ClusterError, match="was changed while the run went on"):
        ACTORS[role].__init__(refused, given)
    assert repr(refused)  # else the process dies while Ray tells of it, and Ray begins another without end


class Replay:
    """A replay that cannot note that a life begins for as often as is said."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.open_epoch = self

    def remote(self, actor: int) -> Reference:
        self.refusals -= 1
        full = TamenError("the ledger cannot be written", why="no space left on device", fix="free some")
        return Reference(full if self.refusals >= 0 else 7)


def playing(
    replay: Replay, folder: Path, monkeypatch: pytest.MonkeyPatch, *, closed: list[bool] | None = None
) -> tuple[SelfPlayActor, list[int]]:
    """Return an actor, and a list of the lives that it begins; it plays until it has looked once whether to stop."""
    lives: list[int] = []
    closed: list[bool] = [] if closed is None else closed
    ray = FakeRay()
    monkeypatch.setattr("cluster.on_ray.client.ray", ray)
    monkeypatch.setattr("cluster.on_ray.actors.LIFE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.on_ray.actors.ray.get_actor", lambda name: replay)
    monkeypatch.setattr("cluster.on_ray.actors.RayMetrics", lambda tags: NoMetrics())
    monkeypatch.setattr("cluster.on_ray.actors.give_way", lambda: None)  # here it is the thread of all tests

    def make_player(config: Any, *, epoch: int, **given: Any) -> Any:
        lives.append(epoch)
        return SimpleNamespace(
            worker=SimpleNamespace(run=lambda should_stop: should_stop()),
            close=lambda *, over: closed.append(over),
            stats=lambda: {"moves": 3, "games_at_stake": 2},
            has_moved=True,
        )

    monkeypatch.setattr("cluster.on_ray.actors.parts.make_player", make_player)
    config = tiny_config()
    given = Assignment(config, tiny_run(folder, config), 0, {"replay": ["replay"]}, True)
    return SelfPlayActor(given), lives


def test_an_actor_lets_others_go_first_once_its_games_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, _ = playing(Replay(refusals=0), tmp_path / "run", monkeypatch)
    gave_way: list[bool] = []
    monkeypatch.setattr("cluster.on_ray.actors.give_way", lambda: gave_way.append(True))
    player: Any = actor._player
    steps = iter([False, False, True, True])

    def run(should_stop: Callable[[], bool]) -> None:
        for player.has_moved in steps:
            should_stop()
            assert gave_way == [True] * player.has_moved

    player.worker.run = run
    actor.run()
    assert next(steps, None) is None


def test_an_actor_whose_life_cannot_be_noted_waits_for_the_disk_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, lives = playing(Replay(refusals=3), tmp_path / "run", monkeypatch)
    stats: Any = actor.stats
    assert lives == []
    assert "no space left on device" in stats()["trouble"]

    last = actor.run()
    assert lives == [7]
    assert (last["moves"], last["games_at_stake"], last["trouble"]) == (3, 2, "")


def test_an_actor_that_waits_for_the_disk_can_be_told_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, lives = playing(Replay(refusals=1_000_000), tmp_path / "run", monkeypatch)
    leave: Any = actor.leave
    leave(10.0)

    assert "games_at_stake" not in actor.run()
    assert lives == []


@pytest.mark.parametrize("fails", [False, True])
def test_only_of_an_actor_whose_loop_fails_somebody_may_go_on_with_the_games(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    actor, _ = playing(Replay(refusals=0), tmp_path / "run", monkeypatch, closed=closed)
    played: Any = actor._player

    def run(should_stop: Any) -> None:
        if fails:
            raise MemoryError

    monkeypatch.setattr(played.worker, "run", run)
    with pytest.raises(MemoryError) if fails else contextlib.nullcontext():
        actor.run()
    assert closed == [not fails]

    # It is asked again when it could not be reached: what failed is told then.
    with pytest.raises(ClusterError, match="have failed") if fails else contextlib.nullcontext():
        assert actor.run()["moves"] == 3
    assert len(closed) == 1
