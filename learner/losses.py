"""What a board network is fitted to.

Shapes: `R` rows of a batch or a part of it, `A` actions.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from configs.schema import LearnerConfig


class Losses(NamedTuple):
    """Losses and what helps to read them; scalars, float32.

    Attributes:
        total: what is minimised.
        policy: cross-entropy from the search's policy to the network's, in nats.
        value: squared error of the value.
        policy_entropy: of the network's policy, in nats, illegal moves included.
        target_entropy: of the search's policy, in nats: what `policy` cannot fall below.
        value_error: mean absolute difference between the value and the game's outcome.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    policy_entropy: Tensor
    target_entropy: Tensor
    value_error: Tensor


def alphazero_losses(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    config: LearnerConfig,
    batch_rows: int,
    batch_policy_weight: float,
) -> Losses:
    """Return the share that these rows have in the losses of their batch.

    With weights w of `policy_weight`, targets p, network policies q = softmax(policy) and values v:

        policy = Σ w · (-Σ_a p log q) / Σ_batch w
        value  = Σ (v - z)² / rows of the batch,    z = (1 - value_mix) outcome + value_mix search_value
        total  = config.policy_weight · policy + config.value_weight · value

    This is the loss of AlphaZero (Silver et al. 2018) with its L2 term left to the optimiser. The
    denominators are the whole batch's, so the shares of microbatches add up to the batch's loss, and their
    gradients to its gradient, whatever their sizes and wherever the masked rows fall.

    Args:
        outputs: "policy" [R, A] logits and "value" [R], of any float dtype.
        targets: "policy" [R, A], "policy_weight", "outcome" and "search_value" [R].
        config: weights and value_mix.
        batch_rows: rows of the whole batch.
        batch_policy_weight: sum of `policy_weight` over the whole batch; 0 if no row has a policy.
    """
    log_q = torch.log_softmax(outputs["policy"].float(), dim=1)
    p = targets["policy"].float()
    weight = targets["policy_weight"] / max(batch_policy_weight, torch.finfo(torch.float32).tiny)
    policy = -(weight * (p * log_q).sum(1)).sum()

    value = outputs["value"].float()
    goal = torch.lerp(targets["outcome"], targets["search_value"], config.value_mix)
    value_loss = (value - goal).square().sum() / batch_rows

    with torch.no_grad():
        policy_entropy = -(weight * (log_q.exp() * log_q).sum(1)).sum()
        target_entropy = -(weight * torch.xlogy(p, p).sum(1)).sum()
        value_error = (value - targets["outcome"]).abs().sum() / batch_rows
    return Losses(
        total=config.policy_weight * policy + config.value_weight * value_loss,
        policy=policy,
        value=value_loss,
        policy_entropy=policy_entropy,
        target_entropy=target_entropy,
        value_error=value_error,
    )
