"""Losses know nothing of masks: those of a masked policy are those of a policy that has only the allowed choices."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import PolicyGradientConfig
from core.environments import ActionSpec
from learner.policy_losses import ppo_losses, vtrace_losses
from learner.ppo_kernel import fused_ppo_losses
from networks.actor_critic import NEVER

CHOICES = 5
CONFIG = PolicyGradientConfig(entropy_weight=0.3, value_clip=0.5)
SCALE = 1.7

Outputs = dict[str, torch.Tensor]
allowed_sets = st.sets(st.integers(0, CHOICES - 1), min_size=1)


def outputs_of(logits: np.ndarray, value: np.ndarray) -> Outputs:
    return {
        "policy": torch.from_numpy(logits.astype(np.float32)).requires_grad_(),
        "value": torch.from_numpy(value.astype(np.float32)).requires_grad_(),
    }


def compare(compute: Any, allowed: list[int], outputs: Outputs, part: Outputs, **settings: Any) -> None:
    """Compare losses and gradients with those of the policy of the allowed choices alone."""
    forbidden = torch.ones(CHOICES, dtype=torch.bool)
    forbidden[allowed] = False
    masked = {"policy": outputs["policy"].masked_fill(forbidden, NEVER), "value": outputs["value"]}
    whole = compute(masked, part, actions=ActionSpec("categorical", (CHOICES,)), config=CONFIG, **settings)
    alone = {name: output.detach().clone() for name, output in outputs.items()}
    alone["policy"] = alone["policy"][:, allowed]
    for output in alone.values():
        output.requires_grad_()
    renumbered = torch.zeros(CHOICES, dtype=torch.int64)
    renumbered[allowed] = torch.arange(len(allowed))
    few = compute(
        alone,
        part | {"action": renumbered[part["action"]]},
        actions=ActionSpec("categorical", (len(allowed),)),
        config=CONFIG,
        **settings,
    )
    assert {name: loss.item() for name, loss in whole.items()} == pytest.approx(
        {name: loss.item() for name, loss in few.items()}, rel=1e-5, abs=1e-6
    )
    whole["loss"].backward()
    few["loss"].backward()
    slope, slope_alone = outputs["policy"].grad, alone["policy"].grad
    assert slope is not None
    assert slope_alone is not None
    assert (slope[:, forbidden] == 0).all()
    torch.testing.assert_close(slope[:, allowed], slope_alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compute", [ppo_losses, fused_ppo_losses])
@given(allowed=allowed_sets, seed=st.integers(0, 99))
def test_ppo(compute: Any, allowed: set[int], seed: int) -> None:
    rng, steps = np.random.default_rng(seed), 6
    part = {
        "action": torch.from_numpy(rng.choice(sorted(allowed), (steps, 1))),
        **{
            name: torch.from_numpy(rng.normal(0, 1, steps).astype(np.float32))
            for name in ("advantage", "value_target", "value")
        },
        "log_prob": torch.from_numpy(-rng.uniform(0, 3, steps).astype(np.float32)),
    }
    outputs = outputs_of(rng.normal(0, 2, (steps, CHOICES)), rng.normal(0, 1, steps))
    compare(compute, sorted(allowed), outputs, part, reward_scale=SCALE, batch_steps=steps)


@given(allowed=allowed_sets, seed=st.integers(0, 99))
def test_vtrace(allowed: set[int], seed: int) -> None:
    rng, rows, steps = np.random.default_rng(seed), 2, 4
    ended = rng.random((rows, steps)) < 0.2
    part = {
        "action": torch.from_numpy(rng.choice(sorted(allowed), (rows, steps, 1))),
        "log_prob": torch.from_numpy(-rng.uniform(0, 3, (rows, steps)).astype(np.float32)),
        "reward": torch.from_numpy(rng.normal(0, 1, (rows, steps)).astype(np.float32)),
        "terminated": torch.from_numpy(ended),
        "truncated": torch.zeros(rows, steps, dtype=torch.bool),
        "valid": torch.ones(rows, steps, dtype=torch.bool),
    }
    count = rows * (steps + 1)
    outputs = outputs_of(rng.normal(0, 2, (count, CHOICES)), rng.normal(0, 1, count))
    settings = {"discount": 0.9, "reward_scale": SCALE, "batch_steps": rows * steps}
    compare(vtrace_losses, sorted(allowed), outputs, part, **settings)
