"""Trees of betting: as large as those of other solvers, bounded by the stack, and with a card between two rounds."""

from itertools import combinations

import numpy as np
import pytest
from phevaluator import evaluate_cards

from core.errors import UsageError
from poker.betting import ALL_IN, Betting, last_round, two_rounds
from poker.cards import hand_name, hand_number, parse_cards
from poker.holdem import board_hands
from poker.solver import Solver
from poker.tree import Chance, Decision, Fold, Node, Showdown, nodes

STACK = 20_000.0
ONE_POT = Betting(STACK)


def sizes(tree: Node) -> tuple[int, int, int, int]:
    """Decisions, folds, showdowns, actions."""
    found = list(nodes(tree))
    decisions = [node for node in found if isinstance(node, Decision)]
    kinds = (sum(isinstance(node, kind) for node in found) for kind in (Fold, Showdown))
    return len(decisions), *kinds, sum(len(node.actions) for node in decisions)  # pyright: ignore


def words(tree: Node) -> list[str]:
    assert isinstance(tree, Decision)
    return [word for word, _ in tree.actions]


def after(tree: Node, *line: str) -> Node:
    for word in line:
        assert isinstance(tree, Decision)
        tree = dict(tree.actions)[word]
    return tree


@pytest.mark.parametrize(
    ("pot_half", "expected"),
    [
        (100, (20, 18, 19, 56)),
        (300, (16, 14, 15, 44)),
        (1000, (12, 10, 11, 32)),
        (4000, (8, 6, 7, 20)),
        (10_000, (4, 2, 3, 8)),
    ],
)
def test_trees_of_pot_bets_have_their_known_sizes(pot_half: float, expected: tuple[int, ...]) -> None:
    assert sizes(last_round(ONE_POT, pot_half)) == expected


def test_actions_say_what_the_player_has_put_in_then() -> None:
    tree = last_round(Betting(STACK, (1.0, 0.5)), 100)

    assert words(tree) == ["check", "to 200", "to 300", ALL_IN]
    assert words(after(tree, "to 200")) == ["fold", "call", "to 400", "to 600", ALL_IN]
    assert words(after(tree, ALL_IN)) == ["fold", "call"]
    assert after(tree, ALL_IN, "fold") == Fold(0, 100)
    assert after(tree, "check", "to 300", "call") == Showdown(300)
    assert words(last_round(Betting(2e9, (1.0,)), 123_456_789))[1] == "to 370370367"


def test_bets_that_reach_the_stack_are_all_in() -> None:
    assert words(last_round(Betting(300.0, (1.0, 2.0)), 100)) == ["check", ALL_IN]
    assert words(last_round(Betting(STACK, ()), 100)) == ["check", ALL_IN]


def test_between_two_rounds_a_card_is_dealt() -> None:
    tree = two_rounds(ONE_POT, 1000, boards=48)
    turn, river = last_round(ONE_POT, 1000), last_round(ONE_POT, 3000, board=7)
    dealt = after(tree, "to 3000", "call")

    assert words(tree) == words(turn)
    assert isinstance(dealt, Chance)
    assert (dealt.cards, len(dealt.deals)) == (44, 48)
    assert dealt.deals[7] == (7, river)
    assert sizes(tree)[1] == 10 + 48 * sum(
        sizes(last_round(ONE_POT, node.stake))[1] for node in nodes(turn) if isinstance(node, Showdown)
    )


def test_who_is_all_in_does_not_bet_any_more() -> None:
    dealt = after(two_rounds(ONE_POT, 1000, boards=48), ALL_IN, "call")

    assert isinstance(dealt, Chance)
    assert dealt.deals == tuple((board, Showdown(STACK, board)) for board in range(48))
    assert last_round(ONE_POT, STACK) == Showdown(STACK)


def test_the_river_is_dealt_from_the_cards_that_nobody_has() -> None:
    board = parse_cards("2c7d9hJs")
    pair, draw = hand_number(*parse_cards("QsQd")), hand_number(*parse_cards("ThAh"))
    turn = board_hands(board)
    ranges = (turn.numbers == np.array([[pair], [draw]])).astype(np.float64)
    tree = two_rounds(Betting(10.0), 10.0, boards=len(turn.next_cards))
    solver = Solver(tree, turn.hands, lanes=False)
    solver.begin(0, tree, ranges)

    held = parse_cards(hand_name(pair)), parse_cards(hand_name(draw))
    assert not any(set(one) & set(other) for one, other in combinations((*held, board), 2))
    results = [
        np.sign(evaluate_cards(*board, card, *held[1]) - evaluate_cards(*board, card, *held[0]))
        for card in range(52)
        if card not in (*board, *held[0], *held[1])
    ]
    assert solver.expected(solver.values())[:, 0] == pytest.approx(
        [10 * np.mean(results), -10 * np.mean(results)], abs=1e-12
    )


@pytest.mark.parametrize("bets", [(0.05, 0.1, 0.2), (0.001,)])
def test_trees_too_large_to_solve_are_refused_at_once(bets: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="too large a tree"):
        last_round(Betting(STACK, bets), 100)
    with pytest.raises(UsageError, match="too large a tree"):
        two_rounds(Betting(STACK, bets), 100, boards=48)
