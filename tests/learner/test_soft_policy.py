"""A head that only the learner has a use for: fitted, kept with the weights, and no change for who plays."""

import numpy as np
import pytest
import torch

from configs.schema import LearnerConfig, NetworkConfig
from core.messages import BoardSpec
from learner.board_objective import BoardObjective
from learner.objective import Columns
from learner.step import new_trainer
from networks.build import build_net, new_net, to_weights
from networks.tower import BoardNet
from networks.weights import Weights, network_description, network_parts
from networks.winograd_training import WinogradNet

BOARD = BoardSpec(5, 5, extra_actions=1, goal_edges=True)
PLAIN = NetworkConfig(blocks=2, channels=16, precision="fp32")
SOFT = PLAIN.model_copy(update={"soft_policy": True})


def rows(count: int) -> Columns:
    rng = np.random.default_rng(0)
    policy = rng.random((count, BOARD.num_actions), np.float32) ** 4
    ids = {name: np.zeros(count, np.int64) for name in ("actor", "epoch", "seq", "step")}
    return ids | {
        "cells": rng.integers(-1, 2, (count, 25)).astype(np.int8),
        "policy": policy / policy.sum(axis=1, keepdims=True),
        "policy_weight": np.ones(count, np.float32),
        "outcome": rng.choice(np.float32([-1, 1]), count),
        "search_value": np.zeros(count, np.float32),
    }


def board_net(config: NetworkConfig) -> BoardNet:
    net = new_net(BOARD, config, seed=3)
    assert isinstance(net, BoardNet)
    return net


def test_who_plays_gets_what_a_net_without_it_says() -> None:
    cells = {"cells": torch.from_numpy(rows(4)["cells"])}
    plain, soft = board_net(PLAIN).eval()(cells), board_net(SOFT).eval()(cells)
    assert plain.keys() == soft.keys() == {"policy", "value"}
    assert torch.equal(plain["policy"], soft["policy"])
    assert torch.equal(plain["value"], soft["value"])
    assert board_net(SOFT).train()(cells)["soft_policy"].shape == (4, BOARD.num_actions)


def test_it_travels_with_the_weights_and_older_weights_have_none() -> None:
    net = board_net(SOFT)
    weights = to_weights(net, model="main", version=1, game="hex5")
    read = Weights.from_bytes(weights.to_bytes(), source="a file")
    again = build_net(read).train()
    cells = {"cells": torch.from_numpy(rows(4)["cells"])}
    assert torch.equal(again(cells)["soft_policy"], net.train()(cells)["soft_policy"])
    assert network_parts(read.network)[1].soft_policy
    assert "soft_policy" not in network_description(BOARD, PLAIN)


@pytest.mark.parametrize("weight", [0.0, 8.0])
def test_the_learner_fits_it_by_its_weight(weight: float) -> None:
    config = LearnerConfig(soft_policy_weight=weight, warmup_steps=0, ema_decay=0, learning_rate=0.005)
    trainer = new_trainer(BOARD, SOFT, config, BoardObjective(config), seed=1, device="cpu")
    batch = rows(64)
    losses = [trainer.step(batch).losses["soft_policy_loss"] for _ in range(60)]
    uniform = np.log(BOARD.num_actions)
    assert losses[0] == pytest.approx(uniform, abs=0.05)
    fitted = losses[0] - losses[-1]
    assert fitted > 0.02 if weight else abs(fitted) < 0.05
    assert trainer.published_net() is not None


def test_compiled_kernels_train_it_as_torch_does() -> None:
    cells = {"cells": torch.from_numpy(rows(16)["cells"])}
    nets = board_net(SOFT).train(), board_net(SOFT).train()
    outputs = nets[0](cells), WinogradNet(nets[1]).train()(cells)
    for each in outputs:
        each["soft_policy"].square().sum().backward()
    torch.testing.assert_close(outputs[0]["soft_policy"], outputs[1]["soft_policy"], rtol=1e-4, atol=1e-5)
    slopes = [net.soft_policy_head.hidden.weight.grad for net in nets]  # pyright: ignore[reportOptionalMemberAccess]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)
