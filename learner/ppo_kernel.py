"""PPO's losses and their gradients in one pass over a minibatch, for choices on the CPU.

`learner.policy_losses.ppo_losses` says what is computed; this computes the same. The two dozen operations of torch that
it takes there, and as many for their gradients, are a third of the time of a step on 256 rows.

Shapes: `B` steps, `P` numbers of a policy, `K` choices of an action.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from configs.schema import PolicyGradientConfig
from core.environments import ActionSpec

NAMES = ("loss", "policy_loss", "value_loss", "policy_entropy", "kl", "clip_share", "ratio_error")


def fits(outputs: Mapping[str, Tensor], actions: ActionSpec) -> bool:
    """Return whether `fused_ppo_losses` can judge such outputs."""
    return outputs["policy"].device.type == "cpu" and actions.kind == "categorical"


def fused_ppo_losses(
    outputs: Mapping[str, Tensor],
    part: Mapping[str, Tensor],
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    reward_scale: float,
    batch_steps: int,
) -> dict[str, Tensor]:
    """Return what `ppo_losses` does of the same arguments; only "loss" has a gradient.

    Raises:
        IndexError: when an action is none of its choices.
    """
    settings = (
        config.ratio_clip,
        np.inf if config.value_clip is None else config.value_clip * reward_scale,
        config.value_weight,
        config.entropy_weight,
        reward_scale,
        float(batch_steps),
    )
    loss, others = _PPOLosses.apply(  # pyright: ignore[reportGeneralTypeIssues]
        outputs["policy"].float(), outputs["value"].float(), part, actions.sizes, settings
    )
    return dict(zip(NAMES, (loss, *others.unbind()), strict=True))


class _PPOLosses(torch.autograd.Function):
    """Computes gradients beside the losses, and hands them on when they are asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        policy: Tensor,
        value: Tensor,
        part: Mapping[str, Tensor],
        sizes: tuple[int, ...],
        settings: tuple[float, ...],
    ) -> tuple[Tensor, Tensor]:
        policy_slope, value_slope = np.empty(policy.shape, np.float32), np.empty(value.shape, np.float32)
        losses = _losses(
            policy.numpy(),
            value.numpy(),
            part["action"].numpy(),
            part["log_prob"].numpy(),
            part["advantage"].numpy(),
            part["value_target"].numpy(),
            part["value"].numpy(),
            np.array(sizes),
            settings,
            policy_slope,
            value_slope,
        )
        ctx.slopes = torch.from_numpy(policy_slope), torch.from_numpy(value_slope)
        loss, others = torch.tensor(losses[0]), torch.from_numpy(losses[1:])
        ctx.mark_non_differentiable(others)
        return loss, others

    @staticmethod
    def backward(ctx: Any, loss_slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        policy_slope, value_slope = ctx.slopes
        return policy_slope * loss_slope, value_slope * loss_slope, None, None, None


@njit(cache=True, nogil=True, error_model="numpy")
def _losses(
    policy,
    value,
    action,
    old_log_prob,
    advantage,
    target,
    old_value,
    sizes,
    settings,
    policy_slope,
    value_slope,
):
    """Write the gradients of the loss, and return the losses, float32 [7], in the order of `NAMES`."""
    ratio_clip, value_reach, value_weight, entropy_weight, reward_scale, batch_steps = settings
    square_weight = 0.5 / (reward_scale * reward_scale * batch_steps)
    log_p = np.empty(policy.shape[1], np.float32)
    entropy = np.empty(len(sizes), np.float32)
    gain, squares, entropies, kl, clipped, distance = 0.0, 0.0, 0.0, 0.0, 0, 0.0
    for b in range(len(value)):
        log_prob = _judge(policy[b], action[b], sizes, log_p, entropy)
        log_ratio = log_prob - old_log_prob[b]
        ratio = np.exp(log_ratio)
        away = abs(ratio - np.float32(1.0))
        entropies += entropy.sum()
        kl += ratio - np.float32(1.0) - log_ratio
        clipped += away > ratio_clip
        distance += away

        surrogate, pull = ratio * advantage[b], -ratio * advantage[b] / batch_steps
        bound = advantage[b] + ratio_clip * abs(advantage[b])
        if not np.isfinite(ratio):  # torch's gradient would not be finite; no step is to be taken here either
            surrogate = np.nan
        elif surrogate > bound:
            surrogate, pull = bound, 0.0
        gain += surrogate
        _write_slope(action[b], sizes, log_p, entropy, pull, entropy_weight / batch_steps, policy_slope[b])

        found = np.float64(value[b])
        error = found - target[b]
        square, slope = error * error, error
        error = min(max(found, old_value[b] - value_reach), old_value[b] + value_reach) - target[b]
        if error * error > square:
            square, slope = error * error, 0.0
        squares += square
        value_slope[b] = 2.0 * square_weight * value_weight * slope

    policy_loss, value_loss, entropy_mean = (
        -gain / batch_steps,
        squares * square_weight,
        entropies / batch_steps,
    )
    losses = np.empty(7, np.float32)
    losses[0] = policy_loss + value_weight * value_loss - entropy_weight * entropy_mean
    losses[1], losses[2], losses[3] = policy_loss, value_loss, entropy_mean
    losses[4], losses[5], losses[6] = kl / batch_steps, clipped / batch_steps, distance / batch_steps
    return losses


@njit(cache=True, nogil=True, error_model="numpy")
def _judge(logits, action, sizes, log_p, entropy):
    """Return the log-probability of a step's choices; write those of all that could be chosen, and the entropies."""
    log_prob, start = np.float32(0.0), 0
    for k in range(len(sizes)):
        stop = start + sizes[k]
        if not 0 <= action[k] < sizes[k]:
            raise IndexError("an action is none of its choices")
        top = logits[start:stop].max()
        total = np.float32(0.0)
        for j in range(start, stop):
            total += np.exp(logits[j] - top)
        log_total = top + np.log(total)
        entropy[k] = 0.0
        for j in range(start, stop):
            log_p[j] = logits[j] - log_total
            entropy[k] -= np.exp(log_p[j]) * log_p[j]
        log_prob += log_p[start + action[k]]
        start = stop
    return log_prob


@njit(cache=True, nogil=True, error_model="numpy")
def _write_slope(action, sizes, log_p, entropy, pull, entropy_share, slope):
    """Write the gradient by the logits of `pull` times the log-probability, less `entropy_share` times the entropy."""
    start = 0
    for k in range(len(sizes)):
        stop = start + sizes[k]
        for j in range(start, stop):
            probability = np.exp(log_p[j])
            chosen = 1.0 if j == start + action[k] else 0.0
            slope[j] = pull * (chosen - probability)
            slope[j] += entropy_share * probability * (log_p[j] + entropy[k])
        start = stop
