"""`tamen plan …`: what a cluster would do, before there is one."""

import functools
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
# A typer application of one verb would take that verb's name for an argument.
plan.callback()(lambda: None)


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
