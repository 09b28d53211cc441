"""A configuration of data generation: which situations of poker are drawn, and how exactly they are solved."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.loading import Kind
from configs.names import DATAGEN_FOLDER
from configs.schema import Auto, Count, Positive, PositiveReal, Section

BetSize = Annotated[float, Field(gt=0.0, le=50.0)]


class DatagenConfig(Section):
    """Everything that determines samples of one street.

    `samples` are drawn to learn from, `validation_samples` to judge by. Each is solved until what best answers win more
    is `target_pct` percent of the pot; without one after `cfr_iterations`. Labels to judge by are solved as exactly: a
    `validation_iterations_share` below 1 makes the ruler coarser than what it measures. What is not exact after
    `most_iterations` is set aside.

    Bets and raises are `bet_sizes` parts of the pot after a call, and all-in. Situations come in groups of
    `group_samples` on one board, and `shard_samples` of them make a file.
    """

    street: Literal["river"] = "river"
    seed: Count = 0
    samples: Positive = 10_000
    validation_samples: Count = 2_000
    stack: Annotated[float, Field(ge=1_000.0, le=1e6)] = 20_000.0
    bet_sizes: Annotated[tuple[BetSize, ...], Field(max_length=8)] = (1.0,)
    variant: Literal["cfr", "cfr+", "linear", "dcfr", "dcfr3", "dcfr+", "dcfr6"] = "dcfr6"
    target_pct: PositiveReal | None = None
    cfr_iterations: Positive = 1_000
    most_iterations: Positive = 10_000
    validation_iterations_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    group_samples: Annotated[int, Field(ge=1, le=4096)] = 32
    shard_samples: Annotated[int, Field(ge=1, le=65_536)] = 512
    workers: Positive | Auto = "auto"

    @model_validator(mode="after")
    def _shards_are_of_whole_groups(self) -> "DatagenConfig":
        if self.shard_samples % self.group_samples:
            raise ValueError(
                f"shard_samples={self.shard_samples} is no multiple of group_samples={self.group_samples}",
                f"set shard_samples={-(-self.shard_samples // self.group_samples) * self.group_samples}",
            )
        return self


DATAGEN = Kind(DatagenConfig, DATAGEN_FOLDER, whole="data generation")
