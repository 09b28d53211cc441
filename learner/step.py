"""One optimiser step: microbatches accumulated, autocast, scaled, clipped, guarded, averaged.

Shapes: `R` rows of a batch, `A` actions, `H*W` cells.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import LearnerConfig
from core.errors import DataError
from learner.average import WeightsAverage
from learner.losses import Losses, alphazero_losses
from learner.schedule import learning_rate
from networks.precision import Precision
from networks.tower import BoardNet

MAX_FAULTS_IN_A_ROW = 10

Columns = Mapping[str, np.ndarray]
"""A batch as named columns: cells int8 [R, H*W], policy float16 [R, A], and [R] each: policy_weight, outcome,
search_value float32, and where the row came from: actor, epoch, seq, ply, weights_version, integers."""

_INPUTS = ("cells",)
_TARGETS = ("policy", "policy_weight", "outcome", "search_value")
_ROW_ID = ("actor", "epoch", "seq", "ply")


@dataclass(frozen=True, slots=True, eq=False)
class StepReport:
    """What one step did.

    Attributes:
        rows: R.
        loss, policy_loss, value_loss, policy_entropy, target_entropy, value_error: see learner.losses.Losses.
        grad_norm: Euclidean norm of the gradient before clipping.
        learning_rate: of this step.
        applied: whether the weights changed.
        reason: why they did not; empty if they did.
        set_aside: int64 [R, 4], (actor, epoch, seq, ply) of the rows if they are to blame.
    """

    rows: int
    loss: float
    policy_loss: float
    value_loss: float
    policy_entropy: float
    target_entropy: float
    value_error: float
    grad_norm: float
    learning_rate: float
    applied: bool
    reason: str
    set_aside: np.ndarray | None


class Trainer:
    """Fits a network, one batch a step.

    The optimiser is AdamW: without normalisation layers the scale of the gradient differs from layer to layer,
    which Adam evens out. After 400 steps on who is connected on a 7×7 hex board, SGD with momentum (0.02, 0.9)
    was left with three to six times its loss. Biases are not decayed.

    Args:
        net: placed on its device by `precision.place`, in float32.
        config: of the learner.
        precision: arithmetic of forward and backward.

    Attributes:
        steps: steps that were applied.
        average: the weights to publish.
        batches_set_aside, rows_set_aside: how much was refused for a loss or gradient that is not finite.
    """

    def __init__(self, net: BoardNet, config: LearnerConfig, precision: Precision) -> None:
        self._net = net.train()
        self._config = config
        self._precision = precision
        # Fused: one pass over all parameters, where the loop of a net of 6 blocks took five times as long.
        self._optimizer = torch.optim.AdamW(_parameter_groups(net, config.weight_decay), fused=True)
        self._scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.use_grad_scaler)
        self._faults_in_a_row = 0
        self.average = WeightsAverage(net, config.ema_decay)
        self.steps = 0
        self.batches_set_aside = 0
        self.rows_set_aside = 0

    def step(self, batch: Columns) -> StepReport:
        """Take one step on R ≥ 1 rows, unless its loss or gradient is not finite.

        An overflow of fp16's loss scale is no fault of the rows: the scale is halved and the step left out.

        Raises:
            DataError: when `MAX_FAULTS_IN_A_ROW` batches in a row had to be set aside.
        """
        self._optimizer.zero_grad()
        rate = learning_rate(self._config, self.steps)
        losses = self._accumulate(batch)
        if math.isfinite(losses["total"]):
            verdict = self._apply(rate)
        else:
            verdict = _Verdict(math.nan, "the loss is not finite", blames_rows=True)
        if not verdict.reason:
            self.steps += 1
            self.average.update(self._net, self.steps)
        self._count_faults(verdict, rows=len(batch["cells"]))
        return StepReport(
            rows=len(batch["cells"]),
            loss=losses["total"],
            policy_loss=losses["policy"],
            value_loss=losses["value"],
            policy_entropy=losses["policy_entropy"],
            target_entropy=losses["target_entropy"],
            value_error=losses["value_error"],
            grad_norm=verdict.grad_norm,
            learning_rate=rate,
            applied=not verdict.reason,
            reason=verdict.reason,
            set_aside=_row_ids(batch) if verdict.blames_rows else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, as tensors and numbers, but for the configuration."""
        return {
            "net": self._net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "scaler": self._scaler.state_dict(),
            "steps": self.steps,
            "faults_in_a_row": self._faults_in_a_row,
            "batches_set_aside": self.batches_set_aside,
            "rows_set_aside": self.rows_set_aside,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: the next steps are bit for bit those that would have followed."""
        self._net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        # A run that is resumed with another weight decay or precision shall have it.
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self._faults_in_a_row = state["faults_in_a_row"]
        self.batches_set_aside = state["batches_set_aside"]
        self.rows_set_aside = state["rows_set_aside"]

    def _accumulate(self, batch: Columns) -> dict[str, float]:
        """Add up the gradient of the whole batch, microbatch by microbatch; return its losses by name."""
        rows, policy_weight = len(batch["cells"]), float(batch["policy_weight"].sum(dtype=np.float64))
        totals = torch.zeros(len(Losses._fields), device=self._precision.device)
        for part in self._microbatches(batch):
            with self._precision.autocast():
                outputs = self._net({name: part[name] for name in _INPUTS})
            losses = alphazero_losses(
                outputs, part, config=self._config, batch_rows=rows, batch_policy_weight=policy_weight
            )
            self._scaler.scale(losses.total).backward()
            totals += torch.stack(losses).detach()
        return dict(zip(Losses._fields, totals.tolist(), strict=True))

    def _microbatches(self, batch: Columns) -> Iterator[dict[str, Tensor]]:
        tensors = {name: torch.from_numpy(batch[name]) for name in _INPUTS + _TARGETS}
        size = self._config.microbatch_rows
        for start in range(0, len(batch["cells"]), size):
            yield {
                name: tensor[start : start + size].to(self._precision.device, non_blocking=True)
                for name, tensor in tensors.items()
            }

    def _apply(self, rate: float) -> "_Verdict":
        """Step with the accumulated gradient if it is finite."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.unscale_(self._optimizer)
        norm = float(nn.utils.clip_grad_norm_(self._net.parameters(), self._config.clip_norm))
        finite = math.isfinite(norm)
        if finite:
            self._scaler.step(self._optimizer)
        scale = self._scaler.get_scale()
        self._scaler.update()
        if finite:
            return _Verdict(norm, "", blames_rows=False)
        if scale > 1.0:
            reason = f"the gradient overflowed fp16; its scale is now {self._scaler.get_scale():g}"
            return _Verdict(norm, reason, blames_rows=False)
        return _Verdict(norm, "the gradient is not finite", blames_rows=True)

    def _count_faults(self, verdict: "_Verdict", *, rows: int) -> None:
        if not verdict.blames_rows:
            self._faults_in_a_row = 0
            return
        self._faults_in_a_row += 1
        self.batches_set_aside += 1
        self.rows_set_aside += rows
        if self._faults_in_a_row >= MAX_FAULTS_IN_A_ROW:
            raise DataError(
                f"{self._faults_in_a_row} batches in a row could not be learnt from",
                why=f"{verdict.reason}; the weights are still those before the first of them",
                fix="lower learner.learning_rate or learner.clip_norm, then resume from the last checkpoint",
            )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a gradient fared: its norm, why it was not applied (empty if it was), and who is to blame."""

    grad_norm: float
    reason: str
    blames_rows: bool


def _parameter_groups(net: BoardNet, weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _row_ids(batch: Columns) -> np.ndarray:
    return np.stack([batch[name].astype(np.int64) for name in _ROW_ID], axis=1)
