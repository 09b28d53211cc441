"""Mean and variance of what has been seen so far, batch by batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class Moments:
    """Running moments of vectors, in float64, by Chan, Golub and LeVeque's update (1983).

    Args:
        shape: of one vector; () for numbers.

    Attributes:
        count: vectors seen.
        mean, variance: float64 of `shape`; 0 and 1 before the first.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self.variance = np.ones(shape)

    def add(self, values: np.ndarray) -> None:
        """Take in `values` [n, *shape]."""
        count = len(values)
        if not count:
            return
        mean, variance = values.mean(axis=0, dtype=np.float64), values.var(axis=0, dtype=np.float64)
        if not self.count:
            self.count, self.mean, self.variance = count, mean, variance
            return
        total = self.count + count
        apart = mean - self.mean
        squares = self.variance * self.count + variance * count + apart**2 * self.count * count / total
        self.mean = self.mean + apart * count / total
        self.variance = squares / total
        self.count = total

    def set(self, count: int, mean: np.ndarray, variance: np.ndarray) -> None:
        """Go on as if `count` vectors of these moments had been seen."""
        self.count, self.mean, self.variance = count, mean.astype(np.float64), variance.astype(np.float64)

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation; of what never changes 1, so that dividing by it does no harm."""
        return np.where(self.variance > 1e-12, np.sqrt(self.variance), 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": torch.from_numpy(np.array(self.mean)),
            "variance": torch.from_numpy(np.array(self.variance)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        self.mean, self.variance = state["mean"].numpy(), state["variance"].numpy()
