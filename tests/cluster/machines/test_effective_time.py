"""Of the time that actors should have played, how much they did."""

import pytest

from cluster.machines.effective_time import REPLACED_WITHIN_SECONDS, EffectiveTime
from cluster.on_ray.supervision import LONGEST_STEP_SECONDS

HOME = {"home": 2}


def after(*moments: tuple[dict[str, int], int, float]) -> float | None:
    """Return the share after moments of (owed, playing, seconds that it stays so)."""
    time = EffectiveTime()
    now = 0.0
    for owed, playing, seconds in moments:
        until = now + seconds
        while now < until:
            time.step(owed, playing, now)
            now += 1.0
    time.step(moments[-1][0], moments[-1][1], now)
    return time.ratio


def test_there_is_no_share_of_nothing() -> None:
    assert EffectiveTime().ratio is None
    assert after(({}, 0, 10)) is None


def test_starting_and_being_down_count_against_it() -> None:
    assert after((HOME, 0, 2), (HOME, 2, 6), (HOME, 1, 2)) == pytest.approx((12 + 2) / 20)


def test_actors_that_are_too_many_make_up_for_nothing() -> None:
    assert after((HOME, 0, 5), (HOME, 4, 5)) == pytest.approx(0.5)


def test_a_machine_that_left_is_owed_until_another_comes_in_its_place() -> None:
    both, other = HOME | {"a": 2}, HOME | {"b": 2}
    share = after((both, 4, 10), (HOME, 2, 5), (other, 2, 1), (other, 4, 4))
    assert share == pytest.approx((40 + 10 + 2 + 16) / (4 * 20))


def test_a_small_machine_fills_as_many_places_of_a_large_one_as_it_has() -> None:
    share = after((HOME | {"large": 8}, 10, 10), (HOME | {"small": 2}, 4, 10))
    assert share == pytest.approx((100 + 40) / (100 + 100))


def test_a_large_machine_fills_the_places_of_small_ones() -> None:
    share = after((HOME | {"a": 2, "b": 2}, 6, 10), (HOME | {"large": 4}, 6, 10))
    assert share == pytest.approx(1.0)


def test_a_machine_that_nobody_replaces_is_owed_for_a_while_only() -> None:
    share = after((HOME | {"a": 2}, 4, 100), (HOME, 2, 2 * REPLACED_WITHIN_SECONDS))
    owed = 400 + 4 * REPLACED_WITHIN_SECONDS + 2 * REPLACED_WITHIN_SECONDS
    assert share == pytest.approx((owed - 2 * REPLACED_WITHIN_SECONDS) / owed, rel=0.01)


def test_time_in_which_the_driver_did_not_run_is_nobodys() -> None:
    time = EffectiveTime()
    time.step(HOME, 0, 0.0)
    time.step(HOME, 2, LONGEST_STEP_SECONDS + 1)
    time.step(HOME, 2, LONGEST_STEP_SECONDS + 2)
    assert time.ratio == 1.0
