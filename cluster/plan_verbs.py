"""`tamen plan …`: what a cluster would do, before there is one."""

import functools
import math
from pathlib import Path
from typing import Annotated

import typer

from cluster.bench_verbs import Blocks, Channels, Game, Precision, Simulations
from cluster.verbs import AsJson, add_verb, print_json

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
    from cluster.plan_capacity import measure_service, measure_thinking, plan_capacity, show_capacity
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
    from cluster.fleet import Spot
    from cluster.plan_games import Prices, parse_fleets, parse_games, plan_games, show_games
    from cluster.terminal import console
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
