"""A histogram of waits tells them nearly as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_server.waits import NUM_BUCKETS, PER_OCTAVE, bucket, quantile


def counted(waits: list[float]) -> list[int]:
    counts = [0] * NUM_BUCKETS
    for wait in waits:
        counts[bucket(wait)] += 1
    return counts


@given(st.lists(st.floats(1e-6, 60.0), min_size=1, max_size=50), st.floats(0.0, 1.0))
def test_a_quantile_is_told_within_half_a_bucket(waits: list[float], share: float) -> None:
    found = quantile(counted(waits), share)

    last = max(1, -(-int(share * len(waits) * 1000) // 1000))
    near = sorted(waits)[max(0, last - 2) : last + 1]
    half = 2 ** (0.51 / PER_OCTAVE)
    assert near[0] / half <= found <= near[-1] * half


def test_quantiles_are_of_requests() -> None:
    counts = counted([0.001] * 98 + [0.1, 1.0])

    assert quantile(counts, 0.5) == pytest.approx(0.001, rel=0.1)
    assert quantile(counts, 0.99) == pytest.approx(0.1, rel=0.1)
    assert quantile(counts, 1.0) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(("seconds", "number"), [(-1.0, 0), (0.0, 0), (1e-6, 0), (1e9, NUM_BUCKETS - 1)])
def test_what_lies_outside_counts_at_the_ends(seconds: float, number: int) -> None:
    assert bucket(seconds) == number


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no wait"):
        quantile([0] * NUM_BUCKETS, 0.5)
