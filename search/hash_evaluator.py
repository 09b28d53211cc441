"""A model that costs nothing and knows nothing: its evaluations are hashes of what it is shown.

For tests and benchmarks of searches, which need values that look random and are the same each time.
"""

import numpy as np
from numba import njit

from core.messages import Reply, Request
from search.randomness import random_bits, uniform

_ANSWER, _SECRET = 1, 2
_LOWER_HALF = np.uint64(0xFFFFFFFF)
_LOGITS = np.linspace(-2.0, 2.0, 2**12)
"""The logits there are. To take one of them costs less than to compute it and to bring it to half precision.

In half precision they take a quarter of a processor's first cache: of four times as many most would come from the next.
"""


class HashEvaluator:
    """Answers requests by logits of [-2, 2] and values of (-1, 1) that derive from a row's bytes alone.

    Args:
        num_actions: A.
        salt: another salt is another model.
        policy_dtype: of the logits; float16 as networks give them, or float32.
    """

    def __init__(self, num_actions: int, *, salt: int = 0, policy_dtype: str = "float16") -> None:
        self._num_actions = num_actions
        self._salt = np.uint64(salt)
        self._logits = _LOGITS.astype(policy_dtype)
        # numba has no float16 on CPUs: its bits are moved instead.
        self._bits = self._logits.view(f"uint{8 * self._logits.itemsize}")

    def __call__(self, request: Request) -> Reply:
        """Return "policy" [B, A] and "value" float32 [B], as of weights version 0."""
        names = sorted(request.arrays)
        rows = [_bytes(request.arrays[name]) for name in names]
        bits, values = _evaluate(
            rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1),
            self._num_actions,
            self._salt,
            self._bits,
        )
        return Reply({"policy": bits.view(self._logits.dtype), "value": values}, weights_version=0)


def _bytes(array: np.ndarray) -> np.ndarray:
    """Return uint8 [B, n], the bytes of each row."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)


@njit(cache=True, nogil=True, forceinline=True)
def _word(rows, i, first):
    """Return bytes first … first+7 of rows[i] as uint64, zeros behind the last: eight are hashed as fast as one."""
    word = np.uint64(0)
    if first + 8 <= rows.shape[1]:
        for k in range(8):
            word |= np.uint64(rows[i, first + k]) << np.uint64(8 * k)
    else:
        for k in range(rows.shape[1] - first):
            word |= np.uint64(rows[i, first + k]) << np.uint64(8 * k)
    return word


@njit(cache=True, nogil=True)
def _evaluate(rows, num_actions, salt, table):
    logits = np.empty((len(rows), num_actions), table.dtype)
    values = np.empty(len(rows), np.float32)
    last = np.uint64(len(table) - 1)  # a power of two less one, so that & takes the remainder
    in_fours = num_actions - num_actions % 4
    secrets = _draw_secrets(salt, (rows.shape[1] + 7) // 8)
    for i in range(len(rows)):
        key = _hash(rows, i, secrets)
        values[i] = 2.0 * uniform(key, _ANSWER, 0) - 1.0
        # Four moves share a hash, which costs more than all else here.
        for first in range(0, in_fours, 4):
            bits = random_bits(key, _ANSWER, 1 + first)
            logits[i, first] = table[bits & last]
            logits[i, first + 1] = table[(bits >> np.uint64(16)) & last]
            logits[i, first + 2] = table[(bits >> np.uint64(32)) & last]
            logits[i, first + 3] = table[(bits >> np.uint64(48)) & last]
        bits = random_bits(key, _ANSWER, 1 + in_fours)
        for action in range(in_fours, num_actions):
            logits[i, action] = table[bits & last]
            bits >>= np.uint64(16)
    return logits, values


@njit(cache=True, nogil=True, forceinline=True)
def _draw_secrets(salt, num_words):
    """Return uint64 [num_words], what the words of a row are hashed with."""
    secrets = np.empty(num_words, np.uint64)
    for word in range(num_words):
        secrets[word] = random_bits(salt, _SECRET, word)
    return secrets


@njit(cache=True, nogil=True, forceinline=True)
def _hash(rows, i, secrets):
    """Return 64 bits of a row: the hash NH of UMAC (Black et al. 1999), whose products do not wait for each other."""
    key = np.uint64(0)
    for word in range(len(secrets)):
        mixed = _word(rows, i, 8 * word) + secrets[word]
        key += (mixed & _LOWER_HALF) * (mixed >> np.uint64(32))
    return key
