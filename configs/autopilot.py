"""How the autopilot goes round: how much is played, how models are compared, and how long its locks last."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.control import CurriculumConfig, DecisionsConfig, ExportConfig, RecentConfig, TriggersConfig
from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.schema import Count, Positive, PositiveReal, Section, Share

Rounds = Annotated[tuple[str, ...], Field(max_length=8)]


class AutopilotConfig(Section):
    """What a round is.

    `games_a_round` are shared out among all keys, at least `least_games` to each. A model's move is found with
    `simulations` in matches, whose openings are `opening_plies` random moves of the seed. A candidate meets the
    champion, where it is tested whether it is `elo_gain` stronger or not at all, with an `error` of either kind; and it
    must score `ladder_score` against each of `ladder`. Each opponent is met in `min_pairs` to `max_pairs` pairs.
    With `begin_anew` each network is fitted from first weights, else from the champion's.

    Locks are kept by `locks`: file, ray, or redis://HOST:PORT/NUMBER, and last `lock_seconds` without a sign of life.
    """

    games_a_round: Positive = 600
    least_games: Positive = 50
    simulations: Count = 16
    opening_plies: Count = 2
    ladder: Rounds = ("random",)
    ladder_score: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.64
    min_pairs: Positive = 25
    max_pairs: Positive = 200
    elo_gain: PositiveReal = 60.0
    error: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    begin_anew: bool = False
    validation_share: Share = 0.05
    locks: str = "file"
    lock_seconds: Annotated[float, Field(ge=1.0, le=3600.0)] = 30.0
    seed: Count = 0
    engine: Literal["ray", "local"] = "ray"

    @model_validator(mode="after")
    def _pairs_are_in_order(self) -> "AutopilotConfig":
        if self.min_pairs > self.max_pairs:
            raise ValueError(
                f"min_pairs={self.min_pairs} is more than max_pairs={self.max_pairs}",
                f"set max_pairs to at least {self.min_pairs}",
            )
        return self


class ControlConfig(Section):
    """Everything that the autopilot goes by, and what it decides by: see `configs.control`."""

    autopilot: AutopilotConfig = AutopilotConfig()
    recent: RecentConfig = RecentConfig()
    triggers: TriggersConfig = TriggersConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    export: ExportConfig = ExportConfig()

    @property
    def decisions(self) -> DecisionsConfig:
        """The sections that `tamen why` goes by too."""
        return DecisionsConfig(
            recent=self.recent, triggers=self.triggers, curriculum=self.curriculum, export=self.export
        )


CONTROL = Kind(ControlConfig, PRESETS_FOLDER, whole="the autopilot")  # has no presets of its own
