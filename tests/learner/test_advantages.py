"""Advantages against sums written out from the papers, and against what is published of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.advantages import gae, vtrace
from tests.learner import oracles
from tests.learner.oracles import random_unrolls

UNROLLS = {"rows": st.integers(1, 5), "steps": st.integers(1, 12), "seed": st.integers(0, 2**32)}
FAR = 1e9


def random_values(rows: int, steps: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).normal(0, 3, (rows, steps + 1)).astype(np.float32)


def random_ratios(unroll: oracles.Arrays, *, seed: int) -> np.ndarray:
    ratio = np.exp(np.random.default_rng([seed, 2]).normal(0, 0.7, unroll["valid"].shape))
    return np.where(unroll["valid"], ratio, np.nan).astype(np.float32)


def unbroken(rows: int, steps: int, *, seed: int) -> dict[str, np.ndarray]:
    return random_unrolls(rows, steps, seed=seed, end_share=0.0, invalid_share=0.0)


def assert_close(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    for mine, plain in zip(found, expected, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, plain, rtol=1e-4, atol=1e-4)


@settings(max_examples=60)
@given(**UNROLLS, discount=st.sampled_from([0.0, 0.9, 1.0]), gae_lambda=st.sampled_from([0.0, 0.95, 1.0]))
def test_gae_is_the_sum_of_discounted_td_errors(
    rows: int, steps: int, seed: int, discount: float, gae_lambda: float
) -> None:
    unroll, value = random_unrolls(rows, steps, seed=seed), random_values(rows, steps, seed=seed)
    found = gae(value=value, **unroll, discount=discount, gae_lambda=gae_lambda)
    assert_close(found, oracles.gae(unroll, value, discount=discount, gae_lambda=gae_lambda))


@settings(max_examples=60)
@given(
    **UNROLLS,
    trace_lambda=st.sampled_from([0.0, 0.9, 1.0]),
    clips=st.sampled_from([(1.0, 1.0), (2.0, 0.8), (100.0, 100.0)]),
)
def test_vtrace_is_the_sum_of_corrected_td_errors(
    rows: int, steps: int, seed: int, trace_lambda: float, clips: tuple[float, float]
) -> None:
    unroll, value = random_unrolls(rows, steps, seed=seed), random_values(rows, steps, seed=seed)
    ratio = random_ratios(unroll, seed=seed)
    options = {
        "discount": 0.9,
        "trace_lambda": trace_lambda,
        "rho_clip": clips[0],
        "c_clip": clips[1],
    }
    found = vtrace(ratio, value=value, **unroll, **options)
    assert_close(found, oracles.vtrace(ratio, unroll, value, **options))


@settings(max_examples=20)
@given(**UNROLLS)
def test_gae_with_lambda_one_is_the_discounted_return_less_the_value(
    rows: int, steps: int, seed: int
) -> None:
    unroll, value = unbroken(rows, steps, seed=seed), random_values(rows, steps, seed=seed)
    returns = value[:, -1].astype(np.float64)
    advantage, target = gae(value=value, **unroll, discount=0.97, gae_lambda=1.0)
    for t in reversed(range(steps)):
        returns = unroll["reward"][:, t] + 0.97 * returns
        np.testing.assert_allclose(advantage[:, t], returns - value[:, t], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(target[:, t], returns, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(**UNROLLS)
def test_on_policy_vtrace_with_lambda_one_has_the_n_step_return_as_its_target(
    rows: int, steps: int, seed: int
) -> None:
    # Espeholt et al. 2018, equation 2.
    unroll, value = unbroken(rows, steps, seed=seed), random_values(rows, steps, seed=seed)
    ones = np.ones((rows, steps), np.float32)
    _, target = vtrace(ones, value=value, **unroll, discount=0.97, trace_lambda=1.0, rho_clip=1.0, c_clip=1.0)
    for s in range(steps):
        n = steps - s
        n_step = 0.97 ** np.arange(n) @ unroll["reward"][:, s:].T + 0.97**n * value[:, -1]
        np.testing.assert_allclose(target[:, s], n_step, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(**UNROLLS, decay=st.sampled_from([0.0, 0.95, 1.0]))
def test_on_policy_vtrace_is_gae(rows: int, steps: int, seed: int, decay: float) -> None:
    unroll, value = random_unrolls(rows, steps, seed=seed), random_values(rows, steps, seed=seed)
    ones = np.ones((rows, steps), np.float32)
    found = vtrace(ones, value=value, **unroll, discount=0.9, trace_lambda=decay, rho_clip=1.0, c_clip=1.0)
    assert_close(found, gae(value=value, **unroll, discount=0.9, gae_lambda=decay))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_what_comes_after_an_end_does_not_reach_back(end: str) -> None:
    unroll, value = unbroken(1, 8, seed=3), random_values(1, 8, seed=3)
    unroll[end][0, 3] = True
    unroll["valid"][0, 4] = False
    before, _ = gae(value=value, **unroll, discount=0.9, gae_lambda=0.9)
    unroll["reward"][0, 4:] = FAR
    value[0, 5:] = FAR
    after, _ = gae(value=value, **unroll, discount=0.9, gae_lambda=0.9)
    assert before[0, :5].tolist() == after[0, :5].tolist()
    assert before[0, 5:].tolist() != after[0, 5:].tolist()


def test_a_time_limit_is_worth_the_value_of_the_final_observation_and_a_true_end_nothing() -> None:
    unroll = unbroken(2, 1, seed=4)
    unroll["terminated"][0, 0] = unroll["truncated"][1, 0] = True
    unroll["reward"][:] = 2.0
    value = np.array([[5.0, 100.0], [5.0, 100.0]], np.float32)
    advantage, target = gae(value=value, **unroll, discount=0.5, gae_lambda=0.95)
    assert advantage.tolist() == [[-3.0], [47.0]]
    assert target.tolist() == [[2.0], [52.0]]


def test_an_action_the_learner_would_not_take_teaches_nothing() -> None:
    unroll, value = unbroken(1, 3, seed=5), random_values(1, 3, seed=5)
    ratio = np.array([[1.0, 0.0, 1.0]], np.float32)
    _, target = vtrace(ratio, value=value, **unroll, discount=0.9, trace_lambda=1.0, rho_clip=1.0, c_clip=1.0)
    one_step = unroll["reward"][0, 0] + 0.9 * value[0, 1]
    assert target[0, 1] == value[0, 1]
    assert target[0, 0] == pytest.approx(one_step, rel=1e-5)
