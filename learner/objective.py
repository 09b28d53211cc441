"""What a learner fits: how a draw becomes batches, what is minimised on them, and what is remembered beside the net."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor

from networks.build import Net

Columns: TypeAlias = Mapping[str, np.ndarray]
"""Rows as named columns, arrays [R, …] with the same R; those of `replay.experience`, and where each row came from:
actor, epoch, seq, step, weights_version, integers [R]. Rows that were drawn by their priorities also have `importance`
float32 [R], and their places in the replay: `chunk` and `row`, integers [R]. An objective's batches may have others."""

ROW_ID = ("actor", "epoch", "seq", "step")


@dataclass(frozen=True, slots=True, eq=False)
class StepReport:
    """What one optimiser step did.

    Attributes:
        rows: of its batch.
        losses: what the objective reports, by name: "loss", which is minimised, and others.
        grad_norm: Euclidean norm of the gradient before clipping.
        learning_rate: of this step.
        applied: whether the weights changed.
        reason: why they did not; empty if they did.
        set_aside: int64 [rows, 4], the `ROW_ID` of the rows if they are to blame.
        row_errors: float32 [rows], how wrong the network was about each, where rows are drawn by that; else None.
    """

    rows: int
    losses: Mapping[str, float]
    grad_norm: float
    learning_rate: float
    applied: bool
    reason: str
    set_aside: np.ndarray | None
    row_errors: np.ndarray | None = None


Lesson: TypeAlias = Generator[Columns, StepReport, bool]
"""What is learnt from one draw: yields batches, is sent the report of the step on each, and returns whether the result
should be published at once, instead of after `learner.publish_every_steps` steps."""


class Objective(Protocol):
    """What the rows of one workload teach.

    Attributes:
        columns: of a batch, those that `losses` and `network_inputs` read; all have one row for each row of the batch.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...

    def lesson(self, drawn: Columns) -> Lesson:
        """Return the batches to be made of what was drawn."""
        ...

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the network is given for a part of a batch."""
        ...

    def totals(self, batch: Columns) -> dict[str, float]:
        """Return the denominators of the whole batch, by which the losses of its parts add up to its own."""
        ...

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Return the share that a part has in the losses of its batch: scalars, "loss" is minimised.

        "row_errors" [rows], if it is there, is what rows are drawn by.
        """
        ...

    def begin_with(self, net: Net) -> None:
        """Go on from what a net holds beside what steps change; called once, if the first net is no untrained one."""
        ...

    def before_publishing(self, net: Net) -> bool:
        """Bring up to date what the net holds beside what steps change; return whether anything was."""
        ...

    def facts(self) -> dict[str, float]:
        """Return what else there is to report, by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be remembered, as tensors and numbers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        ...


class Stateless:
    """The part of an `Objective` that remembers nothing beside the net, for those to inherit that do not."""

    def begin_with(self, net: Net) -> None:
        pass

    def before_publishing(self, net: Net) -> bool:
        return False

    def facts(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
