"""What a solver knows of hands: which cards they have, and in which order they win on each board."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_CARD = 52
"""Stands for the second card of hands of one card."""


@dataclass(frozen=True, slots=True)
class BoardOrder:
    """Hands of a board from the weakest to the strongest.

    Attributes:
        hands: int32 [H'], those that the board does not block.
        ends: int32 [G], where each group of hands of equal strength ends.
    """

    hands: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, slots=True)
class HandSet:
    """Hands of both players, H of them.

    Attributes:
        cards: int32 [H, 2], the second is `NO_CARD` where hands have one.
        boards: on which they may be compared.
    """

    cards: np.ndarray
    boards: tuple[BoardOrder, ...]

    @property
    def number(self) -> int:
        return len(self.cards)

    @property
    def have_two_cards(self) -> bool:
        return bool((self.cards[:, 1] != NO_CARD).all())

    def compatible(self, ranges: np.ndarray) -> np.ndarray:
        """Return [..., H]: for each hand the mass of `ranges` [..., H] over hands that share no card with it."""
        holds = (self.cards[:, :, None] == np.arange(NO_CARD)).any(1).astype(np.float64)  # [H, cards]
        blocked = ranges @ holds @ holds.T
        own = ranges if self.have_two_cards else 0.0
        return ranges.sum(-1, keepdims=True) - blocked + own


def order_by(strengths: np.ndarray, alive: np.ndarray | Sequence[int]) -> BoardOrder:
    """Return the order of the hands `alive` by `strengths` [H]; the greater wins."""
    hands = np.asarray(alive)
    hands = hands[np.argsort(strengths[hands], kind="stable")]
    ends = np.append(np.flatnonzero(np.diff(strengths[hands])) + 1, len(hands))
    return BoardOrder(hands.astype(np.int32), ends.astype(np.int32))
