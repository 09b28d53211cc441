"""What seven cards are worth, the slow and plain way: an oracle."""

from collections import Counter
from collections.abc import Sequence


def strength(cards: Sequence[int]) -> tuple[int, ...]:
    """Return what the best five of seven cards are worth: the greater tuple wins, equal ones share."""
    ranks = sorted((card // 4 for card in cards), reverse=True)
    suit, number = Counter(card % 4 for card in cards).most_common(1)[0]
    worth = _of_a_kind(ranks)
    if (top := _straight(ranks)) is not None:
        worth = max(worth, (4, top))
    if number >= 5:
        suited = sorted((card // 4 for card in cards if card % 4 == suit), reverse=True)
        top = _straight(suited)
        worth = max(worth, (5, *suited[:5]) if top is None else (8, top))
    return worth


def _of_a_kind(ranks: Sequence[int]) -> tuple[int, ...]:
    # Of equally many the higher rank comes first, as in `ranks`.
    (first, most), (second, next_most) = Counter(ranks).most_common(2)
    if most == 4:
        worth, others = 7, 1
    elif most == 3:
        worth, others = (6, 0) if next_most >= 2 else (3, 2)
    elif most == 2:
        worth, others = (2, 1) if next_most == 2 else (1, 3)
    else:
        worth, others = 0, 4
    kept = (first, second) if worth in (6, 2) else (first,)
    return worth, *kept, *[rank for rank in ranks if rank not in kept][:others]


def _straight(ranks: Sequence[int]) -> int | None:
    """Return the highest rank of five in a row, the ace also below the deuce."""
    there = {*ranks, -1} if 12 in ranks else set(ranks)
    return next((top for top in range(12, 2, -1) if all(top - k in there for k in range(5))), None)
