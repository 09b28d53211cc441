"""What a configuration of data generation asks for: samples of which streets, by which networks, in which steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.hands.networks import HandNetwork, find_networks
from cluster.run.run_folder import RunFolder
from configs.datagen import DATAGEN, NUM_DEALS, BettingStreet, DatagenConfig
from core.errors import UsageError
from core.hands import BOARD_CARDS, Street
from pipeline.hand_recipe import Recipe
from pipeline.hand_samples import Connect, HandSamplesStep, ShardMade, ShardTask, shard_tasks
from pipeline.orchestrator import Pipeline, Stage
from poker.batches import Stop
from poker.sampling import POT_LAW, Law
from poker.schedules import DEFAULT_VARIANT
from poker.subgames import street_after

PURPOSES = ("train", "validation")
SHARD_SAMPLES = 512
"""Of rivers, and where only a network is asked; a shard of what is solved on turns and flops is one group."""
_BETS: Mapping[Street, BettingStreet] = {
    "river": "river",
    "turn_end": "river",
    "turn": "turn",
    "flop_end": "turn",
    "flop": "flop",
    "preflop_end": "flop",
}
"""On which street the bets are that samples are about."""

_BEFORE: Mapping[Street, BettingStreet] = {
    "river": "turn",
    "turn_end": "turn",
    "turn": "flop",
    "flop_end": "flop",
}
"""On which street ranges are reached in play."""

Networks = Mapping[Street, HandNetwork]


def recipe_of(config: DatagenConfig, street: Street, purpose: str, networks: Networks) -> Recipe:
    """Return how the samples of a street are made for a purpose."""
    share = config.validation_iterations_share if purpose == "validation" else 1.0
    if config.target_pct is None:
        stop = Stop(None, max(1, round(config.cfr_iterations * share)))
    else:
        stop = Stop(config.target_pct / 100 / share, config.most_iterations)
    sizes = config.sizes_of(_BETS[street])
    network = network_for(street, networks)
    before = _BEFORE.get(street)
    reached = 0.0 if before is None else config.reached_share
    later = config.sizes_of("river") if street == "turn" and network is None else sizes
    recipe = Recipe(
        street=street,
        law=Law(config.seed, BOARD_CARDS[street], group=config.group_samples, pots=_pots_below(config.stack)),
        stack=config.stack,
        bet_sizes=sizes,
        later_bet_sizes=None if later == sizes else later,
        variant=config.variant,
        stop=stop,
        shard_groups=1,
        reached_share=reached,
        reached_sizes=config.sizes_of(before) if before and reached else (1.0,),
        solver=config.solver if street == "river" else "lanes",
        network=network.digest if network else None,
        most_deals=config.most_deals if street == "preflop_end" else NUM_DEALS,
    )
    if not recipe.solves:
        # What is set of solving changes nothing.
        recipe = replace(recipe, variant=DEFAULT_VARIANT, stop=Stop(None, 1))
    return recipe.in_shards(_shard_samples(config, recipe) // config.group_samples)


def network_for(street: Street, networks: Networks) -> HandNetwork | None:
    """Return the network that is asked when samples of a street are made."""
    after = street_after(street)
    return None if after is None else networks.get(after)


def samples_of(config: DatagenConfig, street: Street, purpose: str) -> int:
    """Return how many samples of a street are wanted for a purpose."""
    every = config.samples if purpose == "train" else config.validation_samples
    return config.samples_of(street, every)


def streets_to_make(config: DatagenConfig, networks: Networks) -> tuple[list[Street], Street | None]:
    """Return the streets of which samples can be made, and the first of which they cannot, for want of a network."""
    made: list[Street] = []
    for street in config.streets:
        can_be_solved = config.when_missing == "solve" and street in ("turn", "turn_end")
        if street != "river" and network_for(street, networks) is None and not can_be_solved:
            return made, street
        made.append(street)
    return made, None


def why_missing(street: Street, run: str) -> UsageError:
    """Return what to say of a street of which no samples can be made."""
    after = street_after(street)
    fix = f"fit one: tamen train {after}_values samples=[{run}] --name NET; then the same command with networks=[NET]"
    if street in ("turn", "turn_end"):
        fix += "; or set when_missing=solve, which takes long"
    return UsageError(
        f"no samples of the {street} can be made",
        why=f"they need a network that says what hands are worth on the {after}, and none is named",
        fix=fix,
    )


def tasks_of(
    config: DatagenConfig,
    folder: RunFolder,
    street: Street,
    purpose: str,
    networks: Networks,
    connect: Connect | None = None,
) -> list[ShardTask]:
    """Return the tasks that make the samples of a street for a purpose."""
    name = step_name(street, purpose)
    recipe, samples = recipe_of(config, street, purpose, networks), samples_of(config, street, purpose)
    return shard_tasks(recipe, name, samples, folder.root / "datagen" / name, connect)


def step_name(street: Street, purpose: str) -> str:
    return f"{street}_{purpose}"


def stages(
    config: DatagenConfig,
    streets: Sequence[Street],
    networks: Networks,
    *,
    connect: Connect | None = None,
    told: Callable[[ShardMade], None] = lambda made: None,
) -> list[Stage]:
    """Return the steps that make the samples of streets, in their order.

    Args:
        connect: how workers reach the network that these streets' samples need.
        told: hears of each shard.
    """
    steps = [
        HandSamplesStep(
            step_name(street, purpose),
            recipe_of(config, street, purpose, networks),
            samples_of(config, street, purpose),
            connect=connect,
            told=told,
        )
        for street in streets
        for purpose in PURPOSES
        if samples_of(config, street, purpose)
    ]
    return [Stage(step, goes_on_from=step.goes_on_from) for step in steps]


def finished_shards(folder: RunFolder, runs: Path, street: Street) -> dict[str, list[ShardTask]]:
    """Return the tasks of all samples that a run has of a street, by purpose.

    Raises:
        UsageError: when there are none, or they are not all made.
    """
    file = folder.root / "datagen.yaml"
    why = f"there is no {file}"
    if file.exists():
        config = DATAGEN.load_file(file)
        if street not in config.streets:
            why = f"it has those of the {', '.join(config.streets)}"
        else:
            networks = find_networks(config.networks, runs)
            steps = stages(config, [street], networks)
            plan = Pipeline(steps, folder.root / "datagen").plan()
            left = [one for one in plan if one.action != "finished"]
            if steps and not left:
                return {purpose: tasks_of(config, folder, street, purpose, networks) for purpose in PURPOSES}
            if left:
                why = f"those for {left[0].name} are not all made: {left[0].why}"
    raise UsageError(
        f"there are no finished samples of the {street} in run {folder.typed!r}",
        why=why,
        fix=f"make them: tamen datagen generate --name {folder.typed}; or name another run with samples=[RUN]",
    )


def _shard_samples(config: DatagenConfig, recipe: Recipe) -> int:
    if config.shard_samples != "auto":
        return config.shard_samples
    slow = recipe.solves and recipe.street != "river"
    return config.group_samples * (1 if slow else max(1, SHARD_SAMPLES // config.group_samples))


def _pots_below(stack: float) -> tuple[tuple[int, int], ...]:
    """Return DeepStack's law of pots, which is for stacks of 20,000, in proportion to other stacks."""
    if stack == 20_000:
        return POT_LAW
    return tuple((round(low * stack / 20_000), round(high * stack / 20_000)) for low, high in POT_LAW)
