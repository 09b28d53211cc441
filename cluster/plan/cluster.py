"""`tamen plan cluster`: what a run makes of 1 to 1,000 machines, which part is full when, and what moves it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster.bench.rig import untrained_weights
from cluster.cli.terminal import console, short, whole
from cluster.plan.cluster_model import CAPPING, PARTS, Costs, Layout, capacities, full_at, steady
from cluster.plan.cluster_simulation import Outcome, simulate
from cluster.plan.costs import Figure
from cluster.plan.curves import parse_counts
from cluster.plan.fleet import MOST_MACHINES, Machine, Work, daemons_of, steady_rates
from cluster.plan.games import (
    PUBLISHED_MACHINES,
    PUBLISHED_PRICE,
    PUBLISHED_RATE,
    PUBLISHED_SPOT_PRICE,
    Prices,
)
from cluster.run.placement import Node, shares
from configs.schema import RunConfig
from core.errors import UsageError
from engines.timings import example_durations
from games.catalog import make_game

MOST_SIZES = 12
RAY_MACHINES, RAY_ACTORS = 250, 10_000
"""What Ray says it is tested with (its release/benchmarks/README)."""
KNOBS = {
    "play": "more machines; inference.servers; search.full_share, search.cheap_simulations, network.blocks",
    "brain": "more GPUs with inference.servers; search.simulations",
    "replay": "actors.chunk_rows; search.full_share",
    "disk": "home's disk; search.full_share",
    "network": "home's network; inference.servers on the machines that play",
    "learner": "replay.samples_per_insert; learner.num_learners; a GPU at home",
    "store": "learner.publish_every_steps; home's network",
    "driver": "actors.count, inference.servers: fewer parts; fewer, larger machines",
}


def parse_machines(text: str) -> tuple[int, ...]:
    """Return the numbers of "1,10,100", rising.

    Raises:
        UsageError: when one is no number, too large, or there are too many.
    """
    counts = tuple(sorted(set(parse_counts(text, what="machines"))))
    if counts[-1] > MOST_MACHINES or len(counts) > MOST_SIZES:
        raise UsageError(
            f"{text} is too much",
            why=f"at most {MOST_SIZES} sizes of at most {MOST_MACHINES:,} machines are planned",
            fix="write them as in --machines 1,10,100,1000",
        )
    return counts


def costs_of(config: RunConfig, figures: Mapping[str, Figure]) -> Costs:
    """Return what the parts of a run cost. Raises UsageError for an environment: its moves cost something else."""
    if config.environment:
        raise UsageError(
            f"{config.game} is an environment",
            why="what its steps cost is its own, and no benchmark told it",
            fix="plan a board game, such as: tamen plan cluster hex13",
        )
    weights_bytes = len(untrained_weights(config).to_bytes())
    values = {name: figure.value for name, figure in figures.items()}
    taking_in = values.pop("weights_seconds_per_byte") * weights_bytes
    search = config.search
    cheap = (1 - search.full_share) * (search.cheap_simulations + 1)
    return Costs(
        **values,
        evals_per_move=search.full_share * (search.simulations + 1) + cheap,
        rows_per_move=search.full_share,
        weights_bytes=weights_bytes,
        weights_server_seconds=taking_in,
    )


def layout_of(config: RunConfig, *, cores: int, brain_evals_per_s: float | None, **others: Any) -> Layout:
    """Return how a run is laid out over machines of so many cores; `others` as `Layout` has them.

    Args:
        brain_evals_per_s: of GPUs at home that evaluate for all; None where there are none.
    """
    far = Node(id="far", host="far", cpus=cores)
    home = Node(id="home", host="home", cpus=cores, is_home=True, gpus=int(brain_evals_per_s is not None))
    share = shares([home, far], actors=config.actors.count, servers=config.inference.servers)["far"]
    actors = config.actors
    return Layout(
        cores=cores,
        brain_evals_per_s=brain_evals_per_s,
        servers=share.servers,
        actors=share.actors,
        games_in_play=share.actors * actors.groups_per_actor * actors.games_per_group,
        chunk_rows=actors.chunk_rows,
        samples_per_insert=config.replay.samples_per_insert,
        learners=config.learner.num_learners,
        eval_bytes=2 * make_game(config.game).num_actions + 4,
        version_rows=config.learner.batch_rows * config.learner.publish_every_steps,
        **others,
    )


def plan_cluster(
    sizes: Sequence[int], costs: Costs, layout: Layout, *, games: int, prices: Prices, seed: int = 0
) -> dict[str, Any]:
    """Plan a run on every number of machines, in closed form and simulated.

    Args:
        games: whose time and price are told.
        prices: of an hour of one core.

    Returns:
        points: for each size what `Rates` has, `simulated`, and hours and dollars on demand and on spot machines.
        full_at: the fewest machines that would fill each part by itself, None where 20,000 do not.
        published: a published table of machines beside what its own durations of games give, and the rows of a game
            that this run's replay and learner could take at that rate.
    """
    return {
        "games": games,
        "costs": asdict(costs),
        "layout": asdict(layout),
        "points": [
            _point(
                size,
                costs,
                layout,
                games=games,
                prices=prices,
                outcome=simulate(size, costs, layout, seed=seed),
            )
            for size in sizes
        ],
        "full_at": {
            part: full_at(part, costs, layout, most=MOST_MACHINES)
            for part in PARTS
            if part != "play" and not (part == "brain" and layout.brain_evals_per_s is None)
        },
        "knobs": KNOBS,
        "published": [_published(number, costs, layout, games=games) for number in PUBLISHED_MACHINES],
    }


def _point(
    size: int, costs: Costs, layout: Layout, *, games: int, prices: Prices, outcome: Outcome
) -> dict[str, Any]:
    spot, staying = steady(size, costs, layout), steady(size, costs, replace(layout, spot=None))
    hours, staying_hours = (games / rates.games / 3600 for rates in (spot, staying))
    of_home = layout.cores * prices.on_demand
    return {
        "machines": size,
        **asdict(spot),
        "simulated": asdict(outcome),
        "simulated_over_closed": outcome.rows / spot.rows,
        "hours": hours,
        "cost": hours * (of_home + (size - 1) * spot.present * layout.cores * prices.spot),
        "on_demand_hours": staying_hours,
        "on_demand_cost": staying_hours * size * of_home,
    }


def _published(number: int, costs: Costs, layout: Layout, *, games: int) -> dict[str, float]:
    """Return a row of the published table, and what its durations give; machines have 16 cores, 14 daemons."""
    durations = example_durations()
    work = Work(games=games, seconds=durations.seconds, between_games=durations.between_games)
    fleet = [Machine(16, daemons_of(16))] * number
    staying, spot = steady_rates(fleet, work), steady_rates(fleet, work, layout.spot)
    able = capacities(number, costs, layout)
    return {
        "machines": number,
        "published_games_per_s": PUBLISHED_RATE * number,
        "games_per_s": staying.games,
        "hours": games / staying.games / 3600,
        "cost": games / staying.games / 3600 * number * PUBLISHED_PRICE,
        "spot_hours": games / spot.games / 3600,
        "spot_cost": games / spot.games / 3600 * number * spot.present_share * PUBLISHED_SPOT_PRICE,
        "rows_per_game": min(able[part] for part in ("replay", "disk", "network", "learner")) / staying.games,
    }


def show_cluster(result: Mapping[str, Any], figures: Mapping[str, Figure], *, config: RunConfig) -> None:
    """Print the plan, in 80 columns."""
    target, layout, points = console(), result["layout"], result["points"]
    for line in _preface(layout, figures, config):
        target.print(Text(line))
    target.print(_source_table(figures))
    target.print(_use_table(points))
    off = max(abs(point["simulated_over_closed"] - 1) for point in points)
    target.print(
        Text(
            "shares are of what each part can do; what is above 100% is asked of it, and not done. With"
            f" interruptions, queues and luck played out event by event, rows/s are within {off:.1%} of this; costs,"
            " and what a machine loses with its games, are the same in both."
        )
    )
    target.print(_knob_table(result))
    target.print(_price_table(result))
    target.print(
        Text(
            "A published plan for games of an engine, a game a second from each of 14 daemons of 16 cores, beside what"
            " its own durations of games give; and the rows a game that this run's learner and replay could take:"
        )
    )
    target.print(_published_table(result))
    for line in _notes(result):
        target.print(Text(line))


def _preface(layout: Mapping[str, Any], figures: Mapping[str, Figure], config: RunConfig) -> list[str]:
    spot = layout["spot"]
    away = (
        f"spot: {spot['interruptions_per_hour']:g} interruptions an hour of each, {spot['notice_seconds']:g} s notice,"
        f" another after {spot['replacement_seconds']:g} s, and it plays {layout['startup_seconds']:g} s later"
    )
    lines = [
        f"{config.game}, {config.network.blocks} x {config.network.channels}; machines of {layout['cores']} cores with"
        f" {layout['servers']} servers and {layout['actors']} actors; the first is home, with learner and replay.",
        f"Assumed: {away}; a network of {8 * layout['network_bytes_per_s'] / 1e9:g} Gbit/s.",
    ]
    foreign = sorted({figure.game for figure in figures.values()} - {"", config.game})
    if foreign:
        lines.append(
            f"Some of it is of {', '.join(foreign)}, and not of {config.game}: measure it, and give --measured."
        )
    return lines + _of_other_networks(figures, (config.network.blocks, config.network.channels))


def _of_other_networks(figures: Mapping[str, Figure], network: tuple[int, int]) -> list[str]:
    """Say which figures are of networks of another size, and how many times their products this one has."""
    measured: dict[tuple[int, int], list[str]] = {}
    for name, figure in figures.items():
        if figure.network not in (None, network):
            measured.setdefault(figure.network, []).append(name)
    return [
        f"{', '.join(names)}: of {_size(of)}, and not of {_size(network)}, whose blocks have"
        f" {_rate(_products(network) / _products(of))} times its products. Measure it, and give --measured."
        for of, names in measured.items()
    ]


def _size(network: tuple[int, int]) -> str:
    return f"{network[0]} x {network[1]}"


def _products(network: tuple[int, int]) -> int:
    """Return what the convolutions of a network's blocks take, in units of those of one channel."""
    blocks, channels = network
    return blocks * channels**2


