"""What hands are worth at the end of a street, when the next card is still to come: the mean over all that may come."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np

from core.hands import BOARD_CARDS
from core.messages import Request, Steps
from core.seeds import derive_rng
from poker.batches import Solved, Stop, solve_group
from poker.cards import NUM_CARDS, NUM_HANDS
from poker.holdem import BoardHands, board_hands
from poker.leaves import answered, ask
from poker.sampling import Situation
from poker.schedules import Schedule
from poker.showdowns import values_of_showdowns
from poker.subgames import Subgame

_ROWS_TOGETHER = 256
_HELD_CARDS = 4


def value_deals_by_network(
    situations: Sequence[Situation], stack: float, *, model: str, most_deals: int, seed: int
) -> Steps[list[Solved]]:
    """Return what situations of one board, at the end of a street, are worth by a network of the next.

    Args:
        situations: of one board.
        stack: what each player had at the beginning of the hand, in chips.
        model: name of a network for the street that the next cards begin.
        most_deals: of more that there could be so many are drawn, the same for all situations.
        seed: to draw with.
    """
    pots = np.array([situation.pot_half for situation in situations]) / stack
    mean, waiting = _Mean(situations, stack), list[tuple[_Dealt, Request]]()
    boards = _boards_after(situations[0].board, most_deals, seed)
    for number, board in enumerate(boards, start=1):
        dealt = mean.deal(board)
        waiting.append(
            (dealt, ask(model, pots, dealt.shares, values_of_showdowns(dealt.hands, dealt.shares)))
        )
        if number == len(boards) or len(waiting) * len(situations) >= _ROWS_TOGETHER:
            replies = yield tuple(request for _, request in waiting)
            for (one, _), reply in zip(waiting, replies, strict=True):
                mean.add(one, answered(reply, pots))
            waiting = []
    return [
        Solved(situation, values, float("nan"), 0, exact=True)
        for situation, values in zip(situations, mean.values(len(boards)), strict=True)
    ]


def value_deals_by_solving(
    situations: Sequence[Situation], subgame: Subgame, schedule: Schedule, stop: Stop
) -> Steps[list[Solved]]:
    """Return what situations of one turn, at its end, are worth by solving every river, which takes long.

    Exploitability is the mean over rivers, and iterations are their sum.

    Args:
        situations: of one board and one form of the rivers' trees.
        subgame: what is played on rivers.
        schedule, stop: how rivers are solved.
    """
    mean = _Mean(situations, subgame.betting.stack)
    exploitability, iterations = np.zeros(len(situations)), np.zeros(len(situations), np.int64)
    exact = np.ones(len(situations), bool)
    boards = _boards_after(situations[0].board, NUM_CARDS, seed=0)
    for board in boards:
        dealt = mean.deal(board)
        rivers = [
            replace(situation, number=row, board=board, ranges=dealt.shares[row] * dealt.shares.shape[2])
            for row, situation in enumerate(situations)
        ]
        solved = yield from solve_group(rivers, subgame, schedule, stop)
        values = np.empty(dealt.shares.shape, np.float32)
        for each in solved:
            row = each.situation.number
            values[row] = each.values
            exploitability[row] += each.exploitability * dealt.often[row]
            iterations[row] += each.iterations
            exact[row] &= each.exact
        mean.add(dealt, values)
    return [
        Solved(situation, values, float(exploitability[row]), int(iterations[row]), bool(exact[row]))
        for row, (situation, values) in enumerate(zip(situations, mean.values(len(boards)), strict=True))
    ]


@dataclass(frozen=True, slots=True)
class _Dealt:
    """Situations after a deal.

    Attributes:
        hands: of the new board, H' of them.
        places: int64 [H'], where these are among the hands before.
        shares: float64 [R, 2, H'], masses of sum 1.
        totals: float64 [R, 2], what they were divided by.
        often: float64 [R], how often the deal comes, seen from where both hands are known.
    """

    hands: BoardHands
    places: np.ndarray
    shares: np.ndarray
    totals: np.ndarray
    often: np.ndarray


class _Mean:
    """Adds up values over deals."""

    def __init__(self, situations: Sequence[Situation], stack: float) -> None:
        self._stacks = [stack / situation.pot_half for situation in situations]
        self._hands = board_hands(situations[0].board)
        self._masses = np.stack([situation.masses for situation in situations])
        self._place = np.full(NUM_HANDS, -1)
        self._place[self._hands.numbers] = np.arange(self._hands.hands.number)
        self._meet = self._weight(self._hands, self._masses)
        self._values = np.zeros(self._masses.shape)

    def deal(self, board: tuple[int, ...]) -> _Dealt:
        """Return the situations on a board that came of theirs."""
        hands = board_hands(board)
        places = self._place[hands.numbers]
        masses = self._masses[:, :, places]
        totals = masses.sum(2)
        often = self._weight(hands, masses) / (self._meet * self._divisor(self._all(len(board)), len(board)))
        return _Dealt(hands, places, masses / totals[:, :, None], totals, often)

    def add(self, dealt: _Dealt, values: np.ndarray) -> None:
        """Take what hands are worth after a deal, [R, 2, H'], for `shares`."""
        self._values[:, :, dealt.places] += values * dealt.totals[:, ::-1, None]

    def values(self, deals: int) -> np.ndarray:
        """Return float32 [R, 2, H], the means over so many deals of all, drawn alike."""
        most = np.array(self._stacks)[
            :, None, None
        ]  # hands that happen to go with more of those drawn may come beyond
        cards = BOARD_CARDS["flop"] if not self._hands.board else len(self._hands.board) + 1
        return np.clip(self._values / self._divisor(deals, cards), -most, most).astype(np.float32)

    def _all(self, cards: int) -> int:
        return comb(NUM_CARDS - len(self._hands.board), cards - len(self._hands.board))

    def _divisor(self, deals: int, cards: int) -> float:
        """Return how many of so many deals to a board of `cards` there are for two hands that are known."""
        dealt, left = cards - len(self._hands.board), NUM_CARDS - len(self._hands.board)
        return deals * comb(left - _HELD_CARDS, dealt) / comb(left, dealt)

    @staticmethod
    def _weight(hands: BoardHands, masses: np.ndarray) -> np.ndarray:
        """Return [R]: mass of all pairs of hands that go together."""
        return (masses[:, 0] * hands.hands.compatible(masses[:, 1])).sum(1)


def _boards_after(board: tuple[int, ...], most: int, seed: int) -> list[tuple[int, ...]]:
    """Return the boards that the next deal may make, or `most` of them, drawn."""
    dealt = BOARD_CARDS["flop"] if not board else 1
    cards = [card for card in range(NUM_CARDS) if card not in board]
    number = comb(len(cards), dealt)
    if number <= most:
        return [tuple(sorted((*board, *more))) for more in combinations(cards, dealt)]
    rng = derive_rng(seed, "deals")
    return [tuple(sorted([*board, *rng.choice(cards, dealt, replace=False).tolist()])) for _ in range(most)]
