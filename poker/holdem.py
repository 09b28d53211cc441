"""Hands of hold'em on a board: their strengths, and the hand sets that solvers take."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numba import njit

from core.errors import UsageError
from core.seeds import derive_rng
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

RIVER_CARDS, TURN_CARDS, FLOP_CARDS = 5, 4, 3
BOARDS_KEPT = 128
"""5 MB each where cards are to come. Two flops are worked on at a time, each with 49 turns."""
_RIVERS_KEPT = 2048
"""3 kB each. A flop has 1,176, and each of them is of two of its turns."""
_RIVERS_BEFORE_THE_FLOP = 2_000
_WORST = 7462
"""Of the classes of five cards, which phevaluator counts from 1, the best."""


@dataclass(frozen=True, slots=True)
class BoardHands:
    """The hands that a board does not block, the weakest first.

    How strong a hand is where cards are to come is how often it beats one that is drawn at random.

    Attributes:
        board: its cards.
        numbers: int64 [H], of the hands in `poker.cards.HANDS`.
        hands: of H hands, with one board for each river card to come, in the order of cards; one on a river; none
            before a turn, where there would be too many.
        next_cards: the river cards to come on a turn; else none.
        strengths: float64 [H], rising; equal for hands that are equally strong.
        equities: float32 [H, H], how often the first hand wins less how often it loses against the second, over all
            rivers; 0 where they share a card. None on a river. Before the flop it is an estimate.
    """

    board: tuple[int, ...]
    numbers: np.ndarray
    hands: HandSet
    next_cards: tuple[int, ...]
    strengths: np.ndarray
    equities: np.ndarray | None


def strength_of(cards: Iterable[int]) -> int:
    """Return how strong seven cards are: the greater wins, equals share; at least 0."""
    return _WORST - evaluate_cards(*cards)


def strengths(board: tuple[int, ...]) -> np.ndarray:
    """Return int16 [1326]: on this board of five cards the greater of two wins, equals share; -1 if it is blocked."""
    return _strengths(tuple(sorted(board)))


@lru_cache(maxsize=_RIVERS_KEPT)
def _strengths(board: tuple[int, ...]) -> np.ndarray:
    found = np.full(NUM_HANDS, -1, np.int16)
    for number in live_hands(board).tolist():
        one, other = HANDS[number].tolist()
        found[number] = strength_of((*board, one, other))
    found.flags.writeable = False
    return found


@lru_cache(maxsize=BOARDS_KEPT)
def board_hands(board: tuple[int, ...]) -> BoardHands:
    """Return the hands of a board of no, three, four or five cards."""
    live = live_hands(board)
    if len(board) == RIVER_CARDS:
        numbers = live[np.argsort(strengths(board)[live], kind="stable")]
        strong = strengths(board)[numbers]
        order = order_by(strong, np.arange(len(numbers)))
        hands = HandSet(HANDS[numbers].astype(np.int32), (order,))
        return BoardHands(board, numbers, hands, (), strong.astype(np.float64), None)
    rivers = _rivers(board)
    on_rivers = np.stack([strengths(river) for river in rivers], axis=1)
    equities = np.zeros((len(live), len(live)), np.float32)
    _compare(np.ascontiguousarray(on_rivers[live]), HANDS[live].astype(np.int64), equities)
    strong = equities.sum(1, dtype=np.float64) / comb(NUM_CARDS - 2 - len(board), 2)
    order = np.argsort(strong, kind="stable")
    numbers = live[order]
    next_cards = tuple(river[-1] for river in rivers) if len(board) == TURN_CARDS else ()
    orders = tuple(
        order_by(on_rivers[numbers, river], np.flatnonzero(on_rivers[numbers, river] >= 0))
        for river in range(len(next_cards))
    )
    hands = HandSet(HANDS[numbers].astype(np.int32), orders)
    return BoardHands(
        board, numbers, hands, next_cards, strong[order], np.ascontiguousarray(equities[order][:, order])
    )


def forget_boards() -> None:
    """Forget what is known of boards, so that what it takes to find it can be measured."""
    _strengths.cache_clear()
    board_hands.cache_clear()


def _rivers(board: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the boards that may come of one; before the flop some of them, always the same."""
    cards = [card for card in range(NUM_CARDS) if card not in board]
    if board:
        return [(*board, *more) for more in combinations(cards, RIVER_CARDS - len(board))]
    rng = derive_rng(0, "rivers before the flop")
    return [
        tuple(rng.choice(NUM_CARDS, RIVER_CARDS, replace=False).tolist())
        for _ in range(_RIVERS_BEFORE_THE_FLOP)
    ]


@njit(cache=True)
def _compare(on_rivers, cards, equities):
    """Fill `equities` [H, H], 0 before, from strengths [H, rivers], -1 where a river blocks a hand."""
    rivers = on_rivers.shape[1]
    for one in range(len(cards)):
        for other in range(one):
            if cards[one, 0] in cards[other] or cards[one, 1] in cards[other]:
                continue
            won, seen = 0, 0
            for river in range(rivers):
                mine, his = on_rivers[one, river], on_rivers[other, river]
                alive = (mine >= 0) & (his >= 0)
                seen += alive
                won += alive & (mine > his)
                won -= alive & (mine < his)
            equity = won / max(seen, 1)
            equities[one, other], equities[other, one] = equity, -equity
