"""Numbers are kept as a set would keep them, and quantiles are those of the durations to a percent."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.tally import DurationTally, NumberSet

NUMBERS = st.integers(0, 40)


@given(st.lists(NUMBERS), NUMBERS)
def test_it_is_a_set(added: list[int], asked: int) -> None:
    numbers = NumberSet()
    for number in added:
        numbers.add(number)
    assert len(numbers) == len(set(added))
    assert (asked in numbers) == (asked in added)
    assert numbers.next_missing(asked) == min(set(range(asked, 50)) - set(added))
    ranges = list(numbers.ranges())
    assert {number for first, last in ranges for number in range(first, last + 1)} == set(added)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges))
    assert list(NumberSet(ranges).ranges()) == ranges


def test_a_million_numbers_that_come_nearly_in_order_are_a_few_ranges() -> None:
    numbers = NumberSet()
    for start in range(0, 1_000_000, 100):
        for number in range(start + 99, start - 1, -1):
            numbers.add(number)
    assert list(numbers.ranges()) == [(0, 999_999)]


@pytest.mark.parametrize("ranges", [[(3, 2)], [(0, 4), (5, 6)], [(4, 5), (0, 1)], [(-1, 2)]])
def test_ranges_that_are_none_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="does not stand behind"):
        NumberSet(ranges)


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        NumberSet().add(-1)


@given(st.lists(st.floats(0.001, 86_400.0), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_right_to_a_percent(durations: list[float], share: float) -> None:
    tally = DurationTally()
    for seconds in durations:
        tally.add(seconds)
    exact = float(np.quantile(durations, share, method="inverted_cdf"))
    assert tally.quantile(share) == pytest.approx(exact, rel=0.0101)
    assert DurationTally(tally.counts()).quantile(share) == tally.quantile(share)


def test_of_nothing_there_is_no_quantile() -> None:
    assert DurationTally().quantile(0.5) is None