def _source_table(figures: Mapping[str, Figure]) -> Table:
    table = _table("measured", "", "in benchmarks/results, or where given")
    table.columns[2].justify = "left"
    for name, figure in figures.items():
        table.add_row(
            name, f"{figure.value:.3g}" if figure.value < 1000 else whole(figure.value), figure.source
        )
    return table


def _use_table(points: Sequence[Mapping[str, Any]]) -> Table:
    heads = {"network": "net"}
    table = _table("machines", "rows/s", "games/s", "eff.", *(heads.get(part, part) for part in PARTS))
    for point in points:
        table.add_row(
            whole(point["machines"]),
            whole(point["rows"]) if point["rows"] < 10_000 else short(point["rows"]),
            _rate(point["games"]),
            f"{point['effective']:.1%}",
            *(_share(point["used"][part]) for part in PARTS),
        )
    return table


def _knob_table(result: Mapping[str, Any]) -> Table:
    table = _table("part", "full at", "what moves it")
    table.columns[2].justify = "left"
    for part, machines in sorted(result["full_at"].items(), key=lambda found: found[1] or float("inf")):
        if machines is not None:
            table.add_row(part, whole(machines), KNOBS[part])
    table.add_row("play", "always", KNOBS["play"])
    return table


def _price_table(result: Mapping[str, Any]) -> Table:
    games = short(result["games"]).replace(".0", "")
    table = _table("machines", "full first", f"{games} games", "cost", "spot", "cost")
    for point in result["points"]:
        table.add_row(
            whole(point["machines"]),
            point["limit"],
            _span(point["on_demand_hours"]),
            _dollars(point["on_demand_cost"]),
            _span(point["hours"]),
            _dollars(point["cost"]),
        )
    return table


