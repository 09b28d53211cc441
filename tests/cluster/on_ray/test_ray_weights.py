"""How weights travel between Ray actors, without any Ray."""

import asyncio
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ObjectStoreFullError, OwnerDiedError

from cluster.on_ray import weights as ray_weights
from cluster.on_ray.actors import Assignment
from cluster.on_ray.weights import StoreActor, WeightsPublisher, fetch, pull, put, wait_newer
from core.errors import DataError, TamenError
from inference_server.broadcast import Announcement
from networks.wire import checksum_of, from_wire
from tests.cluster.fake_ray import FakeMethod, FakeRay, Reference
from tests.cluster.tiny import tiny_config, tiny_run
from tests.inference_server.brains import TIMEOUT_SECONDS, some_weights


class Object(Reference):
    """A reference to an object that is there."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self.answer
        yield


def an_object(version: int) -> Object:
    return Object(np.frombuffer(some_weights(version=version).to_bytes(), np.uint8))


def checksum(version: int) -> int:
    return checksum_of(some_weights(version=version).to_bytes())


def a_store(tmp_path: Path) -> StoreActor:
    config = tiny_config()
    return StoreActor(Assignment(config, tiny_run(tmp_path / "run", config), 0, {}, True))


def test_the_store_passes_on_the_very_handle_that_it_was_given(tmp_path: Path) -> None:
    async def main() -> None:
        store, handle = a_store(tmp_path), [an_object(4)]
        await store.publish(handle, checksum(4), 100.0)
        announced = await store.wait_newer("main", 3, "fp32", 0.0)
        assert announced is not None
        assert announced == Announcement(4, handle, checksum(4), 100.0)
        assert announced.handle is handle
        assert await store.newest_version("main") == await store.highest_version("main") == 4
        await store.settle()
        assert from_wire(await store.get("main", 4), source="it").version == 4
        assert (await store.stats())["trouble"] == ""

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_SECONDS))
    files = [path.name for path in (tmp_path / "run" / "models" / "main").glob("*.safetensors")]
    assert files == ["00000004.safetensors"]


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr("cluster.on_ray.client.ray", ray)
    return ray


class FakeStore:
    """A store that has one version."""

    def __init__(self, version: int) -> None:
        content = some_weights(version=version).to_bytes()
        self.get = FakeMethod(np.frombuffer(content, np.uint8))
        self.wait_newer = FakeMethod(Announcement(version, [an_object(version)], checksum(version), 100.0))
        self.highest_version = FakeMethod(version)


def test_an_announced_version_is_pulled_from_its_object(fake_ray: FakeRay) -> None:
    store = FakeStore(4)
    announced = wait_newer(store, 3, "fp32")
    assert announced is not None
    weights = pull(store, announced)

    weights.verify()
    assert weights.digest == some_weights(version=4).digest
    assert store.get.calls == 0


def test_an_object_that_was_changed_on_its_way_is_refused(fake_ray: FakeRay) -> None:
    store = FakeStore(4)
    announced = wait_newer(store, 3, "fp32")
    assert announced is not None
    with pytest.raises(DataError, match="version 4 of the weights cannot be used"):
        pull(store, replace(announced, checksum=announced.checksum ^ 1))


def test_an_object_that_died_with_its_owner_is_had_from_the_store(fake_ray: FakeRay) -> None:
    store = FakeStore(4)
    lost = Announcement(4, [Reference(OwnerDiedError("0" * 56, None, ""))], checksum(4), 100.0)

    assert pull(store, lost).digest == some_weights(version=4).digest
    assert store.get.calls == 1


@pytest.mark.parametrize("model", ["main", "main@4"])
def test_a_model_is_fetched_by_its_name_or_version(fake_ray: FakeRay, model: str) -> None:
    assert fetch(FakeStore(4), model).version == 4


def test_what_the_learner_publishes_is_put_once_and_carries_its_time(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, ...]] = []

    class Publish:
        def remote(self, *arguments: Any) -> Reference:
            sent.append(arguments)
            return Reference(True)

    store = FakeStore(4)
    store.publish = Publish()  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(ray_weights.ray, "put", Reference)
    publisher = WeightsPublisher(store, clock=lambda: 123.0)
    publisher.publish(some_weights(version=5))

    (((reference,), told, published_at),) = sent
    assert told == checksum(5)
    assert published_at == 123.0
    assert from_wire(reference.answer, source="it").digest == some_weights(version=5).digest
    assert publisher.newest_version() == 4


def test_a_full_object_store_is_told_in_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: Any) -> None:
        raise ObjectStoreFullError("it is full")

    monkeypatch.setattr(ray_weights.ray, "put", full)
    with pytest.raises(TamenError, match="no room for a version of the weights"):
        put(b"content")
