"""What hands win when they are shown at once is what pairs of hands win, one by one."""

import numpy as np
import pytest

from core.seeds import derive_rng
from poker.cards import HANDS, parse_cards
from poker.holdem import BoardHands, board_hands, strengths
from poker.showdowns import values_of_showdowns


def pair_by_pair(hands: BoardHands, masses: np.ndarray, hand: int) -> float:
    """What player 0 wins with one hand."""
    mine, won = set(HANDS[hands.numbers[hand]].tolist()), 0.0
    rivers = [(*hands.board, card) for card in hands.next_cards] or [hands.board]
    for river in rivers:
        if mine & set(river):
            continue
        worth = strengths(river)[hands.numbers]
        goes = [not (mine | set(river)) & set(HANDS[number].tolist()) for number in hands.numbers]
        won += float((np.sign(worth[hand] - worth) * masses[1] * np.array(goes)).sum())
    return won / (len(rivers) - 4 if hands.next_cards else 1)


@pytest.mark.parametrize("board", ["Td9d6hQc3s", "2c2d2h7s7d", "Td9d6hQc"])
def test_values_are_those_of_all_pairs(board: str) -> None:
    hands = board_hands(parse_cards(board))
    rng = derive_rng(1, board)
    masses = rng.dirichlet(np.full(hands.hands.number, 0.3), (17, 2))
    found = values_of_showdowns(hands, masses)
    for row, hand in ((0, 0), (16, 500), (3, 1000)):
        assert found[row, 0, hand] == pytest.approx(pair_by_pair(hands, masses[row], hand), abs=2e-6)
    assert abs((found * masses).sum((1, 2))).max() < 1e-5
