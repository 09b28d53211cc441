"""What the learner is answered when it asks for rows: samples, and with them the chunks that it does not have yet."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.sampling import Sample, Wait

if TYPE_CHECKING:
    from replay.buffer import ReplayBuffer

MAX_CHUNKS = 8
"""That one answer brings: eight of the largest take half a gigabyte."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """An answer to the learner, which holds all chunks up to some number and asks for more.

    Without samples and without a wait there are more chunks to come: ask again.

    Attributes:
        samples: drawn one after the other; every chunk in them is held by the learner or among `chunks`.
        chunks: number and handle of some chunks that it does not hold, the oldest first, none left out in between.
        oldest: the oldest chunk in the window when the samples were drawn; what is below has left it.
        wait: why there are no samples, and when to ask again.
    """

    samples: tuple[Sample, ...]
    chunks: tuple[tuple[int, Any], ...]
    oldest: int
    wait: Wait | None = None


def draw(replay: "ReplayBuffer", num_rows: int, *, most: int, newest_held: int) -> Drawn:
    """Draw for a learner that holds the chunks of the window up to number `newest_held`, -1 for none.

    A learner mirrors the window, so that one number says what it has; and what it lacks comes with the answer, also
    while it has to wait: no second question, and no chunk that leaves the window between two.

    Args:
        replay: what is drawn from.
        num_rows: of each sample.
        most: samples to draw, fewer where the rate limiter says so; at least 1.
        newest_held: of the chunks that the learner holds.

    Raises:
        UsageError: when so many rows may never be drawn.
    """
    live = replay.live_chunks()
    missing = live[np.searchsorted(live, newest_held, side="right") :]
    numbers = missing[:MAX_CHUNKS].tolist()
    chunks = tuple(zip(numbers, replay.handles(numbers), strict=True))
    oldest = int(live[0]) if len(live) else newest_held + 1
    if len(missing) > MAX_CHUNKS:
        return Drawn((), chunks, oldest)
    samples: list[Sample] = []
    while len(samples) < most:
        sample = replay.sample(num_rows)
        if isinstance(sample, Wait):
            return Drawn(tuple(samples), chunks, oldest, None if samples else sample)
        samples.append(sample)
    return Drawn(tuple(samples), chunks, oldest)
