"""A binary tree of sums, by which something is drawn in proportion to its weight in logarithmic time."""

import numpy as np
from numba import njit


class SumTree:
    """Weights in slots 0 … S - 1, and the sums of them that make drawing cheap.

    Each node is the sum of its two children, added anew whenever one changes: the sums depend on the weights alone
    and not on what they were before, so that no rounding gathers. Changing or finding n slots takes O(n log S).

    Args:
        weights: float64 [S], finite and at least 0; S is a power of two. It is copied.
    """

    def __init__(self, weights: np.ndarray) -> None:
        size = len(weights)
        assert size & (size - 1) == 0 < size, f"{size} slots are no power of two"
        # The root is node 1, the children of node i are 2i and 2i + 1, and slot s is node S + s.
        self._nodes = np.empty(2 * size, np.float64)
        self._nodes[0] = 0.0
        self._nodes[size:] = weights
        while size > 1:
            size //= 2
            children = self._nodes[2 * size : 4 * size]
            self._nodes[size : 2 * size] = children[::2] + children[1::2]

    @property
    def size(self) -> int:
        return len(self._nodes) // 2

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._nodes[1])

    def get(self, slots: np.ndarray) -> np.ndarray:
        """Return float64 [n], the weights of `slots` int64 [n]."""
        return self._nodes[self.size + slots]

    def set(self, slots: np.ndarray, weights: np.ndarray) -> None:
        """Change the weights of `slots` int64 [n] to float64 [n]; of a slot that comes twice, the last one counts."""
        _set(self._nodes, slots, weights)

    def find(self, masses: np.ndarray) -> np.ndarray:
        """Return int64 [n]: for each of `masses` float64 [n] the slot in which the running sum of weights passes it.

        The masses lie from 0 to `total`, which is more than 0. A slot without weight is never found, not even when
        rounding puts a mass beyond the last one that has some.
        """
        return _find(self._nodes, masses)

    def check_valid(self) -> list[str]:
        """Return what is inconsistent, in words; nothing if all is sound."""
        problems = []
        weights = self._nodes[self.size :]
        if not (np.isfinite(weights) & (weights >= 0)).all():
            problems.append("a weight is negative or not finite")
        elif not np.array_equal(SumTree(weights)._nodes[1:], self._nodes[1:]):
            problems.append("a node is not the sum of its children")
        return problems


@njit(cache=True, nogil=True)
def _set(nodes, slots, weights):
    """See `SumTree.set`."""
    size = len(nodes) // 2
    for i in range(len(slots)):
        node = size + slots[i]
        nodes[node] = weights[i]
        while node > 1:
            node >>= 1
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1]


@njit(cache=True, nogil=True)
def _find(nodes, masses):
    """See `SumTree.find`.

    All masses go down level by level together, so that the processor fetches the nodes of several at once. One after
    the other they waited for each node: 2.5 ms for 4,096 of them in a tree of 16 million slots, against 1.1 ms.
    """
    size = len(nodes) // 2
    rests, found = masses.copy(), np.ones(len(masses), np.int64)
    level = 1
    while level < size:
        for i in range(len(found)):
            left = 2 * found[i]
            passes = rests[i] >= nodes[left] and nodes[left + 1] > 0.0
            rests[i] -= nodes[left] if passes else 0.0
            found[i] = left + passes
        level *= 2
    return found - size
