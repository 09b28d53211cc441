"""The step of Adam that is taken directly is the one that torch's optimiser takes."""

import torch
from torch import nn

from learner.adam import Adam

NUMBERS = 1000
RATES = (1e-2, 3e-3, 1e-2, 1e-4)


def random_parameter() -> nn.Parameter:
    return nn.Parameter(torch.randn(NUMBERS, generator=torch.Generator().manual_seed(1)))


def gradients(first_seed: int) -> list[torch.Tensor]:
    seeds = range(first_seed, first_seed + len(RATES))
    return [torch.randn(NUMBERS, generator=torch.Generator().manual_seed(seed)) * 3 for seed in seeds]


def take_steps(optimizer: Adam | torch.optim.Adam, parameter: nn.Parameter, *, first_seed: int) -> None:
    for rate, gradient in zip(RATES, gradients(first_seed), strict=True):
        parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()


def test_its_steps_are_those_of_torch_bit_for_bit() -> None:
    ours, theirs = random_parameter(), random_parameter()
    take_steps(Adam(ours), ours, first_seed=10)
    take_steps(torch.optim.Adam([theirs], fused=True), theirs, first_seed=10)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, random_parameter())


def test_it_goes_on_from_its_state() -> None:
    through, resumed = random_parameter(), random_parameter()
    whole, before = Adam(through), Adam(resumed)
    take_steps(whole, through, first_seed=10)
    take_steps(before, resumed, first_seed=10)
    after = Adam(resumed)
    after.load_state_dict({name: tensor.clone() for name, tensor in before.state_dict().items()})
    take_steps(whole, through, first_seed=50)
    take_steps(after, resumed, first_seed=50)
    assert torch.equal(through, resumed)
