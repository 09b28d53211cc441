import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configs.schema import ReplayConfig
from core.errors import UsageError
from core.seeds import derive_rng
from replay.rate_limiter import (
    INSERT_PAUSE_SECONDS,
    LEAST_WAIT_SECONDS,
    SAMPLE_WAIT_SECONDS,
    UNKNOWN_PACE,
    Counts,
    Pace,
    PaceMeter,
    RateLimiter,
)
from replay.samplers import FifoSampler, Sampler, UniformSampler

limiters = st.builds(
    RateLimiter,
    min_rows=st.integers(1, 500),
    samples_per_insert=st.floats(0.1, 20),
    slack_rows=st.integers(1, 500),
)


def counts(inserted: int, sampled: int = 0, live: int | None = None) -> Counts:
    return Counts(inserted_rows=inserted, sampled_rows=sampled, live_rows=inserted if live is None else live)


def test_a_limiter_takes_its_numbers_from_the_configuration() -> None:
    config = ReplayConfig(min_rows=7, samples_per_insert=3.0, samples_per_insert_slack_rows=11)
    assert RateLimiter.of(config) == RateLimiter(min_rows=7, samples_per_insert=3.0, slack_rows=11)
    assert RateLimiter.of(config.model_copy(update={"sampler": "fifo"})).uses_rows_up


def test_the_two_stages_by_hand() -> None:
    limiter = RateLimiter(min_rows=100, samples_per_insert=4, slack_rows=50)
    assert limiter.may_insert(counts(99))
    assert not limiter.may_sample(1, counts(99))

    assert limiter.credit_rows(counts(100)) == 0
    assert limiter.may_sample(50, counts(100))
    assert not limiter.may_sample(51, counts(100))

    assert limiter.may_insert(counts(112))  # credit 48
    assert not limiter.may_insert(counts(113))  # credit 52
    assert limiter.insert_pause_seconds(counts(112)) == 0
    assert limiter.insert_pause_seconds(counts(113)) > 0
    assert limiter.may_insert(counts(113, sampled=2))


def test_where_rows_are_used_up_actors_wait_as_soon_as_a_draw_is_there() -> None:
    limiter = RateLimiter(min_rows=64, samples_per_insert=1, slack_rows=32, uses_rows_up=True)
    assert limiter.may_insert(counts(63))
    assert not limiter.may_sample(64, counts(63))
    assert limiter.may_sample(64, counts(64))
    assert not limiter.may_insert(counts(64))
    assert limiter.may_insert(counts(64, sampled=64, live=0))


def test_actors_go_on_while_too_few_rows_are_left_to_draw_from() -> None:
    limiter = RateLimiter(min_rows=100, samples_per_insert=4, slack_rows=50)
    assert limiter.may_insert(counts(1000, live=99))
    assert not limiter.may_sample(1, counts(1000, live=99))
    assert not limiter.may_insert(counts(1000, live=100))


@given(limiters, st.integers(0, 10_000), st.integers(0, 100_000), st.integers(1, 1000))
def test_one_side_may_always_go_on(limiter: RateLimiter, inserted: int, sampled: int, batch: int) -> None:
    assume(batch <= 2 * limiter.slack_rows)
    now = counts(inserted, sampled)
    assert limiter.may_insert(now) or limiter.may_sample(batch, now)


@given(
    limiters, st.integers(1, 100), st.integers(1, 1000), st.lists(st.booleans(), min_size=50, max_size=150)
)
def test_no_schedule_leaves_the_ratio_by_more_than_the_slack_and_one_chunk(
    limiter: RateLimiter, chunk: int, batch: int, learner_first: list[bool]
) -> None:
    assume(batch <= 2 * limiter.slack_rows)
    inserted = sampled = 0
    for learner in learner_first:
        now = counts(inserted, sampled)
        may_insert, may_sample = limiter.may_insert(now), limiter.may_sample(batch, now)
        if may_sample and (learner or not may_insert):
            sampled += batch
        else:
            assert may_insert
            inserted += chunk
        credit = limiter.credit_rows(counts(inserted, sampled))
        overshoot = chunk * limiter.samples_per_insert
        assert sampled == 0 or credit >= -limiter.slack_rows - 1e-6
        assert credit <= limiter.slack_rows + overshoot + 1e-6
    assert sampled == 0 or inserted >= limiter.min_rows


