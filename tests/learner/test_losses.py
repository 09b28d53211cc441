"""The loss against a plain reading of its formula, one row at a time in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import LearnerConfig
from learner.losses import alphazero_losses
from tests.learner import oracles

CONFIG = LearnerConfig(policy_weight=0.7, value_weight=1.3, value_mix=0.25)

Case = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
"""Logits, values and targets."""


def random_case(rows: int, actions: int, *, seed: int, masked: float) -> Case:
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


def losses_of(
    outputs: dict[str, torch.Tensor], targets: oracles.Arrays, *, soft_policy_weight: float = 0.0
) -> dict[str, torch.Tensor]:
    return alphazero_losses(
        outputs,
        {name: torch.from_numpy(array) for name, array in targets.items()},
        config=CONFIG,
        value_mix=CONFIG.value_mix,
        batch_value_weight=len(outputs["value"]),
        batch_policy_weight=float(targets["policy_weight"].sum()),
        soft_policy_weight=soft_policy_weight,
    )


def shares(
    logits: np.ndarray, values: np.ndarray, targets: oracles.Arrays, part: slice = slice(None)
) -> dict[str, float]:
    losses = alphazero_losses(
        {"policy": torch.from_numpy(logits[part]), "value": torch.from_numpy(values[part])},
        {name: torch.from_numpy(array[part]) for name, array in targets.items()},
        config=CONFIG,
        value_mix=CONFIG.value_mix,
        batch_value_weight=len(logits),
        batch_policy_weight=float(targets["policy_weight"].sum()),
    )
    assert all(loss.dtype is torch.float32 and loss.ndim == 0 for loss in losses.values())
    return {name: float(loss) for name, loss in losses.items()}


@settings(max_examples=40)
@given(
    rows=st.integers(1, 12),
    actions=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    masked=st.sampled_from([0, 0.5, 1]),
)
def test_losses_are_what_the_formula_says(rows: int, actions: int, seed: int, masked: float) -> None:
    case = random_case(rows, actions, seed=seed, masked=masked)
    plain = oracles.alphazero_losses(*case, config=CONFIG)
    assert shares(*case) == pytest.approx(plain, rel=1e-4, abs=1e-5)


@settings(max_examples=20)
@given(rows=st.integers(2, 12), cut=st.integers(1, 11), seed=st.integers(0, 2**32))
def test_the_shares_of_two_parts_add_up_to_the_whole(rows: int, cut: int, seed: int) -> None:
    case = random_case(rows, 5, seed=seed, masked=0.5)
    first, second = (shares(*case, part=part) for part in (slice(0, cut), slice(cut, None)))
    whole = shares(*case)
    assert {name: first[name] + second[name] for name in whole} == pytest.approx(whole, rel=1e-5, abs=1e-6)


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits, values, targets = random_case(4, 5, seed=3, masked=0.5)
    soft_logits = random_case(4, 5, seed=4, masked=0.0)[0]
    arrays = {"policy": logits, "value": values, "soft_policy": soft_logits}
    outputs = {name: torch.from_numpy(array).requires_grad_() for name, array in arrays.items()}
    losses_of(outputs, targets, soft_policy_weight=8.0)["loss"].backward()
    for name, array in arrays.items():

        def plain(moved: np.ndarray, name: str = name) -> float:
            policy, value, soft = (arrays | {name: moved}).values()
            return oracles.alphazero_losses(
                policy, value, targets, config=CONFIG, soft_logits=soft, soft_policy_weight=8.0
            )["loss"]

        np.testing.assert_allclose(outputs[name].grad, oracles.slope(plain, array), rtol=1e-3, atol=1e-5)


def test_a_perfect_net_is_left_with_the_entropy_of_its_targets() -> None:
    policy = np.array([[0.5, 0.25, 0.25, 0.0]], np.float16)
    logits = np.array([[math.log(2), 0.0, 0.0, -40.0]], np.float32)
    ones = np.ones(1, np.float32)
    targets = {"policy": policy, "policy_weight": ones, "outcome": ones, "search_value": ones}
    losses = shares(logits, ones, targets)
    assert losses["policy_loss"] == pytest.approx(losses["target_entropy"], abs=1e-6)
    assert losses["policy_loss"] == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert losses["value_loss"] == 0.0


def test_a_row_without_a_policy_gives_the_logits_no_gradient() -> None:
    logits, values, targets = random_case(4, 5, seed=1, masked=0.0)
    targets["policy_weight"] = np.float32([1, 0, 1, 0])
    outputs = {"policy": torch.from_numpy(logits).requires_grad_(), "value": torch.from_numpy(values)}
    losses_of(outputs, targets)["loss"].backward()
    gradient = outputs["policy"].grad
    assert gradient is not None
    assert [bool(row.any()) for row in gradient] == [True, False, True, False]


def test_half_precision_outputs_are_judged_in_float32() -> None:
    logits, values, targets = random_case(64, 9, seed=2, masked=0.0)
    outputs = {"policy": torch.from_numpy(logits).bfloat16(), "value": torch.from_numpy(values).bfloat16()}
    losses = losses_of(outputs, targets)
    assert losses["loss"].dtype is torch.float32
    rounded = outputs["policy"].float().numpy(), outputs["value"].float().numpy()
    plain = oracles.alphazero_losses(*rounded, targets, config=CONFIG)
    assert float(losses["loss"]) == pytest.approx(plain["loss"], rel=1e-5)


@settings(max_examples=20)
@given(rows=st.integers(1, 8), seed=st.integers(0, 2**32), weight=st.sampled_from([0.0, 8.0]))
def test_a_soft_policy_head_is_fitted_to_the_fourth_root_of_the_policy(
    rows: int, seed: int, weight: float
) -> None:
    logits, values, targets = random_case(rows, 6, seed=seed, masked=0.5)
    soft_logits = random_case(rows, 6, seed=seed + 1, masked=0.0)[0]
    arrays = {"policy": logits, "value": values, "soft_policy": soft_logits}
    outputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    found = losses_of(outputs, targets, soft_policy_weight=weight)
    plain = oracles.alphazero_losses(
        logits, values, targets, config=CONFIG, soft_logits=soft_logits, soft_policy_weight=weight
    )
    assert {name: float(loss) for name, loss in found.items()} == pytest.approx(plain, rel=1e-4, abs=1e-5)


def test_a_row_whose_policy_is_all_zeros_does_no_harm_to_the_soft_policy() -> None:
    logits, values, targets = random_case(2, 4, seed=5, masked=0.0)
    targets["policy"][1] = 0.0
    targets["policy_weight"][1] = 0.0
    arrays = {"policy": logits, "value": values, "soft_policy": logits}
    outputs = {name: torch.from_numpy(array).requires_grad_() for name, array in arrays.items()}
    losses_of(outputs, targets, soft_policy_weight=8.0)["loss"].backward()
    gradient = outputs["soft_policy"].grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert [bool(row.any()) for row in gradient] == [True, False]


@settings(max_examples=20)
@given(rows=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_rows_drawn_by_priority_count_by_their_importance_and_tell_their_errors(rows: int, seed: int) -> None:
    logits, values, targets = random_case(rows, 6, seed=seed, masked=0.5)
    targets["importance"] = np.random.default_rng(seed).uniform(0.1, 1, rows).astype(np.float32)
    found = losses_of({"policy": torch.from_numpy(logits), "value": torch.from_numpy(values)}, targets)
    goal = 0.75 * targets["outcome"] + 0.25 * targets["search_value"]
    np.testing.assert_allclose(found.pop("row_errors"), np.abs(values - goal), rtol=1e-5, atol=1e-6)
    plain = oracles.alphazero_losses(logits, values, targets, config=CONFIG)
    assert {name: float(loss) for name, loss in found.items()} == pytest.approx(plain, rel=1e-4, abs=1e-5)
