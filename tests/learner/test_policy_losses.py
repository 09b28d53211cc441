"""PPO and V-trace against plain readings of their papers, one step at a time in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import PolicyGradientConfig
from core.environments import ActionSpec
from learner.distributions import log_prob_and_entropy
from learner.policy_losses import ppo_losses, vtrace_losses
from learner.ppo_kernel import fits, fused_ppo_losses
from tests.learner import oracles
from tests.learner.oracles import random_unrolls, slope

KINDS = {
    "single": ActionSpec("categorical", (4,), scalar=True),
    "several": ActionSpec("categorical", (3, 2, 5)),
    "gaussian": ActionSpec("gaussian", (2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
}
CONFIGS = {
    "plain": PolicyGradientConfig(),
    "bonus": PolicyGradientConfig(entropy_weight=0.3, value_weight=0.8, ratio_clip=0.1, gae_lambda=1.0),
    "clipped": PolicyGradientConfig(value_clip=0.2, vtrace_rho_clip=1.5, vtrace_c_clip=0.7),
    "unclipped": PolicyGradientConfig(ratio_clip=50.0, vtrace_rho_clip=50.0, vtrace_c_clip=50.0),
}
SCALE = 2.5
DISCOUNT = 0.9

kinds = pytest.mark.parametrize("actions", KINDS.values(), ids=list(KINDS))
WAYS = {
    **{name: (ppo_losses, actions) for name, actions in KINDS.items()},
    **{f"{name}-fused": (fused_ppo_losses, KINDS[name]) for name in ("single", "several")},
}
ways = pytest.mark.parametrize(("compute", "actions"), WAYS.values(), ids=list(WAYS))
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))

Case = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
"""Policies, values, and the columns of a part."""


def random_actions(
    actions: ActionSpec, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return policies [*shape, P] and actions [*shape, K]."""
    policy = rng.normal(0, 0.7, (*shape, actions.num_policy)).astype(np.float32)
    if actions.kind == "gaussian":
        policy[..., actions.sizes[0] :] *= 0.4  # of very unlikely actions float32 does not tell enough
        return policy, rng.normal(0, 1.5, (*shape, *actions.sizes)).astype(np.float32)
    return policy, rng.integers(0, actions.sizes, (*shape, len(actions.sizes)))


def log_probs(policy: np.ndarray, action: np.ndarray, actions: ActionSpec) -> np.ndarray:
    rows = np.ndindex(action.shape[:-1])
    found = [oracles.log_prob_and_entropy(policy[at], action[at], actions)[0] for at in rows]
    return np.array(found).reshape(action.shape[:-1])


def ppo_case(actions: ActionSpec, *, seed: int, steps: int = 12, age: float = 0.3) -> Case:
    """Steps of a policy whose log-probabilities are `age` away from the learner's."""
    rng = np.random.default_rng(seed)
    policy, action = random_actions(actions, (steps,), rng)
    value = rng.normal(0, 3, steps).astype(np.float32)
    acted = log_probs(policy, action, actions) + rng.normal(0, age, steps)
    part = {
        "action": action,
        "log_prob": acted.astype(np.float32),
        "advantage": rng.normal(0, 1, steps).astype(np.float32),
        "value_target": rng.normal(0, 3, steps).astype(np.float32),
        "value": (value + rng.normal(0, 0.6, steps)).astype(np.float32),
    }
    return policy, value, part


def vtrace_case(actions: ActionSpec, *, seed: int, rows: int = 4, steps: int = 7, age: float = 0.5) -> Case:
    """Unrolls [R, T, …] of a policy whose log-probabilities are `age` away from the learner's."""
    rng = np.random.default_rng(seed)
    policy, acting = random_actions(actions, (rows, steps + 1), rng)
    action = acting[:, :-1]
    value = rng.normal(0, 3, (rows, steps + 1)).astype(np.float32)
    part = random_unrolls(rows, steps, seed=seed)
    part["valid"][0, 0] = True
    part["reward"] = np.where(part["valid"], rng.normal(0, 2, (rows, steps)), np.nan).astype(np.float32)
    acted = log_probs(policy[:, :-1], action, actions) + rng.normal(0, age, (rows, steps))
    part["action"] = action
    part["log_prob"] = np.where(part["valid"], acted, np.nan).astype(np.float32)
    return policy, value, part


