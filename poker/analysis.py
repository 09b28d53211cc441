"""Analytics from hands: on which streets players decide, and how large they bet."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from poker.acpc import STREETS, Hand, Move
from poker.analytics import DEFAULT_SMOOTHING, FLAT_KEYS, LARGEST_SIZE, analytics_name

PERCENTILES = (25, 50, 75, 90, 95)
MOST_SIZES = 4
DEFAULT_ITERATIONS = 2000
_SMALLEST_SIZE = 0.01


@dataclass(frozen=True, slots=True)
class Bet:
    """A bet or raise.

    Attributes:
        street: 0 preflop … 3 river.
        chips: what was put in on top of a call.
        pot: what lay in the middle after that call, from both players.
        total: what the player has put in then since the beginning of the hand.
    """

    street: int
    chips: int
    pot: int
    total: int


@dataclass
class Tally:
    """What is counted of the hands of one log.

    Attributes:
        hands: how many.
        reached: hands that came to each street, preflop first.
        ended: hands whose last street it is.
        moves: how often a player who had put in so many chips moved on a street, by (street, chips).
        bets: how often each bet was made.
    """

    hands: int = 0
    reached: list[int] = field(default_factory=lambda: [0] * len(STREETS))
    ended: list[int] = field(default_factory=lambda: [0] * len(STREETS))
    moves: Counter[tuple[int, int]] = field(default_factory=Counter)
    bets: Counter[Bet] = field(default_factory=Counter)

    def add(self, hand: Hand) -> None:
        """Count a hand."""
        self.hands += 1
        self.ended[len(hand.streets) - 1] += 1
        put_in = list(hand.posted)
        for street, actions in enumerate(hand.streets):
            self.reached[street] += 1
            for action in actions:
                self.moves[street, put_in[action.player]] += 1
                if action.move is Move.RAISE:
                    highest = max(put_in)
                    self.bets[Bet(street, action.total - highest, 2 * highest, action.total)] += 1
                put_in[action.player] = action.total

    @property
    def stack(self) -> float:
        """The most that a player has put in in the whole log, in chips.

        No line says what the stacks are, and this is one as soon as anybody is all-in. In a log where nobody is, the
        largest bets are taken for all-in, and no others.
        """
        return max((bet.total for bet in self.bets), default=math.inf)

    @property
    def decisions(self) -> list[int]:
        """Moves on each street, checks and folds too, but not those of players who are all-in and have no choice."""
        stack, counts = self.stack, [0] * len(STREETS)
        for (street, chips), number in self.moves.items():
            counts[street] += number if chips < stack else 0
        return counts

    @property
    def bets_short_of_all_in(self) -> dict[Bet, int]:
        stack = self.stack
        return {bet: number for bet, number in self.bets.items() if bet.total < stack}


def street_distribution(tallies: Sequence[Tally]) -> tuple[float, ...]:
    """Return the share of all decisions, of both players, that fall on each street, preflop first.

    So a street weighs as much as play asks something on it, not as much as hands end or come by there.
    """
    decisions = np.sum([tally.decisions for tally in tallies], axis=0)
    return tuple((decisions / decisions.sum()).tolist())


def sizes_in_chips(tallies: Sequence[Tally]) -> dict[int, float]:
    """Return, by `PERCENTILES`, the chips that bets and raises of all streets put in on top of a call, all-in too."""
    chips = _spread((bet.chips, number) for tally in tallies for bet, number in tally.bets.items())
    if not len(chips):
        return {}
    return {each: float(np.percentile(chips, each, method="inverted_cdf")) for each in PERCENTILES}


def choose_sizes(tallies: Sequence[Tally], street: int, *, most: int = MOST_SIZES) -> tuple[float, ...]:
    """Return up to `most` bet sizes of a street in parts of the pot after a call, ascending; none where nobody bet.

    The bets short of all-in, which is always possible anyway, are put in order, cut into `most` parts of equally many,
    and the median of each part is taken, rounded to a hundredth; equal ones count once. So each size stands for as
    much of the play as another.
    """
    bets = [
        (bet.chips / bet.pot, number)
        for tally in tallies
        for bet, number in tally.bets_short_of_all_in.items()
        if bet.street == street
    ]
    parts = _spread(bets)
    if not len(parts):
        return ()
    middles = [(2 * part + 1) / (2 * most) for part in range(most)]
    medians = np.quantile(parts, middles, method="inverted_cdf")
    return tuple(np.unique(np.clip(medians.round(2), _SMALLEST_SIZE, LARGEST_SIZE)).tolist())


def make_analytics(
    tallies: Sequence[Tally],
    *,
    source: str,
    made: datetime,
    smoothing: float = DEFAULT_SMOOTHING,
    cfr_iterations: int = DEFAULT_ITERATIONS,
) -> dict[str, Any]:
    """Return what an analytics file holds, from the tallies of one or more logs, at least one hand in all."""
    shares = street_distribution(tallies)
    sizes = {street: choose_sizes(tallies, street) for street in range(1, len(STREETS))}
    notes = (
        f"From {sum(tally.hands for tally in tallies):,} hands | street_distribution: share of all decisions"
        " | bet_sizing_recommendation: chips on top of a call, all streets"
        f" | bet_sizing_override: medians of {MOST_SIZES} equal parts of the bets short of all-in, in pots after a call"
    )
    return {
        "name": analytics_name(made),
        "source": source,
        **dict(zip(FLAT_KEYS, shares, strict=True)),
        "cfr_iterations": cfr_iterations,
        "bet_sizing_recommendation": [
            {"percentile": percentile, "size": size} for percentile, size in sizes_in_chips(tallies).items()
        ],
        "notes": notes,
        "street_distribution": dict(zip(STREETS, shares, strict=True)),
        "smoothing_alpha": smoothing,
        "bet_sizing_override": {str(street): list(each) for street, each in sizes.items() if each},
    }


def _spread(counted: Iterable[tuple[float, int]]) -> np.ndarray:
    """Return each value as often as it was counted."""
    pairs = list(counted)
    return np.repeat([value for value, _ in pairs], [number for _, number in pairs])
