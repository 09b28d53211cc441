"""New weights are announced at once and written beside that; a version is one set of weights for ever all the same."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DataError, TamenError, UsageError
from inference_server import broadcast
from inference_server.broadcast import Announcement, Broadcast
from inference_server.weights_store import WeightsStore
from networks.weights import Weights
from networks.wire import Content, WireForm, checksum_of, from_wire
from tests.core.faults import find_the_disk_full
from tests.inference_server.brains import TIMEOUT_SECONDS, Gate, damaged, some_weights


class Home:
    """A folder with versions and who announces them, in one life after another; handles are the contents themselves.

    Attributes:
        put: what was made a handle of here, and not by the learner.
    """

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        self._limits = limits
        self.put: list[Content] = []
        self.begin_anew()

    def begin_anew(self) -> None:
        self.store = WeightsStore(self.folder, **self._limits)
        self.broadcast = Broadcast(self.store, self._put)

    def _put(self, content: Content) -> Content:
        self.put.append(content)
        return content

    async def publish(self, *versions: int) -> None:
        for version in versions:
            await self.publish_these(some_weights(version=version))

    async def publish_these(self, weights: Weights) -> None:
        content = np.frombuffer(weights.to_bytes(), np.uint8)
        await self.broadcast.publish(
            content, content, checksum=checksum_of(content), published_at=100.0 + weights.version
        )

    async def newer(
        self, version: int, *, form: WireForm = "fp32", seconds: float = 0.0
    ) -> Announcement | None:
        return await self.broadcast.wait_newer("main", version, form, timeout_seconds=seconds)

    def on_disk(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.folder / "main").glob("*.safetensors"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "models")


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, TIMEOUT_SECONDS))


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.001)


async def beside(waiting: Awaitable[Any]) -> "asyncio.Future[Any]":
    """Let something begin to wait."""
    task = asyncio.ensure_future(waiting)
    for _ in range(50):
        await asyncio.sleep(0.001)
    return task


def hold_the_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Let the first file of a version wait for a gate before it is written."""
    gate, write = Gate(), home.store.write

    def held(model: str, version: int, content: bytes) -> None:
        gate(version)
        write(model, version, content)

    monkeypatch.setattr(home.store, "write", held)
    return gate


def test_who_waits_hears_of_a_new_version_and_can_have_it(home: Home) -> None:
    async def main() -> None:
        await home.publish(0)
        waiting = [await beside(home.newer(0, seconds=TIMEOUT_SECONDS)) for _ in range(3)]
        assert not any(task.done() for task in waiting)
        await home.publish(1)
        for task in waiting:
            announced = await task
            assert (announced.version, announced.published_at) == (1, 101.0)
            assert from_wire(announced.handle, source="it").digest == some_weights(version=1).digest

    run(main())
    assert home.put == [], "the learner's own object is handed on"


def test_who_has_waited_for_long_enough_is_told_that_there_is_nothing(home: Home) -> None:
    async def main() -> None:
        assert await home.newer(-1, seconds=0.01) is None
        await home.publish(3)
        assert await home.newer(3, seconds=0.01) is None
        assert await home.newer(2, seconds=0.0) is not None

    run(main())


def test_a_version_is_heard_of_before_it_is_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        gate = hold_the_disk(home, monkeypatch)
        await home.publish(0)
        assert (await home.newer(-1)) is not None
        assert from_wire(await home.broadcast.get("main"), source="it").version == 0
        assert home.on_disk() == []
        gate.open()
        await home.broadcast.settle()
        assert home.on_disk() == [0]

    run(main())


def test_of_versions_that_come_faster_than_the_disk_takes_them_the_newest_is_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        gate = hold_the_disk(home, monkeypatch)
        await home.publish(1)
        await asyncio.to_thread(gate.wait_until_entered)
        await home.publish(*range(2, 20))
        gate.open()
        await home.broadcast.settle()

    run(main())
    assert home.on_disk() == [1, 19]


def test_a_milestone_waits_for_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, milestone=10)

    async def main() -> None:
        gate = hold_the_disk(home, monkeypatch)
        await home.publish(1)
        await asyncio.to_thread(gate.wait_until_entered)
        await home.publish(*range(2, 35))
        gate.open()
        await home.broadcast.settle()

    run(main())
    assert home.on_disk() == [1, 30, 34], "of several milestones that wait, the newest"