def tensors(policy: np.ndarray, value: np.ndarray) -> dict[str, torch.Tensor]:
    """Return outputs as a network gives them: one axis of rows."""
    flat = {"policy": policy.reshape(-1, policy.shape[-1]), "value": value.reshape(-1)}
    return {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in flat.items()}


def run_ppo(
    compute: Callable[..., dict[str, torch.Tensor]],
    outputs: dict[str, torch.Tensor],
    part: oracles.Arrays,
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    batch_steps: int | None = None,
) -> dict[str, torch.Tensor]:
    return compute(
        outputs,
        {name: torch.from_numpy(column) for name, column in part.items()},
        actions=actions,
        config=config,
        reward_scale=SCALE,
        batch_steps=batch_steps or len(part["advantage"]),
    )


def run_vtrace(
    outputs: dict[str, torch.Tensor],
    part: oracles.Arrays,
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    batch_steps: int | None = None,
) -> dict[str, torch.Tensor]:
    return vtrace_losses(
        outputs,
        {name: torch.from_numpy(column) for name, column in part.items()},
        actions=actions,
        config=config,
        discount=DISCOUNT,
        reward_scale=SCALE,
        batch_steps=batch_steps or int(part["valid"].sum()),
    )


def numbers(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(loss.dtype is torch.float32 and loss.ndim == 0 for loss in losses.values())
    return {name: float(loss.detach()) for name, loss in losses.items()}


def assert_slopes(
    outputs: dict[str, torch.Tensor],
    loss: Callable[[np.ndarray, np.ndarray], float],
    *,
    policy: np.ndarray,
    value: np.ndarray,
) -> None:
    """Compare the gradients in `outputs` with finite differences of a plain loss(policy, value)."""
    of_policy = slope(lambda moved: loss(moved, value), policy).reshape(-1, policy.shape[-1])
    of_value = slope(lambda moved: loss(policy, moved), value).reshape(-1)
    np.testing.assert_allclose(outputs["policy"].grad, of_policy, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(outputs["value"].grad, of_value, rtol=1e-3, atol=1e-5)
    assert of_policy.any()
    assert of_value.any()


@ways
@configs
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 20))
def test_ppo_is_what_the_paper_says(
    compute: Callable[..., Any], actions: ActionSpec, config: PolicyGradientConfig, seed: int, steps: int
) -> None:
    policy, value, part = ppo_case(actions, seed=seed, steps=steps)
    found = numbers(run_ppo(compute, tensors(policy, value), part, actions=actions, config=config))
    plain = oracles.ppo_losses(policy, value, part, actions=actions, config=config, reward_scale=SCALE)
    assert found == pytest.approx(plain, rel=1e-4, abs=2e-5)


@ways
@configs
def test_the_gradient_of_ppo_is_that_of_finite_differences(
    compute: Callable[..., Any], actions: ActionSpec, config: PolicyGradientConfig
) -> None:
    policy, value, part = ppo_case(actions, seed=5)
    outputs = tensors(policy, value)
    run_ppo(compute, outputs, part, actions=actions, config=config)["loss"].backward()

    def plain(policy: np.ndarray, value: np.ndarray) -> float:
        return oracles.ppo_losses(policy, value, part, actions=actions, config=config, reward_scale=SCALE)[
            "loss"
        ]

    assert_slopes(outputs, plain, policy=policy, value=value)


