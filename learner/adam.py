"""Adam on all parameters at once, without what a general optimiser does around each step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) on one tensor, by the kernel of torch.optim.Adam(fused=True).

    The kernel is called directly. What surrounds it there, hooks and the sorting of tensors by device and dtype,
    takes longer than itself: a tenth of PPO's step on 256 rows. tests/learner/test_adam.py holds the two together.

    Args:
        parameter: what is fitted; its gradient has to be there at each step.

    Attributes:
        param_groups: the parameter, with the rate "lr" of the next step, where `torch.amp.GradScaler` looks for it.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter = parameter
        self._steps = torch.zeros((), device=parameter.device)
        self._mean = torch.zeros_like(parameter, requires_grad=False)
        self._square = torch.zeros_like(parameter, requires_grad=False)
        self.param_groups: list[dict[str, Any]] = [{"params": [parameter], "lr": 0.0}]

    @torch.no_grad()
    def step(self) -> None:
        """Take a step at the group's rate."""
        (group,) = self.param_groups
        assert self._parameter.grad is not None
        self._steps += 1
        torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
            [self._parameter],
            [self._parameter.grad],
            [self._mean],
            [self._square],
            [],
            [self._steps],
            lr=group["lr"],
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next step depends on beside parameter, gradient and rate."""
        return {"step": self._steps, "exp_avg": self._mean, "exp_avg_sq": self._square}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        for name, own in self.state_dict().items():
            own.copy_(state[name])
