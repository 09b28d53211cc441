"""The solver finds the values of games that are known, and does what plain counterfactual regret minimisation does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poker.betting import Betting, last_round
from poker.cards import HANDS, hand_number, parse_cards
from poker.hands import HandSet
from poker.holdem import board_hands
from poker.rows import LANES
from poker.schedules import VARIANTS, make_schedule
from poker.solver import Solver
from poker.toys import KUHN_VALUE, LEDUC_VALUE, kuhn, leduc
from poker.tree import Node, scaled
from tests.poker.oracles import (
    Situation,
    SlowSolver,
    decisions,
    mirrored,
    picked,
    situations,
)
from tests.poker.pasts import random_past, remember, remember_slowly

TOYS: dict[str, Callable[[], tuple[Node, HandSet]]] = {"kuhn": kuhn, "leduc": leduc}
DIGITS = 5e-5
"""Of the value of Leduc hold'em, which is known to four places."""
variants = pytest.mark.parametrize("variant", VARIANTS)
toys = pytest.mark.parametrize("toy", TOYS)


def begun(situation: Situation, *, lanes: bool = False) -> Solver:
    """Return a solver with a situation in its last lane."""
    solver = Solver(situation.tree, situation.hands, lanes=lanes)
    solver.begin(solver.lanes - 1, situation.tree, situation.ranges)
    return solver


def toy_situation(toy: str) -> Situation:
    tree, hands = TOYS[toy]()
    return Situation(tree, hands, np.ones((2, hands.number)))


def strategies(solver: Solver, tree: Node, lane: int = 0) -> list[np.ndarray]:
    """Return those of all decisions."""
    return [solver.strategy(number, len(at.actions), lane) for number, (_, at) in enumerate(decisions(tree))]


def all_bytes(solver: Solver, tree: Node, lane: int) -> list[bytes]:
    """Return everything that a lane says."""
    values = solver.values()[:, :, lane], solver.best_values()[:, :, lane]
    return [each.tobytes() for each in (*values, *strategies(solver, tree, lane))]


@variants
@toys
def test_known_values_are_found(toy: str, variant: str) -> None:
    solver = begun(toy_situation(toy))
    solver.iterate(make_schedule(variant), {"kuhn": 3000, "leduc": 600}[toy])
    one, other = solver.expected(solver.values())[:, 0]
    gap = solver.exploitability()[0]
    wanted, digits = {"kuhn": (KUHN_VALUE, 0.0), "leduc": (LEDUC_VALUE, DIGITS)}[toy]
    assert 0 < gap < 0.03
    assert one == pytest.approx(-other, abs=1e-12)
    # No best answer wins more than both together, and the value lies between what each of them leaves.
    assert abs(one - wanted) <= 2 * gap + digits


