"""Batches: the right rows, each chunk decoded once, never more ahead than asked."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.errors import ClusterError
from learner import feed as feed_module
from learner.feed import Batch, Feed, Waited
from replay.records import decode_columns
from replay.sampling import Wait

MakeSource = Callable[..., Any]
ROWS = 20
TIMEOUT_SECONDS = 30.0
"""Of every wait in these tests; reached only when something is broken."""


def take(feed: Feed) -> Batch:
    batch = feed.next(TIMEOUT_SECONDS)
    assert isinstance(batch, Batch)
    return batch


def same(a: Batch, b: Batch) -> bool:
    return a.draws == b.draws and all(np.array_equal(a.columns[name], b.columns[name]) for name in a.columns)


def test_a_batch_holds_exactly_the_rows_that_were_drawn(make_source: MakeSource) -> None:
    source, witness = make_source(), make_source()
    batch = take(Feed(source, batch_rows=ROWS))
    sample = witness.sample(ROWS)
    chunks = {number: decode_columns(data) for number, data in witness.chunks.items()}
    drawn = sorted(
        zip(sample.chunk_ids.tolist(), sample.rows.tolist(), strict=True), key=lambda pair: pair[0]
    )
    for name, column in batch.columns.items():
        expected = np.stack([chunks[number][name][row] for number, row in drawn])
        assert np.array_equal(column, expected)
        assert column.dtype == expected.dtype
    assert (batch.draws, batch.sampled_rows) == (1, ROWS)


def test_batches_made_ahead_are_those_made_when_asked_for(make_source: MakeSource) -> None:
    inline, ahead = Feed(make_source(), batch_rows=ROWS), Feed(make_source(), batch_rows=ROWS, prefetch=3)
    try:
        assert all(same(take(inline), take(ahead)) for _ in range(10))
    finally:
        ahead.close()


def test_as_many_batches_are_drawn_ahead_as_the_bound_says_and_no_more(make_source: MakeSource) -> None:
    source, drawn = make_source(), threading.Semaphore(0)
    sample = source.sample

    def sample_and_tell(num_rows: int) -> Any:
        drawn.release()
        return sample(num_rows)

    source.sample = sample_and_tell
    feed = Feed(source, batch_rows=ROWS, prefetch=2)
    take(feed)
    for _ in range(1 + 2 + 1):  # taken, in the queue, and the one that does not fit into it
        assert drawn.acquire(timeout=TIMEOUT_SECONDS)
    assert not drawn.acquire(timeout=0.2)
    feed.close()


class SlowSource:
    """A replay whose first fetch takes until it is told to end. It notes how many callers it had at once."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._callers = 0
        self.fetching = threading.Event()
        self.may_end = threading.Event()
        self.most_callers = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._callers += 1
            self.most_callers = max(self.most_callers, self._callers)
            try:
                if name == "fetch":
                    self.fetching.set()
                    assert self.may_end.wait(TIMEOUT_SECONDS)
                return getattr(self._source, name)(*arguments)
            finally:
                self._callers -= 1

        return call


