"""Streets that end in leaves are solved as the trees are that go on there."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages import Request
from poker.batches import Solved, Stop, solve_group
from poker.betting import Betting
from poker.cards import parse_cards
from poker.hands import HandSet
from poker.holdem import BoardHands, board_hands
from poker.leaves import NetworkLeaves
from poker.program import compile_tree, leaf_stakes
from poker.rows import LANES
from poker.sampling import Law, Situation, draw_group
from poker.schedules import VARIANTS, Schedule, make_schedule
from poker.showdowns import values_of_showdowns
from poker.solver import Solver
from poker.subgames import Subgame
from poker.toys import LEDUC_VALUE, leduc
from poker.tree import Chance, Decision, Leaf, Node, Showdown
from tests.poker import oracles
from tests.poker.networks import always, answered, shows
from tests.poker.oracles import Says, SlowSolver, mirrored, situations
from tests.poker.pasts import random_past, remember, remember_slowly

TURN = Subgame("turn", Betting(20_000.0), to_the_end=False)
LAW = Law(seed=3, cards=4, group=18, pots=((3000, 6000),))
AT_ONCE = replace(make_schedule("dcfr6"), simultaneous=True)
ITERATIONS = 40
variants = pytest.mark.parametrize("variant", VARIANTS)


def both_at_once(variant: str) -> Schedule:
    return replace(make_schedule(variant), simultaneous=True)


def told(solver: Solver, says: Says, *, mean: bool) -> None:
    """Ask what leaves are worth, and tell a solver."""
    masses = solver.leaf_masses(mean=mean)
    values = np.empty_like(masses)
    for leaf in range(masses.shape[1]):
        for lane in range(solver.lanes):
            values[:, leaf, :, lane] = says(masses[:, leaf, :, lane], solver.leaf_stakes[leaf, lane])
    solver.set_leaf_values(values)


def iterated(solver: Solver, schedule: Schedule, count: int, says: Says) -> None:
    """Take iterations, and be told at the end what leaves are worth under average strategies."""
    for _ in range(count):
        told(solver, says, mean=False)
        solver.iterate(schedule, 1)
    told(solver, says, mean=True)


def depends_on_all(masses: np.ndarray, stake: float) -> np.ndarray:
    """What no showdown is worth: it depends on the own masses too, and on those of every other hand."""
    totals = masses.sum(1)[::-1, None]
    return stake * totals * np.sin(np.arange(masses.shape[1]) + masses + 3 * masses[::-1].cumsum(1))


@variants
@settings(max_examples=30)
@given(situation=situations(leaves=True), done=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_trees_with_leaves_are_solved_as_the_papers_do_it(
    variant: str, situation: oracles.Situation, done: int, seed: int
) -> None:
    tree, hands, ranges = situation.tree, situation.hands, situation.ranges
    schedule = both_at_once(variant)
    solver, slow = Solver(tree, hands, lanes=False), SlowSolver(tree, hands, ranges, depends_on_all)
    solver.begin(0, tree, ranges)
    past = random_past(situation, np.random.default_rng(seed), floor=schedule.floor)
    remember(solver, past, done)
    remember_slowly(slow, past, done)
    iterated(solver, schedule, 3, depends_on_all)
    slow.iterate(schedule, 3)
    most = 16 * ranges.sum(1)[::-1, None] + 1e-300
    assert (np.abs(solver.values()[..., 0] - slow.values()) <= 1e-9 * most).all()
    assert (np.abs(solver.best_values()[..., 0] - slow.best_values()) <= 1e-9 * most).all()


@settings(max_examples=60)
@given(situation=situations(leaves=True), seed=st.integers(0, 2**32))
def test_players_come_to_leaves_with_what_strategies_leave_them(
    situation: oracles.Situation, seed: int
) -> None:
    tree, hands, ranges = situation.tree, situation.hands, situation.ranges
    solver, slow = Solver(tree, hands, lanes=False), SlowSolver(tree, hands, ranges)
    solver.begin(0, tree, ranges)
    past = random_past(situation, np.random.default_rng(seed))
    remember(solver, past, 1)
    remember_slowly(slow, past, 1)
    for mean, parts in ((False, slow.regrets), (True, slow.average)):
        found = solver.leaf_masses(mean=mean)[..., 0]
        wanted = list(slow.leaf_masses(parts).values())
        assert found.shape == (2, len(wanted), hands.number)
        for leaf, masses in enumerate(wanted):
            assert np.allclose(found[:, leaf], masses, rtol=1e-12, atol=1e-300)


@variants
def test_players_who_meet_at_leaves_may_change_places(variant: str) -> None:
    tree, hands = first_round_of_leduc()
    ranges = np.random.default_rng(1).random((2, hands.number))
    one, other = Solver(tree, hands, lanes=False), Solver(mirrored(tree), hands, lanes=False)
    one.begin(0, tree, ranges)
    other.begin(0, mirrored(tree), ranges[::-1])
    for solver in (one, other):
        iterated(solver, both_at_once(variant), 60, depends_on_all)
    assert (one.values() == other.values()[::-1]).all()
    assert (one.best_values() == other.best_values()[::-1]).all()


def test_a_lane_with_leaves_does_not_know_of_the_others() -> None:
    tree, hands = first_round_of_leduc()
    rng = np.random.default_rng(2)
    ranges, factors = rng.random((LANES, 2, hands.number)), rng.uniform(0.5, 2, LANES)
    trees = [first_round_of_leduc(float(factor))[0] for factor in factors]
    together = Solver(tree, hands, lanes=True)
    for lane in range(LANES):
        together.begin(lane, trees[lane], ranges[lane])
    iterated(together, AT_ONCE, 30, depends_on_all)
    together.begin(3, trees[3], ranges[3])
    iterated(together, AT_ONCE, 20, depends_on_all)
    for lane, iterations in ((0, 50), (3, 20), (15, 50)):
        alone = Solver(tree, hands, lanes=True)
        alone.begin(5, trees[lane], ranges[lane])
        iterated(alone, AT_ONCE, iterations, depends_on_all)
        assert alone.values()[..., 5].tobytes() == together.values()[..., lane].tobytes()
        assert alone.best_values()[..., 5].tobytes() == together.best_values()[..., lane].tobytes()


def replaced(tree: Node, end: Callable[[Leaf], Node]) -> Node:
    """Return a tree that goes on where it had leaves; cards are dealt below leaves only."""
    match tree:
        case Leaf():
            return end(tree)
        case Decision(player, actions):
            return Decision(player, tuple((word, replaced(child, end)) for word, child in actions))
    return tree


def first_round_of_leduc(factor: float = 1.0) -> tuple[Node, HandSet]:
    """Return Leduc hold'em up to the open card; each leaf knows by its stake what would go on there."""

    def cut(node: Node) -> Node:
        match node:
            case Decision(player, actions):
                return Decision(player, tuple((word, cut(child)) for word, child in actions))
            case Chance(deals=deals):
                return Leaf(factor * stake_before(deals[0][1]))
        return node

    tree, hands = leduc()
    return cut(tree), hands


