"""The command `tamen`. Verbs import what they need when they run: `tamen --help` pays for neither torch nor ray."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster import environment
from core.errors import TamenError

app = typer.Typer(
    name="tamen",
    help="One brain, many boards: self-play training of game AI on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every verb takes --debug for a traceback. Start with: tamen demo",
)

Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.key=value, such as search.simulations=64")
]
Preset = Annotated[
    str, typer.Argument(help="a preset: tic_tac_toe, connect_four, hex4, hex5, hex7, hex11, hex13")
]
Name = Annotated[
    str | None, typer.Option(help="name of the run; the same name resumes (default: the preset's)")
]
Runs = Annotated[Path, typer.Option(help="folder that holds the runs")]
Size = Annotated[Literal["cpu", "gpu"], typer.Option(help="which size of the preset")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join", envvar="RAY_ADDRESS")]
Engine = Annotated[
    Literal["ray", "local"], typer.Option(help="Ray, or everything in one process, deterministic")
]
Seed = Annotated[int | None, typer.Option(help="seed of all randomness")]
Minutes = Annotated[float | None, typer.Option(help="stop after this time", min=0.01)]
MetricsPort = Annotated[int | None, typer.Option(help="serve Prometheus text on this port of 127.0.0.1")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object on the last line")]
Plain = Annotated[bool, typer.Option(help="plain lines instead of the live panel")]


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="time for everything", min=40)] = 110.0,
    runs: Runs = Path("runs"),
    plain: Plain = False,
) -> None:
    """Watch a network learn tic-tac-toe, then 4×4 hex, from nothing, in two minutes."""
    from cluster.demo import run_demo

    run_demo(seconds=seconds, runs=runs, plain=plain)


@app.command()
def doctor(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Say whether this machine is fit to run, and what mends what is not."""
    from cluster.doctor import examine, show_findings

    findings = list(examine(runs))
    show_findings(findings, as_json=as_json)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(3)


@app.command()
def train(
    preset: Preset = "hex5",
    overrides: Overrides = None,
    name: Name = None,
    minutes: Minutes = None,
    games: Annotated[int | None, typer.Option(help="stop after this many games of the run", min=1)] = None,
    steps: Annotated[
        int | None, typer.Option(help="stop after this many learner steps of the run", min=1)
    ] = None,
    seed: Seed = None,
    size: Size = "cpu",
    engine: Engine = "ray",
    address: Address = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option(help="print the configuration and the plan, and stop")] = False,
    plain: Plain = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Train a network by self-play; the same command resumes, Ctrl-C saves and stops."""
    from cluster.train import resolve_config, show_plan
    from cluster.train import train as start

    config = resolve_config(
        preset, overrides or [], size=size, seed=seed, minutes=minutes, games=games, steps=steps
    )
    if dry_run:
        show_plan(config)
        return
    start(
        config,
        name=name or preset,
        runs=runs,
        engine=engine,
        address=address,
        plain=plain,
        metrics_port=metrics_port,
    )


@app.command()
def selfplay(
    model: Annotated[str, typer.Argument(help="a run, a run@version, or a .safetensors file")],
    out: Annotated[Path, typer.Argument(help="folder for the games; the same folder goes on")],
    overrides: Overrides = None,
    games: Annotated[int, typer.Option(help="games in the folder when it is finished", min=1)] = 1000,
    address: Address = None,
    runs: Runs = Path("runs"),
    plain: Plain = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Only play: games of a given model into a folder; interrupt and go on as you like."""
    from cluster.selfplay import play_games

    play_games(
        model,
        out,
        overrides or [],
        games=games,
        address=address,
        runs=runs,
        plain=plain,
        metrics_port=metrics_port,
    )


