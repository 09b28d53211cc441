"""What is done to the one memory is done to every parameter, and the net computes as before."""

import torch

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from learner.flat_parameters import FlatParameters
from networks.build import new_net
from networks.precision import resolve


def a_net() -> torch.nn.Module:
    return resolve("fp32", "cpu").place(new_net(BoardSpec(4, 4), NetworkConfig(blocks=2, channels=8), seed=1))


def test_parameters_keep_their_numbers_and_their_order_in_memory() -> None:
    net, plain = a_net(), a_net()
    FlatParameters(net)
    for (name, parameter), (_, before) in zip(net.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(parameter, before), name
        assert parameter.stride() == before.stride(), name


def test_every_parameter_and_its_gradient_lie_in_the_one_memory() -> None:
    net = a_net()
    flat = FlatParameters(net)
    named = dict(net.named_parameters())
    assert flat.all.numel() >= sum(parameter.numel() for parameter in named.values())
    with torch.no_grad():
        flat.all.fill_(1.0)
        flat.weights.fill_(2.0)
    for name, parameter in named.items():
        assert (parameter == (2.0 if name.endswith("weight") else 1.0)).all(), name
    flat.gradient.fill_(3.0)
    assert all((parameter.grad == 3.0).all() for parameter in named.values())


def test_backward_adds_to_the_one_gradient() -> None:
    net, plain = a_net(), a_net()
    flat = FlatParameters(net)
    cells = {"cells": torch.zeros(2, 16, dtype=torch.int8)}
    for each in (net, plain):
        outputs = each(cells)
        (outputs["value"].sum() + outputs["policy"].square().sum()).backward()
    assert flat.gradient.any()
    for (name, parameter), (_, other) in zip(net.named_parameters(), plain.named_parameters(), strict=True):
        assert parameter.grad is not None
        if other.grad is None:
            assert not parameter.grad.any(), name
        else:
            torch.testing.assert_close(parameter.grad, other.grad)
