"""Policies of environments as distributions: how likely an action was, and how much chance is left.

Shapes: `B` rows, `P` numbers of a policy, `K` choices of an action, `D` dimensions of one.
"""

import math

import torch
from torch import Tensor

from core.environments import ActionSpec

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def log_prob_and_entropy(policy: Tensor, action: Tensor, actions: ActionSpec) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each row's action, and the entropy of its policy, [B] each, in nats.

    Choices are independent of each other, and so are dimensions: both results are sums over them. Those of a
    gaussian are densities in the policy's own unit, before the environment's bounds cut the action: the entropy
    may be negative.

    Args:
        policy: float32 [B, P]: logits of each choice side by side; or D means, then D log-deviations.
        action: int64 [B, K] choices, each below its size; or float32 [B, D].
        actions: what can be done.
    """
    if actions.kind == "gaussian":
        return _gaussian(policy, action)
    if len(actions.sizes) == 1:
        return _categorical(policy, action)
    choices = zip(policy.split(actions.sizes, dim=1), action.split(1, dim=1), strict=True)
    log_probs, entropies = zip(*(_categorical(logits, choice) for logits, choice in choices), strict=True)
    return torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0)


def _categorical(logits: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Judge one choice: logits [B, A], choice [B, 1]."""
    log_p = torch.log_softmax(logits, dim=1)
    return log_p.gather(1, choice).squeeze(1), -torch.linalg.vecdot(log_p.exp(), log_p)


def _gaussian(policy: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_deviation = policy.chunk(2, dim=1)
    dimensions = mean.shape[1]
    z = (action - mean) * torch.exp(-log_deviation)
    spread = log_deviation.sum(1)
    log_prob = -0.5 * z.square().sum(1) - spread - dimensions * _HALF_LOG_TWO_PI
    return log_prob, spread + dimensions * (0.5 + _HALF_LOG_TWO_PI)
