"""Actions drawn from the policies of a network, and how probable they were.

Shapes: `B` rows, `P` numbers of a policy, `K` choices, `D` dimensions of a gaussian; see `ActionSpec`.

All in float32, as the learner counts, so that of an action that was just made the ratio of probabilities is 1.
"""

import math
from collections.abc import Iterator

import numpy as np

from core.environments import ActionSpec

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def sample(
    policy: np.ndarray, actions: ActionSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw an action for each row.

    Args:
        policy: float32 [B, P].

    Returns:
        The actions [B, K] or [B, D] as they are stored, and float32 [B], the logarithm of the probability of each, or
        of a gaussian its density.
    """
    if actions.kind == "gaussian":
        mean, log_std = _gaussian(policy, actions)
        action = mean + np.exp(log_std) * rng.standard_normal(mean.shape, np.float32)
        return action, _log_density(mean, log_std, action)
    action = np.empty((len(policy), len(actions.sizes)), np.int64)
    log_prob = np.zeros(len(policy), np.float32)
    for part, logits in enumerate(_parts(policy, actions)):
        action[:, part], of_part = _draw(logits, rng)
        log_prob += of_part
    return action, log_prob


def likeliest(policy: np.ndarray, actions: ActionSpec) -> np.ndarray:
    """Return the likeliest action of each row, [B, K] or [B, D]; the mean of a gaussian."""
    if actions.kind == "gaussian":
        return _gaussian(policy, actions)[0]
    return np.stack([logits.argmax(axis=0) for logits in _parts(policy, actions)], axis=1)


def log_prob(policy: np.ndarray, action: np.ndarray, actions: ActionSpec) -> np.ndarray:
    """Return float32 [B], the logarithm of the probability (of a gaussian the density) of each row's action."""
    if actions.kind == "gaussian":
        return _log_density(*_gaussian(policy, actions), action)
    total = np.zeros(len(policy), np.float32)
    for part, logits in enumerate(_parts(policy, actions)):
        shifted = logits - logits.max(axis=0)
        chosen = np.take_along_axis(shifted, action[None, :, part], axis=0)[0]
        total += chosen - np.log(np.exp(shifted).sum(axis=0))
    return total


def _draw(logits: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one choice of each column of `logits` [A, B] by the inverse of its distribution function."""
    shifted = logits - logits.max(axis=0)
    reached = np.exp(shifted).cumsum(axis=0)
    total = reached[-1]
    # The last choice needs no comparison: it is what remains, whatever rounding did to the sum.
    choice = (reached[:-1] <= total * rng.random(len(total))).sum(axis=0)
    return choice, shifted[choice, np.arange(len(choice))] - np.log(total)


def _parts(policy: np.ndarray, actions: ActionSpec) -> Iterator[np.ndarray]:
    """Give the logits of each part, choices first: reductions over few choices then run along the rows."""
    begin = 0
    transposed = np.ascontiguousarray(policy.T)
    for size in actions.sizes:
        yield transposed[begin : begin + size]
        begin += size


def _gaussian(policy: np.ndarray, actions: ActionSpec) -> tuple[np.ndarray, np.ndarray]:
    D = actions.sizes[0]
    return policy[:, :D], policy[:, D:]


def _log_density(mean: np.ndarray, log_std: np.ndarray, action: np.ndarray) -> np.ndarray:
    distance = (action - mean) * np.exp(-log_std)
    return (-0.5 * distance * distance - log_std - np.float32(_HALF_LOG_TWO_PI)).sum(axis=1)
