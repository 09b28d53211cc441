"""A configuration of a network that imitates the player of an engine, fitted to games that were watched."""

from typing import Annotated

from pydantic import Field

from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.schema import Count, NetworkConfig, Positive, PositiveReal, Section, Share, StepConfig

IMITATION_NETWORK = NetworkConfig(layers=(256, 256))
"""That of the preset `forge`, so that it can go on from there."""
IMITATION_STEP = StepConfig(
    batch_rows=256, microbatch_rows=256, learning_rate=1e-3, weight_decay=1e-4, clip_norm=1.0, ema_decay=0.99
)


class ImitationFitSettings(Section):
    """How a network is fitted to what was chosen.

    All rows are used `epochs` times; the learning rate rises over `warmup_share` of that and falls along half a cosine
    to `final_rate_share` of itself. Of all games a `validation_share` is kept apart, always the same ones; after each
    `mini_epoch_rows` (none: one pass over the rows) the network is judged by them, and a checkpoint is written.
    """

    epochs: Positive | PositiveReal = 10
    mini_epoch_rows: Positive | None = None
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    warmup_share: Share = 0.03
    final_rate_share: Share = 0.02


class ImitationConfig(Section):
    """Everything that determines a network that imitates an engine, but for the games."""

    seed: Count = 0
    fit: ImitationFitSettings = ImitationFitSettings()
    network: NetworkConfig = IMITATION_NETWORK
    learner: StepConfig = IMITATION_STEP


IMITATIONS = Kind(ImitationConfig, PRESETS_FOLDER, whole="an imitation")  # has no presets of its own
