"""`tamen plan …`: what a cluster would do, before there is one."""

import functools
import math
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.verbs import AsJson, add_verb, print_json, settings_without_preset
from cluster.verbs.bench import Blocks, Channels, Game, Precision, Simulations

plan = typer.Typer(
    help="Say what more machines would do.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, plan)


@verb
def capacity(
    game: Game = "hex13",
    blocks: Blocks = 3,
    channels: Channels = 32,
    precision: Precision = "auto",
    simulations: Simulations = 32,
    groups: Annotated[int, typer.Option(help="groups of games of an actor", min=1, metavar="N")] = 4,
    rows: Annotated[int, typer.Option(help="games of a group", min=1, max=1024, metavar="N")] = 128,
    max_batch_rows: Annotated[int, typer.Option(help="of the server", min=1024, metavar="N")] = 1024,
    message_ms: Annotated[float, typer.Option(help="on the way, one way", min=0, metavar="MS")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say how many actors one server can feed."""
    from cluster.plan.capacity import measure_service, measure_thinking, plan_capacity, show_capacity
    from configs.schema import NetworkConfig, SearchConfig

    network = NetworkConfig(blocks=blocks, channels=channels, precision=precision)
    search = SearchConfig(simulations=simulations, cheap_simulations=1)
    result = plan_capacity(
        measure_service(game, network, max_batch_rows=max_batch_rows),
        groups=groups,
        rows=rows,
        think_seconds=measure_thinking(game, search, rows=rows),
        message_seconds=message_ms / 1000,
        evals_per_move=simulations + 1,
    )
    if as_json:
        print_json(result)
    else:
        show_capacity(result)


Dollars = typer.Option(
    help="dollars an hour for the first machine; others by cores", min=0, max=1e5, metavar="X"
)
SpotDollars = typer.Option(help="the same for spot machines", min=0, max=1e5, metavar="X")
Measured = typer.Option(
    help="a folder of engines play, what engines bench or forge sim printed, or seconds by line",
    metavar="PATH",
)
Startup = typer.Option(help="of a daemon; else as measured", min=0, max=3600, metavar="SECONDS")
Notice = typer.Option(help="before a machine is gone", min=0, max=86_400, metavar="SECONDS")
Replacement = typer.Option(help="until another is there", min=0, max=86_400, metavar="SECONDS")
Handouts = typer.Option(help="games the coordinator hands out a second", min=0.001, metavar="X")


@verb
def games(
    games: Annotated[str, typer.Option(help="how many, as in 10M or 2.5k", metavar="N")] = "10M",
    machines: Annotated[
        str, typer.Option(help="machines x cores; , between choices, + in one fleet", metavar="NxCORES")
    ] = "4x16",
    daemons: Annotated[str, typer.Option(help="of a machine; auto: cores - 2", metavar="N")] = "auto",
    at_once: Annotated[
        int, typer.Option(help="games that a daemon plays at a time", min=1, max=1000, metavar="N")
    ] = 1,
    price: Annotated[float, Dollars] = 0.68,
    spot_price: Annotated[float, SpotDollars] = 0.27,
    durations: Annotated[Path | None, Measured] = None,
    startup: Annotated[float | None, Startup] = None,
    interruptions: Annotated[
        float, typer.Option(help="an hour, of a spot machine", min=0, max=60, metavar="X")
    ] = 0.05,
    notice: Annotated[float, Notice] = 120.0,
    replacement: Annotated[float, Replacement] = 180.0,
    failed: Annotated[
        float, typer.Option(help="share of games that fail", min=0, max=0.9, metavar="SHARE")
    ] = 0.0,
    tries: Annotated[int, typer.Option(help="of a game that fails", min=1, max=100, metavar="N")] = 3,
    handouts: Annotated[float, Handouts] = math.inf,
    seed: Annotated[int, typer.Option(help="of what is left to chance", min=0, metavar="N")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how long games of engines take, and what they cost."""
    from cluster.cli.terminal import console
    from cluster.plan.fleet import Spot
    from cluster.plan.games import Prices, parse_fleets, parse_games, plan_games, show_games
    from engines.timings import example_durations, read_durations

    wanted, fleets = parse_games(games), parse_fleets(machines, daemons=daemons, at_once=at_once)
    cores = fleets[0].machines[0].cores
    result = plan_games(
        wanted,
        fleets,
        example_durations() if durations is None else read_durations(durations),
        prices=Prices(price / cores, spot_price / cores),
        spot=Spot(
            interruptions_per_hour=interruptions, notice_seconds=notice, replacement_seconds=replacement
        ),
        startup_seconds=startup,
        failed_share=failed,
        tries=tries,
        handouts_per_second=handouts,
        seed=seed,
        tell=console(stderr=True).print,
    )
    if as_json:
        print_json(result)
    else:
        show_games(result)


Preset = typer.Argument(help="of a board game, as for train", metavar="PRESET")
RunSettings = typer.Argument(help="as for train", metavar="SECTION.KEY=VALUE")
Sizes = typer.Option(help="how many, home among them; , between choices", metavar="N,…")
Cores = typer.Option(help="of a machine", min=2, max=1024, metavar="N")
Wanted = typer.Option(help="whose time and price are told, as in 10M", metavar="N")
Printed = typer.Option(help="what a benchmark printed; may be repeated", metavar="FILE")
BrainEvals = typer.Option(help="a second, of GPUs that evaluate for all", min=1, max=1e12, metavar="X")
LearnerRows = typer.Option(
    help="a second, of a learner that takes no core: a GPU's", min=1, max=1e12, metavar="X"
)
Moves = typer.Option(help="else as measured", min=1, max=1e5, metavar="X")
Gigabits = typer.Option(help="a second, of home, each way", min=0.001, max=1e4, metavar="X")
Tree = typer.Option("--tree", help="machines send new weights on")
Price = typer.Option(help="dollars an hour for a machine", min=0, max=1e5, metavar="X")
Interruptions = typer.Option(help="an hour, of a spot machine", min=0, max=60, metavar="X")
UntilPlay = typer.Option(help="until a machine plays", min=0, max=3600, metavar="SECONDS")
Seed = typer.Option(help="of what is left to chance", min=0, metavar="N")


@verb
def cluster(
    preset: Annotated[str, Preset] = "hex13",
    settings: Annotated[list[str] | None, RunSettings] = None,
    machines: Annotated[str, Sizes] = "1,10,100,1000",
    cores: Annotated[int, Cores] = 16,
    games: Annotated[str, Wanted] = "10M",
    measured: Annotated[list[Path] | None, Printed] = None,
    brain_evals: Annotated[float | None, BrainEvals] = None,
    learner_rows: Annotated[float | None, LearnerRows] = None,
    moves_per_game: Annotated[float | None, Moves] = None,
    network_gbit: Annotated[float, Gigabits] = 10.0,
    tree: Annotated[bool, Tree] = False,
    price: Annotated[float, Price] = 0.68,
    spot_price: Annotated[float, SpotDollars] = 0.27,
    interruptions: Annotated[float, Interruptions] = 0.05,
    notice: Annotated[float, Notice] = 120.0,
    replacement: Annotated[float, Replacement] = 180.0,
    startup: Annotated[float, UntilPlay] = 15.0,
    seed: Annotated[int, Seed] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what a run makes of many machines, and which part is full when."""
    from cluster.plan.cluster import costs_of, layout_of, parse_machines, plan_cluster, show_cluster
    from cluster.plan.costs import read_costs
    from cluster.plan.fleet import Spot
    from cluster.plan.games import Prices, parse_games
    from configs.loading import load

    if (all_settings := settings_without_preset(preset, settings)) is not None:
        preset, settings = "hex13", all_settings
    sizes, wanted, config = parse_machines(machines), parse_games(games), load(preset, settings or [])
    figures = read_costs(measured or [], moves_per_game=moves_per_game, learner_rows_per_s=learner_rows)
    layout = layout_of(
        config,
        cores=cores,
        learner_on_cores=learner_rows is None,
        network_bytes_per_s=network_gbit * 1e9 / 8,
        brain_evals_per_s=brain_evals,
        tree=tree,
        startup_seconds=startup,
        spot=Spot(
            interruptions_per_hour=interruptions, notice_seconds=notice, replacement_seconds=replacement
        ),
    )
    prices = Prices(price / cores, spot_price / cores)
    result = plan_cluster(sizes, costs_of(config, figures), layout, games=wanted, prices=prices, seed=seed)
    result["sources"] = {name: figure.source for name, figure in figures.items()}
    print_json(result) if as_json else show_cluster(result, figures, config=config)
