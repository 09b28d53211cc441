"""How self-play is exported as a data set, and how a network is fitted to that."""

from typing import Annotated

from pydantic import Field

from configs.schema import Count, Positive, PositiveReal, Section, Share


class SearchedExportSettings(Section):
    """What of self-play becomes a data set of searched positions.

    At most `max_games` are taken, the newest (none: all). `validation_share` of all games is kept apart to judge by,
    always the same ones. `seed` is that of the order of rows, `shard_rows` how many a file has at most.
    """

    max_games: Positive | None = None
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    seed: Count = 0
    shard_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 65_536


class SearchedFitSettings(Section):
    """How a network is fitted to searched positions.

    All rows are used `epochs` times; the learning rate rises over `warmup_share` of that and falls along half a cosine
    to `final_rate_share` of itself. After each `mini_epoch_rows` (none: one pass over the data set) the network is
    judged by up to `validation_rows` of games kept apart, and a checkpoint is written.

    `value_mix` blends the search's own value into what the value is fitted to (0: the game's outcome alone). With
    `symmetries` each row is shown turned or mirrored at random, where the game allows it.
    """

    epochs: Positive | PositiveReal = 10
    mini_epoch_rows: Positive | None = None
    validation_rows: Count = 50_000
    warmup_share: Share = 0.03
    final_rate_share: Share = 0.02
    value_mix: Share = 0.0
    symmetries: bool = True
