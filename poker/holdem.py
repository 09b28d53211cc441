"""Hands of hold'em on a board: their strengths, and the hand sets that solvers take."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.errors import UsageError
from poker.cards import HANDS, NUM_CARDS, NUM_HANDS, live_hands
from poker.hands import HandSet, order_by

try:
    from phevaluator import evaluate_cards
except ImportError as error:
    raise UsageError(
        "hands cannot be compared",
        why="phevaluator, which tells how strong seven cards are, is not installed",
        fix="pip install -e '.[poker]'",
    ) from error

RIVER_CARDS, TURN_CARDS = 5, 4
_BOARDS_KEPT = 64


@dataclass(frozen=True, slots=True)
class BoardHands:
    """The hands that a board does not block.

    Attributes:
        board: its cards.
        numbers: int64 [H], of the hands in `poker.cards.HANDS`. On a river the weakest comes first.
        hands: of H hands, with one board for each river card to come, in the order of cards; one on a river.
        next_cards: these cards; none on a river.
    """

    board: tuple[int, ...]
    numbers: np.ndarray
    hands: HandSet
    next_cards: tuple[int, ...] = ()


def strength_of(cards: Iterable[int]) -> int:
    """Return how strong seven cards are: the greater wins, equals share; at least 0."""
    return _WORST - evaluate_cards(*cards)


@lru_cache(maxsize=_BOARDS_KEPT)
def strengths(board: tuple[int, ...]) -> np.ndarray:
    """Return int32 [1326]: on this board of five cards the greater of two wins, equals share; -1 if it is blocked."""
    found = np.full(NUM_HANDS, -1, np.int32)
    for number in live_hands(board).tolist():
        one, other = HANDS[number].tolist()
        found[number] = strength_of((*board, one, other))
    found.flags.writeable = False
    return found


_WORST = 7462
"""Of the classes of five cards, which phevaluator counts from 1, the best."""


@lru_cache(maxsize=_BOARDS_KEPT)
def board_hands(board: tuple[int, ...]) -> BoardHands:
    """Return the hands of a board of four or five cards."""
    live = live_hands(board)
    if len(board) == RIVER_CARDS:
        numbers = live[np.argsort(strengths(board)[live], kind="stable")]
        order = order_by(strengths(board)[numbers], np.arange(len(numbers)))
        return BoardHands(board, numbers, HandSet(HANDS[numbers].astype(np.int32), (order,)))
    cards = tuple(card for card in range(NUM_CARDS) if card not in board)
    orders = []
    for card in cards:
        alive = np.flatnonzero(~(HANDS[live] == card).any(1))
        orders.append(order_by(strengths((*board, card))[live], alive))
    return BoardHands(board, live, HandSet(HANDS[live].astype(np.int32), tuple(orders)), cards)


def weakest_first(hands: BoardHands) -> np.ndarray:
    """Return float64 [H]: how strong each hand is, on a turn on average over the river cards."""
    worth = np.zeros(hands.hands.number)
    seen = np.zeros(hands.hands.number)
    for order in hands.hands.boards:
        groups = np.searchsorted(order.ends, np.arange(len(order.hands)), side="right")
        begins = np.concatenate([[0], order.ends[:-1]])
        worth[order.hands] += (begins[groups] + order.ends[groups]) / (2 * len(order.hands))
        seen[order.hands] += 1
    return worth / seen
