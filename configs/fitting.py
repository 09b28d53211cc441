"""The section of a pipeline's configuration that says how a network is fitted to rows at rest."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.schema import Count, Positive, PositiveReal, Section, Share

Setting = bool | int | float | str


class SourceSettings(Section):
    """A folder of shuffled rows: how often they are drawn beside those of others, and which files never.

    `skip_files` is a number of first files, or [FIRST, LAST], both of which are skipped too, counted from 0.
    """

    path: str
    weight: PositiveReal = 1.0
    skip_files: Count | tuple[Count, Count] = 0

    @model_validator(mode="after")
    def _first_is_before_last(self) -> "SourceSettings":
        if not isinstance(self.skip_files, int) and self.skip_files[0] > self.skip_files[1]:
            raise ValueError(f"skip_files={list(self.skip_files)} ends before it begins")
        return self


class FitSettings(Section):
    """How a network is fitted to rows at rest.

    `sources` are further folders of shuffled rows, as they are. Of all rows at most `max_rows` are used, `epochs`
    times, or for `minutes` if that is sooner; the learning rate rises over `warmup_share` of it and falls to zero at
    its end. After each `mini_epoch_rows` the network is judged by up to `validation_rows` of games kept apart, and a
    checkpoint is written.

    `half_turns` says what is made of a board and the same board turned by 180° being alike: "shown" turns every second
    row, "tied" makes a net for which they are the same, "unused" does neither. With the optimiser "muon" the filters of
    the tower are stepped by Muon at `filter_rate_ratio` times the learning rate, and all else by AdamW.
    `label_smoothing` is the share of the policy's target that is spread over all moves.

    `sweep` has lists of values for settings, such as learner.learning_rate; each combination is an experiment of its
    own, or, with "optuna", `sweep_trials` of them are chosen by what came of those before. What a run was begun with it
    goes on with, unless `accept_changes`.
    """

    sources: tuple[SourceSettings, ...] = ()
    max_rows: Positive | None = None
    mini_epoch_rows: Positive = 250_000
    epochs: Positive | PositiveReal = 2
    minutes: PositiveReal | None = None
    validation_rows: Count = 137_000
    half_turns: Literal["tied", "shown", "unused"] = "tied"
    optimizer: Literal["muon", "adam"] = "muon"
    filter_rate_ratio: PositiveReal = 10.0
    warmup_share: Share = 0.03
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    sweep: dict[str, tuple[Setting, ...]] = Field(default_factory=dict)
    sweep_method: Literal["grid", "optuna"] = "grid"
    sweep_trials: Positive = 20
    accept_changes: bool = False


class HandFitSettings(Section):
    """How a network of counterfactual values is fitted to solved situations of hold'em.

    Of all training samples at most `max_rows` are used, `epochs` times; the learning rate rises for `warmup_steps` and
    falls along a cosine to `final_rate_share` of itself. After each `mini_epoch_rows` the network is judged by up to
    `validation_rows` samples kept apart, and a checkpoint is written.

    `huber_delta` is where squares turn into distances, in parts of what each player has put in, as are values.
    `label_error` is only told beside the errors: how far the labels themselves are from exact ones, on average, if that
    was measured.
    """

    epochs: Positive | PositiveReal = 20
    max_rows: Positive | None = None
    mini_epoch_rows: Positive = 100_000
    validation_rows: Positive = 50_000
    warmup_steps: Count = 100
    final_rate_share: Share = 0.02
    huber_delta: PositiveReal = 1.0
    label_error: PositiveReal | None = None
