"""What a network of counterfactual values is fitted to.

Shapes: `R` rows of a batch or a part of it, `H` hands, `K` = 2 H values: the first player's, then the second's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import huber_loss


def masked_huber_losses(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    *,
    delta: float,
    batch_entries: int,
) -> dict[str, Tensor]:
    """Return the share that these rows have in the losses of their batch, scalars float32.

    With weights w, masks m, targets y and values f:

        loss = Σ_rows w Σ_k m_k huber(f_k - y_k) / batch_entries
        huber(e) = e² / 2 if |e| ≤ delta, else delta (|e| - delta / 2)

    Entries outside the mask neither count nor get a gradient, whatever their targets hold. The denominator is the
    whole batch's, so the shares of microbatches add up; DeepStack's divides by the mask of each row, which lets the
    values of a row with few hands weigh more.

    Beside "loss", also called "value_loss": "value_error", the mean of |f - y| within the mask, without weights.

    Args:
        outputs: "values" [R, K], of any float dtype.
        targets: "values" float32 [R, K], "mask" bool [R, K], "weight" float32 [R], 1 for most.
        delta: where squares turn into distances; above 0, in the unit of the values.
        batch_entries: entries within the masks of the whole batch; above 0.
    """
    values, mask = outputs["values"].float(), targets["mask"]
    # An entry that is its own target has neither loss nor gradient, even if the true target is no number.
    goal = torch.where(mask, targets["values"], values.detach())
    errors = huber_loss(values, goal, reduction="none", delta=delta).sum(1)
    loss = targets["weight"].dot(errors) / batch_entries
    with torch.no_grad():
        value_error = (values - goal).abs().sum() / batch_entries
    return {"loss": loss, "value_loss": loss, "value_error": value_error}
