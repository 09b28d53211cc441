"""How samples of poker hands are made: which situations are drawn, and what says what they are worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Any, Literal

from core.hands import BOARD_CARDS, NUM_CARDS, Street
from core.messages import Steps
from core.seeds import derive_rng, derive_seed
from poker.batches import Solved, Stop, solve_group
from poker.betting import Betting
from poker.deals import value_deals_by_network, value_deals_by_solving
from poker.holdem import BOARDS_KEPT
from poker.program import compile_tree
from poker.reaching import with_reached_ranges
from poker.rows import LANES
from poker.sampling import Law, Situation, draw_group
from poker.schedules import Schedule, make_schedule
from poker.subgames import Subgame

MODEL = "main"
"""Under which a server knows the network that is asked."""
_FLOAT = 4
_NETWORK_BYTES = 500 << 20
"""Of a worker that has a network, and torch, in its own process."""
IN_FLIGHT = 2
"""Groups of situations at a time: one thinks while the other waits for the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How samples are made.

    Attributes:
        street: where hands are valued. Rivers and turns are solved to the end, with a `network` turns and flops to the
            end of their street. At the end of a street values are means over the next deal, by a `network`, or by
            solving rivers.
        law: by which situations are drawn.
        stack: what each player had at the beginning of the hand, in chips.
        bet_sizes: see `poker.betting.Betting`; where a street's end is valued, those of the next street.
        later_bet_sizes: of the streets after the one that is solved, where they are others.
        variant: of CFR, one of `poker.schedules.VARIANTS`.
        stop: when a situation is done.
        shard_groups: groups of situations to a shard.
        reached_share: of groups whose ranges are reached in play of the street before, see `poker.reaching`.
        reached_sizes: of the bets there.
        solver: "lanes" of a processor's vectors, or "torch", on a GPU if there is one, for rivers.
        network: digest of the weights that say what hands are worth where they are valued next; None: nobody does.
        most_deals: of a deal that has more outcomes so many are drawn.
    """

    street: Street = "river"
    law: Law
    stack: float
    bet_sizes: tuple[float, ...]
    later_bet_sizes: tuple[float, ...] | None = None
    variant: str
    stop: Stop
    shard_groups: int
    reached_share: float = 0.0
    reached_sizes: tuple[float, ...] = (1.0,)
    solver: Literal["lanes", "torch"] = "lanes"
    network: str | None = None
    most_deals: int = 64

    def __post_init__(self) -> None:
        if self.network is None and self.street not in ("river", "turn_end", "turn"):
            raise ValueError(f"without a network nobody says what hands are worth on the {self.street}")

    @property
    def ends_a_street(self) -> bool:
        return self.street.endswith("_end")

    @property
    def betting(self) -> Betting:
        return Betting(self.stack, self.bet_sizes, self.later_bet_sizes)

    @property
    def subgame(self) -> Subgame:
        """What is solved; of the end of a turn each river."""
        street = "river" if self.ends_a_street else self.street
        return Subgame(street, self.betting, to_the_end=self.ends_a_street or self.network is None)

    @property
    def schedule(self) -> Schedule:
        plain = make_schedule(self.variant)
        # Both players' leaves are asked for at once, so both learn from the same strategies.
        return plain if self.subgame.to_the_end else replace(plain, simultaneous=True)

    @property
    def solves(self) -> bool:
        """Whether anything is solved, and not only a network asked."""
        return not self.ends_a_street or self.network is None

    @property
    def shard_samples(self) -> int:
        return self.shard_groups * self.law.group

    def in_shards(self, groups: int) -> "Recipe":
        """Return the recipe with so many groups to a shard."""
        return replace(self, shard_groups=groups)


def group_of(recipe: Recipe, number: int) -> list[Situation]:
    """Return the situations of group `number`."""
    law = recipe.law
    situations = draw_group(law, number, recipe.subgame.form if recipe.solves else lambda pot_half: 0)
    if derive_rng(law.seed, "reached", law.cards, number).random() >= recipe.reached_share:
        return situations
    return with_reached_ranges(
        situations,
        Betting(recipe.stack, recipe.reached_sizes),
        street=recipe.street,
        smallest_pot=min(low for low, _ in law.pots),
        seed=derive_seed(law.seed, "reached", law.cards, number),
    )


def values_of(recipe: Recipe, situations: Sequence[Situation]) -> Steps[list[Solved]]:
    """Return what situations of one group are worth, in any order; asks only where the recipe has a network."""
    if recipe.solver == "torch" and recipe.street == "river":
        return _solve_on_device(recipe, situations)
    if not recipe.ends_a_street:
        return solve_group(situations, recipe.subgame, recipe.schedule, recipe.stop, model=MODEL)
    if recipe.network is None:
        return value_deals_by_solving(situations, recipe.subgame, recipe.schedule, recipe.stop)
    # What is drawn is the same for all of a group, also when one of it is looked at again.
    seed = derive_seed(recipe.law.seed, "deals", situations[0].number // recipe.law.group)
    return value_deals_by_network(
        situations, recipe.stack, model=MODEL, most_deals=recipe.most_deals, seed=seed
    )


def _solve_on_device(recipe: Recipe, situations: Sequence[Situation]) -> Steps[list[Solved]]:
    from poker.gpu import solve_on_device  # noqa: PLC0415 - torch, which others should not load

    yield from ()
    return list(solve_on_device(situations, recipe.betting, recipe.schedule, recipe.stop))


def facts_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a sidecar says of a recipe, with which, and its numbers, its samples can be made again."""
    facts: dict[str, Any] = {
        "seed": recipe.law.seed,
        "group": recipe.law.group,
        "pots": [list(interval) for interval in recipe.law.pots],
    }
    if recipe.solves:
        facts |= {
            "variant": recipe.variant,
            "target": recipe.stop.target,
            "most_iterations": recipe.stop.iterations,
        }
        if recipe.solver != "lanes":
            facts["solver"] = recipe.solver
    if recipe.reached_share:
        facts |= {"reached_share": recipe.reached_share, "reached_sizes": list(recipe.reached_sizes)}
    if recipe.later_bet_sizes is not None:
        facts["later_bet_sizes"] = list(recipe.later_bet_sizes)
    if recipe.network is not None:
        facts["network"] = recipe.network
    if not recipe.solves:
        facts["most_deals"] = recipe.most_deals
    return facts


def memory_of(recipe: Recipe) -> int:
    """Return bytes that a worker needs for the largest tree of the law, and for equities.

    Raises:
        UsageError: when that has too many actions.
    """
    hands = comb(NUM_CARDS - BOARD_CARDS[recipe.street], 2)
    # Boards that are kept have a matrix of equities each, but rivers.
    boards = BOARDS_KEPT if recipe.street != "river" or recipe.reached_share else 0
    network = 0 if recipe.network is None else _NETWORK_BYTES
    around = boards * hands**2 * _FLOAT + network
    if not recipe.solves:
        return around
    compiled = compile_tree(recipe.subgame.tree(min(low for low, _ in recipe.law.pots)))
    rows = 3 * compiled.actions if recipe.schedule.simultaneous else 2 * compiled.actions
    solvers = 1 if recipe.network is None else IN_FLIGHT
    return solvers * (rows + compiled.slots + 2 * compiled.leaves) * hands * _FLOAT * LANES + around
