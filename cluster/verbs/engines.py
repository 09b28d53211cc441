"""`tamen engines …`: programs of others, run and kept alive on this machine."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.cli.verbs import AsJson, Runs, add_verb, print_json

engines = typer.Typer(
    help="Run programs of others that play games, and keep them alive.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, engines)

UNHEALTHY, INTERRUPTED = 3, 130

Name = Annotated[str | None, typer.Argument(help="which engines (default: all of them)", metavar="NAME")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray, on each machine of which there are engines: auto or HOST:PORT (default: here, without Ray)",
        metavar="ADDRESS",
    ),
]

Profile = typer.Option(help="write where Python's time goes, for pstats", metavar="FILE")
MetricsPort = typer.Option(
    help="serve Prometheus text on this port of 127.0.0.1", min=0, max=65535, metavar="PORT"
)


@verb
def up(
    words: Annotated[
        list[str],
        typer.Argument(
            help="FILE.yaml or FILE.jar, settings such as engine.count=4, or behind -- a command with {port} in it",
            metavar="PROGRAM",
        ),
    ],
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
    plain: Annotated[bool, typer.Option("--plain", help="plain lines instead of a bar")] = False,
) -> None:
    """Start engines, wait until they answer, and leave them running.

    Those that run with the same command go on. Exit code 1 when one does not come up.
    """
    from cluster.external.engines import bring_up, is_unhealthy, resolve_engines

    config = resolve_engines(words)
    if address is not None:
        from cluster.external.engines_actor import bring_up_on_ray

        found = bring_up_on_ray(config, runs, address, quiet=as_json)
    else:
        found = [bring_up(config, runs, quiet=as_json, plain=plain)]
    if as_json:
        print_json(found)
    if is_unhealthy(found):
        raise typer.Exit(1)


@verb
def status(
    name: Name = None,
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how engines stand: ports, games, restarts, and how busy they are.

    Exit code 3 when fewer serve than are to.
    """
    from cluster.external.engines import is_unhealthy, show_engines

    if address is not None:
        from cluster.external.engines_actor import show_engines_on_ray

        found = show_engines_on_ray(name, address, quiet=as_json)
    else:
        found = show_engines(runs, name, quiet=as_json)
    if as_json:
        print_json(found)
    if is_unhealthy(found):
        raise typer.Exit(UNHEALTHY)


@verb
def down(
    name: Name = None,
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """End engines, with everything that they have started."""
    from cluster.external.engines import take_down

    if address is not None:
        from cluster.external.engines_actor import take_down_on_ray

        ended = take_down_on_ray(name, address, quiet=as_json)
    else:
        ended = take_down(runs, name, quiet=as_json)
    if as_json:
        print_json(ended)


@verb
def play(
    words: Annotated[
        list[str],
        typer.Argument(
            help="FILE.yaml or FILE.jar, settings such as games.tries=5, or behind -- a command with {port} in it",
            metavar="PROGRAM",
        ),
    ],
    games: Annotated[int, typer.Option(help="how many", min=1, metavar="N")],
    decks: Annotated[str, typer.Option(help="names or paths; each two of them meet", metavar="DECK,DECK")],
    out: Annotated[Path, typer.Option(help="for results; the same one goes on", metavar="FOLDER")],
    observe: Annotated[bool, typer.Option("--observe", help="keep each decision and its choice")] = False,
    seed: Annotated[int, typer.Option(help="of all games", min=0, metavar="N")] = 0,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="who plays")] = "ray",
    address: Annotated[
        str | None,
        typer.Option(help="Ray: auto or HOST:PORT (default: one of its own)", metavar="ADDRESS"),
    ] = None,
    profile: Annotated[Path | None, Profile] = None,
    metrics_port: Annotated[int | None, MetricsPort] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
    plain: Annotated[bool, typer.Option("--plain", help="plain lines instead of a bar")] = False,
) -> None:
    """Play games, each accounted for, on engines that are up, or else are up meanwhile.

    Ctrl-C saves; the same command goes on. Exit code 1 when games were set aside.
    """
    from cluster.external.engines import resolve_engines
    from cluster.external.games import Order, play_games
    from engines.book import Plan

    config = resolve_engines(words)
    plan = Plan(
        games=games,
        decks=tuple(filter(None, decks.split(","))),
        mode="observe" if observe else "result",
        seed=seed,
        tries=config.games.tries,
    )
    order = Order(config=config, plan=plan, folder=out, runs=runs, profile=profile)
    result = play_games(
        order, engine=engine, address=address, quiet=as_json, plain=plain, metrics_port=metrics_port
    )
    if as_json:
        print_json(result)
    if result["set_aside"]:
        raise typer.Exit(1)


@verb
def imitate(
    words: Annotated[
        list[str],
        typer.Argument(
            help="folders that `play --observe` has filled, and settings such as fit.epochs=20",
            metavar="FOLDER|SETTING",
        ),
    ],
    name: Annotated[str, typer.Option(help="what the run is called; the same one goes on", metavar="RUN")],
    seed: Annotated[int | None, typer.Option(help="seed of all randomness", min=0, metavar="N")] = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the settings and what would be learnt from, and end")
    ] = False,
    as_json: AsJson = False,
    plain: Annotated[bool, typer.Option("--plain", help="plain lines instead of a bar")] = False,
) -> None:
    """Fit a network to what an engine's own player chose in games that were watched.

    Games that are learnt from already are passed over. Ctrl-C saves; the same command goes on. Exit code 1 when a file
    of games could not be read; the others were.
    """
    from cluster.external.imitate import imitate_games, resolve_imitation, show_plan, split_words
    from cluster.external.watched_rows import find_watched
    from cluster.run.run_folder import run_folder

    folders, settings = split_words(words)
    config, folder = resolve_imitation(settings, seed), run_folder(runs, name)
    watched = find_watched(folders)
    if dry_run:
        result = show_plan(config, folder, watched, quiet=as_json)
    else:
        result = imitate_games(config, folder, watched, quiet=as_json, plain=plain)
    if as_json:
        print_json(result)
    if not dry_run and not result["finished"]:
        raise typer.Exit(INTERRUPTED)
    if result.get("damaged"):
        raise typer.Exit(1)


def bench(
    sections: Annotated[
        str, typer.Option(help="what is measured", metavar="NAME,NAME")
    ] = "pipeline,waiting,connections,flags,faults",
    seconds: Annotated[float, typer.Option(help="of each measurement", min=1, metavar="SECONDS")] = 10.0,
    rounds: Annotated[int, typer.Option(help="measurements of each side, in turn", min=1, metavar="N")] = 3,
    fault_games: Annotated[int, typer.Option(help="played under faults", min=1, metavar="N")] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Measure the reference daemon: how much of what it can do comes out, and what faults cost."""
    from cluster.bench.engines import bench_engines
    from cluster.bench.rig import Measuring

    measuring = Measuring(seconds=seconds, rounds=rounds, quiet=as_json)
    result = bench_engines(tuple(filter(None, sections.split(","))), measuring, fault_games=fault_games)
    if as_json:
        print_json(result)


verb(bench)
