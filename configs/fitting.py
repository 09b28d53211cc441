"""The section of a pipeline's configuration that says how a network is fitted to rows at rest."""

from configs.schema import Count, Positive, PositiveReal, Section


class SourceSettings(Section):
    """A folder of shuffled rows: how often they are drawn beside those of others, and how many first files never."""

    path: str
    weight: PositiveReal = 1.0
    skip_files: Count = 0


class FitSettings(Section):
    """How a network is fitted to rows at rest.

    `sources` are further folders of shuffled rows, as they are. Of all rows at most `max_rows` are used, `epochs`
    times; each `mini_epoch_rows` a checkpoint is written.
    """

    sources: tuple[SourceSettings, ...] = ()
    max_rows: Positive | None = None
    mini_epoch_rows: Positive = 250_000
    epochs: Positive = 2
