"""Nets to which a board and the same board turned by 180° are the same.

Half of the channels are twins of the other half: the twin of a channel sees at each cell what the channel sees at the
turned cell of the turned board. So a filter's twin is the filter turned, from twin to twin; the policy of a turned
board is the turned policy; and the value is one. (A group-equivariant net in the sense of Cohen and Welling 2016, arXiv
1602.07576, of a group of two.) It is an ordinary `BoardNet` whose parameters are equal two by two: whoever evaluates it
needs to know nothing.

A step along the gradient keeps parameters equal if it is the mean of the gradients by both, which is also the gradient
by the rows and the turned rows: each row teaches for two. It takes a board that has this symmetry, as hex's, and an
even number of channels.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learner.flat_parameters import FlatParameters
from learner.step import Optimizer
from networks.tower import BoardNet, PolicyHead

Turn = Callable[[Tensor], Tensor]
"""Takes numbers laid out as a parameter to where their twins are."""


class TiedToTwins:
    """An optimiser whose parameters stay equal to their twins.

    Args:
        inner: steps them.
        net: on its device; its parameters are made equal to their twins.
        parameters: of the net.
    """

    def __init__(self, inner: Optimizer, net: BoardNet, parameters: FlatParameters) -> None:
        self._inner = inner
        self._parameters = parameters
        self._twins = twins(net, parameters)
        self.param_groups = inner.param_groups
        self._first = torch.minimum(self._twins, torch.arange(len(self._twins), device=self._twins.device))
        self._make_equal()

    @torch.no_grad()
    def step(self) -> None:
        """Take a step by the mean of each gradient and its twin's."""
        gradient = self._parameters.gradient
        gradient.add_(gradient[self._twins]).mul_(0.5)
        self._inner.step()
        self._make_equal()  # what the order of terms has rounded away from each other

    def state_dict(self) -> dict[str, Tensor]:
        return self._inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._inner.load_state_dict(state)

    @torch.no_grad()
    def _make_equal(self) -> None:
        self._parameters.all.copy_(self._parameters.all[self._first])


def twins(net: BoardNet, parameters: FlatParameters) -> Tensor:
    """Return int64 [N]: where the twin of each of all parameters is; of one that has none, where it is itself."""
    places = torch.arange(parameters.all.numel(), device=parameters.all.device)
    found = places.clone()
    for parameter, turn in _turns(net):
        start = (parameter.data_ptr() - parameters.all.data_ptr()) // parameters.all.element_size()
        own, others = (
            each.as_strided(parameter.size(), parameter.stride(), start) for each in (places, found)
        )
        others.copy_(turn(own))
    return found


def _turns(net: BoardNet) -> Iterator[tuple[nn.Parameter, Turn]]:
    """Yield the parameters that have twins."""
    stem: Any = net.stem
    yield stem.weight, lambda x: _swap(x, 0).flip(2, 3)
    yield stem.bias, lambda x: _swap(x, 0)
    blocks: list[Any] = list(net.blocks)
    for block in blocks:
        for layer in (block.first, block.second):
            yield layer.weight, lambda x: _swap(_swap(x, 0), 1).flip(2, 3)
            yield layer.bias, lambda x: _swap(x, 0)
        if block.pool is not None:
            yield block.pool.weight, lambda x: _swap_summary(_swap(x, 0))
            yield block.pool.bias, lambda x: _swap(x, 0)
    for head in (net.policy_head, net.soft_policy_head):
        if head is not None:
            yield from _turns_of_policy(head)
    yield net.value_head.hidden.weight, _swap_summary


def _turns_of_policy(head: PolicyHead) -> Iterator[tuple[nn.Parameter, Turn]]:
    yield head.hidden.weight, lambda x: _swap(_swap(x, 0), 1)
    yield head.hidden.bias, lambda x: _swap(x, 0)
    yield head.board.weight, lambda x: _swap(x, 1)
    if head.extras is not None:
        yield head.extras.weight, _swap_summary


def _swap(x: Tensor, dimension: int) -> Tensor:
    """Exchange the halves of a dimension."""
    return x.roll(x.shape[dimension] // 2, dimension)


def _swap_summary(x: Tensor) -> Tensor:
    """Exchange the halves of the means, and those of the maxima, in x [outputs, 2C]."""
    return _swap(x.view(len(x), 2, -1), 2).flatten(1)
