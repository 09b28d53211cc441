"""The section that says from when on a training is told to be unwell."""

from typing import Annotated

from pydantic import Field, model_validator

from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.schema import Positive, PositiveReal, Section, Share


class HealthConfig(Section):
    """From when on something is worth a warning, or critical.

    Critical is a training that runs for more than `stalled_training_hours`, and so are `failures_critical` failures in
    a row; fewer, but `failures_warning`, are worth a warning. So are more than `stale_model_hours` without a training
    that succeeds, more than `stale_data_hours` without new games, and a win rate below `min_win_rate`. Of each key
    `alerts_kept` alerts are remembered after they were resolved.
    """

    stalled_training_hours: PositiveReal = 4.0
    failures_warning: Positive = 1
    failures_critical: Positive = 3
    stale_model_hours: PositiveReal = 24.0
    stale_data_hours: PositiveReal = 12.0
    min_win_rate: Share = 0.35
    alerts_kept: Annotated[int, Field(ge=1, le=10_000)] = 100

    @model_validator(mode="after")
    def _critical_is_worse(self) -> "HealthConfig":
        if self.failures_critical < self.failures_warning:
            raise ValueError(
                f"failures_critical={self.failures_critical} is less than failures_warning={self.failures_warning}:"
                " there would never be a warning",
                f"set failures_critical to at least {self.failures_warning}",
            )
        return self


HEALTH = Kind(HealthConfig, PRESETS_FOLDER, whole="health")  # has no presets of its own
