"""Strengths of hands are those of a slow evaluator, and hand sets are in their order."""

import numpy as np
import pytest

from core.seeds import derive_rng
from poker.cards import HANDS, NUM_HANDS, hand_number, live_hands, parse_cards
from poker.holdem import board_hands, strengths
from tests.poker.seven_cards import strength


@pytest.mark.parametrize("seed", range(4))
def test_the_greater_strength_wins_and_equal_ones_share(seed: int) -> None:
    rng = derive_rng(seed, "boards")
    board = tuple(int(card) for card in rng.choice(52, 5, replace=False))
    found = strengths(board)
    live = live_hands(board)
    assert len(live) == 1081
    assert (found[np.setdiff1d(np.arange(NUM_HANDS), live)] == -1).all()
    slow = {number: strength((*HANDS[number].tolist(), *board)) for number in live.tolist()}
    for one, other in rng.choice(live, (3000, 2)).tolist():
        assert np.sign(found[one] - found[other]) == (slow[one] > slow[other]) - (slow[one] < slow[other])


def test_hands_are_numbered_in_the_order_of_their_cards() -> None:
    assert [hand_number(*cards) for cards in HANDS.tolist()] == list(range(NUM_HANDS))
    assert hand_number(51, 50) == NUM_HANDS - 1


def test_hands_of_a_river_come_from_the_weakest_to_the_strongest() -> None:
    river = board_hands(parse_cards("Td9d6hQc3s"))
    worth = strengths(river.board)[river.numbers]
    (order,) = river.hands.boards
    assert (np.diff(worth) >= 0).all()
    assert np.array_equal(order.hands, np.arange(1081))
    assert np.array_equal(np.flatnonzero(np.diff(worth)) + 1, order.ends[:-1])
    assert order.ends[-1] == 1081


def test_a_turn_has_an_order_for_each_river() -> None:
    turn = board_hands(parse_cards("Td9d6hQc"))
    assert (len(turn.numbers), len(turn.next_cards), len(turn.hands.boards)) == (1128, 48, 48)
    for card, order in list(zip(turn.next_cards, turn.hands.boards, strict=True))[::11]:
        numbers = turn.numbers[order.hands]
        assert sorted(numbers) == sorted(live_hands((*turn.board, card)))
        assert (np.diff(strengths((*turn.board, card))[numbers]) >= 0).all()
