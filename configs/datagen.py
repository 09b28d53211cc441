"""A configuration of data generation: which situations of poker are drawn, and how exactly they are solved."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.loading import Kind
from configs.names import DATAGEN_FOLDER
from configs.schema import Auto, Count, Positive, PositiveReal, Section, Share
from core.hands import STREETS, Street

BetSize = Annotated[float, Field(gt=0.0, le=50.0)]
BetSizes = Annotated[tuple[BetSize, ...], Field(max_length=8)]
NUM_DEALS = 49
"""Turn cards after a flop."""
BettingStreet = Literal["flop", "turn", "river"]


class DatagenConfig(Section):
    """Everything that determines samples.

    Samples are made of `streets`, one after the other: of a river first, and each other one by the network that was
    fitted to the one before it. `networks` are runs that have such; where one is missing `when_missing` says whether
    turns and their ends are solved to the end of the deal, which takes long, or nothing is done: then, and for what is
    too large to be solved, the run ends there and says what to do. Of deals with more than `most_deals` outcomes, those
    before the flop, so many are drawn.

    `samples` are drawn to learn from, `validation_samples` to judge by, of each street so many; with `street_shares` so
    many in all, of which each street has its share. Each is solved until what best answers win more is `target_pct`
    percent of the pot; without one after `cfr_iterations`. Labels to judge by are solved as exactly: a
    `validation_iterations_share` below 1 makes the ruler coarser than what it measures. What is not exact after
    `most_iterations` is set aside. The `solver` "torch" solves rivers on a GPU, if there is one; it wants groups of
    thousands.

    Bets and raises are `bet_sizes` parts of the pot after a call, and all-in; they may be given for each street. Ranges
    of `reached_share` of the situations are reached in play of the street before, those of the others are drawn.
    Situations come in groups of `group_samples` on one board, and `shard_samples` of them make a file: "auto" is what
    takes some seconds.
    """

    streets: Annotated[tuple[Street, ...], Field(min_length=1)] = ("river",)
    street_shares: dict[Street, Share] = Field(default_factory=dict)
    networks: tuple[str, ...] = ()
    when_missing: Literal["solve", "stop"] = "stop"
    most_deals: Annotated[int, Field(ge=NUM_DEALS, le=22_100)] = 64
    seed: Count = 0
    samples: Positive = 10_000
    validation_samples: Count = 2_000
    stack: Annotated[float, Field(ge=1_000.0, le=1e6)] = 20_000.0
    bet_sizes: BetSizes | dict[BettingStreet, BetSizes] = (1.0,)
    reached_share: Share = 0.0
    solver: Literal["lanes", "torch"] = "lanes"
    variant: Literal["cfr", "cfr+", "linear", "dcfr", "dcfr3", "dcfr+", "dcfr6", "dcfr6/2"] = "dcfr6/2"
    target_pct: PositiveReal | None = None
    cfr_iterations: Positive = 1_000
    most_iterations: Positive = 10_000
    validation_iterations_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    group_samples: Annotated[int, Field(ge=1, le=4096)] = 32
    shard_samples: Annotated[int, Field(ge=1, le=65_536)] | Auto = "auto"
    workers: Positive | Auto = "auto"

    @model_validator(mode="after")
    def _shards_are_of_whole_groups(self) -> "DatagenConfig":
        if self.shard_samples != "auto" and self.shard_samples % self.group_samples:
            raise ValueError(
                f"shard_samples={self.shard_samples} is no multiple of group_samples={self.group_samples}",
                f"set shard_samples={-(-self.shard_samples // self.group_samples) * self.group_samples}",
            )
        return self

    @model_validator(mode="after")
    def _streets_are_in_order(self) -> "DatagenConfig":
        ordered = [street for street in STREETS if street in self.streets]
        if list(self.streets) != ordered:
            raise ValueError(
                f"streets={list(self.streets)} are not in the order in which they can be made, each once",
                f"set streets=[{','.join(ordered)}]",
            )
        foreign = [street for street in self.street_shares if street not in self.streets]
        without = [street for street in self.streets if not self.street_shares.get(street)]
        if foreign or (self.street_shares and without):
            raise ValueError(
                f"street_shares has {foreign[0]}, of which no samples are made"
                if foreign
                else f"street_shares gives the {without[0]} nothing",
                f"give shares above 0 to {', '.join(self.streets)}",
            )
        return self

    def sizes_of(self, street: BettingStreet) -> tuple[float, ...]:
        """Return the bet sizes of a street, rising; those that are not given are a pot."""
        given = self.bet_sizes.get(street, (1.0,)) if isinstance(self.bet_sizes, dict) else self.bet_sizes
        return tuple(sorted(set(given)))

    def samples_of(self, street: Street, every: int) -> int:
        """Return how many samples of a street there are, where `every` are asked for."""
        if not self.street_shares:
            return every
        return round(every * self.street_shares.get(street, 0.0) / sum(self.street_shares.values()))


DATAGEN = Kind(DatagenConfig, DATAGEN_FOLDER, whole="data generation")
