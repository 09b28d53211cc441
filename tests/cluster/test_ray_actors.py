"""What the actors add to their parts, without any Ray."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.ray_actors import Assignment, InferenceActor, News, ReplayActor
from core.errors import ClusterError
from core.metrics import NoMetrics
from networks.weights import Weights
from tests.cluster.fake_ray import FakeMethod, FakeRay
from tests.cluster.tiny import tiny_config, tiny_run
from tests.inference_server.brains import some_weights
from tests.replay.experience import a_chunk


class Publishing:
    """A store and a server, as far as new versions are concerned; weights are known by their version.

    Attributes:
        newest: that the store has.
        held: that the server answers with.
        offered: to the server, in order.
    """

    def __init__(self, *, newest: int | None, held: int | None) -> None:
        self.newest = newest
        self.held = held
        self.offered: list[int] = []
        self.news = News(
            newest_version=lambda: self.newest,
            held_version=lambda: self.held,
            fetch=self._fetch,
            offer=lambda weights: self.offered.append(weights.version),
        )

    def _fetch(self) -> Any:
        return SimpleNamespace(version=self.newest)


def test_each_new_version_is_offered_once_whether_or_not_it_was_taken() -> None:
    publishing = Publishing(newest=3, held=2)
    assert [publishing.news.pass_on() for _ in range(3)] == [True, False, False]
    publishing.newest = 4
    assert [publishing.news.pass_on() for _ in range(3)] == [True, False, False]

    assert publishing.offered == [3, 4]


def test_nothing_is_offered_to_a_server_that_nobody_has_asked_or_that_is_up_to_date() -> None:
    for newest, held in ((None, None), (3, None), (None, 3), (3, 3)):
        publishing = Publishing(newest=newest, held=held)
        assert not publishing.news.pass_on()
        assert publishing.offered == []


def test_a_version_that_could_not_be_fetched_is_tried_again() -> None:
    publishing = Publishing(newest=3, held=2)

    def away() -> Weights:
        raise ConnectionError

    fetch, publishing.news.fetch = publishing.news.fetch, away
    with pytest.raises(ConnectionError):
        publishing.news.pass_on()
    publishing.news.fetch = fetch

    assert publishing.news.pass_on()


class FakeStore:
    """A store that has version 0, of which `get` returns the bytes."""

    def __init__(self, data: bytes | int = 0) -> None:
        self.newest_version = FakeMethod(0)
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
        assert replays[-1].add(a_chunk([number]).encode()).accepted_games == 1

    # Of the lives with a learner, the first read one chunk and took in one, the second two and one.
    assert len(put) == 5
    assert replays[-1].stats()["games"] == 3
