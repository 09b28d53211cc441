"""Batches: the right rows, each chunk decoded once, never more ahead than asked."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ClusterError, DataError
from learner import feed as feed_module
from learner.feed import Batch, Feed, Waited
from replay.buffer import ReplayBuffer
from replay.drawing import Drawn, draw
from replay.records import decode_columns
from replay.sampling import Wait
from tests.replay.experience import CONFIG, a_chunk, open_buffer

MakeSource = Callable[..., Any]
ROWS = 20
TIMEOUT_SECONDS = 30.0
"""Of every wait in these tests; reached only when something is broken."""


def take(feed: Feed) -> Batch:
    batch = feed.next(TIMEOUT_SECONDS)
    assert isinstance(batch, Batch)
    return batch


def take_all(feed: Feed, count: int) -> list[Batch]:
    return [take(feed) for _ in range(count)]


def same(a: Batch, b: Batch) -> bool:
    return a.draws == b.draws and all(np.array_equal(a.columns[name], b.columns[name]) for name in a.columns)


def test_a_batch_holds_exactly_the_rows_that_were_drawn(make_source: MakeSource) -> None:
    source, witness = make_source(), make_source()
    batch = take(Feed(source, batch_rows=ROWS))
    sample = witness.sample(ROWS)
    chunks = {number: decode_columns(data) for number, data in witness.chunks.items()}
    drawn = list(zip(sample.chunk_ids.tolist(), sample.rows.tolist(), strict=True))
    assert batch.columns.keys() == chunks[1].keys()
    for name, column in batch.columns.items():
        expected = np.stack([chunks[number][name][row] for number, row in drawn])
        assert np.array_equal(column, expected)
        assert column.dtype == expected.dtype
        assert column.flags.c_contiguous
    assert (batch.draws, batch.sampled_rows) == (1, ROWS)


@pytest.mark.parametrize("draws_at_once", [1, 4])
def test_batches_made_ahead_are_those_made_when_asked_for(
    draws_at_once: int, make_source: MakeSource
) -> None:
    inline = Feed(make_source(), batch_rows=ROWS)
    ahead = Feed(make_source(), batch_rows=ROWS, prefetch=3, draws_at_once=draws_at_once)
    try:
        assert all(same(take(inline), take(ahead)) for _ in range(10))
    finally:
        ahead.close()


def test_a_batch_stays_what_it_is_when_its_chunks_are_gone(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    batch = take(feed)
    kept = {name: column.copy() for name, column in batch.columns.items()}
    source.chunks = {number + 10: data for number, data in make_source(version=7).chunks.items()}
    assert (take(feed).columns["weights_version"] == 7).all()
    assert all(np.array_equal(batch.columns[name], column) for name, column in kept.items())


@pytest.mark.parametrize(("draws_at_once", "drawn_ahead"), [(1, 2), (5, 4)])
def test_as_many_batches_are_drawn_ahead_as_the_bound_says_and_no_more(
    draws_at_once: int, drawn_ahead: int, make_source: MakeSource
) -> None:
    source, drawn = make_source(), threading.Semaphore(0)
    sample = source.sample

    def sample_and_tell(num_rows: int) -> Any:
        drawn.release()
        return sample(num_rows)

    source.sample = sample_and_tell
    feed = Feed(source, batch_rows=ROWS, prefetch=2, draws_at_once=draws_at_once)
    take(feed)
    for _ in range(1 + drawn_ahead):  # taken, and drawn ahead
        assert drawn.acquire(timeout=TIMEOUT_SECONDS)
    assert not drawn.acquire(timeout=0.2)
    feed.close()


class SlowSource:
    """A replay whose first draw takes until it is told to end. It notes how many callers it had at once."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._callers = 0
        self.drawing = threading.Event()
        self.may_end = threading.Event()
        self.most_callers = 0

    def draw(self, num_rows: int, *, most: int, newest_held: int) -> Drawn:
        return self._call(lambda: self._source.draw(num_rows, most=most, newest_held=newest_held), slow=True)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        self._call(lambda: self._source.restore_counters(draws, sampled_rows), slow=False)

    def _call(self, work: Callable[[], Any], *, slow: bool) -> Any:
        self._callers += 1
        self.most_callers = max(self.most_callers, self._callers)
        try:
            if slow:
                self.drawing.set()
                assert self.may_end.wait(TIMEOUT_SECONDS)
            return work()
        finally:
            self._callers -= 1