def stake_before(node: Node) -> float:
    """What each has put in before a round in which nobody bets."""
    while isinstance(node, Decision):
        node = node.actions[0][1]
    assert isinstance(node, Showdown)
    return node.stake


def second_rounds_of_leduc() -> dict[float, Node]:
    tree, _ = leduc()
    chances = [node for _, node in oracles.places(tree) if isinstance(node, Chance)]
    return {stake_before(chance.deals[0][1]): chance for chance in chances}


def test_a_street_at_whose_end_the_rest_is_solved_is_worth_what_the_whole_game_is() -> None:
    tree, hands = first_round_of_leduc()
    below = second_rounds_of_leduc()
    assert sorted(below) == [1, 3, 5]
    solvers = {stake: Solver(rest, hands, lanes=False) for stake, rest in below.items()}

    def solves(masses: np.ndarray, stake: float) -> np.ndarray:
        solver = solvers[stake]
        solver.begin(0, below[stake], masses + 1e-9)  # a hand that never comes is worth something too
        solver.iterate(within, 50)
        return solver.values()[..., 0]

    within = make_schedule("dcfr")
    solver = Solver(tree, hands, lanes=False)
    solver.begin(0, tree, np.ones((2, hands.number)))
    iterated(solver, both_at_once("cfr+"), 100, solves)
    # It falls slowly, for a leaf's value jumps with what comes there: after 400 iterations it is 0.003 off.
    assert solver.expected(solver.values())[0, 0] == pytest.approx(LEDUC_VALUE, abs=0.01)


