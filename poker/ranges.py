"""Ranges as people write them: `TT+, AKs, KTs-K7s:0.5, AhKd`.

Parts stand between commas, each with a weight from 0 to 1 behind a colon, or 1:

    uniform             every hand
    AA, AKs, AKo, AK    a pair; suited, offsuit, or both
    TT+, ATs+           these and better: up to aces, or with a better second card
    99-66, K9s-K6s      from one to the other; T9s-65s lets both cards go down
    AhKd                one hand

Where parts overlap the later one counts: `uniform, AA:0` is everything but aces.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from core.errors import UsageError
from poker.cards import HANDS, NUM_HANDS, RANKS, card_name, hand_name, hand_number, live_hands, parse_cards

UNIFORM = "uniform"
SIDE = len(RANKS)
"""Of the grid of classes: aces first, pairs on the diagonal, suited above it."""
_WHY = "parts are uniform, AA, AKs, AKo, AK, TT+, ATs+, 99-66, K9s-K6s or AhKd, each with :WEIGHT or without"
_FIX = 'write for example "TT+, AK, KTs+:0.5, AhKd"'
_CLASS = rf"([{RANKS}])([{RANKS}])([so]?)"
_CLASSES = re.compile(rf"{_CLASS}(?:(\+)|-{_CLASS})?", re.IGNORECASE)
_HAND = re.compile(rf"(?:[{RANKS}][cdhs]){{2}}", re.IGNORECASE)
_WEIGHT = re.compile(r"(?:[0-9]+\.?|[0-9]*\.[0-9]+)(?:e-?[0-9]+)?", re.IGNORECASE)


def _cells_of_hands() -> np.ndarray:
    """Return int64 [1326], the number of each hand's cell in the grid, row by row."""
    below_ace = SIDE - 1 - HANDS.astype(np.int64) // 4
    worse, better = below_ace[:, 0], below_ace[:, 1]
    suited = HANDS[:, 0] % 4 == HANDS[:, 1] % 4
    return np.where(suited, better * SIDE + worse, worse * SIDE + better)


_CELLS = _cells_of_hands()
_SIZES = np.bincount(_CELLS)


def parse_range(text: str, board: Sequence[int] = ()) -> np.ndarray:
    """Return float64 [1326], the weights of a range; hands that the board blocks have none.

    Raises:
        UsageError: for what is no part of a range, a hand that is named alone and blocked, or when no mass is left.
    """
    weights = np.zeros(NUM_HANDS)
    live = np.zeros(NUM_HANDS, np.bool_)
    live[live_hands(board)] = True
    for part in text.split(","):
        name, colon, weight = (piece.strip() for piece in part.partition(":"))
        share = _weight(weight, part) if colon else 1.0
        if _HAND.fullmatch(name):
            hand = hand_number(*parse_cards(name))
            if not live[hand]:
                raise _blocked(hand, board)
            weights[hand] = share
        else:
            weights[np.isin(_CELLS, _named_cells(name, part))] = share
    weights[~live] = 0.0
    if not weights.any():
        on = f" on {_cards(board)}" if board else ""
        raise UsageError(
            f"the range {text.strip()!r} has no mass{on}",
            why="each of its hands has weight 0, or a card that lies on the board",
            fix="name hands that can be held, with a weight above 0",
        )
    return weights


def write_range(weights: np.ndarray) -> str:
    """Return text of which `parse_range` makes these weights [1326]: classes of one weight each, then single hands."""
    if (weights == 1.0).all():
        return UNIFORM
    parts = []
    for cell in range(SIDE * SIDE):
        hands = np.flatnonzero(cell == _CELLS)
        if (weights[hands] == weights[hands[0]]).all():
            parts.append((class_name(cell // SIDE, cell % SIDE), weights[hands[0]]))
        else:
            parts += [(hand_name(hand), weights[hand]) for hand in hands.tolist()]
    return ", ".join(
        name if weight == 1.0 else f"{name}:{float(weight)!r}" for name, weight in parts if weight
    )


def to_grid(weights: np.ndarray) -> np.ndarray:
    """Return float64 [13, 13], the mean weight of each class's hands, of `weights` [1326]."""
    return (np.bincount(_CELLS, weights) / _SIZES).reshape(SIDE, SIDE)


def class_name(row: int, column: int) -> str:
    """Return for example "AKs" for a cell of the grid."""
    better, worse = RANKS[SIDE - 1 - min(row, column)], RANKS[SIDE - 1 - max(row, column)]
    return better + worse + ("" if row == column else "s" if row < column else "o")


def _named_cells(name: str, part: str) -> list[int]:
    """Return the cells of classes such as "ATs+"."""
    if name.lower() == UNIFORM:
        return list(range(SIDE * SIDE))
    match = _CLASSES.fullmatch(name)
    if match is None:
        raise UsageError(f"{part.strip()!r} is no part of a range", why=_WHY, fix=_FIX)
    first, suits = _ranks(match[1], match[2]), match[3].lower()
    last, other_suits = first, suits
    if match[4]:
        last = (0, 0) if first[0] == first[1] else (first[0], first[0] + 1)
    elif match[5]:
        last, other_suits = _ranks(match[5], match[6]), match[7].lower()
    is_pair = first[0] == first[1]
    if suits != other_suits or (is_pair and (suits or last[0] != last[1])):
        raise UsageError(f"{part.strip()!r} is no part of a range", why=_WHY, fix=_FIX)
    return [cell for better, worse in _between(first, last, part) for cell in _cells(better, worse, suits)]


def _ranks(one: str, other: str) -> tuple[int, int]:
    """Return how far below an ace two cards are, the better first."""
    better, worse = sorted(SIDE - 1 - RANKS.index(rank.upper()) for rank in (one, other))
    return better, worse


def _between(first: tuple[int, int], last: tuple[int, int], part: str) -> Iterator[tuple[int, int]]:
    """Yield the ranks from one class to another of the same better card, or of the same distance."""
    steps = (last[0] - first[0], last[1] - first[1])
    if steps[0] not in (0, steps[1]):
        raise UsageError(
            f"{part.strip()!r} is no run of hands",
            why="from the first to the last either the better card stays, or both go down alike",
            fix="write for example K9s-K6s, 99-66 or T9s-65s",
        )
    down = 1 if steps[1] >= 0 else -1
    for k in range(0, steps[1] + down, down):
        yield first[0] + (k if steps[0] else 0), first[1] + k


def _cells(better: int, worse: int, suits: str) -> list[int]:
    suited, offsuit = better * SIDE + worse, worse * SIDE + better
    return [suited] * (suits != "o") + [offsuit] * (suits != "s")


def _weight(text: str, part: str) -> float:
    if not _WEIGHT.fullmatch(text) or not 0.0 <= float(text) <= 1.0:
        raise UsageError(
            f"the weight {text!r} of {part.strip()!r} is out of range",
            why="weights are numbers from 0 to 1",
            fix="write for example AA:0.5",
        )
    return float(text)


def _blocked(hand: int, board: Sequence[int]) -> UsageError:
    return UsageError(
        f"nobody can hold {hand_name(hand)} on {_cards(board)}",
        why="one of its cards lies on the board",
        fix="leave this hand out, or name a class such as AK, of which blocked hands are left out",
    )


def _cards(board: Sequence[int]) -> str:
    return "".join(map(card_name, board))
