"""Running moments are those of everything that was seen, however it was cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.moments import Moments


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 2**31))
def test_batches_give_the_moments_of_the_whole(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(100.0, 3.0, (size, 2)) for size in sizes]
    moments = Moments((2,))
    for batch in batches:
        moments.add(batch)
    whole = np.concatenate(batches)
    assert moments.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(moments.mean, whole.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(moments.variance, whole.var(axis=0), rtol=1e-6, atol=1e-9)


def test_numbers_far_from_zero_keep_their_variance() -> None:
    moments = Moments()
    for _ in range(100):
        moments.add(np.array([1e8 - 1, 1e8 + 1]))
    assert moments.variance == pytest.approx(1.0, rel=1e-6)


def test_what_never_changes_is_divided_by_one() -> None:
    moments = Moments((2,))
    moments.add(np.array([[5.0, 0.0], [5.0, 2.0]]))
    np.testing.assert_allclose(moments.deviation, [1.0, 1.0])


def test_a_state_goes_on_as_if_nothing_had_happened() -> None:
    moments, again = Moments((1,)), Moments((1,))
    moments.add(np.array([[1.0], [4.0]]))
    again.load_state_dict(moments.state_dict())
    for one in (moments, again):
        one.add(np.array([[9.0]]))
    assert again.count == 3
    np.testing.assert_array_equal(again.mean, moments.mean)
    np.testing.assert_array_equal(again.variance, moments.variance)
