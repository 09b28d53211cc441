"""Ranges that players come with: what both still hold when the street of play before has led to a pot.

Ranges drawn as DeepStack drew them (`poker.sampling`) know nothing of what was bet before. Here such ranges are drawn
where the street before began, that street is solved roughly, and both players are followed to where they have put in
what the situation says, each hand with the probability that its player takes that way.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from core.hands import BOARD_CARDS, NUM_HANDS, Street
from core.seeds import derive_rng
from poker.betting import Betting
from poker.holdem import BoardHands, board_hands
from poker.leaves import shown
from poker.program import compile_tree
from poker.rows import LANES
from poker.sampling import Situation, draw_range, quantised
from poker.schedules import DEFAULT_VARIANT, Schedule, make_schedule
from poker.solver import Solver
from poker.subgames import Subgame
from poker.tree import Node

STREET_BEFORE: Mapping[Street, Street] = MappingProxyType(
    {"river": "turn", "turn_end": "turn", "turn": "flop", "flop_end": "flop"}
)
"""The street of play that leads to a situation; a flop's would be the one before the flop, which is not solved."""

MOST_RAISES = 2
"""Bets and raises that were called on the street before."""
ITERATIONS = 50
SAME_STAKE = 1e-6
"""Relative; an all-in is never so near, for what a situation's players have put in is in whole chips."""


@dataclass(frozen=True, slots=True)
class _Start:
    """Where the street before began.

    Attributes:
        situation: that it is to lead to.
        tree: of that street, in units of what each player had put in.
        growth: how many times that they have put in by its end.
        masses: float64 [2, H], of a sum near 1 each.
        draw: in [0, 1), of the way that is taken.
    """

    situation: Situation
    tree: Node
    growth: float
    masses: np.ndarray
    draw: float


def with_reached_ranges(
    situations: Sequence[Situation], betting: Betting, *, street: Street, smallest_pot: float, seed: int
) -> list[Situation]:
    """Return situations with ranges that play on the street before leads to, all else being as it was.

    None, one or two bets and raises were called there, all alike, each of one of the sizes, all alike; none where the
    only bet is all-in. That street is solved as if its end were a showdown. On a flop, and at the end of what is before
    it, situations stay as they are.

    A situation's ranges depend on the seed, its number, its board and what else is said here, and not on the others.

    Args:
        situations: of one board.
        betting: that of the street before too.
        street: of the situations.
        smallest_pot: that each player had put in when the street before began, in chips; of bets that would have begun
            below it the last are left out.
        seed: to draw with; the card that was dealt since depends on it and on the board alone.

    Raises:
        UsageError: when a tree would be too large.
    """
    if street not in STREET_BEFORE:
        return list(situations)
    before = STREET_BEFORE[street]
    subgame = Subgame(before, betting, to_the_end=False)
    hands = board_hands(situations[0].board)
    earlier = board_hands(_board_before(hands.board, BOARD_CARDS[before], seed))
    forms: dict[bytes, list[_Start]] = defaultdict(list)
    for situation in situations:
        start = _draw_start(situation, earlier, subgame, smallest_pot=smallest_pot, seed=seed)
        forms[compile_tree(start.tree).programs[0].code.tobytes()].append(start)
    place = np.full(NUM_HANDS, -1)
    place[earlier.numbers] = np.arange(earlier.hands.number)
    reached: dict[int, np.ndarray] = {}
    for starts in forms.values():
        for first in range(0, len(starts), LANES):
            reached |= _play(starts[first : first + LANES], earlier)
    return [
        replace(situation, ranges=_ranges(reached[situation.number][:, place[hands.numbers]]))
        for situation in situations
    ]


def _board_before(board: tuple[int, ...], cards: int, seed: int) -> tuple[int, ...]:
    """Return so many cards of a board, without those that were dealt last."""
    rng = derive_rng(seed, "board before", *board)
    return tuple(sorted(rng.choice(board, cards, replace=False).tolist()))


def _draw_start(
    situation: Situation, hands: BoardHands, subgame: Subgame, *, smallest_pot: float, seed: int
) -> _Start:
    rng = derive_rng(seed, "reached", situation.number)
    own = subgame.betting.sizes
    sizes = rng.choice(own, rng.integers(MOST_RAISES + 1) if own else 0)
    masses = np.stack([draw_range(rng, hands.strengths) for _ in range(2)])
    draw = float(rng.random())
    growth = 1.0
    for size in sizes.tolist():
        if situation.pot_half / (growth * (1 + 2 * size)) < smallest_pot:
            break
        growth *= 1 + 2 * size
    tree = subgame.tree(situation.pot_half / growth)
    stored = replace(situation, ranges=quantised(masses))
    return _Start(situation, tree, growth, stored.masses, draw)


def _play(starts: Sequence[_Start], hands: BoardHands) -> dict[int, np.ndarray]:
    """Return masses [2, H] by number of the situation, where players come to; of at most `LANES` of one form."""
    solver = Solver(starts[0].tree, hands.hands, lanes=True)
    for lane, start in enumerate(starts):
        solver.begin(lane, start.tree, start.masses)
    _solve(solver, hands, len(starts), replace(make_schedule(DEFAULT_VARIANT), simultaneous=True))
    masses = solver.leaf_masses(mean=True)
    return {
        start.situation.number: _draw_leaf(start, hands, masses[..., lane], solver.leaf_stakes[:, lane])
        for lane, start in enumerate(starts)
    }


def _solve(solver: Solver, hands: BoardHands, used: int, schedule: Schedule) -> None:
    """Take `ITERATIONS` in the first `used` lanes, leaves being worth what showdowns give."""
    assert hands.equities is not None
    leaves, lanes = solver.leaf_stakes.shape
    values = np.zeros((2, leaves, hands.hands.number, lanes), np.float32)
    for _ in range(ITERATIONS):
        masses = solver.leaf_masses(mean=False)[..., :used]
        values[..., :used] = shown(hands.equities, masses) * solver.leaf_stakes[:, None, :used]
        solver.set_leaf_values(values)
        solver.iterate(schedule, 1)


def _draw_leaf(start: _Start, hands: BoardHands, masses: np.ndarray, stakes: np.ndarray) -> np.ndarray:
    """Return the masses [2, H] at one of the leaves with the wanted stake, as often as it is reached.

    Args:
        start: with the stake that is wanted, and what was drawn.
        hands: H of them.
        masses: [2, leaves, H], with which players come to each.
        stakes: [leaves].
    """
    (wanted,) = np.nonzero(abs(stakes / start.growth - 1) < SAME_STAKE)
    one, other = masses[:, wanted].astype(np.float64)
    often = np.cumsum((one * hands.hands.compatible(other)).sum(1))
    leaf = wanted[np.searchsorted(often, start.draw * often[-1], side="right")]
    return masses[:, leaf]


def _ranges(masses: np.ndarray) -> np.ndarray:
    exact = masses.astype(np.float64)
    return quantised(exact / exact.sum(1, keepdims=True))
