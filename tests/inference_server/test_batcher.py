import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.messages import Request
from inference_server.batcher import Batcher, Ticket


def ticket(rows: int, *, model: str = "main", arrived: float = 0.0) -> Ticket:
    return Ticket(Request(model, {"cells": np.zeros((rows, 9), np.int8)}), arrived)


def test_an_empty_queue_gives_no_waiting_time():
    assert Batcher(64, 0.001).wait_seconds(1.0, idle=True) is None


def test_a_device_that_was_busy_takes_at_once_what_is_there():
    batcher = Batcher(64, 0.001)
    batcher.add(ticket(1, arrived=5.0))

    assert batcher.wait_seconds(5.0, idle=False) == 0.0


def test_an_idle_device_waits_the_rest_of_the_deadline_after_the_first_request():
    batcher = Batcher(64, 0.010)
    batcher.add(ticket(1, arrived=5.0))
    batcher.add(ticket(1, arrived=5.004))

    assert abs(batcher.wait_seconds(5.004, idle=True) - 0.006) < 1e-9
    assert batcher.wait_seconds(5.010, idle=True) == 0.0
    assert batcher.wait_seconds(9.0, idle=True) == 0.0


def test_a_full_batch_does_not_wait_beside_an_idle_device():
    batcher = Batcher(64, 0.010)
    batcher.add(ticket(64, arrived=5.0))

    assert batcher.wait_seconds(5.0, idle=True) == 0.0


def test_a_batch_holds_one_model_and_the_one_that_waits_longest_goes_first():
    batcher = Batcher(64, 0.0)
    batcher.add(ticket(2, model="new", arrived=2.0))
    batcher.add(ticket(3, model="old", arrived=1.0))
    batcher.add(ticket(4, model="old", arrived=3.0))

    assert [t.request.num_rows for t in batcher.take()] == [3, 4]
    assert [t.request.num_rows for t in batcher.take()] == [2]
    assert batcher.wait_seconds(9.0, idle=True) is None


def test_a_request_larger_than_a_batch_leaves_alone():
    batcher = Batcher(8, 0.0)
    batcher.add(ticket(20, arrived=1.0))
    batcher.add(ticket(1, arrived=2.0))

    assert [t.request.num_rows for t in batcher.take()] == [20]
    assert [t.request.num_rows for t in batcher.take()] == [1]


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from("ab")), max_size=40), st.integers(1, 16))
def test_every_row_leaves_exactly_once_in_batches_within_the_bound(arrivals, max_rows):
    batcher = Batcher(max_rows, 0.001)
    tickets = [ticket(rows, model=model, arrived=float(i)) for i, (rows, model) in enumerate(arrivals)]
    for one in tickets:
        batcher.add(one)

    left = []
    while batcher.wait_seconds(0.0, idle=False) is not None:
        batch = batcher.take()
        assert sum(t.request.num_rows for t in batch) <= max_rows or len(batch) == 1
        assert len({t.request.model for t in batch}) == 1
        left += batch

    assert batcher.queued_rows == 0
    assert sorted(t.arrived for t in left) == sorted(t.arrived for t in tickets)
    for model in "ab":
        order = [t.arrived for t in left if t.request.model == model]
        assert order == sorted(order)
