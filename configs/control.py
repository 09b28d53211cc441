"""The sections that say when a key is trained, how often it is played, and what is exported of its games."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.schema import Count, Positive, PositiveReal, Real, Section, Share

Factor = Annotated[float, Field(ge=0.05, le=20.0)]
MovesPerGame = Annotated[float, Field(ge=1.0, le=100_000.0)]


class RecentConfig(Section):
    """What counts as recent, and when Elo is said to climb.

    A game counts half after each `half_life_minutes`, and no more after ten of them. A win rate is told once recent
    games weigh as much as `least_games` of this moment. The trend of Elo is the mean of the newer half of them less
    that of the older, told from `trend_games` games on. From `stable_elo`, `improving_elo` and `accelerating_elo`
    points on it is called that; from -`stable_elo` down it is regressing, and between the two it is a plateau.
    """

    half_life_minutes: PositiveReal = 60.0
    least_games: Positive = 10
    trend_games: Positive = 10
    stable_elo: PositiveReal = 5.0
    improving_elo: PositiveReal = 12.0
    accelerating_elo: PositiveReal = 25.0

    @model_validator(mode="after")
    def _bands_rise(self) -> "RecentConfig":
        if not self.stable_elo < self.improving_elo < self.accelerating_elo:
            raise ValueError(
                f"stable_elo={self.stable_elo:g}, improving_elo={self.improving_elo:g} and"
                f" accelerating_elo={self.accelerating_elo:g} do not rise",
                "set them so that each is greater than the one before it",
            )
        return self


class TriggersConfig(Section):
    """When a key is trained.

    One without a model is, from `bootstrap_games` games on. One that has some is when `freshness_games` are new; or
    when its model is older than `staleness_hours` and `stale_freshness` of them are there; or when its win rate is
    below `min_win_rate`, by more than `win_rate_sigmas` standard deviations, and `regressed_freshness` of them are
    there. While Elo climbs a share of `freshness_games` is enough: `stable_share`, `improving_share` or
    `accelerating_share`.

    From one training of a key to the next pass `min_interval_minutes`; after failures twice as much for each, up to
    `longest_interval_minutes`. At most `max_concurrent` keys are trained at a time, those of the greatest priority: its
    three scores by their weights, or `bootstrap_priority`.
    """

    freshness_games: Positive = 500
    staleness_hours: PositiveReal = 6.0
    min_win_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.45
    win_rate_sigmas: Annotated[float, Field(ge=0.0, le=10.0)] = 1.645
    stale_freshness: Share = 0.3
    regressed_freshness: Share = 0.1
    bootstrap_games: Positive = 50
    bootstrap_priority: PositiveReal = 10.0
    min_interval_minutes: Real = 20.0
    longest_interval_minutes: Real = 360.0
    max_concurrent: Positive = 3
    freshness_weight: Real = 1.0
    staleness_weight: Real = 0.8
    regression_weight: Real = 1.5
    accelerating_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15
    improving_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    stable_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6

    @model_validator(mode="after")
    def _longest_is_longer(self) -> "TriggersConfig":
        if self.longest_interval_minutes < self.min_interval_minutes:
            raise ValueError(
                f"longest_interval_minutes={self.longest_interval_minutes:g} is less than"
                f" min_interval_minutes={self.min_interval_minutes:g}",
                f"set longest_interval_minutes to at least {self.min_interval_minutes:g}",
            )
        return self

    @model_validator(mode="after")
    def _climbing_is_sooner(self) -> "TriggersConfig":
        if not self.accelerating_share <= self.improving_share <= self.stable_share:
            raise ValueError(
                f"accelerating_share={self.accelerating_share:g}, improving_share={self.improving_share:g} and"
                f" stable_share={self.stable_share:g} do not rise: the faster Elo climbs, the later would be trained",
                "set them so that none is less than the one before it",
            )
        return self

    @model_validator(mode="after")
    def _bootstrap_goes_first(self) -> "TriggersConfig":
        most = self.freshness_weight + self.staleness_weight + self.regression_weight
        if self.bootstrap_priority < most:
            raise ValueError(
                f"bootstrap_priority={self.bootstrap_priority:g} is less than what the three scores come to at most,"
                f" {most:g}: a key could be left without its first model",
                f"set bootstrap_priority to at least {most:g}",
            )
        return self


class CurriculumConfig(Section):
    """How often a key is played beside others: its weight is 1 and the sum of what applies, from least to most.

    A win rate below `low_win_rate` adds `low_win_rate_weight`; one above `high_win_rate` takes `high_win_rate_weight`.
    No model adds `no_model_weight`; a fall of Elo by more than `regression_elo` adds `regression_weight`; no training
    for more than `stale_hours` adds `stale_weight`. Elo that is accelerating or improving adds a weight of its own.
    """

    low_win_rate: Share = 0.55
    low_win_rate_weight: Real = 0.4
    no_model_weight: Real = 0.5
    regression_elo: Real = 20.0
    regression_weight: Real = 0.2
    high_win_rate: Share = 0.7
    high_win_rate_weight: Real = 0.3
    stale_hours: PositiveReal = 6.0
    stale_weight: Real = 0.1
    accelerating_weight: Real = 0.3
    improving_weight: Real = 0.15
    least_weight: PositiveReal = 0.5
    most_weight: PositiveReal = 2.0

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "CurriculumConfig":
        if self.low_win_rate > self.high_win_rate:
            raise ValueError(
                f"low_win_rate={self.low_win_rate:g} is more than high_win_rate={self.high_win_rate:g}:"
                " a win rate could be both",
                f"set low_win_rate to at most {self.high_win_rate:g}",
            )
        if not self.least_weight <= 1.0 <= self.most_weight:
            raise ValueError(
                f"the weight 1 that all begin with is not between least_weight={self.least_weight:g} and"
                f" most_weight={self.most_weight:g}",
                "set least_weight to at most 1, and most_weight to at least 1",
            )
        return self


class TierConfig(Section):
    """What is exported and how it is fitted when there are fewer than `below_games` games (None: any number).

    Of the newest `max_games` games (None: of all) every `sample_every`-th position is taken.
    """

    name: str
    below_games: Positive | None
    max_games: Positive | None
    sample_every: Annotated[int, Field(ge=1, le=1000)]
    epochs: Positive
    batch_rows: Positive


class GameConfig(Section):
    """Moves of a game on average, and by what factor fewer of its positions are taken: long games repeat themselves."""

    moves_per_game: MovesPerGame
    sample_factor: Factor = 1.0


class BatchCap(Section):
    """The largest batch when fewer than `below_samples` samples are expected."""

    below_samples: Positive
    batch_rows: Positive


SMALL_TO_XLARGE = (
    TierConfig(name="small", below_games=10_000, max_games=None, sample_every=1, epochs=100, batch_rows=128),
    TierConfig(
        name="medium", below_games=50_000, max_games=50_000, sample_every=1, epochs=75, batch_rows=256
    ),
    TierConfig(
        name="large", below_games=200_000, max_games=100_000, sample_every=2, epochs=50, batch_rows=512
    ),
    TierConfig(
        name="xlarge", below_games=None, max_games=150_000, sample_every=3, epochs=30, batch_rows=1024
    ),
)


KNOWN_GAMES = {
    "square8": GameConfig(moves_per_game=60, sample_factor=1.0),
    "square19": GameConfig(moves_per_game=200, sample_factor=1.5),
    "hexagonal": GameConfig(moves_per_game=80, sample_factor=1.2),
    "hex8": GameConfig(moves_per_game=40, sample_factor=0.8),
    "tic_tac_toe": GameConfig(moves_per_game=7.4),
    "connect_four": GameConfig(moves_per_game=18.8),
    "connect_four_5x4": GameConfig(moves_per_game=18.1),
    "hex5": GameConfig(moves_per_game=15.7),
}
"""The first four are examples of short and long games. Moves of the others are the means of 100 games each of
`tamen match mcts:64 mcts:64`; whoever exports counts his own."""


class ExportConfig(Section):
    """What is exported of a key's games, by how many there are.

    The first of `tiers` with more games than there are applies. `games` has what is known of each game; moves that were
    counted go before those of the table, and `default_sample_factor` is for games that it does not have. With
    `target_samples` no more games are taken than give so many. Small exports have small batches, see `batch_caps`.
    """

    tiers: Annotated[tuple[TierConfig, ...], Field(min_length=1, max_length=16)] = SMALL_TO_XLARGE
    games: dict[str, GameConfig] = Field(default_factory=lambda: dict(KNOWN_GAMES))
    default_sample_factor: Factor = 1.0
    target_samples: Positive | None = None
    batch_caps: Annotated[tuple[BatchCap, ...], Field(max_length=16)] = (
        BatchCap(below_samples=10_000, batch_rows=64),
        BatchCap(below_samples=50_000, batch_rows=128),
    )
    seed: Count = 0

    @model_validator(mode="after")
    def _tiers_rise(self) -> "ExportConfig":
        *bounds, last = [tier.below_games for tier in self.tiers]
        known = [bound for bound in bounds if bound is not None]
        if last is not None or len(known) < len(bounds):
            raise ValueError(
                "the last of the tiers, and no other, is for any number of games",
                "set below_games=null in the last tier, and a number in all others",
            )
        if any(low >= high for low, high in pairwise(known)):
            raise ValueError(
                f"below_games of the tiers are {', '.join(map(str, known))}, which do not rise: one would never apply",
                "put the tiers in the order of their below_games",
            )
        return self

    @model_validator(mode="after")
    def _caps_rise(self) -> "ExportConfig":
        if any(low.below_samples >= high.below_samples for low, high in pairwise(self.batch_caps)):
            raise ValueError(
                "below_samples of batch_caps do not rise: one would never apply",
                "put batch_caps in the order of their below_samples",
            )
        return self


class DecisionsConfig(Section):
    """What the control plane decides by, for all keys."""

    recent: RecentConfig = RecentConfig()
    triggers: TriggersConfig = TriggersConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    export: ExportConfig = ExportConfig()


DECISIONS = Kind(DecisionsConfig, PRESETS_FOLDER, whole="decisions")  # has no presets of its own
