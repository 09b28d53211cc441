"""Engines on a cluster whose machines come and go: those that join play, and games of those that leave are not lost.

A second Ray runs beside that of other tests, with nodes that are told to be machines of their own.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.external.engines_actor import bring_up_on_ray, show_engines_on_ray, take_down_on_ray
from cluster.external.games import Order
from cluster.external.games_actor import ray_players
from core.errors import ClusterError
from engines.book import Plan
from engines.supervised import end_everything
from tests.cluster.external.test_engine_games import numbers
from tests.engines.supervising import PATIENCE_SECONDS, fakes, nothing_left

pytestmark = pytest.mark.soak


SOON_MISSED = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


def add_machine(cluster: Cluster, name: str, **given: Any) -> Any:
    return cluster.add_node(
        num_cpus=1,
        object_store_memory=80_000_000,
        env_vars={"TAMEN_HOST": name},
        include_dashboard=False,
        **given,
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    assert not ray.is_initialized()
    cluster = Cluster(shutdown_at_exit=False)
    try:
        add_machine(cluster, "one", _system_config=SOON_MISSED)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        for folder in tmp_path.glob(
            "**/.engines/*/*"
        ):  # of a machine that left, daemons would stay for a minute
            end_everything(folder)
            assert nothing_left(folder)


def address_of(cluster: Cluster) -> str:
    assert cluster.address is not None
    return cluster.address


def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_machines_that_join_play_and_those_that_leave_are_dropped(cluster: Cluster, tmp_path: Path) -> None:
    config = fakes(base_port=33_000)
    given = Order(
        config=config,
        plan=Plan(games=1_000_000, decks=("a", "b")),
        folder=tmp_path / "out",
        runs=tmp_path / "runs",
    )
    news: list[str] = []
    with ray_players(given, address_of(cluster)) as players:

        def playing() -> int:
            news.extend(players.news())
            return sum(part.get("played", 0) > 0 for part in players.parts())

        until(lambda: playing() == 1)
        second = add_machine(cluster, "two")
        until(lambda: playing() == 2)
        assert {each["host"] for each in players.engines()} == {"one", "two"}
        cluster.remove_node(second, allow_graceful=False)
        until(lambda: len(players.parts()) == 1)
        before = players.book()["finished"]
        until(lambda: players.book()["finished"] > before)
        playing()
        players.stop()
        until(lambda: all(part["has_ended"] for part in players.parts()))
        book = players.book()
    assert [line.split("cluster")[0].split()[-2:] for line in news] == [["joined", "the"], ["left", "the"]]
    assert (book["out"], book["set_aside"]) == (0, 0)
    found = numbers(tmp_path / "out")
    assert len(found) == len(set(found)) == book["finished"]


def test_engines_that_are_up_come_to_machines_that_join(cluster: Cluster, tmp_path: Path) -> None:
    config = fakes(base_port=33_100)
    (one,) = bring_up_on_ray(config, tmp_path, address_of(cluster), quiet=True)
    assert (one["host"], one["serving"]) == ("one", 1)
    second = add_machine(cluster, "two")

    def hosts() -> list[str]:
        found = show_engines_on_ray("engines", address_of(cluster), quiet=True)
        return sorted(each["host"] for each in found if each["serving"])

    until(lambda: hosts() == ["one", "two"])
    cluster.remove_node(second, allow_graceful=False)
    until(lambda: hosts() == ["one"])
    ended = take_down_on_ray(None, address_of(cluster), quiet=True)
    assert [(each["host"], each["ended"]) for each in ended] == [("one", 1)]
    assert show_engines_on_ray(None, address_of(cluster), quiet=True) == []


def test_where_no_cluster_is_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot reach a Ray cluster") as caught:
        bring_up_on_ray(fakes(), tmp_path, f"127.0.0.1:{os.getpid() % 1000 + 39_000}", quiet=True)
    assert "refused" in caught.value.why
