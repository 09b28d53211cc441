"""A model that costs nothing and knows nothing: its evaluations are hashes of what it is shown.

For tests and benchmarks of searches, which need values that look random and are the same each time.
"""

import numpy as np
from numba import njit

from core.messages import Reply, Request
from search.randomness import mix, uniform

_POLICY, _VALUE = 1, 2
_SPREAD = 4.0


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
        self._policy_dtype = np.dtype(policy_dtype)

    def __call__(self, request: Request) -> Reply:
        """Return "policy" [B, A] and "value" float32 [B], as of weights version 0."""
        arrays = [request.arrays[name] for name in sorted(request.arrays)]
        rows = [np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1) for array in arrays]
        logits, values = _evaluate(_words(rows), self._num_actions, self._salt)
        return Reply({"policy": logits.astype(self._policy_dtype), "value": values}, weights_version=0)


def _words(rows: list[np.ndarray]) -> np.ndarray:
    """Return uint64 [B, n], the bytes of each row and zeros behind them: eight are hashed as fast as one."""
    num_bytes = sum(part.shape[1] for part in rows)
    padded = np.zeros((len(rows[0]), -(-num_bytes // 8) * 8), np.uint8)
    np.concatenate(rows, axis=1, out=padded[:, :num_bytes])
    return padded.view(np.uint64)


@njit(cache=True, nogil=True)
def _evaluate(rows, num_actions, salt):
    logits = np.empty((len(rows), num_actions), np.float32)
    values = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        key = mix(salt + np.uint64(1))
        for word in rows[i]:
            key = mix(key ^ word)
        values[i] = 2.0 * uniform(key, _VALUE, 0) - 1.0
        for action in range(num_actions):
            logits[i, action] = _SPREAD * (uniform(key, _POLICY, action) - 0.5)
    return logits, values
