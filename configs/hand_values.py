"""A configuration of a network of hand values, fitted to samples that `tamen datagen generate` made."""

from typing import Annotated

from pydantic import Field

from configs.fitting import HandFitSettings
from configs.loading import Kind
from configs.names import VALUES_FOLDER
from configs.schema import Count, NetworkConfig, Section, StepConfig

DEEPSTACK_NETWORK = NetworkConfig(layers=(500,) * 7)
DEEPSTACK_STEP = StepConfig(batch_rows=1000, microbatch_rows=1000, learning_rate=1e-3, weight_decay=0.0)


class HandValuesConfig(Section):
    """Everything that determines a network of hand values.

    `samples` are runs of `tamen datagen generate`: of each the samples to learn from, and those to judge by.
    """

    samples: Annotated[tuple[str, ...], Field(min_length=1)] = ("production",)
    seed: Count = 0
    fit: HandFitSettings = HandFitSettings()
    network: NetworkConfig = DEEPSTACK_NETWORK
    learner: StepConfig = DEEPSTACK_STEP


HAND_VALUES = Kind(HandValuesConfig, VALUES_FOLDER, whole="a network of hand values")
