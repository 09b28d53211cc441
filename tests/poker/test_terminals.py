"""Values at the ends of a tree are those of all pairs of hands, one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poker.cards import NUM_HANDS, parse_cards
from poker.hands import NO_CARD, HandSet, order_by
from poker.holdem import board_hands
from poker.rows import LANES
from poker.solver import Solver
from poker.tree import Chance, Decision, Fold, Node, Showdown
from tests.poker.oracles import Pairs, Situation, SlowSolver, hand_sets, masses

CLOSE, CLOSE_IN_LANES = 1e-12, 1e-5
"""Parts of what can be won at most: the stake, times all that the other may hold."""

ENDS: list[Node] = [
    Showdown(3.0),
    Fold(0, 2.0),
    Fold(1, 2.0),
    Decision(0, (("fold", Fold(1, 2.0)), ("call", Showdown(3.0)))),
    Decision(1, (("fold", Fold(0, 2.0)), ("call", Showdown(3.0)))),
    Decision(1, (("call", Showdown(3.0)), ("fold", Fold(0, 2.0)))),
]
STAKE = 3.0


def dealt(child: Node, boards: int) -> Node:
    """Return a tree that deals each board but the first, and then is `child` there."""

    def on(node: Node, board: int) -> Node:
        match node:
            case Showdown(stake=stake):
                return Showdown(stake, board)
            case Decision(player, actions):
                return Decision(player, tuple((word, on(below, board)) for word, below in actions))
            case _:
                return node

    return Chance(tuple((board, on(child, board)) for board in range(1, boards)), cards=boards)


@st.composite
def ends(draw: st.DrawFn) -> Situation:
    hands = draw(hand_sets())
    tree = draw(st.sampled_from(ENDS))
    if len(hands.boards) > 1 and draw(st.booleans()):
        tree = dealt(tree, len(hands.boards))
    parts = draw(st.lists(masses, min_size=2 * hands.number, max_size=2 * hands.number))
    return Situation(tree, hands, np.array(parts).reshape(2, -1))


@settings(max_examples=200)
@given(ends())
def test_values_are_those_of_every_pair(situation: Situation) -> None:
    tree, hands, ranges = situation.tree, situation.hands, situation.ranges
    slow = SlowSolver(tree, hands, ranges)
    most = STAKE * ranges.sum(1)[::-1, None]
    for lanes, close in ((False, CLOSE), (True, CLOSE_IN_LANES)):
        solver = Solver(tree, hands, lanes=lanes)
        solver.begin(solver.lanes - 1, tree, ranges)
        assert (np.abs(solver.values()[:, :, -1] - slow.values()) <= close * most).all()
        assert (np.abs(solver.best_values()[:, :, -1] - slow.best_values()) <= close * most).all()


@given(hand_sets(), st.integers(0, 2**32))
def test_hands_are_compatible_with_those_that_share_no_card(hands: HandSet, seed: int) -> None:
    ranges = np.random.default_rng(seed).random((3, hands.number))
    assert np.allclose(
        hands.compatible(ranges), ranges @ Pairs(hands).meet, rtol=0, atol=1e-12 * hands.number
    )


def by_loops(
    node: Node, player: int, reach: list[float], cards: list[list[int]], groups: list[int]
) -> list[float]:
    values = []
    for mine, (own, group) in enumerate(zip(cards, groups, strict=True)):
        value = 0.0
        for his, mass in enumerate(reach):
            if set(own) & set(cards[his]) - {NO_CARD}:
                continue
            match node:
                case Fold(winner, stake):
                    value += mass * (stake if winner == player else -stake)
                case Showdown(stake=stake) if group != groups[his]:
                    value += mass * (stake if groups[mine] > groups[his] else -stake)
        values.append(value)
    return values


@pytest.mark.parametrize("node", [Fold(0, 2.0), Showdown(3.0)])
@pytest.mark.parametrize("seconds", ["one card", "two cards"])
def test_sums_are_those_of_two_loops(node: Node, seconds: str) -> None:
    rng = np.random.default_rng(1)
    one = [[card, NO_CARD] for card in range(9)]
    two = [[a, b] for a in range(9) for b in range(a + 1, 9)]
    cards = one if seconds == "one card" else two
    groups = rng.integers(4, size=len(cards))
    hands = HandSet(np.array(cards, np.int32), (order_by(groups, np.arange(len(cards))),))
    ranges = rng.random((2, len(cards)))
    solver = Solver(node, hands, lanes=False)
    solver.begin(0, node, ranges)
    for player in (0, 1):
        wanted = by_loops(node, player, ranges[1 - player].tolist(), cards, groups.tolist())
        assert np.allclose(solver.values()[player, :, 0], wanted, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("board", ["Td9d6hQc3s", "AsKsQsJsTs", "2c2d2h2s3c", "7h8h9hTh2c"])
def test_all_hands_of_a_river_in_every_lane(board: str) -> None:
    hands = board_hands(parse_cards(board)).hands
    rng = np.random.default_rng(2)
    ranges = rng.random((LANES, 2, hands.number)) ** rng.integers(1, 9, size=(LANES, 1, 1))
    ranges[rng.random(ranges.shape) < 0.3] = 0.0
    one, other = hands.cards.T
    meet = np.ones((hands.number, hands.number))
    for mine in (one, other):
        for his in (one, other):
            meet[mine[:, None] == his] = 0.0
    (order,) = hands.boards
    group = np.searchsorted(order.ends, np.arange(hands.number), side="right")[np.argsort(order.hands)]
    wins = meet * np.sign(group[:, None] - group)
    tree = Decision(0, (("show", Showdown(3.0)), ("fold", Fold(1, 2.0))))
    gains = np.stack([3.0 * wins @ ranges[:, 1].T, -2.0 * meet @ ranges[:, 1].T])  # [2, H, lanes]
    answers = (3.0 * wins + 2.0 * meet) @ ranges[:, 0].T / 2
    lanes, plain = Solver(tree, hands, lanes=True), Solver(tree, hands, lanes=False)
    for lane in range(LANES):
        lanes.begin(lane, tree, ranges[lane])
    most = STAKE * ranges.sum(2).T[::-1, None]  # [2, 1, lanes]
    wanted = np.stack([gains.mean(0), answers])
    best = np.stack([gains.max(0), answers])
    assert (np.abs(lanes.values() - wanted) <= CLOSE_IN_LANES * most).all()
    assert (np.abs(lanes.best_values() - best) <= CLOSE_IN_LANES * most).all()
    for lane in (0, LANES - 1):
        plain.begin(0, tree, ranges[lane])
        assert (np.abs(plain.values()[..., 0] - wanted[..., lane]) <= CLOSE * most[..., lane]).all()
        assert (np.abs(plain.best_values()[..., 0] - best[..., lane]) <= CLOSE * most[..., lane]).all()


def test_a_card_that_is_dealt_before_all_fold_changes_nothing() -> None:
    board = board_hands(parse_cards("Td9d6hQc"))
    end = Fold(0, 2.0)
    chance = Chance(tuple((k, end) for k in range(len(board.next_cards))), cards=44)
    ranges = np.random.default_rng(3).random((2, board.hands.number))
    found = []
    for tree in (end, chance):
        solver = Solver(tree, board.hands, lanes=False)
        solver.begin(0, tree, ranges)
        found.append(solver.values())
    assert np.allclose(*found, rtol=1e-11, atol=0)


def test_on_a_turn_a_hand_is_worth_its_mean_over_the_rivers() -> None:
    turn = parse_cards("Td9d6hQc")
    board = board_hands(turn)
    chance = Chance(tuple((k, Showdown(1.0, k)) for k in range(len(board.next_cards))), cards=44)
    ranges = np.random.default_rng(4).random((2, board.hands.number))
    solver = Solver(chance, board.hands, lanes=False)
    solver.begin(0, chance, ranges)
    wanted = np.zeros((2, board.hands.number))
    place = np.full(NUM_HANDS, -1)
    place[board.numbers] = np.arange(board.hands.number)
    for card in board.next_cards:
        river = board_hands((*turn, card))
        of = place[river.numbers]
        alone = Solver(Showdown(1.0), river.hands, lanes=False)
        alone.begin(0, Showdown(1.0), ranges[:, of])
        wanted[:, of] += alone.values()[..., 0] / 44
    assert np.allclose(solver.values()[..., 0], wanted, rtol=0, atol=1e-9)
