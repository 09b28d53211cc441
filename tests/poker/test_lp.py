"""Small games are worth what a linear program says, and golden rivers what others have found."""

import numpy as np
import pytest

from poker.betting import Betting, last_round, two_rounds
from poker.cards import NUM_CARDS, hand_number, parse_cards
from poker.holdem import BoardHands, board_hands
from poker.schedules import make_schedule
from poker.solver import Solver
from poker.toys import KUHN_VALUE, LEDUC_VALUE, kuhn, leduc
from poker.tree import Node
from tests.poker.oracles import SequenceForm, Situation, decisions, picked

CLOSE = 1e-4
"""Part of the pot."""
MOST_ITERATIONS = 200_000


def solved(situation: Situation, gap: float) -> Solver:
    """Return a solver that has come below an exploitability."""
    solver = Solver(situation.tree, situation.hands, lanes=False)
    solver.begin(0, situation.tree, situation.ranges)
    schedule = make_schedule("dcfr")
    while solver.exploitability()[0] > gap:
        assert solver.iterations[0] < MOST_ITERATIONS
        solver.iterate(schedule, 200)
    return solver


def assert_same_value(situation: Situation, pot: float) -> None:
    wanted = SequenceForm(situation.tree, situation.hands, situation.ranges).value()
    solver = solved(situation, CLOSE / 4 * pot)
    one, other = solver.expected(solver.values())[:, 0]
    best, his_best = solver.expected(solver.best_values())[:, 0]
    assert one == pytest.approx(-other, abs=1e-12)
    assert abs(one - wanted) <= CLOSE * pot
    assert -his_best - 1e-9 <= wanted <= best + 1e-9


def spread(
    rng: np.random.Generator, every: BoardHands, numbers: tuple[int, int]
) -> tuple[list[int], np.ndarray]:
    """Return so many hands of each player, all of them in order, and random ranges [2, H] that have only those."""
    while True:
        chosen = [rng.choice(every.hands.number, number, replace=False).tolist() for number in numbers]
        hands = sorted({*chosen[0], *chosen[1]})
        ranges = np.array([[rng.random() if hand in own else 0.0 for hand in hands] for own in chosen])
        if (ranges[0] * picked(every.hands, hands).compatible(ranges[1])).sum() > 0:
            return hands, ranges


@pytest.mark.parametrize("seed", range(60))
def test_rivers_are_worth_what_the_linear_program_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = board_hands(tuple(rng.choice(NUM_CARDS, 5, replace=False).tolist()))
    hands, ranges = spread(rng, every, tuple(rng.integers(2, 7, size=2).tolist()))
    pot_half = float(rng.uniform(0.5, 2))
    stack = pot_half * float(rng.uniform(1.2, 12))
    sizes = tuple(rng.choice([0.33, 0.5, 0.75, 1.0, 2.0], rng.integers(1, 3), replace=False).tolist())
    tree = last_round(Betting(stack, sizes), pot_half)
    assert_same_value(Situation(tree, picked(every.hands, hands), ranges), 2 * pot_half)


@pytest.mark.parametrize("seed", range(3))
def test_turns_are_worth_what_the_linear_program_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = board_hands(tuple(rng.choice(NUM_CARDS, 4, replace=False).tolist()))
    hands, ranges = spread(rng, every, (2, 3))
    tree = two_rounds(Betting(4.0, ()), 1.0, boards=len(every.next_cards))
    assert_same_value(Situation(tree, picked(every.hands, hands), ranges), 2.0)


@pytest.mark.parametrize(("make", "wanted", "digits"), [(kuhn, KUHN_VALUE, 1e-9), (leduc, LEDUC_VALUE, 5e-5)])
def test_the_linear_program_knows_the_toys(make, wanted: float, digits: float) -> None:
    tree, hands = make()
    found = SequenceForm(tree, hands, np.ones((2, hands.number))).value()
    assert found == pytest.approx(wanted, abs=digits)


def test_a_bluff_for_half_the_pot_has_its_closed_form() -> None:
    board = board_hands(parse_cards("2s3h4d6c7c"))
    hand = {number: k for k, number in enumerate(board.numbers.tolist())}
    aces, queens, kings = (hand[hand_number(*parse_cards(text))] for text in ("AsAh", "QsQh", "KsKh"))
    hands = picked(board.hands, [aces, queens, kings])
    ranges = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    tree = last_round(Betting(20.0, ()), 10.0)
    solver = solved(Situation(tree, hands, ranges), 1e-5)
    of = {path: solver.strategy(number, len(at.actions)) for number, (path, at) in enumerate(decisions(tree))}
    bet, answer = of[()], of[1,]
    assert solver.expected(solver.values())[:, 0] == pytest.approx([10 / 3, -10 / 3], abs=1e-4)
    assert bet[1, 0] == pytest.approx(1, abs=1e-3)
    assert bet[1, 1] == pytest.approx(1 / 3, abs=1e-3)
    assert answer[1, 2] == pytest.approx(2 / 3, abs=1e-3)


@pytest.mark.parametrize(
    ("pot_half", "wanted", "iterations"),
    [(100, -6.985, 2048), (1000, -68.989, 2048), (10_000, -520.440, 1024)],
)
def test_golden_rivers(pot_half: int, wanted: float, iterations: int) -> None:
    hands = board_hands(parse_cards("Td9d6hQc3s")).hands
    tree: Node = last_round(Betting(20_000 / pot_half), 1.0)
    solver = Solver(tree, hands, lanes=True)
    solver.begin(0, tree, np.ones((2, hands.number)))
    solver.iterate(make_schedule("dcfr3"), iterations)
    gap = float(solver.exploitability()[0]) * pot_half
    found = float(solver.expected(solver.values())[0, 0]) * pot_half
    assert 0 < gap < 4e-4 * 2 * pot_half
    assert abs(found - wanted) <= 2 * gap
    best, his_best = solver.expected(solver.best_values())[:, 0] * pot_half
    assert -his_best - 1e-3 <= wanted <= best + 1e-3