def _published_table(result: Mapping[str, Any]) -> Table:
    games = short(result["games"]).replace(".0", "")
    table = _table("machines", "published", "games/s", f"{games} games", "cost", "spot", "cost", "rows")
    for row in result["published"]:
        table.add_row(
            f"{row['machines']}x16",
            f"{row['published_games_per_s']:.0f}/s",
            _rate(row["games_per_s"]),
            _span(row["hours"]),
            _dollars(row["cost"]),
            _span(row["spot_hours"]),
            _dollars(row["spot_cost"]),
            _rate(row["rows_per_game"]),
        )
    return table


def _notes(result: Mapping[str, Any]) -> list[str]:
    full = {part: at for part, at in result["full_at"].items() if at is not None and part in CAPPING}
    first = min(full, key=full.__getitem__, default=None)
    notes, parts = [], result["layout"]["servers"] + result["layout"]["actors"]
    if first is not None:
        many = "1 machine" if full[first] == 1 else f"{full[first]:,} machines"
        notes.append(
            f"The {first} is full with {many}: more cost, and bring nothing, until it takes more: {KNOBS[first]}."
        )
    beyond = [
        point["machines"]
        for point in result["points"]
        if point["machines"] > RAY_MACHINES or point["machines"] * parts > RAY_ACTORS
    ]
    if beyond:
        notes.append(
            f"{min(beyond):,} machines with {min(beyond) * parts:,} parts are more than the {RAY_MACHINES} machines and"
            f" {RAY_ACTORS:,} actors that Ray is tested with: what Ray itself takes there is not in the plan."
        )
    late = [point["machines"] for point in result["points"] if point["used"]["driver"] > 1]
    if late:
        notes.append(f"From {min(late):,} machines on the driver notices late who joins and who is lost.")
    return notes


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _share(used: float) -> str:
    return f"{used:.0f}x" if used >= 10 else f"{used:.0%}"


def _rate(per_second: float) -> str:
    return whole(per_second) if per_second >= 100 else f"{per_second:.3g}"


def _span(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days" if hours < 24_000 else f"{hours / 24:,.0f} days"
    return f"{hours:.1f} h" if hours >= 1.5 else f"{60 * hours:.3g} min"


def _dollars(amount: float) -> str:
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:,.2f}"