@ways
def test_ppo_of_a_policy_that_has_not_moved_is_the_policy_gradient(
    compute: Callable[..., Any], actions: ActionSpec
) -> None:
    policy, value, part = ppo_case(actions, seed=6, age=0.0)
    outputs = tensors(policy, value)
    losses = run_ppo(compute, outputs, part, actions=actions, config=CONFIGS["plain"])
    assert numbers(losses)["ratio_error"] < 1e-5
    assert numbers(losses)["clip_share"] == 0.0
    losses["loss"].backward()

    again = tensors(policy, value)["policy"]
    log_prob, _ = log_prob_and_entropy(again, torch.from_numpy(part["action"]), actions)
    (-(log_prob * torch.from_numpy(part["advantage"])).mean()).backward()
    torch.testing.assert_close(outputs["policy"].grad, again.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("compute", [ppo_losses, fused_ppo_losses])
def test_ppo_gives_no_gradient_to_a_step_that_has_moved_as_far_as_it_may(compute: Callable[..., Any]) -> None:
    actions, config = KINDS["single"], CONFIGS["plain"]
    policy, value, part = ppo_case(actions, seed=7, steps=4, age=0.0)
    # Twice, then half as likely as when they were taken: two moved as their advantage wanted, two against it.
    part["log_prob"] += np.log(np.float32([0.5, 2.0, 0.5, 2.0]))
    part["advantage"] = np.float32([1, -1, -1, 1])
    outputs = tensors(policy, value)
    losses = run_ppo(compute, outputs, part, actions=actions, config=config)
    losses["loss"].backward()
    gradient = outputs["policy"].grad
    assert gradient is not None
    assert [bool(row.any()) for row in gradient] == [False, False, True, True]
    assert numbers(losses)["clip_share"] == 1.0


@kinds
@configs
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 5), steps=st.integers(1, 9))
def test_vtrace_is_what_the_paper_says(
    actions: ActionSpec, config: PolicyGradientConfig, seed: int, rows: int, steps: int
) -> None:
    policy, value, part = vtrace_case(actions, seed=seed, rows=rows, steps=steps)
    found = numbers(run_vtrace(tensors(policy, value), part, actions=actions, config=config))
    plain = oracles.vtrace_losses(
        policy, value, part, actions=actions, config=config, discount=DISCOUNT, reward_scale=SCALE
    )
    assert found == pytest.approx(plain, rel=1e-4, abs=5e-5)


@kinds
@configs
def test_the_gradient_of_vtrace_is_that_of_finite_differences(
    actions: ActionSpec, config: PolicyGradientConfig
) -> None:
    policy, value, part = vtrace_case(actions, seed=8, rows=3, steps=6)
    outputs = tensors(policy, value)
    run_vtrace(outputs, part, actions=actions, config=config)["loss"].backward()

    def plain(moved_policy: np.ndarray, moved_value: np.ndarray) -> float:
        return oracles.vtrace_losses(
            moved_policy,
            moved_value,
            part,
            actions=actions,
            config=config,
            discount=DISCOUNT,
            reward_scale=SCALE,
            judge=(policy, value),
        )["loss"]

    assert_slopes(outputs, plain, policy=policy, value=value)


def test_vtrace_gives_a_step_that_is_not_valid_no_gradient() -> None:
    actions = KINDS["gaussian"]
    policy, value, part = vtrace_case(actions, seed=9, rows=3, steps=5)
    part["action"] = np.where(part["valid"][..., None], part["action"], np.float32(np.nan))
    outputs = tensors(policy, value)
    run_vtrace(outputs, part, actions=actions, config=CONFIGS["bonus"])["loss"].backward()
    gradients = [outputs[name].grad for name in ("policy", "value")]
    touched = [
        gradient.reshape(3, 6, -1).any(dim=2)[:, :-1].numpy()
        for gradient in gradients
        if gradient is not None
    ]
    assert not part["valid"].all()
    assert [found.tolist() for found in touched] == [part["valid"].tolist()] * 2


@configs
@pytest.mark.parametrize("cut", [1, 5, 11])
@pytest.mark.parametrize("compute", [ppo_losses, fused_ppo_losses])
def test_the_shares_of_two_parts_of_ppo_add_up_to_the_whole(
    compute: Callable[..., Any], config: PolicyGradientConfig, cut: int
) -> None:
    actions = KINDS["several"]
    policy, value, part = ppo_case(actions, seed=10)
    whole = numbers(run_ppo(compute, tensors(policy, value), part, actions=actions, config=config))
    shares = [
        numbers(
            run_ppo(
                compute,
                tensors(policy[rows], value[rows]),
                {name: column[rows] for name, column in part.items()},
                actions=actions,
                config=config,
                batch_steps=12,
            )
        )
        for rows in (slice(0, cut), slice(cut, None))
    ]
    assert {name: shares[0][name] + shares[1][name] for name in whole} == pytest.approx(
        whole, rel=1e-5, abs=1e-6
    )


