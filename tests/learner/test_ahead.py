"""What is made ahead comes in its order, with what went wrong, and not for ever."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from core.errors import DataError
from learner import ahead
from learner.ahead import Ahead
from learner.objective import Columns


def batches(count: int) -> Iterator[Columns]:
    for number in range(count):
        yield {"cells": np.array([number])}


def test_batches_come_in_their_order_and_an_error_behind_them() -> None:
    def damaged() -> Iterator[Columns]:
        yield from batches(10)
        raise DataError("a shard is damaged", why="a test", fix="none")

    made = Ahead(damaged())
    assert [int(made.next()["cells"][0]) for _ in range(10)] == list(range(10))
    with pytest.raises(DataError, match="a shard is damaged"):
        made.next()
    made.close()


def test_who_closes_it_does_not_wait_for_the_rest() -> None:
    made = Ahead(batches(1000))
    made.next()
    made.close()
    assert threading.active_count() < 20


def test_a_disk_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LONGEST_WAIT_SECONDS", 0.05)
    gate = threading.Event()

    def stuck() -> Iterator[Columns]:
        gate.wait(10)
        yield from batches(1)

    made = Ahead(stuck())
    with pytest.raises(DataError, match="no rows were read"):
        made.next()
    gate.set()
    made.close()
