"""What the numbers of an environment are measured in, as buffers that travel with the weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_DEVIATIONS = 10.0
"""A normalised observation is held within so many standard deviations of the mean."""
_NO_BOUND = torch.finfo(torch.float32).max


class Normaliser(nn.Module):
    """Observations to mean 0 and deviation 1, and the unit of rewards. Changes nothing until it is told moments.

    The buffers are float32 whatever dtype the net is cast to: 8 bits of a mean would not tell apart observations that
    lie close together far from 0.

    Args:
        features: F, numbers of one observation.

    Attributes:
        mean, inverse_deviation: of observations, float32 [F].
        low, high: bounds of a normalised observation, float32 [].
        reward_scale: of raw reward in one unit of what the value head says, float32 [].
    """

    mean: Tensor
    inverse_deviation: Tensor
    low: Tensor
    high: Tensor
    reward_scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("inverse_deviation", torch.ones(features))
        self.register_buffer("low", torch.tensor(-_NO_BOUND))
        self.register_buffer("high", torch.tensor(_NO_BOUND))
        self.register_buffer("reward_scale", torch.tensor(1.0))

    def forward(self, observation: Tensor) -> Tensor:
        """Return `observation` [B, F] normalised, float32 [B, F]."""
        return (observation - self.mean).mul_(self.inverse_deviation).clamp_(self.low, self.high)

    def set_moments(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """Normalise by `mean` and `deviation` > 0, [F] each."""
        self.mean.copy_(torch.as_tensor(mean))
        self.inverse_deviation.copy_(torch.as_tensor(1 / deviation))
        self.low.fill_(-MAX_DEVIATIONS)
        self.high.fill_(MAX_DEVIATIONS)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Go where the net goes, and stay float32."""
        return super()._apply(lambda buffer: buffer.to(fn(buffer).device), recurse)
