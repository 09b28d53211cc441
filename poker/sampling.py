"""Situations of hold'em drawn at random, as DeepStack drew them (Moravčík et al. 2017, arXiv 1701.01724, supplement).

A situation is a function of the law, the seed in it, and its number. Those of a group share a board, and the form of
their betting tree, so that they can be solved side by side; which board and form is drawn anew for each group, so
each situation has board, pot and ranges by their laws.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from core.seeds import derive_rng
from poker.cards import NUM_CARDS
from poker.holdem import BoardHands, board_hands

POT_LAW = ((100, 100), (200, 399), (400, 1999), (2000, 5999), (6000, 19950))
"""What each player has put in, in chips: one of these intervals, all alike, then a number of it. The first is printed
as
[100, 100), which is taken for 100. Blinds are 50 and 100, stacks 20,000."""

SMALLEST = np.float16(2.0**-24)


@dataclass(frozen=True, slots=True)
class Situation:
    """What is to be solved.

    Attributes:
        number: of the situation.
        board: its cards, the lowest first.
        pot_half: what each player has put in, in chips.
        ranges: [2, H], masses of the hands of `poker.holdem.board_hands` in units of the mean: a mean of 1 is a mass of
            1 in all. As they are drawn they are float16: what is stored is what is solved.
    """

    number: int
    board: tuple[int, ...]
    pot_half: int
    ranges: np.ndarray

    @property
    def masses(self) -> np.ndarray:
        """float64 [2, H], of a sum near 1 each."""
        return self.ranges.astype(np.float64) / self.ranges.shape[1]


@dataclass(frozen=True, slots=True)
class Law:
    """How situations are drawn.

    Attributes:
        seed: of all of them.
        cards: on the board.
        group: so many situations share a board and a form.
        pots: intervals of chips, both ends included.
    """

    seed: int
    cards: int = 5
    group: int = 32
    pots: tuple[tuple[int, int], ...] = POT_LAW


def draw_group(law: Law, number: int, form_of: Callable[[int], object]) -> list[Situation]:
    """Return the situations of group `number`, those from number · group on.

    Args:
        law: by which they are drawn.
        number: of the group.
        form_of: what the betting tree of a pot looks like; equal for pots whose trees have one form.
    """
    rng = derive_rng(law.seed, "group", law.cards, number)
    board = draw_board(rng, law.cards)
    pots = _alike(law.pots[rng.integers(len(law.pots))], rng, form_of)
    hands = board_hands(board)
    first = number * law.group
    return [_draw(law, first + k, hands, pots, form_of) for k in range(law.group)]


def draw_board(rng: np.random.Generator, cards: int) -> tuple[int, ...]:
    """Return different cards, each set of them alike, the lowest first."""
    return tuple(sorted(rng.choice(NUM_CARDS, cards, replace=False).tolist()))


def draw_pot(rng: np.random.Generator, law: tuple[tuple[int, int], ...] = POT_LAW) -> int:
    """Return what each player has put in, in chips."""
    low, high = law[rng.integers(len(law))]
    return int(rng.integers(low, high + 1))


def draw_range(rng: np.random.Generator, strengths: np.ndarray) -> np.ndarray:
    """Return R(S, 1): float64 [H], masses of hands, of sum 1.

    A mass p goes to the weaker half of the hands and to the stronger in a proportion that is drawn, U(0, p) and the
    rest, and so on down to single hands. Which of equally strong hands counts as the weaker is drawn too.

    Args:
        rng: to draw with.
        strengths: of the hands [H].
    """
    ties = rng.random(len(strengths))
    order = np.lexsort((ties, strengths))
    masses = np.empty(len(strengths))
    masses[order] = _divide(rng.random(len(strengths)), len(strengths))
    return masses


def quantised(masses: np.ndarray) -> np.ndarray:
    """Return masses [..., H] as float16 in units of their mean, none of them 0.

    Of a hand without mass no strategy is learnt, and its value would be that of any play at all.
    """
    return np.maximum((masses * masses.shape[-1]).astype(np.float16), SMALLEST)


def _alike(
    interval: tuple[int, int], rng: np.random.Generator, form_of: Callable[[int], object]
) -> tuple[int, int]:
    """Draw a pot of an interval, and return the part of the interval around it whose trees have its form."""
    low, high = interval
    pot = int(rng.integers(low, high + 1))
    form = form_of(pot)
    least = bisect_left(range(low, pot), True, key=lambda other: form_of(other) == form)
    more = bisect_left(range(pot + 1, high + 1), True, key=lambda other: form_of(other) != form)
    return low + least, pot + more


def _draw(
    law: Law, number: int, hands: BoardHands, pots: tuple[int, int], form_of: Callable[[int], object]
) -> Situation:
    rng = derive_rng(law.seed, "situation", law.cards, number)
    form, low, high = form_of(pots[0]), *pots
    pot_half = int(rng.integers(low, high + 1))
    while form_of(pot_half) != form:  # forms may alternate where bets of two sizes come to nearly the same
        pot_half = int(rng.integers(low, high + 1))
    ranges = np.stack([draw_range(rng, hands.strengths) for _ in range(2)])
    return Situation(number, hands.board, pot_half, quantised(ranges))


@njit(cache=True)
def _divide(draws, number):
    """Return the masses [number] of hands from the weakest to the strongest."""
    masses = np.empty(number)
    begins, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    parts = np.empty(64)
    begins[0], ends[0], parts[0] = 0, number, 1.0
    depth, used = 1, 0
    while depth:
        depth -= 1
        begin, end, part = begins[depth], ends[depth], parts[depth]
        if end - begin == 1:
            masses[begin] = part
            continue
        middle = begin + (end - begin) // 2
        weaker = part * draws[used]
        used += 1
        begins[depth], ends[depth], parts[depth] = middle, end, part - weaker
        begins[depth + 1], ends[depth + 1], parts[depth + 1] = begin, middle, weaker
        depth += 2
    return masses
