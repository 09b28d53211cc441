"""The gradients that are written out are those that torch would have found."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from networks.perceptrons import TwinLayer, twin_perceptrons


class Twins:
    """Two perceptrons of 5 features, with 3 outputs and one."""

    def __init__(self, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(3)
        self.hidden = nn.ModuleList(TwinLayer(*pair) for pair in pairwise(sizes))
        self.heads = nn.Linear(sizes[-1], 3), nn.Linear(sizes[-1], 1)
        self.modules = nn.ModuleList([*self.hidden, *self.heads]).to(dtype)
        with torch.no_grad():
            for parameter in self.modules.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.x = torch.randn(7, sizes[0], generator=generator).to(dtype).requires_grad_()

    def fused(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return twin_perceptrons(x, self.hidden, *self.heads)

    def plain(self, x: Tensor) -> tuple[Tensor, Tensor]:
        halves = []
        for which, head in enumerate(self.heads):
            y = x
            for layer in self.hidden:
                y = torch.tanh(y @ layer.weight[which] + layer.bias[which])
            halves.append(head(y))
        return halves[0], halves[1]

    def slopes(self, outputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        loss = outputs[0].square().sum() + (outputs[1] * torch.arange(7.0)[:, None].to(self.x)).sum()
        return list(torch.autograd.grad(loss, [self.x, *self.modules.parameters()]))


sizes = pytest.mark.parametrize("sizes", [(5, 8), (5, 64, 64), (5, 8, 4, 2)])


@sizes
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_outputs_and_gradients_are_those_of_plain_layers(
    sizes: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    twins = Twins(sizes, dtype)
    found, expected = twins.fused(twins.x), twins.plain(twins.x)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for mine, plain in zip(twins.slopes(found), twins.slopes(expected), strict=True):
        torch.testing.assert_close(mine, plain, rtol=tolerance, atol=tolerance * float(plain.abs().max()))


@sizes
def test_features_that_need_no_gradient_get_none(sizes: tuple[int, ...]) -> None:
    twins = Twins(sizes, torch.float32)
    outputs = twins.fused(twins.x.detach())
    (outputs[0].sum() + outputs[1].sum()).backward()
    assert twins.x.grad is None
    assert all(parameter.grad is not None for parameter in twins.modules.parameters())


@sizes
def test_autocast_computes_in_its_own_arithmetic(sizes: tuple[int, ...]) -> None:
    twins = Twins(sizes, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = twins.fused(twins.x.detach())
    assert all(output.dtype is torch.bfloat16 for output in found)
    for mine, plain in zip(found, twins.plain(twins.x), strict=True):
        torch.testing.assert_close(
            mine.float(), plain, rtol=0.05, atol=0.1 * float(plain.detach().abs().max())
        )


def test_float32_activations_are_off_by_rounding_alone() -> None:
    layer = TwinLayer(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
        z = torch.cat([torch.linspace(-30, 30, 10_001), torch.logspace(-8, 0, 1001)])[:, None]
        found = layer(z.expand(2, -1, -1))[0, :, 0].double()
    assert float((found - torch.tanh(z[:, 0].double())).abs().max()) < 2e-7
