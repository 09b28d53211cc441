"""Evaluations of positions already seen under the current weights, and equal positions within one batch.

A position is known by a 128-bit hash of its input bytes. Two different positions share one with probability
about n²/2¹²⁹ among n of them, below 10⁻²⁴ for a million: less likely than an undetected memory error.
"""

from collections.abc import Mapping

import numpy as np
from numba import njit

WAYS = 4
_EMPTY = np.uint64(0)


class EvaluationCache:
    """A set-associative table from position hash to output row; the oldest of four in a set gives way.

    Args:
        capacity: positions held at most; rounded down to a power of two of sets.
    """

    def __init__(self, capacity: int) -> None:
        num_sets = 1 << max(0, (capacity // WAYS).bit_length() - 1)
        self._keys = np.zeros((num_sets * WAYS, 2), np.uint64)
        self._next_way = np.zeros(num_sets, np.uint8)
        self._outputs: dict[str, np.ndarray] = {}

    def clear(self) -> None:
        """Forget everything; called when the weights change."""
        self._keys[:] = _EMPTY

    def lookup(self, hashes: np.ndarray) -> np.ndarray:
        """Return int64 [B]: where each of `hashes` uint64 [B, 2] is held, -1 where it is not."""
        return _find(self._keys, hashes)

    def read(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return the output rows held at `places`."""
        return {name: held[places] for name, held in self._outputs.items()}

    def insert(self, hashes: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        """Keep `outputs` (named arrays [B, ...]) under `hashes` uint64 [B, 2], which must be distinct and absent."""
        places = _claim(self._keys, self._next_way, hashes)
        for name, rows in outputs.items():
            if name not in self._outputs:
                self._outputs[name] = np.zeros((len(self._keys), *rows.shape[1:]), rows.dtype)
            self._outputs[name][places] = rows


def hash_rows(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return uint64 [B, 2], a hash of each row of all arrays [B, ...] together; never all zero."""
    rows = [np.ascontiguousarray(a).reshape(len(a), -1).view(np.uint8) for _, a in sorted(arrays.items())]
    return _hash(rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1))


def distinct(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (first int64 [U], inverse int64 [B]) so that hashes[first][inverse] == hashes, in order of appearance."""
    return _distinct(hashes)


@njit(cache=True, nogil=True)
def _mix(x: np.uint64) -> np.uint64:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hash(rows: np.ndarray) -> np.ndarray:
    hashes = np.empty((rows.shape[0], 2), np.uint64)
    for b in range(rows.shape[0]):
        low = np.uint64(0x9E3779B97F4A7C15)
        high = np.uint64(0xC2B2AE3D27D4EB4F)
        word = np.uint64(0)
        for k in range(rows.shape[1]):
            word = (word << np.uint64(8)) | np.uint64(rows[b, k])
            if k % 8 == 7 or k == rows.shape[1] - 1:
                low = _mix(low ^ word)
                high = _mix(high + word * np.uint64(0x9E3779B97F4A7C15))
                word = np.uint64(0)
        hashes[b, 0] = low
        hashes[b, 1] = high | np.uint64(1)
    return hashes


@njit(cache=True, nogil=True)
def _find(keys: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    mask = np.uint64(keys.shape[0] // WAYS - 1)
    places = np.full(hashes.shape[0], -1, np.int64)
    for b in range(hashes.shape[0]):
        start = np.int64(hashes[b, 0] & mask) * WAYS
        for place in range(start, start + WAYS):
            if keys[place, 0] == hashes[b, 0] and keys[place, 1] == hashes[b, 1]:
                places[b] = place
                break
    return places


@njit(cache=True, nogil=True)
def _claim(keys: np.ndarray, next_way: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    mask = np.uint64(keys.shape[0] // WAYS - 1)
    places = np.empty(hashes.shape[0], np.int64)
    for b in range(hashes.shape[0]):
        chosen = np.int64(hashes[b, 0] & mask)
        place = chosen * WAYS + next_way[chosen]
        next_way[chosen] = (next_way[chosen] + 1) % WAYS
        keys[place] = hashes[b]
        places[b] = place
    return places


@njit(cache=True, nogil=True)
def _distinct(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = 16
    while size < 2 * hashes.shape[0]:
        size *= 2
    slots = np.full(size, -1, np.int64)
    first = np.empty(hashes.shape[0], np.int64)
    inverse = np.empty(hashes.shape[0], np.int64)
    count = 0
    for b in range(hashes.shape[0]):
        slot = np.int64(hashes[b, 0] & np.uint64(size - 1))
        while slots[slot] >= 0:
            seen = first[slots[slot]]
            if hashes[seen, 0] == hashes[b, 0] and hashes[seen, 1] == hashes[b, 1]:
                break
            slot = (slot + 1) % size
        if slots[slot] < 0:
            slots[slot] = count
            first[count] = b
            count += 1
        inverse[b] = slots[slot]
    return first[:count], inverse