@pytest.fixture(scope="module")
def group() -> list[Situation]:
    return draw_group(LAW, 0, TURN.form)


def dealt(leaf: Leaf) -> Node:
    return Chance(tuple((board, Showdown(leaf.stake, board)) for board in range(48)), cards=44)


def in_plain_numbers(situation: Situation, tree: Node, says: Says | None = None) -> Solver:
    hands = board_hands(situation.board).hands
    plain = Solver(tree, hands, lanes=False)
    plain.begin(0, tree, situation.masses)
    if says is None:
        plain.iterate(AT_ONCE, ITERATIONS)
    else:
        iterated(plain, AT_ONCE, ITERATIONS, says)
    return plain


def off(found: Solved, plain: Solver) -> np.ndarray:
    """Return the mean error of values, of each player."""
    return (np.abs(found.values - plain.values()[..., 0]) * found.situation.masses).sum(1)


def test_where_all_is_shown_at_leaves_values_are_those_of_the_tree_that_deals_there(
    group: list[Situation],
) -> None:
    asked: list[Request] = []
    steps = solve_group(group, TURN, AT_ONCE, Stop(None, ITERATIONS), model="turns")
    found = {each.situation.number: each for each in answered(steps, shows, asked)}
    assert sorted(found) == [situation.number for situation in group]
    for situation in (group[0], group[17]):  # the second waits for a lane
        each = found[situation.number]
        plain = in_plain_numbers(situation, replaced(TURN.tree(situation.pot_half), dealt))
        # What is said, and heard, is rounded to float16.
        assert (off(each, plain) < 3e-4).all()
        assert each.exploitability == pytest.approx(plain.exploitability()[0] / 2, abs=1e-4)
        assert (each.iterations, each.exact) == (ITERATIONS, True)

    tree = TURN.tree(group[0].pot_half)
    ends = leaf_stakes(tree) * group[0].pot_half
    not_all_in = int((ends < 19_999).sum())
    assert 0 < not_all_in < len(ends)
    # Once an iteration and once at the end, of sixteen situations and of the two that are left.
    assert len(asked) == 2 * (ITERATIONS + 1)
    assert {request.model for request in asked} == {"turns"}
    assert asked[0].num_rows == 16 * not_all_in
    assert asked[ITERATIONS + 1].num_rows == 2 * not_all_in
    assert all(request.num_rows <= 16 * not_all_in for request in asked[: ITERATIONS + 1])
    assert all(request.num_rows <= 2 * not_all_in for request in asked[ITERATIONS + 1 :])


def test_what_a_network_says_is_taken_for_the_masses_and_stakes_of_each_lane(
    group: list[Situation],
) -> None:
    def says(masses: np.ndarray, stake: float) -> np.ndarray:
        return stake * masses.sum(1)[::-1, None] * np.array([[0.5], [-0.25]]) * np.ones_like(masses)

    steps = solve_group(group[:3], TURN, AT_ONCE, Stop(None, ITERATIONS))
    for each in answered(steps, always(0.5, -0.25)):
        situation = each.situation
        stack = 20_000 / situation.pot_half
        tree = replaced(
            TURN.tree(situation.pot_half), lambda leaf, most=stack: leaf if leaf.stake < most else dealt(leaf)
        )
        plain = in_plain_numbers(situation, tree, says)
        assert (off(each, plain) < 2e-5).all()
        assert each.exploitability == pytest.approx(plain.exploitability()[0] / 2, abs=1e-5)


def test_a_situation_with_a_target_is_solved_until_it_is_exact(group: list[Situation]) -> None:
    steps = solve_group(group[:4], TURN, AT_ONCE, Stop(0.03, 400))
    found = answered(steps, shows)
    assert sorted(each.situation.number for each in found) == [0, 1, 2, 3]
    for each in found:
        assert each.exact
        assert 0 <= each.exploitability <= 0.03
        assert each.iterations % 20 == 0


def test_what_comes_of_a_turn_does_not_depend_on_the_others(group: list[Situation]) -> None:
    stop = Stop(None, 10)
    together = answered(solve_group(group[:5], TURN, AT_ONCE, stop), shows)
    (alone,) = answered(solve_group(group[3:4], TURN, AT_ONCE, stop), shows)
    (same,) = [each for each in together if each.situation.number == alone.situation.number]
    assert (np.abs(same.values - alone.values) * alone.situation.masses).sum(1).max() < 1e-4


