"""One optimiser step: microbatches accumulated, autocast, scaled, clipped, guarded, averaged."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import LearnerConfig, NetworkConfig, StepConfig
from core.environments import NetSpec
from core.errors import DataError
from core.seeds import derive_seed
from learner.adam import Adam
from learner.average import WeightsAverage
from learner.flat_parameters import FlatParameters
from learner.objective import ROW_ID, Columns, Objective, StepReport
from learner.schedule import learning_rate
from learner.team import ALONE, Team
from networks.build import Net, load_into, new_net
from networks.precision import Precision, resolve
from networks.weights import Weights

MAX_FAULTS_IN_A_ROW = 10


class Optimizer(Protocol):
    """What steps the parameters; see `learner.adam.Adam`, which is one.

    Attributes:
        param_groups: one group, with the rate "lr" of the next step.
    """

    param_groups: list[dict[str, Any]]

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Trainer:
    """Fits a network, one batch a step.

    The optimiser is AdamW: without normalisation layers the scale of the gradient differs from layer to layer,
    which Adam evens out. After 400 steps on who is connected on a 7×7 hex board, SGD with momentum (0.02, 0.9)
    was left with three to six times its loss. Biases are not decayed.

    Args:
        net: placed on its device by `precision.place`, in float32.
        objective: what is minimised.
        config: of the learner.
        precision: arithmetic of forward and backward.
        team: the other learners that work on each batch.
        schedule: the learning rate after so many steps; all of a team have the same. None: always the configuration's.
        optimizer: steps the parameters; None: Adam.
        forward: what is called instead of `net`, with the parameters of `net`; None: `net` itself.

    Attributes:
        precision: as given.
        steps: steps that were applied.
        average: the weights to publish.
        batches_set_aside, rows_set_aside: how much was refused for a loss or gradient that is not finite.
    """

    def __init__(
        self,
        net: Net,
        objective: Objective,
        config: StepConfig,
        precision: Precision,
        team: Team = ALONE,
        *,
        schedule: Callable[[int], float] | None = None,
        optimizer: Callable[[Net, FlatParameters], Optimizer] | None = None,
        forward: nn.Module | None = None,
    ) -> None:
        self._net = net.train()
        self._parameters = FlatParameters(net)
        self._schedule = schedule or (lambda steps: config.learning_rate)
        self._team = team
        self._module = forward or team.joined(net)
        self._objective = objective
        self._config = config
        self.precision = precision
        # The decay of AdamW is done beside it: a group of parameters that do not decay would be a second call.
        # Any, for it is no torch.optim.Optimizer, which GradScaler asks for.
        self._optimizer: Any = (
            Adam(self._parameters.all) if optimizer is None else optimizer(net, self._parameters)
        )
        self._scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.use_grad_scaler)
        self._faults_in_a_row = 0
        self.average = WeightsAverage(net, config.ema_decay)
        self.steps = 0
        self.batches_set_aside = 0
        self.rows_set_aside = 0

    def step(self, batch: Columns) -> StepReport:
        """Take one step on a batch, with the team, unless its loss or gradient is not finite.

        An overflow of fp16's loss scale is no fault of the rows: the scale is halved and the step left out.

        Raises:
            DataError: when `MAX_FAULTS_IN_A_ROW` batches in a row had to be set aside.
        """
        totals = self._objective.totals(batch)
        report = self._step(self._team.handed_out(batch, totals), totals, batch)
        self._team.confirm()
        return report

    def step_on_part(self, part: Columns, totals: Mapping[str, float]) -> None:
        """Take the step of a batch of which this learner was given a part."""
        self._step(part, totals, part)

    def _step(self, part: Columns, totals: Mapping[str, float], batch: Columns) -> StepReport:
        self._parameters.gradient.zero_()
        rate, rows = self._schedule(self.steps), _num_rows(batch)
        losses, row_errors = self._accumulate(part, totals)
        if math.isfinite(losses["loss"]):
            verdict = self._apply(rate)
        else:
            verdict = _Verdict(math.nan, "the loss is not finite", blames_rows=True)
        if not verdict.reason:
            self.steps += 1
            self.average.update(self._net, self.steps)
        self._count_faults(verdict, rows=rows)
        return StepReport(
            rows=rows,
            losses=losses,
            grad_norm=verdict.grad_norm,
            learning_rate=rate,
            applied=not verdict.reason,
            reason=verdict.reason,
            set_aside=_row_ids(batch) if verdict.blames_rows else None,
            row_errors=row_errors if not verdict.reason else None,
        )

    def published_net(self) -> Net:
        """Return the net to publish: averaged, and with what the objective adds to it."""
        changed = self._objective.before_publishing(self._net)
        if self.average.net is not self._net:
            self._objective.before_publishing(self.average.net)
        if changed:
            self.lead()
        return self.average.net

    def lead(self) -> None:
        """Let the rest of the team go on from here."""
        if self._team.size > 1:
            state = self.state_dict()
            # Copies, for each of its tensors is a part of one memory, all of which would be sent with it.
            state["net"] = {name: tensor.clone() for name, tensor in state["net"].items()}
            self._team.follow(state)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, as tensors and numbers, but for the configuration."""
        return {
            "net": self._net.state_dict(),
            "average": self.average.state_dict(),
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
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
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])
        # A run that is resumed with another precision shall have it.
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self.steps = state["steps"]
        self._faults_in_a_row = state["faults_in_a_row"]
        self.batches_set_aside = state["batches_set_aside"]
        self.rows_set_aside = state["rows_set_aside"]

    def _accumulate(
        self, part: Columns, totals: Mapping[str, float]
    ) -> tuple[dict[str, float], np.ndarray | None]:
        """Add up the gradient of a part of a batch, microbatch by microbatch.

        Returns:
            (the losses of the whole batch by name, what rows are drawn by if the objective says so).
        """
        names: list[str] = []
        sums: list[Tensor] = []
        errors: list[Tensor] = []
        for microbatch, last in self._microbatches(part):
            with self._team.exchange(self._module, last=last):
                with self.precision.autocast():
                    outputs = self._module(self._objective.network_inputs(microbatch))
                losses = self._objective.losses(outputs, microbatch, totals)
                if "row_errors" in losses:
                    errors.append(losses.pop("row_errors"))
                self._scaler.scale(self._of_the_team(losses["loss"])).backward()
            names = list(losses)
            sums.append(torch.stack(list(losses.values())).detach())
        total = self._team.summed(torch.stack(sums).sum(0) if len(sums) > 1 else sums[0])
        row_errors = torch.cat(errors).cpu().numpy() if errors else None
        return dict(zip(names, total.tolist(), strict=True)), row_errors

    def _of_the_team(self, loss: Tensor) -> Tensor:
        return loss * self._team.size if self._team.size > 1 else loss

    def _microbatches(self, part: Columns) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """Yield microbatches on the device, and whether each is the last."""
        tensors = {name: torch.from_numpy(part[name]) for name in self._objective.columns}
        size, device, rows = self._config.microbatch_rows, self.precision.device, _num_rows(part)
        # Also of no rows, which a learner is handed of a batch that is smaller than its team: all have to join in.
        for start in range(0, rows, size) or (0,):
            microbatch = {
                name: tensor[start : start + size].to(device, non_blocking=True)
                for name, tensor in tensors.items()
            }
            yield microbatch, start + size >= rows

    def _apply(self, rate: float) -> "_Verdict":
        """Step with the accumulated gradient if it is finite."""
        (group,) = self._optimizer.param_groups
        group["lr"] = rate
        self._scaler.unscale_(self._optimizer)
        norm = self._parameters.clip_gradient(self._config.clip_norm)
        finite = math.isfinite(norm)
        if finite:
            self._parameters.weights.mul_(1 - rate * self._config.weight_decay)
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


def new_trainer(
    spec: NetSpec,
    network: NetworkConfig,
    config: LearnerConfig,
    objective: Objective,
    *,
    seed: int,
    device: str,
    team: Team = ALONE,
    first: Weights | None = None,
) -> Trainer:
    """Return a trainer of a net with the weights `first`, or of an untrained one.

    The same seed of a run gives the same untrained weights, for all of a team.

    Raises:
        DataError: when `first` do not fit the network.
    """
    precision = resolve(network.precision, device)
    net = new_net(spec, network, seed=derive_seed(seed, "network"))
    if first is not None:
        load_into(net, first)
        objective.begin_with(net)
    net = precision.place(net)
    schedule = functools.partial(learning_rate, config)
    return Trainer(net, objective, config, precision, team, schedule=schedule)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a gradient fared: its norm, why it was not applied (empty if it was), and who is to blame."""

    grad_norm: float
    reason: str
    blames_rows: bool


def _num_rows(batch: Columns) -> int:
    return len(next(iter(batch.values())))


def _row_ids(batch: Columns) -> np.ndarray:
    return np.stack([batch[name].astype(np.int64) for name in ROW_ID], axis=1)
