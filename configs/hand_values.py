"""A configuration of a network of hand values, fitted to samples that `tamen datagen generate` made."""

from typing import Annotated

from pydantic import Field

from configs.fitting import HandFitSettings
from configs.loading import Kind
from configs.names import VALUES_FOLDER
from configs.schema import Count, NetworkConfig, Section, StepConfig
from core.hands import Street

HAND_NETWORK = NetworkConfig(layers=(512,) * 4)
HAND_STEP = StepConfig(
    batch_rows=32, microbatch_rows=32, learning_rate=1e-3, weight_decay=0.0, clip_norm=1.0, ema_decay=0.999
)


class HandValuesConfig(Section):
    """Everything that determines a network of hand values.

    `samples` are runs of `tamen datagen generate`: of each those of the `street`, to learn from and to judge by.
    """

    street: Street = "river"
    samples: Annotated[tuple[str, ...], Field(min_length=1)] = ("production",)
    seed: Count = 0
    fit: HandFitSettings = HandFitSettings()
    network: NetworkConfig = HAND_NETWORK
    learner: StepConfig = HAND_STEP


HAND_VALUES = Kind(HandValuesConfig, VALUES_FOLDER, whole="a network of hand values")
