"""Muon turns filters by orthogonal steps, leaves all else to Adam, and remembers."""

import torch

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from learner.adam import Adam
from learner.flat_parameters import FlatParameters
from learner.muon import Muon, orthogonal
from networks.build import new_net
from networks.tower import BoardNet

RATE, RATIO = 1e-3, 10.0


def a_net() -> tuple[BoardNet, FlatParameters, list[torch.nn.Parameter]]:
    net = new_net(BoardSpec(4, 4), NetworkConfig(blocks=2, channels=8), seed=1)
    assert isinstance(net, BoardNet)
    parameters = FlatParameters(net)
    return net, parameters, [each for each in net.blocks.parameters() if each.ndim == 4]


def random_gradient(parameters: FlatParameters, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters.gradient.copy_(torch.randn(parameters.gradient.shape, generator=generator))


def test_singular_values_are_brought_near_one() -> None:
    generator = torch.Generator().manual_seed(1)
    made = orthogonal(torch.randn(3, 8, 72, generator=generator))
    values = torch.linalg.svdvals(made)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_filters_take_an_orthogonal_step_and_the_rest_that_of_adam() -> None:
    _, ours, filters = a_net()
    _, others, _ = a_net()
    muon, adam = Muon(ours.all, filters, rate_ratio=RATIO), Adam(others.all)
    before = [each.detach().clone() for each in filters]
    for optimizer, parameters in ((muon, ours), (adam, others)):
        optimizer.param_groups[0]["lr"] = RATE
        random_gradient(parameters, 1)
        optimizer.step()
    for each, old in zip(filters, before, strict=True):
        values = torch.linalg.svdvals((each.detach() - old).flatten(1))
        assert 0.6 * RATE * RATIO < float(values.min()) <= float(values.max()) < 1.3 * RATE * RATIO
    moved = torch.ones_like(ours.all, dtype=torch.bool)
    for each in filters:
        start = (each.data_ptr() - ours.all.data_ptr()) // 4
        moved[start : start + each.numel()] = False
    assert torch.equal(ours.all[moved], others.all[moved])


def test_what_follows_a_loaded_state_is_what_would_have_followed() -> None:
    _, ours, filters = a_net()
    muon = Muon(ours.all, filters, rate_ratio=RATIO)
    muon.param_groups[0]["lr"] = RATE
    random_gradient(ours, 1)
    muon.step()
    _, others, other_filters = a_net()
    with torch.no_grad():
        others.all.copy_(ours.all)
    again = Muon(others.all, other_filters, rate_ratio=RATIO)
    again.load_state_dict(muon.state_dict())
    again.param_groups[0]["lr"] = RATE
    for optimizer, parameters in ((muon, ours), (again, others)):
        random_gradient(parameters, 2)
        optimizer.step()
    assert torch.equal(ours.all, others.all)


def test_a_net_without_filters_is_adams() -> None:
    _, ours, _ = a_net()
    _, others, _ = a_net()
    muon, adam = Muon(ours.all, [], rate_ratio=RATIO), Adam(others.all)
    for optimizer, parameters in ((muon, ours), (adam, others)):
        optimizer.param_groups[0]["lr"] = RATE
        random_gradient(parameters, 3)
        optimizer.step()
    assert torch.equal(ours.all, others.all)
