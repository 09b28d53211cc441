"""What the learner is given when it asks for rows, and where rows are."""

from dataclasses import dataclass

import numpy as np

from core.errors import DataError

_LEAST_CHUNKS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows to train on, by where they are.

    Attributes:
        chunk_ids: int64 [n], number of the chunk of each row.
        rows: int32 [n], its row in that chunk's columns.
        draws: draws so far, this one included.
        sampled_rows: rows drawn so far, these included. A checkpoint keeps both numbers of the last sample it
            has trained on, for `ReplayBuffer.restore_counters`.
        importance: float32 [n], by what the loss of each row is to be multiplied; None: all count alike.
    """

    chunk_ids: np.ndarray
    rows: np.ndarray
    draws: int
    sampled_rows: int
    importance: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be drawn now.

    Attributes:
        seconds: when to ask again.
        reason: what is waited for, for logs.
    """

    seconds: float
    reason: str


class Arrivals:
    """The rows at hand in order of arrival. Chunks enter behind the newest and leave from the oldest on.

    Each row has a *position* that it keeps: how many rows had entered before it. Entering and leaving take O(1) on
    average whatever the number C of chunks, finding n rows O(n log C).

    Attributes:
        first: position of the oldest row at hand.
        end: position of the row that comes next.
    """

    def __init__(self) -> None:
        # Chunk number numbers[i] has the positions from bounds[i] to bounds[i + 1]; front ≤ i < back.
        self._numbers = np.empty(_LEAST_CHUNKS, np.int64)
        self._bounds = np.zeros(_LEAST_CHUNKS + 1, np.int64)
        self._front = self._back = 0
        self._newest = -1

    @property
    def first(self) -> int:
        return int(self._bounds[self._front])

    @property
    def end(self) -> int:
        return int(self._bounds[self._back])

    @property
    def chunk_ids(self) -> np.ndarray:
        """The chunks at hand, int64 [C], rising. A view: it holds until the next chunk enters."""
        return self._numbers[self._front : self._back]

    @property
    def ends(self) -> np.ndarray:
        """The position behind the last row of each chunk, int64 [C]. A view, as `chunk_ids`."""
        return self._bounds[self._front + 1 : self._back + 1]

    @property
    def num_rows(self) -> int:
        return self.end - self.first

    def add(self, number: int, rows: int) -> None:
        """Let a chunk enter; its number is above all before it."""
        assert number > self._newest, f"chunk {number} enters after {self._newest}"
        assert rows >= 0
        if self._back == len(self._numbers):
            self._make_room()
        self._numbers[self._back] = number
        self._bounds[self._back + 1] = self.end + rows
        self._back += 1
        self._newest = number

    def remove(self, number: int) -> None:
        """Let the oldest chunk leave."""
        assert self._front < self._back, f"chunk {number} is to leave, and none is there"
        oldest = self._numbers[self._front]
        assert oldest == number, f"chunk {number} is to leave before {oldest}"
        self._front += 1

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (chunk ids int64 [n], rows int32 [n]) of the rows at `positions` int64 [n], all at hand."""
        chunks = np.searchsorted(self.ends, positions, side="right")
        rows = positions - self._bounds[self._front : self._back][chunks]
        return self.chunk_ids[chunks], rows.astype(np.int32)

    def positions(self, chunk_ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find rows that may have left.

        Returns:
            (positions int64 [m] of those at hand, bool [n]: which of the n they are).

        Raises:
            DataError: when a chunk that is at hand does not have such a row.
        """
        numbers = self.chunk_ids
        if not len(numbers):
            return np.empty(0, np.int64), np.zeros(len(chunk_ids), bool)
        chunks = np.minimum(np.searchsorted(numbers, chunk_ids), len(numbers) - 1)
        at_hand = numbers[chunks] == chunk_ids
        chunks, rows = chunks[at_hand], np.asarray(rows, np.int64)[at_hand]
        found = self._bounds[self._front : self._back][chunks] + rows
        if ((rows < 0) | (found >= self.ends[chunks])).any():
            raise DataError(
                "a row was named that its chunk does not have",
                why=f"rows from {rows.min()} to {rows.max()} were named in chunks that are shorter",
                fix="name rows as they were drawn",
            )
        return found, at_hand

    def mark(self, position: int) -> tuple[int, int]:
        """Return (chunk, row) by which `position`, at hand or `end`, is found again when chunks are read again."""
        chunk = int(np.searchsorted(self.ends, position, side="right"))
        if chunk == len(self.chunk_ids):
            return self._newest + 1, 0
        return int(self.chunk_ids[chunk]), position - int(self._bounds[self._front + chunk])

    def find(self, number: int, row: int) -> int:
        """Return the position of what `mark` gave a name, or of the oldest row behind it if that has left."""
        chunk = int(np.searchsorted(self.chunk_ids, number))
        start = int(self._bounds[self._front + chunk])
        is_there = chunk < len(self.chunk_ids) and self.chunk_ids[chunk] == number
        return min(start + row, int(self.ends[chunk])) if is_there else start

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        problems = []
        if (np.diff(self.chunk_ids) <= 0).any():
            problems.append(f"the numbers of chunks do not rise: {self.chunk_ids.tolist()}")
        if (np.diff(self._bounds[self._front : self._back + 1]) < 0).any():
            problems.append("a chunk ends before it begins")
        return problems

    def _make_room(self) -> None:
        """Move what is at hand to the front of its arrays, or of larger ones if it takes more than half of them."""
        chunks = self._back - self._front
        size = len(self._numbers) * (2 if 2 * chunks > len(self._numbers) else 1)
        numbers, bounds = np.empty(size, np.int64), np.empty(size + 1, np.int64)
        numbers[:chunks] = self.chunk_ids
        bounds[: chunks + 1] = self._bounds[self._front : self._back + 1]
        self._numbers, self._bounds = numbers, bounds
        self._front, self._back = 0, chunks