def test_versions_that_were_not_written_can_be_had_for_a_while(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "KEPT_VERSIONS", 4)

    async def main() -> None:
        gate = hold_the_disk(home, monkeypatch)
        await home.publish(*range(1, 9))
        told = await home.broadcast.newest_version("main")
        assert told == 8
        for version in (5, 6, 7, 8):
            content = await home.broadcast.get("main", version)
            assert from_wire(content, source="it").digest == some_weights(version=version).digest
        await home.publish(*range(9, 30))
        assert from_wire(await home.broadcast.get("main", told), source="it").version == told
        gate.open()
        await home.broadcast.settle()
        with pytest.raises(UsageError, match="no weights of model 'main' version 12"):
            await home.broadcast.get("main", 12)

    run(main())


def test_what_is_at_hand_is_bounded_in_bytes_but_the_newest_always_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kept_bytes, kept in ((350, [5, 6, 7]), (50, [7])):
        monkeypatch.setattr(broadcast, "KEPT_BYTES", kept_bytes)
        model = broadcast._Model()
        for number in range(8):
            model.announce(broadcast._Version(number, "", bytes(100), 0, None))
        assert list(model.recent) == kept


def test_versions_go_on_where_the_last_life_ended(home: Home) -> None:
    async def first() -> None:
        await home.publish(0, 1, 2)
        await home.broadcast.settle()

    async def second() -> None:
        assert await home.broadcast.newest_version("main") == 2
        assert await home.broadcast.highest_version("main") == 2
        announced = await home.newer(1)
        assert announced is not None
        assert (announced.version, announced.published_at) == (2, None)
        assert from_wire(announced.handle, source="it").digest == some_weights(version=2).digest
        await home.publish(3)
        assert await home.broadcast.highest_version("main") == 3

    run(first())
    home.begin_anew()
    run(second())


def test_a_learner_that_begins_after_a_crash_goes_on_above_all_that_anyone_was_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: object) -> None:
        raise SystemError("the process is gone")

    async def first() -> None:
        await home.publish(0)
        await home.broadcast.settle()
        monkeypatch.setattr(home.store, "write", die)
        await home.publish(1, 2, 3)

    async def second() -> None:
        highest = await home.broadcast.highest_version("main")
        assert highest is not None
        assert highest > 3
        assert await home.broadcast.newest_version("main") == 0, "what can be had is told, not what is lost"
        await home.publish(highest + 1)
        assert await home.broadcast.highest_version("main") == highest + 1
        await home.broadcast.settle()

    async def third() -> None:
        assert await home.broadcast.highest_version("main") == max(home.on_disk())

    run(first())
    home.begin_anew()
    run(second())
    home.begin_anew()
    run(third())


def test_a_learner_that_outlives_the_store_goes_on_counting(home: Home) -> None:
    async def first() -> None:
        await home.publish(0, 1, 2)
        await home.broadcast.settle()
        await home.publish(3)

    async def second() -> None:
        await home.publish(3)  # it did not hear that it had published it
        await home.publish(4)
        assert await home.broadcast.newest_version("main") == 4
        await home.broadcast.settle()

    run(first())
    home.begin_anew()
    run(second())
    assert home.on_disk()[-1] == 4


def test_a_clean_end_leaves_no_gap_in_the_numbers(home: Home) -> None:
    async def life() -> None:
        highest = await home.broadcast.highest_version("main")
        first = 0 if highest is None else highest + 1
        for version in (first, first + 1):
            await home.publish(version)
            await home.broadcast.settle()

    for _ in range(3):
        run(life())
        home.begin_anew()
    assert home.on_disk() == list(range(6))


def test_numbers_that_leap_are_marked_before_they_are_told(home: Home) -> None:
    async def main() -> None:
        for version in (0, 5, 1000, 1001, 5000):
            await home.publish(version)
            assert home.store.mark("main") > version

    run(main())


