"""The ways to the replay and back, against one that is away or has no room, without any Ray."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import GetTimeoutError, ObjectStoreFullError, OutOfDiskError, OwnerDiedError

from cluster.on_ray.client import (
    LONGEST_RETRY_SECONDS,
    RETRY_SECONDS,
    RayDelivery,
    RayObjects,
    RayReplaySource,
)
from core.errors import DataError, TamenError
from replay.drawing import Drawn
from replay.records import Ack
from replay.sampling import Wait
from tests.cluster.fake_ray import FakeMethod, FakeRay, NoRoom, Reference, remote_error

ACKNOWLEDGED = Ack(accepted=1, duplicates=0, rows=8, pause_seconds=0.0, total_rows=8)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr("cluster.on_ray.client.ray", fake)
    return fake


class FakeReplay:
    """A replay actor of which the answer to everything is known."""

    def __init__(self, answer: Any) -> None:
        self.add, self.admission = FakeMethod(answer), FakeMethod(answer)

    def turns(self, answer: Any) -> None:
        self.add.answer = self.admission.answer = answer


def a_delivery(ray: FakeRay, replay: Any, *, chance: Callable[[], float] = lambda: 0.0) -> RayDelivery:
    return RayDelivery(replay, clock=ray.clock, sleep=ray.sleep, chance=chance)


@pytest.mark.parametrize("error", [ObjectStoreFullError, OutOfDiskError])
def test_a_chunk_for_which_there_is_no_room_is_sent_when_there_is(
    error: type[Exception], ray: FakeRay
) -> None:
    replay = FakeReplay(ACKNOWLEDGED)
    replay.add = NoRoom(ACKNOWLEDGED, times=2, error=error)  # pyright: ignore[reportAttributeAccessIssue]
    delivery = a_delivery(ray, replay)
    delivery.send(b"chunk")
    assert delivery.busy
    assert "Local disk is full" in delivery.last_trouble
    answers = [delivery.poll(10.0) for _ in range(5)]

    assert answers == [None] * 4 + [ACKNOWLEDGED]
    assert ray.now == 3 * RETRY_SECONDS
    assert (delivery.busy, delivery.last_trouble) == (False, "")


def attempts(ray: FakeRay, delivery: RayDelivery, replay: Any, *, until: float) -> list[float]:
    """Return when the replay was asked whether to go on, after a chunk was sent that it does not take."""
    delivery.send(b"chunk")
    asked = []
    while ray.now < until:
        before = replay.admission.calls
        assert delivery.poll(0.125) is None
        if replay.admission.calls > before:
            asked.append(ray.now)
    return asked


def test_a_chunk_is_sent_again_ever_more_seldom_and_only_when_the_replay_answers(ray: FakeRay) -> None:
    replay = FakeReplay(GetTimeoutError("it is being restarted"))
    delivery = a_delivery(ray, replay)
    asked = attempts(ray, delivery, replay, until=60.0)

    assert np.diff([0.0, *asked])[:6] == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0, 5.0])
    assert np.diff(asked).max() == LONGEST_RETRY_SECONDS
    assert replay.add.calls == 1

    replay.admission.answer = ACKNOWLEDGED  # it answers, but has no room for chunks
    asked = attempts(ray, delivery, replay, until=120.0)
    assert replay.add.calls == 2 + len(asked)
    assert len(asked) <= 20


def test_the_pauses_of_deliveries_differ_and_begin_anew_with_each_chunk(ray: FakeRay) -> None:
    replay = FakeReplay(GetTimeoutError("it is being restarted"))
    delivery = a_delivery(ray, replay, chance=lambda: 0.5)
    for _ in range(2):
        began = ray.now
        asked = attempts(ray, delivery, replay, until=began + 20.0)
        expected = [0.1875, 0.375, 0.75, 1.5, 3.0, 3.75]
        assert np.diff([began, *asked])[:6] == pytest.approx(expected, abs=0.13)
        replay.turns(ACKNOWLEDGED)
        while delivery.poll(1.0) is None:
            pass
        replay.turns(GetTimeoutError("it is being restarted"))


def test_a_question_whose_answer_is_lost_is_asked_again_and_no_chunk_is_sent(ray: FakeRay) -> None:
    replay = FakeReplay(GetTimeoutError("it is being restarted"))
    delivery = a_delivery(ray, replay)
    delivery.send(None)
    assert delivery.poll(0.0) is None
    replay.turns(ACKNOWLEDGED)

    assert [delivery.poll(1.0) for _ in range(2)] == [None, ACKNOWLEDGED]
    assert (replay.admission.calls, replay.add.calls) == (2, 0)


def test_a_chunk_that_was_not_acknowledged_is_sent_again_when_due_and_nobody_waits(ray: FakeRay) -> None:
    replay = FakeReplay(GetTimeoutError("it is being restarted"))
    delivery = a_delivery(ray, replay)
    delivery.send(b"chunk")
    for _ in range(5):
        assert delivery.poll(0.0) is None

    assert (ray.now, replay.add.calls, delivery.busy) == (0.0, 1, True)
    assert delivery.last_trouble == "GetTimeoutError: it is being restarted"
    assert delivery.poll(1.0) is None
    assert (ray.now, replay.add.calls, replay.admission.calls) == (RETRY_SECONDS, 1, 1)
    replay.turns(ACKNOWLEDGED)
    for _ in range(3):  # the question is lost, asked again, and answered
        assert delivery.poll(1.0) is None
    assert delivery.poll(1.0) == ACKNOWLEDGED
    assert (replay.add.calls, replay.admission.calls) == (2, 2)
    assert not delivery.busy


def test_a_chunk_that_is_refused_is_not_sent_again(ray: FakeRay) -> None:
    replay = FakeReplay(remote_error(DataError("a chunk is wrong", why="test", fix="none")))
    delivery = RayDelivery(replay, clock=ray.clock, sleep=ray.sleep)
    delivery.send(b"chunk")

    assert delivery.poll(0.0) == Ack.nothing()
    assert delivery.last_trouble == "a chunk is wrong: test"
    assert not delivery.busy


def test_a_trouble_is_told_until_something_arrives(ray: FakeRay) -> None:
    replay = FakeReplay(remote_error(TamenError("it could not be written", why="no space", fix="none")))
    delivery = RayDelivery(replay, clock=ray.clock, sleep=ray.sleep)
    delivery.send(b"chunk")
    delivery.poll(0.0)
    assert delivery.last_trouble == "it could not be written: no space"
    replay.turns(ACKNOWLEDGED)
    for _ in range(2):
        delivery.poll(1.0)
    assert delivery.last_trouble == "it could not be written: no space"
    assert delivery.poll(1.0) == ACKNOWLEDGED
    assert delivery.last_trouble == ""


def test_an_object_store_without_room_is_told_in_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes) -> Any:
        raise ObjectStoreFullError("no room for 7 bytes\nand much more")

    monkeypatch.setattr("cluster.on_ray.client.ray.put", full)
    with pytest.raises(TamenError, match="no room for a chunk") as caught:
        RayObjects().put(b"a chunk")

    assert caught.value.why == "ObjectStoreFullError: no room for 7 bytes"
    assert "replay.capacity_rows" in caught.value.fix


class FakeDrawing:
    """A replay actor of which the answer to a draw is known."""

    def __init__(self, *fetched: Any) -> None:
        chunks = tuple((number, [Reference(answer)]) for number, answer in enumerate(fetched, start=4))
        self.drawn = Drawn((), chunks, 2, Wait(0.1, "3 of 4 rows have come"))
        self.draw = FakeMethod(self.drawn)


def test_chunks_come_to_the_learner_as_bytes_with_what_was_drawn(ray: FakeRay) -> None:
    replay = FakeDrawing(b"four", b"five")
    drawn = RayReplaySource(replay).draw(8, most=1, newest_held=3)

    assert drawn.chunks == ((4, b"four"), (5, b"five"))
    assert (drawn.samples, drawn.oldest, drawn.wait) == ((), 2, replay.drawn.wait)
    assert replay.draw.calls == 1


def test_where_nothing_is_lacking_one_question_is_enough(ray: FakeRay) -> None:
    replay = FakeDrawing()

    assert RayReplaySource(replay).draw(8, most=1, newest_held=3) is replay.drawn


def test_chunks_that_are_lost_with_their_replay_are_to_be_drawn_anew(ray: FakeRay) -> None:
    lost = FakeDrawing(b"four", OwnerDiedError("1234", None, "here"))
    with pytest.raises(DataError, match="cannot be had"):
        RayReplaySource(lost).draw(8, most=1, newest_held=3)
