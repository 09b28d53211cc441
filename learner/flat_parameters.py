"""The parameters of a net side by side in one memory, so that what is done to all of them is one operation."""

import math

import torch
from torch import Tensor, nn

from networks.build import Net

_ALIGNMENT = 16
"""Numbers: each parameter begins where a vector register's load does."""


class FlatParameters:
    """All parameters of a net as one tensor, of which they and their gradients are parts from then on.

    Small nets are trained thousands of times a second, and an operation for each of their parameters costs more than
    the arithmetic: clearing, measuring and stepping 256 rows' gradients of two perceptrons took a quarter of a step.

    Args:
        net: on its device already. Its parameters keep their shapes and the order of their dimensions in memory.

    Attributes:
        all: [N], the whole of it, with zeros between parameters; its gradient is theirs.
        weights: [W], the part of it with what is named so, which decays; biases and the like do not.
    """

    def __init__(self, net: Net) -> None:
        named = list(net.named_parameters())
        weights = [parameter for name, parameter in named if name.endswith("weight")]
        others = [parameter for name, parameter in named if not name.endswith("weight")]
        sizes = [_aligned(parameter.numel()) for parameter in (*weights, *others)]
        start = sum(sizes[: len(weights)])
        memory = torch.zeros(sum(sizes), device=named[0][1].device)
        gradient = torch.zeros_like(memory)
        for parameter, part, slope in zip(
            (*weights, *others), memory.split(sizes), gradient.split(sizes), strict=True
        ):
            placed = _laid_out_as(parameter, part)
            parameter.data = placed.copy_(parameter.data)
            parameter.grad = _laid_out_as(parameter, slope)
        self.all = nn.Parameter(memory)
        self.all.grad = gradient
        self.weights = memory[:start]

    @property
    def gradient(self) -> Tensor:
        """All gradients, [N]."""
        assert self.all.grad is not None
        return self.all.grad

    def clip_gradient(self, largest_norm: float) -> float:
        """Scale the gradient down to `largest_norm` if its Euclidean norm is above; return what that was."""
        norm = float(torch.linalg.vector_norm(self.gradient))
        if largest_norm < norm < math.inf:
            self.gradient.mul_(largest_norm / norm)
        return norm


def _laid_out_as(parameter: Tensor, part: Tensor) -> Tensor:
    """Return the beginning of `part` as a tensor of the shape and strides of `parameter`."""
    return part.as_strided(parameter.size(), parameter.stride())


def _aligned(numbers: int) -> int:
    return -(-numbers // _ALIGNMENT) * _ALIGNMENT
