"""Actions come as often as the policy says, and with the probability that is told."""

import itertools
import math

import numpy as np
import pytest

from actors.action_sampling import likeliest, log_prob, sample
from core.environments import ActionSpec

ONE = ActionSpec("categorical", (4,), scalar=True)
SEVERAL = ActionSpec("categorical", (2, 3))
GAUSSIAN = ActionSpec("gaussian", (2,), low=(-1.0, -1.0), high=(1.0, 1.0))
KINDS = pytest.mark.parametrize("actions", [ONE, SEVERAL, GAUSSIAN], ids=["one", "several", "gaussian"])


def a_policy(actions: ActionSpec, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, actions.num_policy)).astype(np.float32)


def slow_log_prob(policy: np.ndarray, action: np.ndarray, actions: ActionSpec) -> float:
    """Of one row, from the definition, in double precision."""
    if actions.kind == "gaussian":
        D, total = actions.sizes[0], 0.0
        for mean, log_std, taken in zip(policy[:D], policy[D:], action, strict=True):
            variance = math.exp(2 * float(log_std))
            total -= (float(taken) - float(mean)) ** 2 / (2 * variance) + 0.5 * math.log(
                2 * math.pi * variance
            )
        return total
    begin, total = 0, 0.0
    for size, taken in zip(actions.sizes, action, strict=True):
        weights = [math.exp(float(logit)) for logit in policy[begin : begin + size]]
        total += math.log(weights[taken] / sum(weights))
        begin += size
    return total


@KINDS
def test_the_probability_that_is_told_is_that_of_the_action(actions: ActionSpec) -> None:
    policy = a_policy(actions, 50)
    action, told = sample(policy, actions, np.random.default_rng(1))

    assert (action.dtype, action.shape[1:]) == (actions.array.dtype, actions.array.shape)
    assert told.dtype == np.float32
    expected = [slow_log_prob(p, a, actions) for p, a in zip(policy, action, strict=True)]
    assert told == pytest.approx(expected, abs=2e-5)
    assert log_prob(policy, action, actions) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("actions", [ONE, SEVERAL], ids=["one", "several"])
def test_choices_come_as_often_as_they_are_probable(actions: ActionSpec) -> None:
    draws, policies = 40_000, a_policy(actions, 3, seed=3) * np.float32(1.5)
    action, _ = sample(np.tile(policies, (draws, 1)), actions, np.random.default_rng(2))

    for row, every in itertools.product(range(3), np.ndindex(actions.sizes)):
        probable = math.exp(slow_log_prob(policies[row], np.array(every), actions))
        seen = (action[row::3] == every).all(axis=1).mean()
        assert seen == pytest.approx(probable, abs=4 * math.sqrt(probable * (1 - probable) / draws))


def test_each_row_is_drawn_from_its_own_policy() -> None:
    policy = np.where(np.eye(4, dtype=bool)[[2, 0, 3, 1]], 40.0, 0.0).astype(np.float32)
    action, told = sample(policy, ONE, np.random.default_rng(0))

    assert action[:, 0].tolist() == [2, 0, 3, 1]
    assert told == pytest.approx(0.0, abs=1e-6)


def test_a_gaussian_has_the_mean_and_the_spread_that_it_is_given() -> None:
    draws = 40_000
    policy = np.repeat(np.array([[0.5, -3.0, -1.0, 0.7]], np.float32), draws, axis=0)
    action, _ = sample(policy, GAUSSIAN, np.random.default_rng(0))

    assert action.mean(axis=0) == pytest.approx([0.5, -3.0], abs=0.05)
    assert action.std(axis=0) == pytest.approx([math.exp(-1.0), math.exp(0.7)], rel=0.02)


def test_impossible_and_extreme_choices_do_no_harm() -> None:
    policy = np.array([[1e4, -1e4, 0, 0], [-np.inf, 0, -np.inf, -np.inf]], np.float32)
    for seed in range(50):
        action, told = sample(policy, ONE, np.random.default_rng(seed))
        assert action[:, 0].tolist() == [0, 1]
        assert told.tolist() == [0.0, 0.0]


def test_a_single_choice_is_always_taken() -> None:
    action, told = sample(
        np.ones((5, 1), np.float32), ActionSpec("categorical", (1,)), np.random.default_rng(0)
    )
    assert not action.any()
    assert not told.any()


def test_the_likeliest_action_has_no_likelier_one() -> None:
    policy = a_policy(SEVERAL, 20)
    best = likeliest(policy, SEVERAL)

    told = log_prob(policy, best, SEVERAL)
    for every in np.ndindex(SEVERAL.sizes):
        assert (told >= log_prob(policy, np.tile(every, (20, 1)), SEVERAL)).all()
    assert np.array_equal(likeliest(policy[:, :4], GAUSSIAN), policy[:, :2])


@KINDS
def test_the_same_generator_draws_the_same(actions: ActionSpec) -> None:
    policy = a_policy(actions, 30)
    first, again, other = (sample(policy, actions, np.random.default_rng(seed))[0] for seed in (5, 5, 6))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
