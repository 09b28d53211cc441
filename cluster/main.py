"""The command `tamen`. Verbs import what they need when they run: `tamen --help` pays for neither torch nor ray."""

import functools
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster import environment
from cluster.addresses import cluster_to_join
from cluster.bench_verbs import bench
from cluster.plan_verbs import plan
from cluster.verbs import AsJson, Runs, add_verb, print_json
from configs.names import preset_names

app = typer.Typer(
    name="tamen",
    help="One brain, many boards: self-play training of game AI on Ray.",
    epilog="`tamen VERB --help` says more. Start with: tamen demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes leave a third of 80 columns to the words
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="section.key=value, such as search.simulations=64", metavar="SETTING"),
]
Preset = Annotated[str, typer.Argument(help=f"one of {', '.join(preset_names())}", metavar="PRESET")]
Name = Annotated[
    str | None, typer.Option(help="what the run is called (default: as the preset)", metavar="RUN")
]
Size = Annotated[
    Literal["auto", "cpu", "gpu"], typer.Option(help="size of the preset; auto: gpu where there is one")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray to join: auto or HOST:PORT; local: one of its own", envvar="RAY_ADDRESS", metavar="ADDRESS"
    ),
]
Engine = Annotated[
    Literal["ray", "local"], typer.Option(help="Ray, or everything in one process, deterministic")
]
Seed = Annotated[int | None, typer.Option(help="seed of all randomness", min=0, metavar="N")]
Minutes = Annotated[float | None, typer.Option(help="stop after this time", min=0.01, metavar="MINUTES")]
MetricsPort = Annotated[
    int | None,
    typer.Option(help="serve Prometheus text on this port of 127.0.0.1", min=0, max=65535, metavar="PORT"),
]
ModelSimulations = Annotated[
    int, typer.Option(help="of a model's move; 0: its policy alone", min=0, metavar="N")
]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of the live panel")]
app.add_typer(bench, name="bench")
app.add_typer(plan, name="plan")
verb = functools.partial(add_verb, app)


@verb
def demo(
    seconds: Annotated[float, typer.Option(help="time for everything", min=40, metavar="SECONDS")] = 113.0,
    runs: Runs = Path("runs"),
    plain: Plain = False,
) -> None:
    """Watch a network learn tic-tac-toe and 4×4 hex in two minutes."""
    from cluster.demo import run_demo

    run_demo(seconds=seconds, runs=runs, plain=plain)


@verb
def doctor(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Say whether this machine is fit to run, and what mends it."""
    from cluster.doctor import examine, show_findings

    findings = list(examine(runs))
    show_findings(findings, as_json=as_json)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(3)


@verb
def train(
    preset: Preset = "hex5",
    overrides: Overrides = None,
    name: Name = None,
    minutes: Minutes = None,
    games: Annotated[
        int | None, typer.Option(help="stop when the run has this many games", min=1, metavar="N")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="stop when the run has this many learner steps", min=1, metavar="N")
    ] = None,
    seed: Seed = None,
    size: Size = "auto",
    engine: Engine = "ray",
    address: Address = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the settings and the plan, and end")
    ] = False,
    plain: Plain = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Train a network by self-play, or go on with a run.

    The same command resumes. Ctrl-C saves and stops.
    """
    from cluster.program import Machine
    from cluster.run_folder import run_folder
    from cluster.train import fitting_size, resolve_config, show_plan
    from cluster.train import train as start

    address = cluster_to_join(address) if engine == "ray" else None
    fitting = fitting_size(size, Machine.here())
    config = resolve_config(
        preset, overrides or [], size=fitting, seed=seed, minutes=minutes, games=games, steps=steps
    )
    folder = run_folder(runs, name or preset)
    if dry_run:
        show_plan(config, folder, size=fitting)
        return
    start(
        config,
        folder,
        engine=engine,
        address=address,
        plain=plain,
        metrics_port=metrics_port,
    )


@verb
def selfplay(
    model: Annotated[str, typer.Argument(help="a run, RUN@VERSION or a .safetensors file", metavar="MODEL")],
    out: Annotated[Path, typer.Argument(help="folder for the games; the same folder goes on", metavar="OUT")],
    overrides: Overrides = None,
    games: Annotated[int, typer.Option(help="games in the folder at the end", min=1, metavar="N")] = 1000,
    address: Address = None,
    runs: Runs = Path("runs"),
    plain: Plain = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Play games of a given model into a folder, without learning.

    Interrupt it as you like: the same command goes on.
    """
    from cluster.selfplay import play_games

    play_games(
        model,
        out,
        overrides or [],
        games=games,
        address=cluster_to_join(address),
        runs=runs,
        plain=plain,
        metrics_port=metrics_port,
    )


@verb
def play(
    opponent: Annotated[
        str, typer.Argument(help="a run, or any player that `match` knows", metavar="PLAYER")
    ] = "mcts:400",
    game: Annotated[
        str | None, typer.Option(help="which game (default: the model's, or hex5)", metavar="GAME")
    ] = None,
    second: Annotated[bool, typer.Option("--second", help="let the opponent move first")] = False,
    simulations: ModelSimulations = 64,
    runs: Runs = Path("runs"),
) -> None:
    """Play against a trained model or another player, in the terminal."""
    from cluster.match import play_in_terminal

    play_in_terminal(opponent, game=game, person=int(second), simulations=simulations, runs=runs)


@verb
def match(
    first: Annotated[
        str,
        typer.Argument(
            help="a run, random, mcts:400, solver, open_spiel_mcts:400, model:…", metavar="PLAYER"
        ),
    ],
    second: Annotated[str, typer.Argument(help="likewise", metavar="PLAYER")],
    game: Annotated[str | None, typer.Option(help="which game, when no player tells", metavar="GAME")] = None,
    games: Annotated[int, typer.Option(help="games to play, an even number", min=1, metavar="N")] = 100,
    simulations: ModelSimulations = 64,
    opening_plies: Annotated[int, typer.Option(help="random moves before each game", min=0, metavar="N")] = 2,
    seed: Annotated[int, typer.Option(help="seed of openings and players", min=0, metavar="N")] = 0,
    engine: Engine = "ray",
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Let two players meet; score and Elo with their intervals.

    Each opening is played from both sides. A player is a run, RUN@VERSION, a .safetensors file, random,
    mcts:N, solver, open_spiel_mcts:N, model:RUN:N or model:RUN:policy; N are simulations for each move.
    """
    from cluster.match import play_match

    result = play_match(
        first,
        second,
        game=game,
        games=games,
        simulations=simulations,
        opening_plies=opening_plies,
        seed=seed,
        engine=engine,
        address=cluster_to_join(address) if engine == "ray" else None,
        runs=runs,
        quiet=as_json,
    )
    if as_json:
        print_json(result)


@verb
def status(
    name: Annotated[str | None, typer.Argument(help="a run (default: all of them)", metavar="RUN")] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how runs stand: games, steps, strength, running or not."""
    from cluster.status import show_status

    result = show_status(name, runs=runs, quiet=as_json)
    if as_json:
        print_json(result)


def main() -> None:
    """Run the command line; Ctrl-C becomes exit code 130."""
    environment.prepare()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