@variants
@settings(max_examples=50)
@given(situation=situations(), done=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_iterations_are_those_of_the_papers(variant: str, situation: Situation, done: int, seed: int) -> None:
    schedule = make_schedule(variant)
    solver, slow = begun(situation), SlowSolver(situation.tree, situation.hands, situation.ranges)
    past = random_past(situation, np.random.default_rng(seed), floor=schedule.floor)
    remember(solver, past, done)
    remember_slowly(slow, past, done)
    solver.iterate(schedule, 3)
    slow.iterate(schedule, 3)
    number = situation.hands.number
    for first, average in zip(solver.compiled.first, slow.average.values(), strict=True):
        found = solver._arrays.average[first * number : (first + len(average)) * number]
        assert np.allclose(found.reshape(-1, number), average, rtol=1e-9, atol=1e-12)
    assert_equal_values(solver, slow, 1e-9)


def assert_equal_values(solver: Solver, slow: SlowSolver, close: float) -> None:
    """Values differ by less than a part of all that the other may hold; stakes are 16 at most."""
    most = 16 * slow.ranges.sum(1)[::-1, None] + 1e-300
    assert (np.abs(solver.values()[:, :, 0] - slow.values()) <= close * most).all()
    assert (np.abs(solver.best_values()[:, :, 0] - slow.best_values()) <= close * most).all()
    if slow.mass > 0:
        wanted = (slow.ranges * slow.best_values()).sum() / slow.mass / 2
        assert solver.exploitability()[0] == pytest.approx(wanted, abs=close * most.max() / slow.mass)


@variants
@toys
def test_toys_are_solved_as_the_papers_do_it(toy: str, variant: str) -> None:
    situation = toy_situation(toy)
    solver, slow = begun(situation), SlowSolver(situation.tree, situation.hands, situation.ranges)
    schedule = make_schedule(variant)
    solver.iterate(schedule, 20)
    slow.iterate(schedule, 20)
    assert_equal_values(solver, slow, 1e-9)


def few_hands(seed: int, *, hands: int = 12, pot_half: float = 1.0) -> Situation:
    """A river with some hands, of which many are equal or share a card, and two sizes of bets."""
    rng = np.random.default_rng(seed)
    every = board_hands(parse_cards("Td9d6hQc3s")).hands
    chosen = picked(every, sorted(rng.choice(every.number, hands, replace=False).tolist()))
    tree = last_round(Betting(12.0, (0.5, 1.0)), pot_half)
    return Situation(tree, chosen, rng.random((2, hands)) ** 3)


SITUATIONS = {
    "kuhn": lambda seed: shaken(toy_situation("kuhn"), seed),
    "leduc": lambda seed: shaken(toy_situation("leduc"), seed),
    "river": few_hands,
}
forms = pytest.mark.parametrize("form", SITUATIONS)


def shaken(situation: Situation, seed: int) -> Situation:
    """Return another of the same form."""
    rng = np.random.default_rng(seed)
    tree = scaled(situation.tree, float(rng.uniform(0.5, 2)))
    return Situation(tree, situation.hands, rng.random(situation.ranges.shape))


CLOSE = 1e-5
"""Lanes round by 6e-8; regret matching divides by sums that may be small, which makes more of it. Where a hand has no
positive regret but that of a rounding error, strategies jump, so that only from a past without such hands the same
iterations lead to the same play."""


@variants
@forms
def test_lanes_take_the_same_iterations_as_float64(form: str, variant: str) -> None:
    situation, schedule = SITUATIONS[form](1), make_schedule(variant)
    past = random_past(situation, np.random.default_rng(1), floor=schedule.floor)
    lanes, plain = begun(situation, lanes=True), begun(situation)
    for solver in (lanes, plain):
        remember(solver, past, 150)
        solver.iterate(schedule, 3)
    most = situation.ranges.sum(1)[::-1, None] * 12
    assert (np.abs(lanes.values()[:, :, -1] - plain.values()[..., 0]) < CLOSE * most).all()
    assert (np.abs(lanes.best_values()[:, :, -1] - plain.best_values()[..., 0]) < CLOSE * most).all()


@variants
@forms
def test_lanes_come_to_the_same_value_as_float64(form: str, variant: str) -> None:
    situation = SITUATIONS[form](1)
    lanes, plain = begun(situation, lanes=True), begun(situation)
    for solver in (lanes, plain):
        solver.iterate(make_schedule(variant), 500)
    one, other = (float(each.expected(each.values())[0, -1]) for each in (lanes, plain))
    gap, other_gap = float(lanes.exploitability()[-1]), float(plain.exploitability()[0])
    assert abs(one - other) <= 2 * (gap + other_gap)
    assert gap < 3 * other_gap + 1e-4


@variants
@forms
def test_a_lane_does_not_know_of_the_others(form: str, variant: str) -> None:
    schedule = make_schedule(variant)
    tree, hands = SITUATIONS[form](0).tree, SITUATIONS[form](0).hands
    together = Solver(tree, hands, lanes=True)
    for lane in range(LANES):
        it = SITUATIONS[form](lane)
        together.begin(lane, it.tree, it.ranges)
    together.iterate(schedule, 7)
    for lane in range(3, LANES, 3):  # some are behind the others
        it = SITUATIONS[form](lane)
        together.begin(lane, it.tree, it.ranges)
    together.iterate(schedule, 130)
    for lane in (0, 1, 3, 15):
        it = SITUATIONS[form](lane)
        alone = Solver(tree, hands, lanes=True)
        elsewhere = (5 * lane + 2) % LANES
        alone.begin(elsewhere, it.tree, it.ranges)
        alone.iterate(schedule, int(together.iterations[lane]))
        assert all_bytes(alone, tree, elsewhere) == all_bytes(together, tree, lane)


@variants
@forms
@pytest.mark.parametrize("lanes", [False, True])
def test_a_lane_that_begins_anew_is_as_a_new_solver(form: str, variant: str, lanes: bool) -> None:
    schedule = make_schedule(variant)
    before, after = SITUATIONS[form](1), SITUATIONS[form](2)
    if form == "river":
        after = Situation(last_round(Betting(24.0, (0.5, 1.0)), 2.0), before.hands, after.ranges)
    used, new = (
        begun(before, lanes=lanes),
        begun(Situation(after.tree, before.hands, after.ranges), lanes=lanes),
    )
    used.iterate(schedule, 120)
    used.best_values()
    used.begin(used.lanes - 1, after.tree, after.ranges)
    for solver in (used, new):
        solver.iterate(schedule, 120)
    assert all_bytes(used, after.tree, used.lanes - 1) == all_bytes(new, after.tree, new.lanes - 1)


@variants
@forms
def test_iterations_may_be_taken_in_parts_and_looked_at_between(form: str, variant: str) -> None:
    schedule, situation = make_schedule(variant), SITUATIONS[form](1)
    whole, parts = begun(situation, lanes=True), begun(situation, lanes=True)
    whole.iterate(schedule, 150)
    for count in (1, 0, 2, 40, 107):
        parts.iterate(schedule, count)
        parts.exploitability()
    assert all_bytes(whole, situation.tree, LANES - 1) == all_bytes(parts, situation.tree, LANES - 1)


@variants
def test_a_lane_learns_by_any_variant_after_another_did(variant: str) -> None:
    situation = toy_situation("leduc")
    used, new = begun(situation), begun(situation)
    used.iterate(make_schedule("dcfr+"), 3)
    used.begin(0, situation.tree, situation.ranges)
    for solver in (used, new):
        solver.iterate(make_schedule(variant), 30)
    assert all_bytes(used, situation.tree, 0) == all_bytes(new, situation.tree, 0)


@variants
@forms
def test_exploitability_falls(form: str, variant: str) -> None:
    solver = begun(SITUATIONS[form](1))
    schedule, found = make_schedule(variant), []
    for upto in (0, 250, 1000):
        solver.iterate(schedule, upto - int(solver.iterations[0]))
        found.append(float(solver.exploitability()[0]))
    assert found[0] > 0.1
    assert found[1] < 0.1 * found[0]
    assert -1e-12 < found[2] < 0.6 * found[1]


@settings(max_examples=50)
@given(
    situation=situations(), power=st.integers(-30, 30), mine=st.integers(-30, 30), his=st.integers(-30, 30)
)
def test_stakes_and_masses_in_other_units_give_the_same_play(
    situation: Situation, power: int, mine: int, his: int
) -> None:
    tree = scaled(situation.tree, 2.0**power)
    units = np.array([[2.0**mine], [2.0**his]])
    one, other = begun(situation), begun(Situation(tree, situation.hands, situation.ranges * units))
    for solver in (one, other):
        solver.iterate(make_schedule("linear"), 5)
    factors = 2.0**power * units[::-1, :, None]
    assert (other.values() == factors * one.values()).all()
    assert (other.best_values() == factors * one.best_values()).all()
    for here, there in zip(strategies(one, tree), strategies(other, tree), strict=True):
        assert np.allclose(here, there, rtol=1e-12)


@pytest.mark.parametrize("power", [-20, 20])
def test_lanes_take_masses_of_a_millionth_and_of_a_million(power: int) -> None:
    situation = few_hands(1)
    units = np.array([[2.0**power], [2.0**-power]])
    moved = Situation(situation.tree, situation.hands, situation.ranges * units)
    one, other = begun(situation, lanes=True), begun(moved, lanes=True)
    for solver in (one, other):
        solver.iterate(make_schedule("dcfr3"), 50)
    assert (other.values() == units[::-1, :, None] * one.values()).all()
    assert (other.best_values() == units[::-1, :, None] * one.best_values()).all()


def test_values_grow_with_the_stakes() -> None:
    situation = few_hands(1)
    one, other = (
        begun(situation),
        begun(Situation(scaled(situation.tree, 3.7), situation.hands, situation.ranges)),
    )
    for solver in (one, other):
        solver.iterate(make_schedule("linear"), 20)
    assert np.allclose(other.values(), 3.7 * one.values(), rtol=1e-9)
    assert np.allclose(other.exploitability(), 3.7 * one.exploitability(), rtol=1e-9)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_hands_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    situation = few_hands(seed)
    order = rng.permutation(situation.hands.number)
    moved = Situation(situation.tree, picked(situation.hands, order.tolist()), situation.ranges[:, order])
    one, other = begun(situation), begun(moved)
    past = random_past(situation, rng)
    remember(one, past, 1)
    remember(other, [(regrets[:, order], average[:, order]) for regrets, average in past], 1)
    for solver in (one, other):
        solver.iterate(make_schedule("linear"), 3)
    assert np.allclose(other.values(), one.values()[:, order], rtol=0, atol=1e-9)


@settings(max_examples=5)
@given(suits=st.permutations(range(4)), seed=st.integers(0, 2**32))
def test_suits_may_be_exchanged(suits: list[int], seed: int) -> None:
    def other(card: int) -> int:
        return card // 4 * 4 + suits[card % 4]

    rng = np.random.default_rng(seed)
    board = tuple(rng.choice(52, 5, replace=False).tolist())
    masses = rng.random((2, len(HANDS)))
    moved = np.empty_like(masses)
    for number, (a, b) in enumerate(HANDS.tolist()):
        moved[:, hand_number(other(a), other(b))] = masses[:, number]
    # In float64: sums come in another order, and in float32 a regret near 0 may change its sign by it.
    found = []
    for cards, of in ((board, masses), (tuple(other(card) for card in board), moved)):
        hands = board_hands(cards)
        solver = begun(
            Situation(last_round(Betting(4.0), 1.0), hands.hands, of[:, hands.numbers]), lanes=False
        )
        solver.iterate(make_schedule("dcfr"), 3)
        of_all = np.zeros((2, len(HANDS)))
        of_all[:, hands.numbers] = solver.values()[:, :, -1] / of.sum(1)[::-1, None]
        found.append(of_all)
    for number, (a, b) in enumerate(HANDS.tolist()):
        assert np.allclose(found[0][:, number], found[1][:, hand_number(other(a), other(b))], atol=1e-6)


@variants
@forms
def test_players_who_learn_at_once_may_change_places(form: str, variant: str) -> None:
    situation = SITUATIONS[form](1)
    schedule = replace(make_schedule(variant), simultaneous=True)
    turned = Situation(mirrored(situation.tree), situation.hands, situation.ranges[::-1])
    one, other = begun(situation), begun(turned)
    for solver in (one, other):
        solver.iterate(schedule, 150)
    assert (one.values() == other.values()[::-1]).all()
    assert (one.best_values() == other.best_values()[::-1]).all()


def test_a_lane_with_nothing_in_it_stays_quiet() -> None:
    tree, hands = leduc()
    solver = Solver(tree, hands, lanes=True)
    solver.iterate(make_schedule("dcfr3"), 20)
    assert not solver.best_values().any()
    assert not solver.exploitability().any()


@settings(max_examples=30)
@given(situation=situations(), seed=st.integers(0, 2**32))
def test_players_win_what_the_others_lose(situation: Situation, seed: int) -> None:
    solver = begun(situation)
    remember(solver, random_past(situation, np.random.default_rng(seed)), 1)
    won = (situation.ranges * solver.values()[..., 0]).sum(1)
    assert abs(won.sum()) <= 1e-12 * 16 * situation.ranges.sum(1).prod()
