import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configs.schema import ReplayConfig
from core.errors import UsageError
from replay.rate_limiter import Counts, RateLimiter

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
