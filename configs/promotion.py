"""When a candidate becomes champion, and when a champion gives way to the one before it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.schema import Positive, PositiveReal, Section, Share

Opponents = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=8)]
Score = Annotated[float, Field(gt=0.0, lt=1.0)]
Pairs = Annotated[int, Field(ge=1, le=1_000_000)]
MostElo = Annotated[float, Field(gt=0.0, le=1000.0)]


class PromotionConfig(Section):
    """What is asked of a candidate, and of a champion afterwards.

    A candidate meets the champion, in a `test` with an `error` of either kind: by sprt it is `elo_gain` stronger rather
    than not at all, by wilson its score is above `min_score`. A `tier` asks for a share of the points, a number of
    games and a gain of Elo besides. It must score `ladder_score` against each of `ladder`. Each opponent is met in
    `min_pairs` to `max_pairs` pairs of games, each pair with an opening that is played from both sides.

    A champion, also one made by hand, that was neither compared nor watched for `watch_minutes` (null: never) meets the
    one before it and the ladder again, in `watch_pairs` each. It is rolled back when its Elo fell since its promotion,
    by `max_elo_fall` in the mean of `last_ratings` or by `sharp_elo_fall` in each of the newest `in_a_row`, or when it
    missed half of the points against the one before by `max_score_fall` as often in a row; but only if all these games
    show, with that `error`, that the one before is stronger.
    """

    tier: Literal["D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9"] | None = None
    test: Literal["sprt", "wilson"] = "sprt"
    elo_gain: MostElo = 60.0
    min_score: Score = 0.5
    error: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    ladder: Opponents = ("random",)
    ladder_score: Score = 0.64
    min_pairs: Pairs = 25
    max_pairs: Pairs = 200
    watch_minutes: PositiveReal | None = 60.0
    watch_pairs: Pairs = 50
    max_elo_fall: MostElo = 30.0
    last_ratings: Annotated[int, Field(ge=1, le=10_000)] = 10
    sharp_elo_fall: Annotated[float, Field(ge=0.0, le=1000.0)] = 50.0
    max_score_fall: Share = 0.10
    in_a_row: Positive = 3

    @model_validator(mode="after")
    def _pairs_are_in_order(self) -> "PromotionConfig":
        if self.min_pairs > self.max_pairs:
            raise ValueError(
                f"min_pairs={self.min_pairs} is more than max_pairs={self.max_pairs}",
                f"set max_pairs to at least {self.min_pairs}",
            )
        return self

    @model_validator(mode="after")
    def _ratings_are_enough(self) -> "PromotionConfig":
        if self.in_a_row > self.last_ratings:
            raise ValueError(
                f"in_a_row={self.in_a_row} is more than last_ratings={self.last_ratings}",
                f"set last_ratings to at least {self.in_a_row}",
            )
        return self

    @model_validator(mode="after")
    def _opponents_are_others(self) -> "PromotionConfig":
        if len(set(self.ladder)) < len(self.ladder):
            raise ValueError(
                f"the ladder has an opponent twice: {', '.join(self.ladder)}", "name each of them once"
            )
        return self
