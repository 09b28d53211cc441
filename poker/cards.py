"""Cards and hands of hold'em: 52 cards, 1,326 hands of two.

A card is 4 · rank + suit, ranks from 0 (deuce) to 12 (ace), suits in the order c d h s. Hands are numbered by their
cards in order: (0, 1), (0, 2), …, (50, 51).
"""

from collections.abc import Sequence

import numpy as np

from core.errors import UsageError

RANKS, SUITS = "23456789TJQKA", "cdhs"
NUM_CARDS = 52
HANDS = np.array([(a, b) for a in range(NUM_CARDS) for b in range(a + 1, NUM_CARDS)], np.int16)
"""Cards of each hand, int16 [1326, 2], the lower first."""
NUM_HANDS = len(HANDS)


def card_name(card: int) -> str:
    """Return for example "Td"."""
    return RANKS[card // 4] + SUITS[card % 4]


def hand_name(hand: int) -> str:
    """Return for example "AhKd", the higher card first."""
    low, high = HANDS[hand].tolist()
    return card_name(high) + card_name(low)


def hand_number(one: int, other: int) -> int:
    """Return the number of the hand of two different cards."""
    low, high = sorted((one, other))
    return low * (2 * NUM_CARDS - low - 1) // 2 + high - low - 1


def parse_cards(text: str) -> tuple[int, ...]:
    """Return the cards of a text such as "Td9d6h", with or without blanks between them.

    Raises:
        UsageError: for what is no card, or one twice.
    """
    letters = "".join(text.split())
    names = [letters[k : k + 2] for k in range(0, len(letters), 2)]
    cards = []
    for name in names:
        if len(name) != 2 or name[0].upper() not in RANKS or name[1].lower() not in SUITS:
            raise UsageError(
                f"{name!r} in {text!r} is no card",
                why=f"a card is a rank of {RANKS} and a suit of {SUITS}",
                fix='write for example "Td9d6h"',
            )
        cards.append(4 * RANKS.index(name[0].upper()) + SUITS.index(name[1].lower()))
    for k, card in enumerate(cards):
        if card in cards[:k]:
            raise UsageError(
                f"{card_name(card)} is twice in {text!r}",
                why="there is one of each card",
                fix="name each card once",
            )
    return tuple(cards)


def live_hands(board: Sequence[int]) -> np.ndarray:
    """Return the numbers of the hands that have no card of the board, int64 [H], in order."""
    return np.flatnonzero(~np.isin(HANDS, list(board)).any(axis=1))
