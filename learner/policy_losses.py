"""What an actor-critic network is fitted to: PPO, and V-trace for actions of older weights.

Shapes: `B` steps; `R` unrolls of `T` steps; `P` numbers of a policy, `K` choices or dimensions of an action.

All losses are scalars in float32. Where rewards or values enter, they are divided by `reward_scale`: the losses
are those of an environment whose returns have deviation 1. Sums are divided by the steps of the whole batch, so
the shares of microbatches add up to the batch's loss, and their gradients to its gradient.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from configs.schema import PolicyGradientConfig
from core.environments import ActionSpec
from learner.advantages import vtrace
from learner.distributions import log_prob_and_entropy


def ppo_losses(
    outputs: Mapping[str, Tensor],
    part: Mapping[str, Tensor],
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    reward_scale: float,
    batch_steps: int,
) -> dict[str, Tensor]:
    """Return the share that these steps have in the losses of their minibatch.

    Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), with ratio = π(a|x) / μ(a|x), μ being
    the policy that acted, and ε = ratio_clip; means are over the minibatch:

        policy_loss = -mean min(ratio A, clip(ratio, 1 - ε, 1 + ε) A)
        value_loss  = 0.5 mean ((V - target) / reward_scale)²
        loss        = policy_loss + value_weight · value_loss - entropy_weight · policy_entropy

    With `value_clip`, as in OpenAI's baselines, value_loss takes for each step the larger of that square and the
    one of V kept within value_clip · reward_scale of the value that the acting network gave.

    Beside the losses: "policy_entropy" in nats; "kl", the mean of (ratio - 1) - log ratio, which is never negative
    and estimates KL(μ‖π); "clip_share" of the steps have a ratio outside 1 ± ε; "ratio_error", the mean of
    |ratio - 1|, is rounding only, as long as the weights are those that acted.

    Args:
        outputs: "policy" [B, P] and "value" [B], of any float dtype.
        part: "action" [B, K]; and float32 [B] each: "log_prob" and "value" of the network that acted,
            "advantage", already normalised if that is wanted, and "value_target".
        actions: what can be done.
        config: clips and weights.
        reward_scale: deviation of the return; above 0.
        batch_steps: steps of the whole minibatch; above 0.
    """
    log_prob, entropy = log_prob_and_entropy(outputs["policy"].float(), part["action"], actions)
    log_ratio = log_prob - part["log_prob"]
    ratio = log_ratio.exp()
    advantage = part["advantage"]
    # min(ratio A, clip(ratio) A) is min(ratio A, A + ε |A|): here the gain ends, whichever sign A has.
    bound = torch.add(advantage, advantage.abs(), alpha=config.ratio_clip)
    policy_loss = (ratio * advantage).clamp_max(bound).sum() / -batch_steps
    squares = _squared_errors(outputs["value"].float(), part, config=config, reward_scale=reward_scale)
    value_loss = squares * (0.5 / (reward_scale**2 * batch_steps))

    with torch.no_grad():
        deviation = ratio - 1.0
        distance = deviation.abs()
        is_clipped = (distance > config.ratio_clip).float()
        # Together, for each operation costs more than its arithmetic; this runs thousands of times a second.
        sums = torch.stack((deviation - log_ratio, is_clipped, distance)).sum(1)
        kl, clip_share, ratio_error = (sums / batch_steps).unbind()
    policy_entropy = entropy.sum() / batch_steps
    return {
        "loss": _weighted_sum(policy_loss, value_loss, policy_entropy, config=config),
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "policy_entropy": policy_entropy,
        "kl": kl,
        "clip_share": clip_share,
        "ratio_error": ratio_error,
    }


def vtrace_losses(
    outputs: Mapping[str, Tensor],
    part: Mapping[str, Tensor],
    *,
    actions: ActionSpec,
    config: PolicyGradientConfig,
    discount: float,
    reward_scale: float,
    batch_steps: int,
) -> dict[str, Tensor]:
    """Return the share that these unrolls have in the losses of their batch.

    The actor-critic of IMPALA (Espeholt et al. 2018, arXiv 1802.01561, §4.2), with advantages A and targets v
    of learner.advantages.vtrace, which get no gradient, and ρ = min(vtrace_rho_clip, π(a|x) / μ(a|x)); means
    are over the valid steps of the batch:

        policy_loss = -mean ρ A log π(a|x) / reward_scale
        value_loss  = 0.5 mean ((V - v) / reward_scale)²
        loss        = policy_loss + value_weight · value_loss - entropy_weight · policy_entropy

    λ of the traces is `gae_lambda`; the paper's is 1. A step that is not valid enters nowhere. Advantages are
    not normalised.

    Beside the losses: "policy_entropy" in nats; "kl", as in `ppo_losses`; "rho_mean", the mean of ρ; "clip_share"
    of the steps have a ratio above vtrace_rho_clip.

    Args:
        outputs: "policy" [R*(T+1), P] and "value" [R*(T+1)] of the unrolls' observations, of any float dtype.
        part: "action" [R, T, K]; float32 [R, T] "log_prob" of the network that acted and "reward"; bool [R, T]
            "terminated", "truncated" and "valid".
        actions: what can be done.
        config: clips, λ and weights.
        discount: of each step's reward against the one before.
        reward_scale: deviation of the return; above 0.
        batch_steps: valid steps of the whole batch; above 0.
    """
    rows, steps = part["reward"].shape
    policy = outputs["policy"].float().view(rows, steps + 1, outputs["policy"].shape[-1])
    value = outputs["value"].float().view(rows, steps + 1)
    valid = part["valid"].nonzero(as_tuple=True)

    log_prob, entropy = log_prob_and_entropy(policy[valid], part["action"][valid], actions)
    with torch.no_grad():
        log_ratio = log_prob - part["log_prob"][valid]
        ratio = log_ratio.exp()
        ratios = torch.zeros_like(part["log_prob"]).index_put(valid, ratio)
        advantages, targets = _vtrace(ratios, value, part, config=config, discount=discount)
        rho = ratio.clamp(max=config.vtrace_rho_clip)
        weight = rho * advantages[valid]

    policy_loss = (weight * log_prob).sum() / (-reward_scale * batch_steps)
    error = value[valid] - targets[valid]
    value_loss = error.dot(error) * (0.5 / (reward_scale**2 * batch_steps))
    policy_entropy = entropy.sum() / batch_steps
    return {
        "loss": _weighted_sum(policy_loss, value_loss, policy_entropy, config=config),
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "policy_entropy": policy_entropy,
        "kl": (ratio - 1.0 - log_ratio).sum() / batch_steps,
        "rho_mean": rho.sum() / batch_steps,
        "clip_share": (ratio > config.vtrace_rho_clip).sum() / batch_steps,
    }


def _squared_errors(
    value: Tensor, part: Mapping[str, Tensor], *, config: PolicyGradientConfig, reward_scale: float
) -> Tensor:
    """Return the sum of the values' squared errors, clipped if that is wanted, in the unit of the rewards."""
    target = part["value_target"]
    if config.value_clip is None:
        error = value - target
        return error.dot(error)
    old, reach = part["value"], config.value_clip * reward_scale
    kept_near = value.clamp(old - reach, old + reach)
    return torch.maximum((value - target).square(), (kept_near - target).square()).sum()


def _vtrace(
    ratios: Tensor,
    value: Tensor,
    part: Mapping[str, Tensor],
    *,
    config: PolicyGradientConfig,
    discount: float,
) -> tuple[Tensor, Tensor]:
    """Return advantages and targets [R, T] on the device of `value`.

    The recurrence runs on the CPU: it is T steps one after the other, each too small for anything else.
    """
    columns = (ratios, part["reward"], value, part["terminated"], part["truncated"], part["valid"])
    advantage, target = vtrace(
        *(column.numpy(force=True) for column in columns),
        discount=discount,
        trace_lambda=config.gae_lambda,
        rho_clip=config.vtrace_rho_clip,
        c_clip=config.vtrace_c_clip,
    )
    return torch.from_numpy(advantage).to(value.device), torch.from_numpy(target).to(value.device)


def _weighted_sum(
    policy_loss: Tensor, value_loss: Tensor, policy_entropy: Tensor, *, config: PolicyGradientConfig
) -> Tensor:
    loss = torch.add(policy_loss, value_loss, alpha=config.value_weight)
    if config.entropy_weight == 0.0:
        return loss
    return torch.sub(loss, policy_entropy, alpha=config.entropy_weight)
