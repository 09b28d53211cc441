"""What is kept of ten million games in little room: which numbers they had, and how long they took."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator

_STEP = math.log(1.02)
_SHORTEST = 1e-3


class NumberSet:
    """A set of whole numbers from 0 on, kept as ranges: what is nearly complete takes hardly any room.

    Args:
        ranges: first and last number of each, as `ranges` returns them.

    Raises:
        ValueError: when they do not rise with gaps between them.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            if not (self._lasts[-1] + 1 if self._lasts else -1) < first <= last:
                raise ValueError(f"{first}-{last} does not stand behind the other numbers")
            self._firsts.append(first)
            self._lasts.append(last)
        self._count = sum(last - first + 1 for first, last in self.ranges())

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def add(self, number: int) -> None:
        """Add a number, which may be there already. Raises ValueError below 0."""
        if number < 0:
            raise ValueError(f"{number} is below 0")
        if number in self:
            return
        self._count += 1
        place = bisect_right(self._firsts, number)
        joins_before = place > 0 and self._lasts[place - 1] == number - 1
        joins_next = place < len(self._firsts) and self._firsts[place] == number + 1
        if joins_before and joins_next:
            self._lasts[place - 1] = self._lasts.pop(place)
            del self._firsts[place]
        elif joins_before:
            self._lasts[place - 1] = number
        elif joins_next:
            self._firsts[place] = number
        else:
            self._firsts.insert(place, number)
            self._lasts.insert(place, number)

    def next_missing(self, number: int) -> int:
        """Return the first number from `number` on that is not in the set."""
        place = bisect_right(self._firsts, number) - 1
        return self._lasts[place] + 1 if place >= 0 and number <= self._lasts[place] else number

    def ranges(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)


class DurationTally:
    """How many of the durations that were told lie in each of some hundred buckets, each 2 % wider than the last.

    Args:
        counts: by bucket, as `counts` returns them.
    """

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: Counter[int] = Counter(dict(counts))

    def add(self, seconds: float) -> None:
        """Take in a duration; below a millisecond it counts as one."""
        self._counts[round(math.log(max(seconds, _SHORTEST) / _SHORTEST) / _STEP)] += 1

    def quantile(self, share: float) -> float | None:
        """Return the seconds that this share did not take longer than, to 1 %; None of nothing."""
        wanted = share * self._counts.total()
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return _SHORTEST * math.exp(bucket * _STEP)
        return None

    def counts(self) -> list[tuple[int, int]]:
        """Return bucket and count of each, rising."""
        return sorted(self._counts.items())
