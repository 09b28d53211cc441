"""A tied net answers a turned board with the turned answer, before and after every step."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from configs.schema import NetworkConfig
from core.messages import BoardSpec
from learner.adam import Adam
from learner.flat_parameters import FlatParameters
from learner.half_turn import TiedToTwins, twins
from learner.muon import Muon
from learner.step import Optimizer
from networks.build import new_net
from networks.tower import BoardNet

SIDE = 5


def a_net() -> tuple[BoardNet, FlatParameters]:
    spec = BoardSpec(SIDE, SIDE, goal_edges=True, extra_actions=1)
    net = new_net(spec, NetworkConfig(blocks=2, channels=8, soft_policy=True), seed=1)
    assert isinstance(net, BoardNet)
    return net, FlatParameters(net)


def some_cells() -> Tensor:
    return torch.randint(-1, 2, (7, SIDE * SIDE), generator=torch.Generator().manual_seed(1)).to(torch.int8)


def turned(policy: Tensor) -> Tensor:
    return torch.cat([policy[:, :-1].flip(1), policy[:, -1:]], dim=1)


@pytest.mark.parametrize("by_muon", [True, False])
def test_a_turned_board_has_the_turned_answer(by_muon: bool) -> None:
    net, parameters = a_net()
    filters = [each for each in net.blocks.parameters() if each.ndim == 4]
    inner: Optimizer = Muon(parameters.all, filters, rate_ratio=10.0) if by_muon else Adam(parameters.all)
    optimizer = TiedToTwins(inner, net, parameters)
    optimizer.param_groups[0]["lr"] = 1e-2
    cells, said = some_cells(), []
    for _ in range(4):
        as_is, other = net({"cells": cells}), net({"cells": cells.flip(1)})
        for name in ("policy", "soft_policy"):
            torch.testing.assert_close(turned(other[name]), as_is[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other["value"], as_is["value"], rtol=1e-4, atol=1e-5)
        said.append(as_is["policy"].detach())
        parameters.gradient.zero_()
        (as_is["policy"][:, :4].sum() + as_is["soft_policy"][:, 0].sum() + as_is["value"].sum()).backward()
        optimizer.step()
        assert torch.equal(parameters.all, parameters.all[twins(net, parameters)])
    assert all(float((a - b).abs().max()) > 1e-2 for a, b in pairwise(said))


def test_twins_are_twins_of_each_other() -> None:
    net, parameters = a_net()
    others = twins(net, parameters)
    places = torch.arange(len(others))
    assert torch.equal(others[others], places)
    assert float((others == places).float().mean()) < 0.4


def test_the_mean_of_twins_gradients_is_that_of_rows_and_turned_rows() -> None:
    net, parameters = a_net()
    TiedToTwins(Adam(parameters.all), net, parameters)
    others, cells = twins(net, parameters), some_cells()
    gradients = []
    for shown, turn in ((cells, lambda policy: policy), (cells.flip(1), turned)):
        parameters.gradient.zero_()
        outputs = net({"cells": shown})
        (turn(outputs["policy"])[:, :4].square().sum() + outputs["value"].sum()).backward()
        gradients.append(parameters.gradient.clone())
    one, other = gradients
    torch.testing.assert_close(one[others], other, rtol=1e-3, atol=1e-4)
