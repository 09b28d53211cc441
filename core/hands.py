"""What a network of counterfactual values needs to know of hold'em: which hands there are, and how they are shown."""

from dataclasses import dataclass
from math import comb
from typing import Literal, TypeAlias

from core.messages import ArraySpec

NUM_CARDS = 52
NUM_HANDS = comb(NUM_CARDS, 2)

HandOrder: TypeAlias = Literal["numbers", "strength"]


@dataclass(frozen=True, slots=True)
class HandValueSpec:
    """What a network of counterfactual values is for.

    Attributes:
        cards: on the board, 3 to 5.
        order: in which the network sees hands. "numbers": all 1,326, beside the cards of the board. "strength": those
            that the board does not block, the weakest first, whatever the board is, and what each would win in a
            showdown at once.
    """

    cards: int = 5
    order: HandOrder = "strength"

    def __post_init__(self) -> None:
        if self.cards not in (3, 4, 5) or self.order not in ("numbers", "strength"):
            raise ValueError(f"no network is for {self}")

    @property
    def hands(self) -> int:
        """H, the hands that a board does not block."""
        return comb(NUM_CARDS - self.cards, 2)

    @property
    def inputs(self) -> tuple[ArraySpec, ...]:
        masses = (ArraySpec("pot", "float32", ()), ArraySpec("ranges", "float32", (2, NUM_HANDS)))
        if self.order == "numbers":
            return (ArraySpec("board", "uint8", (self.cards,)), *masses)
        order = ArraySpec("weakest_first", "int16", (self.hands,))
        return (order, ArraySpec("showdown", "float32", (2, NUM_HANDS)), *masses)

    @property
    def outputs(self) -> tuple[ArraySpec, ...]:
        return (ArraySpec("values", "float32", (2, NUM_HANDS)),)
