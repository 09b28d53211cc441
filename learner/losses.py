"""What a board network is fitted to.

Shapes: `R` rows of a batch or a part of it, `A` actions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from configs.schema import StepConfig

SOFT_POLICY_POWER = 0.25
"""KataGo's: a policy of temperature 4."""

_TINY = torch.finfo(torch.float32).tiny


def alphazero_losses(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    config: StepConfig,
    batch_value_weight: float,
    batch_policy_weight: float,
    soft_policy_weight: float = 0.0,
    value_mix: float = 0.0,
) -> dict[str, Tensor]:
    """Return the share that these rows have in the losses of their batch, float32, scalars but for one.

    With weights w of `policy_weight` and u of `value_weight` (1 where there is none), targets p, network policies
    q = softmax(policy) and values v:

        policy_loss = Σ w · (-Σ_a p log q) / Σ_batch w
        value_loss  = Σ u (v - z)² / Σ_batch u,    z = (1 - value_mix) outcome + value_mix search_value
        loss        = config.policy_weight · policy_loss + config.value_weight · value_loss

    This is the loss of AlphaZero (Silver et al. 2018) with its L2 term left to the optimiser. The
    denominators are the whole batch's, so the shares of microbatches add up to the batch's loss, and their
    gradients to its gradient, whatever their sizes and wherever the masked rows fall.

    Outputs that hold "soft_policy" are fitted to p^(1/4), renormalised, by the same cross-entropy: KataGo's
    auxiliary soft policy, which teaches the trunk to tell bad moves from worse ones. It is returned as
    "soft_policy_loss" and enters the loss with `soft_policy_weight`.

    Beside the losses: "policy_entropy" of the network's policy, in nats, illegal moves included;
    "target_entropy" of the search's, what policy_loss cannot fall below; "value_error", the mean of
    |v - outcome|. Where rows were drawn by their priorities each one's share is multiplied by its "importance",
    and "row_errors" [R] are the |v - z| that new priorities are made of.

    Args:
        outputs: "policy" [R, A] logits and "value" [R], of any float dtype; "soft_policy" [R, A] logits of a head
            of its own, if there is one.
        targets: "policy" [R, A], "policy_weight" and "outcome" [R]; "search_value" [R] where it is mixed in;
            "importance" and "value_weight" [R], or none.
        config: weights.
        batch_value_weight: sum of `value_weight` over the whole batch; without any the number of its rows.
        batch_policy_weight: sum of `policy_weight` over the whole batch; 0 if no row has a policy.
        soft_policy_weight: of "soft_policy_loss" in the loss; KataGo's is 8.
        value_mix: share of the search's value in z.
    """
    log_q = torch.log_softmax(outputs["policy"].float(), dim=1)
    p = targets["policy"].float()
    importance = targets.get("importance", 1.0)
    weight = importance * targets["policy_weight"] / max(batch_policy_weight, _TINY)
    policy_loss = -(weight * (p * log_q).sum(1)).sum()

    value = outputs["value"].float()
    goal = targets["outcome"]
    if value_mix:
        goal = torch.lerp(goal, targets["search_value"], value_mix)
    known = targets.get("value_weight", 1.0)
    share = importance * known / max(batch_value_weight, _TINY)
    value_loss = (share * (value - goal).square()).sum()

    with torch.no_grad():
        policy_entropy = -(weight * (log_q.exp() * log_q).sum(1)).sum()
        target_entropy = -(weight * torch.xlogy(p, p).sum(1)).sum()
        value_error = (known * (value - targets["outcome"]).abs()).sum() / max(batch_value_weight, _TINY)
    losses = {
        "loss": config.policy_weight * policy_loss + config.value_weight * value_loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "policy_entropy": policy_entropy,
        "target_entropy": target_entropy,
        "value_error": value_error,
    }
    if "importance" in targets:
        losses["row_errors"] = (value - goal).detach().abs()
    if "soft_policy" in outputs:
        soft_policy_loss = _soft_policy_loss(outputs["soft_policy"].float(), p, weight)
        losses["loss"] = losses["loss"] + soft_policy_weight * soft_policy_loss
        losses["soft_policy_loss"] = soft_policy_loss
    return losses


def _soft_policy_loss(logits: Tensor, p: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted cross-entropy to p^(1/4); a move without a share of p gets none of that."""
    powers = p.pow(SOFT_POLICY_POWER)
    soft = powers / powers.sum(1, keepdim=True).clamp_min(_TINY)
    return -(weight * (soft * torch.log_softmax(logits, dim=1)).sum(1)).sum()
