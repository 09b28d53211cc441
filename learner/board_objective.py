"""What the positions of board games teach: the search's policy and the outcome of the game."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from configs.schema import StepConfig
from learner.losses import alphazero_losses
from learner.objective import Columns, Lesson, Stateless


class BoardObjective(Stateless):
    """AlphaZero's loss, one step for each draw; see `learner.objective.Objective`.

    Args:
        config: weights of its parts.
        value_mix: share of the search's value in what the value is fitted to.
        prioritised: whether rows are drawn by how much was to be learnt from them.
        some_unknown: whether the outcome of some rows is not known: "value_weight" [R] then says of each how much it
            counts for the value.
    """

    def __init__(
        self,
        config: StepConfig,
        *,
        value_mix: float = 0.0,
        prioritised: bool = False,
        some_unknown: bool = False,
    ) -> None:
        self._config = config
        self._value_mix = value_mix
        self._some_unknown = some_unknown
        of_all = ("cells", "policy", "policy_weight", "outcome")
        more = {"search_value": value_mix > 0, "importance": prioritised, "value_weight": some_unknown}
        self.columns = (*of_all, *(name for name, wanted in more.items() if wanted))

    def lesson(self, drawn: Columns) -> Lesson:
        yield drawn
        return False

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"cells": part["cells"]}

    def totals(self, batch: Columns) -> dict[str, float]:
        sums = {"policy_weight": float(batch["policy_weight"].sum(dtype=np.float64))}
        known = batch["value_weight"].sum(dtype=np.float64) if self._some_unknown else len(batch["cells"])
        return sums | {"value_weight": float(known)}

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        return alphazero_losses(
            outputs,
            part,
            config=self._config,
            batch_value_weight=totals["value_weight"],
            batch_policy_weight=totals["policy_weight"],
            soft_policy_weight=self._config.soft_policy_weight,
            value_mix=self._value_mix,
        )