@app.command()
def play(
    opponent: Annotated[str, typer.Argument(help="a run, or any player that `match` knows")] = "mcts:400",
    game: Annotated[str | None, typer.Option(help="the game, when the opponent does not tell")] = None,
    second: Annotated[bool, typer.Option(help="let the opponent move first")] = False,
    simulations: Annotated[int, typer.Option(help="of a model, a move; 0 plays its policy", min=0)] = 64,
    runs: Runs = Path("runs"),
) -> None:
    """Play against a trained model, or any other player, in the terminal."""
    from cluster.match import play_in_terminal

    play_in_terminal(opponent, game=game, person=int(second), simulations=simulations, runs=runs)


@app.command()
def match(
    first: Annotated[
        str, typer.Argument(help="a run, random, mcts:400, solver, open_spiel_mcts:400, model:…")
    ],
    second: Annotated[str, typer.Argument(help="likewise")],
    game: Annotated[str | None, typer.Option(help="the game, when no player tells")] = None,
    games: Annotated[
        int, typer.Option(help="games to play; each opening is played from both sides", min=2)
    ] = 100,
    simulations: Annotated[int, typer.Option(help="of models that name none, a move", min=0)] = 64,
    opening_plies: Annotated[int, typer.Option(help="random moves before each game", min=0)] = 2,
    seed: Annotated[int, typer.Option(help="of openings and players", min=0)] = 0,
    engine: Engine = "ray",
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Let two players meet on paired openings; score and Elo with their intervals."""
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
        address=address,
        runs=runs,
        quiet=as_json,
    )
    if as_json:
        _print_json(result)


@app.command()
def bench(
    what: Annotated[Literal["inference", "selfplay"], typer.Argument(help="what to measure")],
    game: Annotated[
        str | None, typer.Option(help="default: hex13 for inference, connect_four for selfplay")
    ] = None,
    simulations: Annotated[int, typer.Option(min=1)] = 32,
    blocks: Annotated[int | None, typer.Option(min=1)] = None,
    channels: Annotated[int | None, typer.Option(min=1)] = None,
    precision: Annotated[Literal["auto", "bf16", "fp16", "fp32"], typer.Option()] = "auto",
    seconds: Annotated[float, typer.Option(help="of each measurement", min=1)] = 10.0,
    rounds: Annotated[int, typer.Option(help="measurements of each side, in turn", min=1)] = 3,
    compiled: Annotated[bool, typer.Option(help="let the floor try torch.compile too")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: the share of its raw forward that games receive, and where the time goes."""
    from cluster.bench import bench_inference, bench_selfplay

    measure = bench_inference if what == "inference" else bench_selfplay
    result = measure(
        game=game,
        simulations=simulations,
        blocks=blocks,
        channels=channels,
        precision=precision,
        seconds=seconds,
        rounds=rounds,
        compiled=compiled,
        overrides=overrides or [],
        quiet=as_json,
    )
    if as_json:
        _print_json(result)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="a run; default: all of them")] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how runs stand: games, steps, strength, whether one is running."""
    from cluster.status import show_status

    result = show_status(name, runs=runs, quiet=as_json)
    if as_json:
        _print_json(result)


def _print_json(result: Any) -> None:
    sys.stdout.write(json.dumps(result) + "\n")


def _of_the_system(error: OSError) -> TamenError:
    return TamenError(
        f"{error.filename} could not be read or written" if error.filename else "the system refused",
        why=error.strerror or str(error) or type(error).__name__,
        fix="see to the disk, its room and its permissions; what was acknowledged is safe",
    )


def main() -> None:
    """Run the command line; a TamenError becomes three lines and its exit code, Ctrl-C becomes 130."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    environment.prepare()
    try:
        app(arguments)
    except TamenError as error:
        from cluster.terminal import show_error

        show_error(error, debug=len(arguments) < len(sys.argv) - 1)
        sys.exit(error.exit_code)
    except OSError as error:
        from cluster.terminal import show_error

        show_error(_of_the_system(error), debug=len(arguments) < len(sys.argv) - 1)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
