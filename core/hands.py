"""What a network of counterfactual values needs to know of hold'em: where it is asked, and which hands there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from core.messages import ArraySpec

NUM_CARDS = 52
NUM_HANDS = comb(NUM_CARDS, 2)

Street: TypeAlias = Literal["river", "turn_end", "turn", "flop_end", "flop", "preflop_end"]
"""Where hands are valued: before the betting of a street, or at its end, when the next card is still to come."""

STREETS: tuple[Street, ...] = get_args(Street)
"""From the last to the first: what hands are worth in one follows from what they are worth in the one before it."""

BOARD_CARDS: Mapping[Street, int] = MappingProxyType(
    {"river": 5, "turn_end": 4, "turn": 4, "flop_end": 3, "flop": 3, "preflop_end": 0}
)


@dataclass(frozen=True, slots=True)
class HandValueSpec:
    """What a network of counterfactual values is for.

    It sees the hands that the board does not block, H of them, the weakest first (`poker.holdem`), so a place means
    alike on every board. Shapes below are without the leading axis of rows:

        pot: float32, what each player has put in, in parts of the stack.
        ranges: float16 [2, H], masses in units of their mean: a mean of 1 is a mass of 1 in all. Player 0 acts first.
        showdown: float16 [2, H], what each hand would win at once, all cards to come being dealt, as values are.
        values: float16 [2, H], counterfactual values in units of `pot` for masses that sum to 1.

    Attributes:
        street: where it is asked.
    """

    street: Street = "river"

    def __post_init__(self) -> None:
        if self.street not in STREETS:
            raise ValueError(f"no network is for {self}")

    @property
    def cards(self) -> int:
        """On the board."""
        return BOARD_CARDS[self.street]

    @property
    def hands(self) -> int:
        """H."""
        return comb(NUM_CARDS - self.cards, 2)

    @property
    def inputs(self) -> tuple[ArraySpec, ...]:
        hands = (2, self.hands)
        return (
            ArraySpec("pot", "float32", ()),
            ArraySpec("ranges", "float16", hands),
            ArraySpec("showdown", "float16", hands),
        )

    @property
    def outputs(self) -> tuple[ArraySpec, ...]:
        return (ArraySpec("values", "float16", (2, self.hands)),)