def four_hands() -> BoardHands:
    """Some hands of a turn, and what they are worth against each other."""
    every = board_hands(parse_cards("Td9d6hQc"))
    chosen = [0, 500, 900, 1127]
    return BoardHands(
        every.board,
        every.numbers[chosen],
        oracles.picked(every.hands, chosen),
        every.next_cards,
        every.strengths[chosen],
        every.equities[chosen][:, chosen],  # pyright: ignore
    )


def test_only_leaves_that_are_reached_and_not_all_in_are_asked_for() -> None:
    hands = four_hands()
    rng = np.random.default_rng(4)
    masses = rng.random((2, 3, 4, 5)).astype(np.float32)
    masses[:, 1, :, 2] = 0.0  # nobody comes there
    masses[0, 2, :, 1] = 0.0  # one does not, and is shown as if all his hands might
    stakes = np.array([[1.0], [2.5], [4.0]]) * np.ones(5)
    stacks = np.array([4.0, 8.0, 8.0, 0.0, 2.5])  # in the first and the last lane some leaves are all-in
    asked: list[Request] = []
    found = answered(NetworkLeaves(hands, "m").values(masses, stakes, stacks), always(0.5, -0.25), asked)

    wanted = [(leaf, lane) for leaf in range(3) for lane in range(5) if stacks[lane] > 0]
    wanted = [(leaf, lane) for leaf, lane in wanted if stakes[leaf, lane] < stacks[lane]]
    wanted.remove((1, 2))
    (request,) = asked
    assert request.model == "m"
    assert request.num_rows == len(wanted) == 8
    shares = masses / np.maximum(masses.sum(2, keepdims=True), 1e-30)
    shares[0, 2, :, 1] = 0.25
    assert hands.equities is not None
    for row, (leaf, lane) in enumerate(wanted):
        own = shares[:, leaf, :, lane]
        assert request.arrays["pot"][row] == pytest.approx(stakes[leaf, lane] / stacks[lane], rel=1e-6)
        assert np.allclose(request.arrays["ranges"][row], 4 * own, rtol=1e-3, atol=1e-7)
        shown = values_of_showdowns(hands, own[None])[0]
        assert np.allclose(request.arrays["showdown"][row], shown, rtol=1e-3, atol=1e-6)
        totals = masses[::-1, leaf, :, lane].sum(1)
        said = stakes[leaf, lane] * totals[:, None] * np.array([[0.5], [-0.25]])
        assert np.allclose(found[:, leaf, :, lane], said + np.zeros((2, 4)), rtol=1e-6)
    for leaf in range(3):
        for lane in range(5):
            if (leaf, lane) not in wanted:
                shown = hands.equities @ masses[::-1, leaf, :, lane].T * stakes[leaf, lane]
                assert np.allclose(found[:, leaf, :, lane], shown.T, rtol=1e-5, atol=1e-7)
    assert {name: array.dtype.name for name, array in request.arrays.items()} == {
        "pot": "float32",
        "ranges": "float16",
        "showdown": "float16",
    }


def test_where_all_are_all_in_nobody_is_asked() -> None:
    hands = four_hands()
    masses = np.random.default_rng(5).random((2, 2, 4, 3)).astype(np.float32)
    asked: list[Request] = []
    stakes = np.full((2, 3), 4.0)
    found = answered(NetworkLeaves(hands, "m").values(masses, stakes, np.full(3, 4.0)), shows, asked)
    assert asked == []
    assert hands.equities is not None
    for player in (0, 1):
        wanted = 4.0 * np.einsum("hk,lkn->lhn", hands.equities.astype(np.float64), masses[1 - player])
        assert np.allclose(found[player], wanted, rtol=1e-5, atol=1e-6)


def test_leaves_are_numbered_alike_for_both_players() -> None:
    tree = TURN.tree(4000)
    stakes = leaf_stakes(tree)
    assert compile_tree(tree).leaves == len(stakes)
    assert stakes.tolist() == [node.stake for _, node in oracles.places(tree) if isinstance(node, Leaf)]
    solver = Solver(tree, board_hands(parse_cards("Td9d6hQc")).hands, lanes=True)
    assert solver.leaf_stakes.shape == (len(stakes), LANES)
