"""How the autopilot goes round: how much is played, under which conditions matches are, how long its locks last."""

from typing import Annotated, Literal

from pydantic import Field

from configs.control import CurriculumConfig, DecisionsConfig, ExportConfig, RecentConfig, TriggersConfig
from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.promotion import PromotionConfig
from configs.schema import Count, PositiveReal, Section


class AutopilotConfig(Section):
    """What a round is.

    `games_a_round` are shared out among all keys, at least `least_games` to each. A model's move is found with
    `simulations` in matches, whose openings are `opening_plies` random moves of the seed.
    With `begin_anew` each network is fitted from first weights, else from the champion's. A stage that gets no further
    for `still_minutes` is ended, and done again.

    Locks are kept by `locks`: file, ray, or redis://HOST:PORT/NUMBER, and last `lock_seconds` without a sign of life.
    """

    games_a_round: Annotated[int, Field(ge=1, le=10_000_000)] = 600
    least_games: Annotated[int, Field(ge=1, le=10_000_000)] = 50
    simulations: Annotated[int, Field(ge=0, le=1_000_000)] = 16
    opening_plies: Annotated[int, Field(ge=0, le=1_000)] = 2
    begin_anew: bool = False
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    locks: str = "file"
    lock_seconds: Annotated[float, Field(ge=1.0, le=3600.0)] = 15.0
    still_minutes: PositiveReal = 30.0
    seed: Count = 0
    engine: Literal["ray", "local"] = "ray"

    @property
    def conditions(self) -> str:
        """What matches have in common whose games may be counted together."""
        return f"simulations={self.simulations} opening_plies={self.opening_plies}"


class ControlConfig(Section):
    """Everything that the autopilot goes by, and what it decides by: see `configs.control`."""

    autopilot: AutopilotConfig = AutopilotConfig()
    promotion: PromotionConfig = PromotionConfig()
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