@configs
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_the_shares_of_two_parts_of_vtrace_add_up_to_the_whole(
    config: PolicyGradientConfig, cut: int
) -> None:
    actions = KINDS["gaussian"]
    policy, value, part = vtrace_case(actions, seed=11)
    part["valid"][1] = False
    whole = numbers(run_vtrace(tensors(policy, value), part, actions=actions, config=config))
    shares = [
        numbers(
            run_vtrace(
                tensors(policy[rows], value[rows]),
                {name: column[rows] for name, column in part.items()},
                actions=actions,
                config=config,
                batch_steps=int(part["valid"].sum()),
            )
        )
        for rows in (slice(0, cut), slice(cut, None))
    ]
    assert {name: shares[0][name] + shares[1][name] for name in whole} == pytest.approx(
        whole, rel=1e-5, abs=1e-6
    )


def test_unrolls_without_a_valid_step_have_no_loss_and_no_gradient() -> None:
    actions = KINDS["single"]
    policy, value, part = vtrace_case(actions, seed=12)
    part["valid"][:] = False
    outputs = tensors(policy, value)
    losses = run_vtrace(outputs, part, actions=actions, config=CONFIGS["bonus"], batch_steps=1)
    losses["loss"].backward()
    assert set(numbers(losses).values()) == {0.0}
    assert not any(outputs[name].grad.any() for name in outputs)


@pytest.mark.parametrize("compute", [ppo_losses, fused_ppo_losses])
def test_half_precision_outputs_are_judged_in_float32(compute: Callable[..., Any]) -> None:
    actions, config = KINDS["single"], CONFIGS["plain"]
    policy, value, part = ppo_case(actions, seed=13)
    outputs = {name: tensor.detach().bfloat16() for name, tensor in tensors(policy, value).items()}
    rounded = outputs["policy"].float().numpy(), outputs["value"].float().numpy()
    found = numbers(run_ppo(compute, outputs, part, actions=actions, config=config))
    plain = oracles.ppo_losses(*rounded, part, actions=actions, config=config, reward_scale=SCALE)
    assert found == pytest.approx(plain, rel=1e-4, abs=2e-5)


@ways
@pytest.mark.parametrize("which", ["policy", "value"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_not_finite_makes_the_loss_so(
    compute: Callable[..., Any], actions: ActionSpec, which: str, number: float
) -> None:
    policy, value, part = ppo_case(actions, seed=14)
    (policy if which == "policy" else value)[2] = number
    losses = run_ppo(compute, tensors(policy, value), part, actions=actions, config=CONFIGS["bonus"])
    assert not np.isfinite(numbers(losses)["loss"])


@pytest.mark.parametrize(("compute", "actions"), [WAYS["single"], WAYS["single-fused"]])
def test_a_ratio_beyond_all_bounds_leads_to_no_step(compute: Callable[..., Any], actions: ActionSpec) -> None:
    policy, value, part = ppo_case(actions, seed=16)
    part["log_prob"][1], part["advantage"][1] = -200.0, 1.0
    outputs = tensors(policy, value)
    loss = run_ppo(compute, outputs, part, actions=actions, config=CONFIGS["plain"])["loss"]
    loss.backward()
    assert outputs["policy"].grad is not None
    assert not (loss.isfinite() and outputs["policy"].grad.isfinite().all())


@pytest.mark.parametrize("choice", [-1, 4])
def test_an_action_that_is_none_of_its_choices_is_refused(choice: int) -> None:
    actions = KINDS["single"]
    policy, value, part = ppo_case(actions, seed=15)
    part["action"][3] = choice
    with pytest.raises(IndexError, match="none of its choices"):
        run_ppo(fused_ppo_losses, tensors(policy, value), part, actions=actions, config=CONFIGS["plain"])


def test_only_choices_on_the_cpu_are_fused() -> None:
    on_cpu = {"policy": torch.zeros(2, 4)}
    assert fits(on_cpu, KINDS["single"])
    assert not fits(on_cpu, KINDS["gaussian"])
    assert not fits({"policy": torch.zeros(2, 4, device="meta")}, KINDS["single"])
