"""How long requests waited, counted in buckets of equal ratio: any wait is told within a fifth of itself."""

import math
from collections.abc import Sequence
from itertools import accumulate

PER_OCTAVE = 4
SHORTEST_SECONDS = 1e-6
NUM_BUCKETS = 26 * PER_OCTAVE
"""Up to 67 s."""


def bucket(seconds: float) -> int:
    """Return the number of the bucket that counts a wait; the first and the last take what lies outside too."""
    octaves = math.log2(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS)
    return min(int(octaves * PER_OCTAVE), NUM_BUCKETS - 1)


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the wait in seconds that `share` of those counted did not exceed: the middle of its bucket.

    Raises:
        ValueError: when nothing was counted.
    """
    if not any(counts):
        raise ValueError("no wait was counted")
    wanted = max(1, math.ceil(share * sum(counts)))
    number = next(n for n, passed in enumerate(accumulate(counts)) if passed >= wanted)
    return SHORTEST_SECONDS * 2.0 ** ((number + 0.5) / PER_OCTAVE)
