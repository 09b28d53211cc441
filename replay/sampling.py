"""What the learner is given when it asks for rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows to train on, by where they are.

    Attributes:
        chunk_ids: int64 [n], number of the chunk of each row.
        rows: int32 [n], its row in that chunk's columns.
        draws: draws so far, this one included.
        sampled_rows: rows drawn so far, these included. A checkpoint keeps both numbers of the last sample it
            has trained on, for `ReplayBuffer.restore_counters`.
    """

    chunk_ids: np.ndarray
    rows: np.ndarray
    draws: int
    sampled_rows: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be drawn now.

    Attributes:
        seconds: when to ask again.
        reason: what is waited for, for logs.
    """

    seconds: float
    reason: str


def uniform_rows(
    num_rows: int, chunk_ids: np.ndarray, chunk_rows: np.ndarray, *, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of several chunks, each row equally likely and with replacement.

    Args:
        num_rows: n, how many to draw.
        chunk_ids: int64 [C], the chunks.
        chunk_rows: int64 [C], rows of each; their sum is at least 1.
        rng: all randomness comes from here.

    Returns:
        (chunk ids int64 [n], rows int32 [n]), as in `Sample`.
    """
    ends = np.cumsum(chunk_rows)
    places = rng.integers(ends[-1], size=num_rows)
    chunks = np.searchsorted(ends, places, side="right")
    rows = places - (ends - chunk_rows)[chunks]
    return chunk_ids[chunks], rows.astype(np.int32)