def abandoned(source: SlowSource, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Return a feed that was closed while its thread was inside a call of the source, and did not wait for it."""
    monkeypatch.setattr(feed_module, "_CLOSE_SECONDS", 0.0)
    feed = Feed(source, batch_rows=ROWS, prefetch=2)
    assert isinstance(feed.next(0.0), Waited)
    assert source.fetching.wait(TIMEOUT_SECONDS)
    feed.close()
    return feed


def test_a_thread_that_outlives_its_close_never_draws_beside_its_successor(
    make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SlowSource(make_source())
    feed = abandoned(source, monkeypatch)
    for _ in range(3):
        assert isinstance(feed.next(0.3), Waited)
        feed.close()
    waited = feed.next(0.3)
    assert isinstance(waited, Waited)
    assert "has not ended" in waited.reason
    source.may_end.set()
    assert [take(feed).draws for _ in range(4)] == [2, 3, 4, 5]  # the first draw was dropped
    assert source.most_callers == 1
    feed.close()


def test_nothing_is_restored_while_an_earlier_draw_goes_on(
    make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SlowSource(make_source())
    feed = abandoned(source, monkeypatch)
    monkeypatch.setattr(feed_module, "_TURN_SECONDS", 0.01)
    with pytest.raises(ClusterError, match="cannot draw anew"):
        feed.restore(0, 0)
    source.may_end.set()
    monkeypatch.setattr(feed_module, "_TURN_SECONDS", TIMEOUT_SECONDS)
    feed.restore(0, 0)
    assert take(feed).draws == 1
    assert source.most_callers == 1
    feed.close()


def test_each_chunk_is_fetched_once_while_it_is_in_the_window(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    for _ in range(10):
        take(feed)
    assert sorted(source.fetched) == [1, 2, 3]


def test_a_chunk_that_left_the_window_is_forgotten(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    take(feed)
    first = source.chunks.pop(1)
    source.chunks[4] = first
    take(feed)
    source.chunks[1] = first
    take(feed)
    assert sorted(source.fetched) == [1, 1, 2, 3, 4]


def test_a_chunk_that_left_between_draw_and_fetch_costs_a_draw_and_no_more(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    lost = source.chunks[2]
    sample = source.sample

    def sample_then_lose(num_rows: int) -> Any:
        drawn = sample(num_rows)
        source.chunks.pop(2, None)
        return drawn

    source.sample = sample_then_lose
    batch = take(feed)
    assert batch.draws == 2
    lost_rows = {row.tobytes() for row in decode_columns(lost)["cells"]}
    assert not lost_rows & {row.tobytes() for row in batch.columns["cells"]}


def test_a_source_that_keeps_losing_its_chunks_is_waited_for(make_source: MakeSource) -> None:
    source = make_source()
    source.sample(1)
    chunks = dict(source.chunks)
    source.chunks.clear()
    source.sample = lambda num_rows: type(source).sample(type(source)(chunks, 50), num_rows)
    waited = Feed(source, batch_rows=ROWS).next(1.0)
    assert isinstance(waited, Waited)
    assert waited.reason == "chunk 1 cannot be had"
    assert waited.seconds > 0


def test_the_rate_limiters_wait_is_handed_on_with_its_reason(make_source: MakeSource) -> None:
    source = make_source()
    source.wait = Wait(0.75, "20 of 5000 rows have come")
    assert Feed(source, batch_rows=ROWS).next(1.0) == Waited(0.75, "20 of 5000 rows have come")


def test_with_a_thread_the_wait_is_bounded_and_ends_when_rows_come(make_source: MakeSource) -> None:
    source = make_source()
    source.wait = Wait(0.001, "20 of 5000 rows have come")
    feed = Feed(source, batch_rows=ROWS, prefetch=1)
    try:
        while (waited := feed.next(0.01)).reason != "20 of 5000 rows have come":
            assert isinstance(waited, Waited)
        source.wait = None
        take(feed)
    finally:
        feed.close()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_the_source_raises_reaches_the_learner_and_the_feed_can_go_on(
    prefetch: int, make_source: MakeSource
) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS, prefetch=prefetch)
    source.failure = ClusterError("the replay is gone", why="it died", fix="resume")
    with pytest.raises(ClusterError, match="the replay is gone"):
        feed.next(TIMEOUT_SECONDS)
    source.failure = None
    take(feed)
    feed.close()


@pytest.mark.parametrize("prefetch", [0, 3])
def test_restored_counters_make_the_same_batches_again(prefetch: int, make_source: MakeSource) -> None:
    feed = Feed(make_source(), batch_rows=ROWS, prefetch=prefetch)
    first, second, third = (take(feed) for _ in range(3))
    feed.restore(first.draws, first.sampled_rows)
    assert same(take(feed), second)
    assert same(take(feed), third)
    feed.close()


def test_the_time_spent_waiting_is_measured(make_source: MakeSource) -> None:
    seconds = iter([10.0, 10.5, 20.0, 20.25])
    feed = Feed(make_source(), batch_rows=ROWS, clock=lambda: next(seconds))
    take(feed)
    take(feed)
    assert feed.waited_seconds == 0.75