def abandoned(source: SlowSource, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Return a feed that was closed while its thread was inside a call of the source, and did not wait for it."""
    monkeypatch.setattr(feed_module, "_CLOSE_SECONDS", 0.0)
    feed = Feed(source, batch_rows=ROWS, prefetch=2)
    assert isinstance(feed.next(0.0), Waited)
    assert source.drawing.wait(TIMEOUT_SECONDS)
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
    # The first answer was dropped.
    assert [take(feed).draws for _ in range(4)] == [2, 3, 4, 5]
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
    source.chunks[4] = source.chunks[1]
    for _ in range(10):
        take(feed)
    assert source.fetched == [1, 2, 3, 4]


def test_chunks_that_left_the_window_are_forgotten(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    take(feed)
    for number in (1, 2):
        source.chunks[number + 3] = source.chunks.pop(number)
        take(feed)
        assert feed._arena.chunks == sorted(source.chunks)
        assert feed._arena.check_valid() == []


def test_a_replay_that_draws_what_it_took_back_has_to_give_all_of_it_anew(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    first = source.chunks.pop(1)
    take(feed)
    source.chunks[1] = first
    batch = take(feed)
    assert batch.draws == 3
    assert source.fetched == [2, 3, 1, 2, 3]


def test_a_draw_whose_chunks_were_lost_on_the_way_is_made_again(make_source: MakeSource) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    good = source.draw

    def lose_once(num_rows: int, *, most: int, newest_held: int) -> Drawn:
        source.draw = good
        source.sample(num_rows)
        raise DataError("chunks cannot be had", why="the replay died", fix="draw anew")

    source.draw = lose_once
    assert take(feed).draws == 2


def test_a_source_that_keeps_losing_its_chunks_is_waited_for(make_source: MakeSource) -> None:
    source = make_source()
    source.failure = DataError("chunk 1 cannot be had", why="the replay died", fix="draw anew")
    waited = Feed(source, batch_rows=ROWS).next(1.0)
    assert isinstance(waited, Waited)
    assert waited.reason == "chunk 1 cannot be had"
    assert waited.seconds > 0


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_chunk_that_does_not_fit_the_others_reaches_the_learner_by_name(
    prefetch: int, make_source: MakeSource
) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS, prefetch=prefetch)
    take(feed)
    source.chunks[4] = a_chunk([0]).encode()
    with pytest.raises(DataError, match="chunk 4 does not fit"):
        take_all(feed, 1 + 2 + 1)  # some may have been made before it came
    feed.close()


def test_rows_that_are_a_while_in_coming_are_asked_for_soon_and_then_more_seldom(
    make_source: MakeSource,
) -> None:
    source = make_source()
    feed = Feed(source, batch_rows=ROWS)
    source.wait = Wait(0.2, "20 of 5000 rows have come")
    asked = [feed.next(1.0) for _ in range(40)]
    assert all(isinstance(one, Waited) and one.reason == "20 of 5000 rows have come" for one in asked)
    pauses = np.array([one.seconds for one in asked if isinstance(one, Waited)])
    waited = np.cumsum(pauses) - pauses
    assert pauses[0] == 0.01
    assert (pauses <= 0.01 + waited + 1e-9).all(), "never long against what was waited before"
    assert pauses[-1] == 0.2

    source.wait = None
    take(feed)
    source.wait = Wait(0.2, "20 of 5000 rows have come")
    assert feed.next(1.0) == Waited(0.01, "20 of 5000 rows have come")


def test_what_comes_while_there_is_nothing_to_draw_is_at_hand_when_there_is(make_source: MakeSource) -> None:
    source = make_source()
    source.wait = Wait(0.2, "20 of 5000 rows have come")
    feed = Feed(source, batch_rows=ROWS)
    feed.next(1.0)
    assert feed._arena.chunks == [1, 2, 3]


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


class ReplaySource:
    """A replay as the learner sees it in one process."""

    def __init__(self, replay: ReplayBuffer) -> None:
        self._replay = replay

    def draw(self, num_rows: int, *, most: int, newest_held: int) -> Drawn:
        return draw(self._replay, num_rows, most=most, newest_held=newest_held)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        self._replay.restore_counters(draws, sampled_rows)


def chi_square(counts: np.ndarray) -> float:
    expected = counts.mean()
    return float(((counts - expected) ** 2).sum() / expected)


def test_every_row_of_the_window_reaches_the_learner_equally_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    generous = CONFIG.model_copy(update={"samples_per_insert": 1e9})
    replay = open_buffer(tmp_path, generous)
    first = 0
    for games in (1, 7, 2, 30, 5, 1, 4):  # chunks of three rows a game
        replay.add(a_chunk(range(first, first + games)).encode())
        first += games
    feed = Feed(ReplaySource(replay), batch_rows=500)
    columns = [take(feed).columns for _ in range(100)]
    rows = np.concatenate([3 * one["seq"] + one["step"] - 2 for one in columns])
    counts = np.bincount(rows, minlength=3 * first)

    assert len(counts) == 3 * first == 150
    # Chi-square has a mean of 149 here and a standard deviation of 17.3: five of them are room enough for one seed.
    assert chi_square(counts) < 149 + 5 * 17.3
    counts[:50] += counts.sum() // 1000  # a third of the rows, drawn a seventh more often, would be seen
    assert chi_square(counts) > 149 + 5 * 17.3
