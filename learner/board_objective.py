"""What the positions of board games teach: the search's policy and the outcome of the game."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from configs.schema import LearnerConfig
from learner.losses import alphazero_losses
from learner.objective import Columns, Lesson
from networks.build import Net


class BoardObjective:
    """AlphaZero's loss, one step for each draw; see `learner.objective.Objective`.

    Args:
        config: weights of its parts.
        prioritised: whether rows are drawn by how much was to be learnt from them.
    """

    def __init__(self, config: LearnerConfig, *, prioritised: bool = False) -> None:
        self._config = config
        of_all = ("cells", "policy", "policy_weight", "outcome", "search_value")
        self.columns = (*of_all, "importance") if prioritised else of_all

    def lesson(self, drawn: Columns) -> Lesson:
        yield drawn
        return False

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"cells": part["cells"]}

    def totals(self, batch: Columns) -> dict[str, float]:
        return {
            "rows": len(batch["cells"]),
            "policy_weight": float(batch["policy_weight"].sum(dtype=np.float64)),
        }

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        return alphazero_losses(
            outputs,
            part,
            config=self._config,
            batch_rows=int(totals["rows"]),
            batch_policy_weight=totals["policy_weight"],
        )

    def before_publishing(self, net: Net) -> bool:
        return False

    def facts(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
