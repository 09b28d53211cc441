"""Situations that are solved side by side are what they are alone, and as exact as they say."""

import numpy as np
import pytest

from core.messages import without_asking
from poker.batches import Solved, Stop, solve_group
from poker.betting import Betting
from poker.holdem import board_hands
from poker.sampling import Law, Situation, draw_group
from poker.schedules import DEFAULT_VARIANT, make_schedule
from poker.solver import Solver
from poker.subgames import Subgame

RIVER = Subgame("river", Betting(20_000.0))
QUICK = Law(seed=1, group=20, pots=((4000, 9000),))
STOP = Stop(target=0.005)


def solved(situations: list[Situation], stop: Stop = STOP) -> dict[int, Solved]:
    found = without_asking(solve_group(situations, RIVER, make_schedule(DEFAULT_VARIANT), stop))
    return {each.situation.number: each for each in found}


@pytest.fixture(scope="module")
def group() -> list[Situation]:
    return draw_group(QUICK, 0, RIVER.form)


@pytest.fixture(scope="module")
def all_of_it(group: list[Situation]) -> dict[int, Solved]:
    return solved(group)


def test_each_is_solved_once_and_as_exact_as_wanted(
    group: list[Situation], all_of_it: dict[int, Solved]
) -> None:
    assert sorted(all_of_it) == [situation.number for situation in group]
    for each in all_of_it.values():
        assert each.exact
        assert 0 <= each.exploitability <= 0.005
        assert each.iterations % STOP.every == 0
        assert each.values.shape == each.situation.ranges.shape
        assert np.isfinite(each.values).all()


def test_what_comes_of_one_does_not_depend_on_the_others(
    group: list[Situation], all_of_it: dict[int, Solved]
) -> None:
    for some in (group[7:8], group[::-1][:3]):
        for number, alone in solved(some).items():
            together = all_of_it[number]
            assert alone.values.tobytes() == together.values.tobytes()
            assert (alone.exploitability, alone.iterations) == (together.exploitability, together.iterations)


def test_values_are_those_of_a_plain_solver(group: list[Situation], all_of_it: dict[int, Solved]) -> None:
    for situation in group[:2]:
        found = all_of_it[situation.number]
        hands = board_hands(situation.board).hands
        tree = RIVER.tree(situation.pot_half)
        plain = Solver(tree, hands, lanes=False)
        plain.begin(0, tree, situation.masses)
        plain.iterate(make_schedule(DEFAULT_VARIANT), found.iterations)
        values = plain.values()[:, :, 0]
        assert abs(plain.exploitability()[0] / 2 - found.exploitability) < 1e-4
        error = abs((values - found.values) * situation.masses).sum(1)
        assert (error < 1e-3).all()


def test_what_is_won_is_lost(all_of_it: dict[int, Solved]) -> None:
    for each in all_of_it.values():
        one, other = (each.values.astype(np.float64) * each.situation.masses).sum(1)
        assert abs(one + other) < 1e-4


def test_what_is_not_exact_in_time_says_so(group: list[Situation]) -> None:
    for each in solved(group[:4], Stop(target=1e-9, iterations=40)).values():
        assert not each.exact
        assert (each.iterations, each.exploitability > 1e-9) == (40, True)


def test_a_number_of_iterations_may_be_given(group: list[Situation]) -> None:
    for each in solved(group[:2], Stop(target=None, iterations=50)).values():
        assert (each.iterations, each.exact) == (50, True)
