"""What is not as it should be with the making of samples is told, once, and what is as it should be is not."""

from collections.abc import Callable

import pytest

from cluster.hands.health import Health
from pipeline.hand_samples import ShardMade


class Shop:
    """A clock that is set by hand, and a health that looks at shards made by it."""

    def __init__(self, workers: int = 2) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.health = Health(workers, self.said.append, clock=lambda: self.now)
        self.health.begin("river_train")

    def make(
        self,
        count: int,
        *,
        seconds: float = 2.0,
        every: float = 1.0,
        memory: Callable[[int], int] = lambda k: 10**8,
    ) -> None:
        """Tell of shards of 100 samples, one every so many seconds, by two workers in turn."""
        for k in range(count):
            self.now += every
            self.health.told(ShardMade(100, seconds, 0.9 * seconds, memory(k), f"here:{k % 2}"))
            self.health.look()


def test_what_is_well_is_not_spoken_of() -> None:
    shop = Shop()
    shop.make(200)
    assert shop.said == []
    assert shop.health.utilisation == pytest.approx(1.0)
    assert "busy 100 % of the time, 90 % of it on a processor; at most 100 MB" in shop.health.summary()


def test_slower_shards_are_told_once() -> None:
    shop = Shop()
    shop.make(20)
    shop.make(100, seconds=4.0, every=2.0)
    assert len(shop.said) == 1
    assert "25 samples/s a worker, at first it was 50" in shop.said[0]


def test_idle_workers_are_told() -> None:
    shop = Shop()
    shop.make(20, seconds=1.0)
    assert [line for line in shop.said if "busy only 50 %" in line]


def test_silence_is_told_once_and_only_after_a_shard() -> None:
    shop = Shop()
    shop.now = 100.0
    shop.health.look()
    assert shop.said == []
    shop.make(3)
    for _ in range(90):
        shop.now += 1.0
        shop.health.look()
    assert len(shop.said) == 1
    assert "no shard for 31 s, one takes 2.0" in shop.said[0]


def test_slow_shards_are_waited_for_longer() -> None:
    shop = Shop()
    shop.make(2, seconds=20.0, every=10.0)
    for _ in range(90):
        shop.now += 1.0
        shop.health.look()
    assert shop.said == []


def test_growing_memory_is_told_of_the_worker_that_grows() -> None:
    shop = Shop()
    shop.make(60, memory=lambda k: 10**8 if k % 2 else 10**8 + k * 10**7)
    assert len(shop.said) == 1
    assert "worker here:0 has grown from" in shop.said[0]


def test_a_thread_looks_for_silence() -> None:
    said: list[str] = []
    now = [0.0]
    health = Health(1, said.append, clock=lambda: now[0], look_seconds=0.01)
    with health:
        health.begin("river_train")
        health.told(ShardMade(10, 1.0, 1.0, 10**8, "here:1"))
        now[0] = 60.0
        health._ended.wait(0.5)
    assert len(said) == 1
