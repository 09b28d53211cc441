"""Finds rows that are the same, so that a model is asked about each position once."""

import numpy as np
from numba import njit

from core.messages import Arrays

_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def distinct_rows(arrays: Arrays, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of a request that are the first of their kind.

    Args:
        arrays: named arrays [K, ...]; rows are the same when all their bytes are.
        owners: int32 [K], whose row each is. Rows of different owners are never the same.

    Returns:
        (firsts int32 [U], the distinct rows in their order; places int32 [K]: row i is that of firsts[places[i]]).
    """
    columns = [
        np.ascontiguousarray(array).view(np.uint8).reshape(len(owners), -1) for array in arrays.values()
    ]
    return _distinct(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1), owners)


@njit(cache=True, nogil=True)
def _distinct(rows, owners):
    """See `distinct_rows`. A hash table with linear probing, at most half full; rows are compared in full."""
    mask = 1
    while mask < 2 * len(rows):
        mask *= 2
    mask -= 1
    table = np.full(mask + 1, -1, np.int32)
    firsts, places = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
    count = 0
    for i in range(len(rows)):
        slot = _hash(rows[i], owners[i]) & mask
        while table[slot] >= 0 and not _same(rows, owners, firsts[table[slot]], i):
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = count
            firsts[count] = i
            count += 1
        places[i] = table[slot]
    return firsts[:count], places


@njit(cache=True, nogil=True)
def _hash(row, owner):
    """Return the FNV-1a hash of an owner and a row, its upper half folded in, as an index that is not negative."""
    bits = (_FNV_OFFSET ^ np.uint64(owner)) * _FNV_PRIME
    for byte in row:
        bits = (bits ^ np.uint64(byte)) * _FNV_PRIME
    return np.int64((bits ^ (bits >> np.uint64(32))) & np.uint64(0x7FFFFFFF))


@njit(cache=True, nogil=True)
def _same(rows, owners, i, j):
    return owners[i] == owners[j] and np.array_equal(rows[i], rows[j])
