import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ReplayConfig
from replay.window import window_rows


@st.composite
def configs(draw: st.DrawFn) -> ReplayConfig:
    capacity = draw(st.integers(1, 10**7))
    return ReplayConfig(
        capacity_rows=capacity,
        min_rows=draw(st.integers(1, capacity)),
        window_exponent=draw(st.floats(0.05, 1)),
        window_growth=draw(st.floats(0.01, 3)),
    )


KATAGO = ReplayConfig(min_rows=250_000, window_exponent=0.75, window_growth=0.4, capacity_rows=10**12)


@given(configs(), st.integers(0, 10**9), st.integers(0, 10**6))
def test_the_window_never_shrinks_and_grows_by_no_more_than_came(
    config: ReplayConfig, total: int, more: int
) -> None:
    before, after = window_rows(total, config), window_rows(total + more, config)
    assert before <= after
    assert after - before <= max(1, config.window_growth) * more + 1


@given(configs(), st.integers(0, 10**9))
def test_the_window_lies_between_what_is_needed_and_what_there_is(config: ReplayConfig, total: int) -> None:
    window = window_rows(total, config)
    assert window <= min(total, config.capacity_rows)
    assert window >= min(total, config.min_rows)


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_exponent_one_and_growth_one_keep_everything(total: int, least: int) -> None:
    config = ReplayConfig(min_rows=least, capacity_rows=10**12, window_exponent=1, window_growth=1)
    assert window_rows(total, config) == pytest.approx(total, abs=1)


def test_the_window_is_the_integral_of_its_slope() -> None:
    """The slope is growth * (n / min_rows)^(exponent - 1), of which the formula is the solution."""
    rows = np.linspace(250_000, 20_000_000, 200_001)
    slope = 0.4 * (rows / 250_000) ** (0.75 - 1)
    integral = 250_000 + np.trapezoid(slope, rows)
    assert window_rows(20_000_000, KATAGO) == pytest.approx(integral, rel=1e-6)


def test_the_window_grows_ever_slower() -> None:
    windows = np.array([window_rows(total, KATAGO) for total in range(250_000, 5_000_000, 50_000)])
    growth = np.diff(windows)
    assert growth[0] == pytest.approx(0.4 * 50_000, rel=0.05)
    assert (np.diff(growth) <= 1).all()
