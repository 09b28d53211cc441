"""Log-probabilities and entropies against plain readings of their formulas, and what any density fulfils."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.environments import ActionSpec
from learner.distributions import log_prob_and_entropy
from tests.learner import oracles

SINGLE = ActionSpec("categorical", (5,), scalar=True)
SEVERAL = ActionSpec("categorical", (3, 2, 6))
GAUSSIAN = ActionSpec("gaussian", (3,), low=(-1.0,) * 3, high=(1.0,) * 3)
ALL = {"single": SINGLE, "several": SEVERAL, "gaussian": GAUSSIAN}


def random_rows(actions: ActionSpec, rows: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    policy = rng.normal(0, 2, (rows, actions.num_policy)).astype(np.float32)
    if actions.kind == "gaussian":
        dimensions = actions.sizes[0]
        policy[:, dimensions:] *= 0.5
        noise = rng.normal(0, 1, (rows, dimensions)) * np.exp(policy[:, dimensions:])
        action = (policy[:, :dimensions] + noise).astype(np.float32)
    else:
        action = rng.integers(0, actions.sizes, (rows, len(actions.sizes)))
    return torch.from_numpy(policy), torch.from_numpy(action)


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=20)
@given(rows=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_each_row_is_judged_as_the_formula_says(kind: str, rows: int, seed: int) -> None:
    actions = ALL[kind]
    policy, action = random_rows(actions, rows, seed=seed)
    log_prob, entropy = log_prob_and_entropy(policy, action, actions)
    plain = [oracles.log_prob_and_entropy(p, a, actions) for p, a in zip(policy, action, strict=True)]
    np.testing.assert_allclose(log_prob, [row[0] for row in plain], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(entropy, [row[1] for row in plain], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("actions", ALL.values(), ids=list(ALL))
def test_gradients_are_those_of_finite_differences(actions: ActionSpec) -> None:
    policy, action = random_rows(actions, 4, seed=1)
    if actions.kind == "gaussian":
        action = action.double()
    assert torch.autograd.gradcheck(
        lambda p: log_prob_and_entropy(p, action, actions), policy.double().requires_grad_()
    )


def test_the_probabilities_of_all_actions_add_up_to_one_and_their_mean_logarithm_is_the_entropy() -> None:
    action = torch.cartesian_prod(*(torch.arange(size) for size in SEVERAL.sizes))
    policy = random_rows(SEVERAL, 1, seed=2)[0].expand(len(action), -1)
    log_prob, entropy = log_prob_and_entropy(policy, action, SEVERAL)
    assert float(log_prob.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(entropy[0]) == pytest.approx(-float((log_prob.exp() * log_prob).sum()), rel=1e-5)


def test_a_gaussian_density_holds_one_and_its_mean_logarithm_is_the_entropy() -> None:
    one = ActionSpec("gaussian", (1,))
    action = torch.linspace(-12, 12, 24001, dtype=torch.float64)[:, None]
    policy = torch.tensor([[0.7, math.log(1.3)]], dtype=torch.float64).expand(len(action), -1)
    log_prob, entropy = log_prob_and_entropy(policy, action, one)
    density = log_prob.exp() * 0.001
    assert float(density.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float(entropy[0]) == pytest.approx(-float((density * log_prob).sum()), rel=1e-6)


def test_logits_that_are_far_apart_stay_finite() -> None:
    policy = torch.tensor([[3e4, -3e4, 0.0]])
    log_prob, entropy = log_prob_and_entropy(policy, torch.tensor([[1]]), ActionSpec("categorical", (3,)))
    assert float(log_prob) == -6e4
    assert float(entropy) == 0.0
