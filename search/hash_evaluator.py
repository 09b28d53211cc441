"""A model that costs nothing and knows nothing: its evaluations are hashes of what it is shown.

For tests and benchmarks of searches, which need values that look random and are the same each time.
"""

import numpy as np
from numba import njit

from core.messages import Reply, Request
from search.randomness import mix, random_bits, uniform

_POLICY, _VALUE = 1, 2
_LOGITS = np.linspace(-2.0, 2.0, 2**14)
"""The logits there are. To take one of them costs less than to compute it and to bring it to half precision."""


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
        arrays = [request.arrays[name] for name in sorted(request.arrays)]
        rows = [np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1) for array in arrays]
        bits, values = _evaluate(_words(rows), self._num_actions, self._salt, self._bits)
        return Reply({"policy": bits.view(self._logits.dtype), "value": values}, weights_version=0)


def _words(rows: list[np.ndarray]) -> np.ndarray:
    """Return uint64 [B, n], the bytes of each row and zeros behind them: eight are hashed as fast as one."""
    num_bytes = sum(part.shape[1] for part in rows)
    padded = np.zeros((len(rows[0]), -(-num_bytes // 8) * 8), np.uint8)
    np.concatenate(rows, axis=1, out=padded[:, :num_bytes])
    return padded.view(np.uint64)


@njit(cache=True, nogil=True)
def _evaluate(rows, num_actions, salt, table):
    logits = np.empty((len(rows), num_actions), table.dtype)
    values = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        key = mix(salt + np.uint64(1))
        for word in rows[i]:
            key = mix(key ^ word)
        values[i] = 2.0 * uniform(key, _VALUE, 0) - 1.0
        for first in range(0, num_actions, 4):
            # Four moves share a hash, which costs more than all else here.
            bits = random_bits(key, _POLICY, first)
            for action in range(first, min(first + 4, num_actions)):
                logits[i, action] = table[bits % np.uint64(len(table))]
                bits >>= np.uint64(16)
    return logits, values
