"""Batches: the right rows, each chunk decoded once, never more ahead than asked."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.errors import ClusterError
from learner.feed import Batch, Feed, Waited
from replay.records import decode_columns
from replay.sampling import Wait

MakeSource = Callable[..., Any]
ROWS = 20


def take(feed: Feed) -> Batch:
    batch = feed.next(30.0)
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


def test_no_more_batches_are_drawn_ahead_than_the_bound(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS, prefetch=2)
    take(feed)
    time.sleep(0.1)
    feed.close()
    assert source.draws <= 1 + 2 + 1


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
    assert feed.chunks_at_hand == 3
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
        feed.next(30.0)
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
