"""The exponential average of a network's weights over its training steps: what is published and plays."""

import copy

import torch
from torch import Tensor

from networks.build import Net


class WeightsAverage:
    """Average of the weights after each step, weighing a step k steps ago with decay^k.

    It is corrected for its start, as Adam corrects its moments: after t steps it is

        Σ_k decay^(t-k) w_k / Σ_k decay^(t-k),    k = 1 … t

    so the random weights before the first step have no part in it, and early publications are of what was
    learnt.

    Args:
        net: whose weights are averaged; the average begins as a copy of it.
        decay: in [0, 1); 0 averages nothing.

    Attributes:
        net: of the averaged weights; with decay 0 the very net that is trained.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self._decay = decay
        self.net = copy.deepcopy(net).requires_grad_(False) if decay else net

    def update(self, net: Net, step: int) -> None:
        """Take in the weights after `step`, the first being 1."""
        if not self._decay:
            return
        share = (1 - self._decay) / (1 - self._decay**step)
        with torch.no_grad():
            for average, weight in zip(self.net.parameters(), net.parameters(), strict=True):
                average.lerp_(weight, share)

    def state_dict(self) -> dict[str, Tensor]:
        return self.net.state_dict() if self._decay else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self._decay:
            self.net.load_state_dict(state)
