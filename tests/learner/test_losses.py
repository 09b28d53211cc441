"""The loss against a plain reading of its formula, one row at a time in float64."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import LearnerConfig
from learner.losses import Losses, alphazero_losses

CONFIG = LearnerConfig(policy_weight=0.7, value_weight=1.3, value_mix=0.25)


def plain_losses(
    logits: np.ndarray, values: np.ndarray, targets: Mapping[str, np.ndarray]
) -> dict[str, float]:
    policy = entropy = target_entropy = value_loss = value_error = weights = 0.0
    for row in range(len(logits)):
        exponentials = [math.exp(logit) for logit in logits[row].tolist()]
        q = [e / sum(exponentials) for e in exponentials]
        p = [float(share) for share in targets["policy"][row]]
        weight = float(targets["policy_weight"][row])
        weights += weight
        policy -= weight * sum(a * math.log(b) for a, b in zip(p, q, strict=True))
        entropy -= weight * sum(b * math.log(b) for b in q)
        target_entropy -= weight * sum(a * math.log(a) for a in p if a > 0)
        outcome, search = float(targets["outcome"][row]), float(targets["search_value"][row])
        value_loss += (float(values[row]) - (0.75 * outcome + 0.25 * search)) ** 2
        value_error += abs(float(values[row]) - outcome)
    scale = 1 / weights if weights else 0.0
    rows = len(logits)
    return {
        "total": 0.7 * policy * scale + 1.3 * value_loss / rows,
        "policy": policy * scale,
        "value": value_loss / rows,
        "policy_entropy": entropy * scale,
        "target_entropy": target_entropy * scale,
        "value_error": value_error / rows,
    }


def random_case(
    rows: int, actions: int, *, seed: int, masked: float
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.full(actions, 0.3), rows)
    policy[policy < 0.01] = 0.0
    targets = {
        "policy": (policy / policy.sum(axis=1, keepdims=True)).astype(np.float16),
        "policy_weight": ((rng.random(rows) >= masked) * rng.uniform(0.5, 2.0, rows)).astype(np.float32),
        "outcome": rng.uniform(-1, 1, rows).astype(np.float32),
        "search_value": rng.uniform(-1, 1, rows).astype(np.float32),
    }
    logits = rng.normal(0, 3, (rows, actions)).astype(np.float32)
    return logits, rng.uniform(-1, 1, rows).astype(np.float32), targets


def shares(
    logits: np.ndarray, values: np.ndarray, targets: Mapping[str, np.ndarray], part: slice = slice(None)
) -> Losses:
    return alphazero_losses(
        {"policy": torch.from_numpy(logits[part]), "value": torch.from_numpy(values[part])},
        {name: torch.from_numpy(array[part]) for name, array in targets.items()},
        config=CONFIG,
        batch_rows=len(logits),
        batch_policy_weight=float(targets["policy_weight"].sum()),
    )


@settings(max_examples=40)
@given(
    rows=st.integers(1, 12),
    actions=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    masked=st.sampled_from([0, 0.5, 1]),
)
def test_losses_are_what_the_formula_says(rows: int, actions: int, seed: int, masked: float) -> None:
    case = random_case(rows, actions, seed=seed, masked=masked)
    found = {name: float(loss) for name, loss in shares(*case)._asdict().items()}
    assert found == pytest.approx(plain_losses(*case), rel=1e-4, abs=1e-5)


@settings(max_examples=20)
@given(rows=st.integers(2, 12), cut=st.integers(1, 11), seed=st.integers(0, 2**32))
def test_the_shares_of_two_parts_add_up_to_the_whole(rows: int, cut: int, seed: int) -> None:
    case = random_case(rows, 5, seed=seed, masked=0.5)
    parts = [shares(*case, part=part) for part in (slice(0, cut), slice(cut, None))]
    summed = [float(a + b) for a, b in zip(*parts, strict=True)]
    assert summed == pytest.approx([float(loss) for loss in shares(*case)], rel=1e-5, abs=1e-6)


def test_a_perfect_net_is_left_with_the_entropy_of_its_targets() -> None:
    policy = np.array([[0.5, 0.25, 0.25, 0.0]], np.float16)
    logits = np.array([[math.log(2), 0.0, 0.0, -40.0]], np.float32)
    ones = np.ones(1, np.float32)
    targets = {"policy": policy, "policy_weight": ones, "outcome": ones, "search_value": ones}
    losses = shares(logits, ones, targets)
    assert float(losses.policy) == pytest.approx(float(losses.target_entropy), abs=1e-6)
    assert float(losses.policy) == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert float(losses.value) == 0.0


def test_a_row_without_a_policy_gives_the_logits_no_gradient() -> None:
    logits, values, targets = random_case(4, 5, seed=1, masked=0.0)
    targets["policy_weight"] = np.float32([1, 0, 1, 0])
    outputs = {"policy": torch.from_numpy(logits).requires_grad_(), "value": torch.from_numpy(values)}
    tensors = {name: torch.from_numpy(array) for name, array in targets.items()}
    alphazero_losses(outputs, tensors, config=CONFIG, batch_rows=4, batch_policy_weight=2.0).total.backward()
    gradient = outputs["policy"].grad
    assert gradient is not None
    assert [bool(row.any()) for row in gradient] == [True, False, True, False]


def test_half_precision_outputs_are_judged_in_float32() -> None:
    logits, values, targets = random_case(64, 9, seed=2, masked=0.0)
    outputs = {"policy": torch.from_numpy(logits).bfloat16(), "value": torch.from_numpy(values).bfloat16()}
    tensors = {name: torch.from_numpy(array) for name, array in targets.items()}
    total = float(targets["policy_weight"].sum())
    losses = alphazero_losses(outputs, tensors, config=CONFIG, batch_rows=64, batch_policy_weight=total)
    assert losses.total.dtype is torch.float32
    rounded = plain_losses(outputs["policy"].float().numpy(), outputs["value"].float().numpy(), targets)
    assert float(losses.total) == pytest.approx(rounded["total"], rel=1e-5)