@given(limiters, st.integers(1, 2000))
def test_a_batch_that_could_stop_both_sides_is_refused(limiter: RateLimiter, batch: int) -> None:
    if batch <= 2 * limiter.slack_rows:
        limiter.check_sample(batch)
        return
    with pytest.raises(UsageError, match=f"a batch of {batch} rows can never be drawn") as refusal:
        limiter.may_sample(batch, counts(0))
    assert f"2 * replay.samples_per_insert_slack_rows = {2 * limiter.slack_rows} rows" in refusal.value.why
    assert f"at least {(batch + 1) // 2}," in refusal.value.fix
    RateLimiter(1, 1.0, (batch + 1) // 2).check_sample(batch)


def test_a_larger_batch_would_really_stop_both_sides() -> None:
    limiter = RateLimiter(min_rows=1, samples_per_insert=1, slack_rows=10)
    now = counts(12)  # credit 11: actors pause, and a batch of 22 would leave -11
    assert not limiter.may_insert(now)
    assert limiter.credit_rows(now) - 22 < -limiter.slack_rows


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_has_rows(batch: int) -> None:
    with pytest.raises(UsageError):
        RateLimiter(1, 1.0, 10).check_sample(batch)


@given(limiters, st.integers(0, 10_000), st.integers(0, 10**9))
def test_remembered_draws_are_lowered_to_what_the_rows_allow(
    limiter: RateLimiter, inserted: int, sampled: int
) -> None:
    clamped = limiter.clamped_samples(counts(inserted, sampled))
    assert clamped <= sampled
    earned = limiter.samples_per_insert * max(0, inserted - limiter.min_rows) + limiter.slack_rows
    assert clamped <= earned
    assert clamped == sampled or clamped > earned - 1


def test_an_actor_asks_again_when_the_draws_should_be_made() -> None:
    limiter = RateLimiter(min_rows=100, samples_per_insert=4, slack_rows=50)
    pace = Pace(seconds=0.08, rows=20)
    pauses = {inserted: limiter.insert_pause_seconds(counts(inserted), pace) for inserted in (112, 113, 125)}
    # 2 rows too many: one draw; 50 rows: two draws and a half.
    assert pauses == pytest.approx({112: 0.0, 113: 0.08, 125: 0.2})
    assert limiter.insert_pause_seconds(counts(1000), pace) == INSERT_PAUSE_SECONDS
    assert limiter.insert_pause_seconds(counts(113), Pace(1e-6, 20)) == LEAST_WAIT_SECONDS
    assert limiter.insert_pause_seconds(counts(113)) == INSERT_PAUSE_SECONDS


def test_what_has_passed_since_the_last_stride_need_not_be_waited_for_again() -> None:
    waits = [
        Pace(0.08, 20, since=since).seconds_to_ask_again(1, longest_seconds=1.0) for since in (0.03, 0.079)
    ]
    assert waits == pytest.approx([0.05, LEAST_WAIT_SECONDS])


def test_what_is_overdue_is_asked_for_the_more_seldom_the_longer_it_is() -> None:
    waits = [
        Pace(0.1, 20, since=since).seconds_to_ask_again(1, longest_seconds=1.0) for since in (0.1, 0.3, 9.1)
    ]
    assert waits == pytest.approx([LEAST_WAIT_SECONDS, 0.05, 1.0])


def test_the_pace_is_that_of_the_last_draws() -> None:
    meter = PaceMeter()
    assert meter.pace(now_seconds=0) == UNKNOWN_PACE
    meter.note(100, now_seconds=0)
    assert meter.pace(now_seconds=5) == UNKNOWN_PACE
    for k in range(1, 40):
        meter.note(100, now_seconds=10 * k)
    for k in range(1, 30):
        meter.note(30, now_seconds=390 + 0.5 * k)
    assert meter.pace(now_seconds=404.75) == Pace(seconds=0.5, rows=30, since=0.25)


def test_a_learner_asks_again_when_the_rows_should_be_there() -> None:
    limiter = RateLimiter(min_rows=100, samples_per_insert=4, slack_rows=50)
    pace = Pace(seconds=0.02, rows=10)
    assert limiter.sample_wait_seconds(50, counts(100), pace) == 0
    waits = [
        limiter.sample_wait_seconds(rows, now, pace)
        for rows, now in ((50, counts(40)), (51, counts(100)), (50, counts(200, 400 + 160)))
    ]
    # 60 rows to come, six inserts; one draw of a row, one insert; 160 draws of 40 rows, four inserts.
    assert waits == pytest.approx([0.12, 0.02, 0.08])
    assert limiter.sample_wait_seconds(50, counts(0), Pace(1.0, 10)) == SAMPLE_WAIT_SECONDS
    assert limiter.sample_wait_seconds(50, counts(99), Pace(1e-6, 10)) == LEAST_WAIT_SECONDS
    assert limiter.sample_wait_seconds(50, counts(99)) == SAMPLE_WAIT_SECONDS


def test_draws_of_rows_that_were_lost_are_not_waited_for() -> None:
    limiter = RateLimiter(min_rows=10, samples_per_insert=2, slack_rows=20)
    lost = Counts(inserted_rows=1000, sampled_rows=0, live_rows=15, draws_left=30)
    assert limiter.credit_rows(lost) == 10
    assert limiter.may_insert(lost)
    kept = Counts(inserted_rows=1000, sampled_rows=1900, live_rows=50, draws_left=100)
    assert limiter.credit_rows(kept) == limiter.credit_rows(replace(kept, draws_left=math.inf)) == 80


SECONDS_OF_WORK = 1.0
SECONDS_OF_ABSENCE = 3.0


@dataclass
class Circle:
    """Actors and a learner around one replay, in a time of their own.

    Whoever waits does so by itself: it sleeps as long as it was told and asks again. At any of its turns it may be gone
    instead, in the middle of a wait or of its work, and somebody else comes in its place.

    Attributes:
        absence: how likely somebody is gone at its turn.
        overdue_rows: how far actors may be ahead beyond the slack because of those who were gone.
    """

    limiter: RateLimiter
    sampler: Sampler
    capacity_rows: int
    batch: int
    chunk: int
    actors: int
    rng: np.random.Generator
    absence: float = 0.05
    chunks: int = 0
    inserted: int = 0
    sampled: int = 0
    overdue_rows: float = 0.0

    def counts(self) -> Counts:
        return Counts(
            self.inserted, self.sampled, self.sampler.drawable_rows, draws_left=self.sampler.draws_left
        )

    def may_draw(self) -> bool:
        return self.limiter.may_sample(self.batch, self.counts()) and self.sampler.available(self.batch)

    def insert(self) -> None:
        self.sampler.add(self.chunks, self.chunk)
        self.chunks += 1
        self.inserted += self.chunk
        oldest = self.chunks - self.sampler.num_rows // self.chunk
        while self.sampler.num_rows - self.chunk >= self.capacity_rows:
            self.sampler.remove(oldest)
            oldest += 1

    def draw(self) -> bool:
        for number in self.sampler.exhausted():
            self.sampler.remove(number)
        may = self.may_draw()
        if may:
            self.sampler.draw(self.batch, self.rng)
            self.sampled += self.batch
        return may

    def learner_turn(self) -> float:
        """Return when the learner comes again."""
        if self.rng.random() < self.absence:  # another comes, with an older checkpoint
            forgotten = min(self.sampled, int(self.rng.integers(5)) * self.batch)
            self.sampled -= forgotten
            self.overdue_rows += forgotten
            return SECONDS_OF_ABSENCE * self.rng.random()
        if self.draw():
            return SECONDS_OF_WORK * self.rng.random()
        return (
            self.limiter.sample_wait_seconds(self.batch, self.counts(), Pace(0.5, self.chunk))
            or LEAST_WAIT_SECONDS
        )

    def actor_turn(self, *, has_chunk: bool) -> tuple[float, bool]:
        """Return when an actor comes again, and whether it will bring a chunk."""
        if self.rng.random() < self.absence:  # another comes, and makes a chunk before it asks anybody
            self.overdue_rows += self.chunk * self.limiter.samples_per_insert
            return SECONDS_OF_ABSENCE * self.rng.random(), True
        if has_chunk:
            self.insert()
        pause = self.limiter.insert_pause_seconds(self.counts(), Pace(0.5, self.batch))
        return (pause, False) if pause else (SECONDS_OF_WORK * self.rng.random(), True)

    def turns(self, number: int) -> Iterator[float]:
        """Yield the longest time in which nothing has come and nothing was drawn, after each of so many turns."""
        parties = [(float(self.rng.random()), party, True) for party in range(self.actors + 1)]
        heapq.heapify(parties)
        longest = moved_at = 0.0
        for _ in range(number):
            now, party, has_chunk = heapq.heappop(parties)
            before = self.inserted, self.sampled
            if party == self.actors:
                seconds = self.learner_turn()
            else:
                seconds, has_chunk = self.actor_turn(has_chunk=has_chunk)
            longest = max(longest, now - moved_at)
            if (self.inserted, self.sampled) != before:
                moved_at = now
            heapq.heappush(parties, (now + seconds, party, has_chunk))
            yield longest


STANDSTILL_SECONDS = 60.0
"""As long as twenty absences, or as a hundred of the longest pauses."""

shares = st.floats(0.01, 1.0)


@given(limiters, st.integers(0, 200), shares, st.integers(1, 100), st.integers(1, 4), st.integers(0, 2**32))
def test_in_whatever_order_both_sides_come_and_go_neither_stands_still_nor_leaves_the_ratio(
    limiter: RateLimiter, spare: int, share: float, chunk: int, actors: int, seed: int
) -> None:
    capacity, batch = limiter.min_rows + spare, math.ceil(share * 2 * limiter.slack_rows)
    circle = Circle(limiter, UniformSampler(), capacity, batch, chunk, actors, derive_rng(seed))
    in_flight = actors * chunk * limiter.samples_per_insert
    for longest_seconds in circle.turns(150):
        assert circle.may_draw() or limiter.may_insert(circle.counts())
        assert longest_seconds < STANDSTILL_SECONDS
        credit = limiter.credit_rows(circle.counts())
        assert credit <= limiter.slack_rows + in_flight + circle.overdue_rows + 1e-6
        assert circle.sampled == 0 or credit >= -limiter.slack_rows - 1e-6
    assert circle.sampled == 0 or circle.inserted >= limiter.min_rows


fifo_rules = st.builds(
    lambda min_rows, max_uses, share, slack_rows: (
        RateLimiter(min_rows, share * max_uses, slack_rows, uses_rows_up=True),
        max_uses,
    ),
    st.integers(1, 500),
    st.integers(1, 4),
    st.floats(0.1, 1.0),
    st.integers(1, 500),
)


@given(fifo_rules, st.integers(0, 200), shares, st.integers(1, 100), st.integers(1, 4), st.integers(0, 2**32))
def test_nor_where_rows_are_used_up_lost_or_forgotten(
    rules: tuple[RateLimiter, int], spare: int, share: float, chunk: int, actors: int, seed: int
) -> None:
    limiter, max_uses = rules
    capacity = limiter.min_rows + spare
    batch = math.ceil(share * min(2 * limiter.slack_rows, limiter.min_rows))
    circle = Circle(limiter, FifoSampler(max_uses), capacity, batch, chunk, actors, derive_rng(seed))
    for longest_seconds in circle.turns(150):
        assert circle.may_draw() or limiter.may_insert(circle.counts())
        assert longest_seconds < STANDSTILL_SECONDS
        ratio_credit = limiter.credit_rows(replace(circle.counts(), draws_left=math.inf))
        assert circle.sampled == 0 or ratio_credit >= -limiter.slack_rows - 1e-6


def test_a_batch_of_different_rows_above_the_least_rows_would_really_stop_both_sides() -> None:
    limiter = RateLimiter(min_rows=1, samples_per_insert=1, slack_rows=10, uses_rows_up=True)
    circle = Circle(limiter, FifoSampler(1), 1000, 20, 12, 1, derive_rng(0), absence=0.0)
    assert len(list(circle.turns(500))) == 500
    now = circle.counts()
    assert (now.inserted_rows, now.sampled_rows) == (12, 0)
    assert not limiter.may_insert(now)
    assert not circle.sampler.available(20)