@pytest.mark.parametrize(("number", "seed"), [(0, 0), (2, 2), (3, 9)])
def test_a_version_that_is_not_above_the_newest_is_refused(home: Home, number: int, seed: int) -> None:
    async def main() -> None:
        await home.publish(0, 3)
        with pytest.raises(UsageError, match="publish it as version 4"):
            await home.publish_these(dataclasses.replace(some_weights(version=seed), version=number))
        await home.publish(3)

    run(main())


def test_a_disk_that_is_full_holds_nobody_up_and_is_written_when_there_is_room(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "RETRY_SECONDS", 0.01)

    async def main() -> None:
        await home.publish(0)
        await home.broadcast.settle()
        await home.publish(1)  # with it, some numbers after it are marked
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: find_the_disk_full())
            await home.publish(2, 3)
            await until(lambda: "No space left" in home.broadcast.trouble)
            assert await home.broadcast.newest_version("main") == 3
            with pytest.raises(TamenError, match="could not be written"):
                await home.broadcast.settle()
        await until(lambda: home.on_disk()[-1] == 3 and home.broadcast.trouble == "")

    run(main())


def test_no_version_is_told_that_could_not_be_marked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: find_the_disk_full())
            with pytest.raises(TamenError, match="could not be written"):
                await home.publish(0)
        assert await home.newer(-1) is None
        await home.publish(0)

    run(main())


def test_damaged_weights_are_not_written_and_the_next_ones_are(home: Home) -> None:
    async def main() -> None:
        await home.publish(0)
        await home.publish_these(damaged(some_weights(version=1)))
        await until(lambda: home.broadcast.refused != "")
        await home.publish(2)
        await home.broadcast.settle()

    run(main())
    assert home.on_disk() == [0, 2]
    assert "digest" in home.broadcast.refused


def test_content_that_does_not_fit_its_checksum_is_not_written(home: Home) -> None:
    async def main() -> None:
        content = np.frombuffer(some_weights().to_bytes(), np.uint8)
        await home.broadcast.publish(content, content, checksum=checksum_of(content) ^ 1, published_at=0.0)
        await until(lambda: "checksum" in home.broadcast.refused)

    run(main())
    assert home.on_disk() == []


def test_a_damaged_header_is_refused_at_once(home: Home) -> None:
    async def main() -> None:
        content = np.frombuffer(some_weights().to_bytes()[:-1], np.uint8)
        with pytest.raises(DataError, match="published weights cannot be used"):
            await home.broadcast.publish(content, content, checksum=checksum_of(content), published_at=0.0)
        assert await home.newer(-1) is None

    run(main())


def test_who_computes_in_16_bits_is_sent_16_and_one_copy_serves_all(home: Home) -> None:
    async def main() -> None:
        await home.publish(0)
        asked = await asyncio.gather(*(home.newer(-1, form="bf16") for _ in range(3)))
        handles = [announced.handle for announced in asked if announced is not None]
        assert len(handles) == 3
        assert all(handle is handles[0] for handle in handles)
        found = from_wire(handles[0], source="it")
        found.verify()
        for name, tensor in some_weights().tensors.items():
            np.testing.assert_allclose(found.tensors[name], tensor, rtol=2**-8)
        assert from_wire(await home.broadcast.get("main"), source="it").digest == some_weights().digest

    run(main())
    assert len(home.put) == 1


def test_models_have_versions_of_their_own(home: Home) -> None:
    async def main() -> None:
        await home.publish(0, 1, 2)
        await home.publish_these(some_weights("other", version=0))
        assert await home.broadcast.newest_version("other") == 0
        assert await home.broadcast.newest_version("main") == 2
        assert await home.broadcast.newest_version("nobody") is None

    run(main())


def test_a_damaged_newest_file_falls_back_to_the_one_before_and_keeps_its_number(home: Home) -> None:
    async def first() -> None:
        await home.publish(0)
        await home.broadcast.settle()
        await home.publish(1)
        await home.broadcast.settle()

    async def second() -> None:
        announced = await home.newer(-1)
        assert announced is not None
        assert announced.version == 0
        with pytest.raises(UsageError, match="publish it as version 2"):
            await home.publish(1)
        await home.publish(2)

    run(first())
    newest = home.folder / "main" / "00000001.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    home.begin_anew()
    run(second())
    assert str(newest) in home.store.skipped[0]
