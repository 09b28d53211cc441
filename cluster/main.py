"""The command `tamen`. Verbs import what they need when they run: `tamen --help` pays for neither torch nor ray."""

import functools
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster import environment
from cluster.cli.addresses import cluster_to_join
from cluster.cli.verbs import AsJson, Runs, add_verb, print_json, settings_without_preset
from cluster.verbs.bench import bench
from cluster.verbs.control import health, locks, why
from cluster.verbs.dashboard import dashboard
from cluster.verbs.data import data as data_app
from cluster.verbs.datagen import datagen
from cluster.verbs.doctor import doctor
from cluster.verbs.engines import engines as engines_app
from cluster.verbs.gtp import EngineCommands, gtp
from cluster.verbs.models import models as models_app
from cluster.verbs.plan import plan
from cluster.verbs.solve import solve
from cluster.verbs.status import scale, status, stop
from configs.names import PIPELINES_FOLDER, VALUES_FOLDER, preset_names

if TYPE_CHECKING:
    from configs.schema import RunConfig

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
Preset = Annotated[
    str,
    typer.Argument(
        help=f"one of {', '.join([*preset_names(), *preset_names(VALUES_FOLDER)])}", metavar="PRESET"
    ),
]
PipelinePreset = Annotated[
    str | None,
    typer.Argument(
        help=f"one of {', '.join(preset_names(PIPELINES_FOLDER))} (default: the run's settings, or hex)",
        metavar="PRESET",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(help="a file or folder of games; may be given several times", metavar="FILES"),
]
SelfplayDir = Annotated[
    str | None, typer.Option(help="games that `tamen selfplay` has played", metavar="FOLDER")
]
PlayingModel = Annotated[
    str | None, typer.Option(help="let this model play games first: a run, or a file", metavar="MODEL")
]
First = Annotated[
    str | None, typer.Option("--from", help="begin with this step; use what is there", metavar="STEP")
]
Last = Annotated[str | None, typer.Option("--to", help="end with this step", metavar="STEP")]
Skip = Annotated[
    list[str] | None, typer.Option(help="leave this step out; use what is there", metavar="STEP")
]
NoCleanup = Annotated[bool, typer.Option("--no-cleanup", help="keep files that only the next step needs")]
PipelineEngine = Annotated[
    Literal["auto", "local", "ray"],
    typer.Option(help="who does the work: processes here, or Ray; auto: here, Ray for self-play alone"),
]
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
Games = Annotated[int | None, typer.Option(help="stop when the run has this many games", min=1, metavar="N")]
Steps = Annotated[
    int | None, typer.Option(help="stop when the run has this many learner steps", min=1, metavar="N")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(help="serve Prometheus text on this port of 127.0.0.1", min=0, max=65535, metavar="PORT"),
]
ModelSimulations = Annotated[
    int, typer.Option(help="of a model's move; 0: its policy alone", min=0, metavar="N")
]
FirstWeights = Annotated[
    str | None,
    typer.Option(help="begin with these: a run, RUN@VERSION or a .safetensors file", metavar="MODEL"),
]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of the live panel")]
Resume = Annotated[
    str | None, typer.Option(help="restore the run from where mirror.url had it, and go on", metavar="URL")
]
DEFAULT_PRESET = "hex5"
app.add_typer(bench, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(datagen, name="datagen")
app.add_typer(engines_app, name="engines")
app.add_typer(models_app, name="models")
app.add_typer(plan, name="plan")
verb = functools.partial(add_verb, app)


@verb
def demo(
    seconds: Annotated[float, typer.Option(help="time for everything", min=40, metavar="SECONDS")] = 113.0,
    runs: Runs = Path("runs"),
    plain: Plain = False,
) -> None:
    """Watch a network learn tic-tac-toe and 4×4 hex in two minutes."""
    from cluster.training.demo import run_demo

    run_demo(seconds=seconds, runs=runs, plain=plain)


verb(doctor)


@verb
def train(
    preset: Preset = DEFAULT_PRESET,
    overrides: Overrides = None,
    name: Name = None,
    weights: FirstWeights = None,
    minutes: Minutes = None,
    games: Games = None,
    steps: Steps = None,
    seed: Seed = None,
    size: Size = "auto",
    engine: Engine = "ray",
    address: Address = None,
    runs: Runs = Path("runs"),
    resume: Resume = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the settings and the plan, and end")
    ] = False,
    plain: Plain = False,
    metrics_port: MetricsPort = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="decide what to play and when to train, for keys such as hex5_2p")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="with --auto: print what came of it as JSON on the last line")
    ] = False,
) -> None:
    """Train a network, or go on with a run.

    By self-play, from rollouts of an environment, or to what hands are worth in samples.

    The same command resumes. Ctrl-C saves and stops.
    """
    whence = {"--weights": weights, "--resume": resume}
    if auto:
        refused = {"--name": name, "--games": games, "--steps": steps, "--seed": seed, **whence}
        around: dict[str, Any] = {"runs": runs, "minutes": minutes, "address": address, "dry_run": dry_run}
        _go_round([preset, *(overrides or [])], refused, **around, plain=plain, as_json=as_json)
        return
    if (settings := settings_without_preset(preset, overrides)) is not None:
        preset, overrides = DEFAULT_PRESET, settings
    if preset in preset_names(VALUES_FOLDER):
        refused = {"--minutes": minutes, "--games": games, "--steps": steps, **whence}
        given: dict[str, Any] = {"runs": runs, "seed": seed, "plain": plain, "dry_run": dry_run}
        _train_values(preset, overrides, name or preset, refused, **given)
        return
    from cluster.run.program import Machine
    from cluster.training.train import fitting_size, resolve_config

    fitting = fitting_size(size, Machine.here())
    bounds: dict[str, Any] = {"minutes": minutes, "games": games, "steps": steps}
    config = resolve_config(preset, overrides or [], size=fitting, seed=seed, resume=resume, **bounds)
    address = cluster_to_join(address) if engine == "ray" else None
    where = {"engine": engine, "address": address, "plain": plain, "metrics_port": metrics_port}
    begins = {"runs": runs, "weights": weights, "resume": resume}
    _train_run(config, name or preset, fitting, **begins, plan_only=dry_run, where=where)


def _train_run(
    config: "RunConfig",
    name: str,
    size: Literal["cpu", "gpu"],
    *,
    runs: Path,
    weights: str | None,
    resume: str | None,
    plan_only: bool,
    where: dict[str, Any],
) -> None:
    from cluster.run.first_weights import choose_first_weights
    from cluster.run.run_folder import run_folder
    from cluster.training.train import show_plan, train
    from core.errors import UsageError

    if weights is not None and resume is not None:
        raise UsageError(
            "--weights and --resume are both given",
            why="a run that is restored has weights of its own",
            fix="leave one of them out",
        )
    folder = run_folder(runs, name)
    first = choose_first_weights(weights, config, folder, runs=runs) if weights is not None else None
    if plan_only:
        show_plan(config, folder, size=size, first=first, resume=resume)
        return
    train(config, folder, first=first, resume=resume, **where)


def _go_round(words: list[str], refused: dict[str, Any], *, as_json: bool, **around: Any) -> None:
    from cluster.autopilot.start import go_round

    told = go_round(words, refused, **around, as_json=as_json)
    if as_json:
        print_json(told)


def _train_values(
    preset: str,
    overrides: list[str] | None,
    name: str,
    refused: dict[str, Any],
    *,
    runs: Path,
    seed: int | None,
    plain: bool,
    dry_run: bool,
) -> None:
    from cluster.hands.train_values import refuse_for_values, show_settings, train_values
    from cluster.run.run_folder import run_folder

    refuse_for_values(refused)
    folder = run_folder(runs, name)
    if dry_run:
        show_settings(preset, overrides or [], seed=seed)
        return
    if not train_values(preset, overrides or [], folder, runs=runs, seed=seed, plain=plain)["finished"]:
        raise typer.Exit(130)


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
    from cluster.training.selfplay import play_games

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
def pipeline(
    preset: PipelinePreset = None,
    overrides: Overrides = None,
    name: Name = None,
    data: Data = None,
    selfplay_dir: SelfplayDir = None,
    model: PlayingModel = None,
    first: First = None,
    last: Last = None,
    skip: Skip = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print settings, steps and estimates, and end")
    ] = False,
    no_cleanup: NoCleanup = False,
    size: Size = "auto",
    engine: PipelineEngine = "auto",
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
    plain: Plain = False,
) -> None:
    """Make a model from files of games, in steps.

    The steps are selfplay (with --model), preprocess, positions, shuffle, train. Interrupt it as you like: the same
    command goes on, and does nothing twice. Exit code 1 when a file could not be read whole; the rest was.
    """
    if (settings := settings_without_preset(preset, overrides)) is not None:
        preset, overrides = None, settings
    from cluster.data.pipeline import DEFAULT_PRESET as FIRST_PIPELINE
    from cluster.data.pipeline import Asked, resolve_pipeline, run_pipeline, show_plan
    from cluster.run.program import Machine
    from cluster.run.run_folder import run_folder
    from cluster.training.train import fitting_size

    folder = run_folder(runs, name or preset or FIRST_PIPELINE)
    config = resolve_pipeline(
        preset,
        overrides or [],
        folder,
        data=data or [],
        selfplay_dir=selfplay_dir,
        model=model,
        size=fitting_size(size, Machine.here()),
        cleanup=not no_cleanup,
    )
    asked = Asked(
        first=first,
        last=last,
        skip=tuple(skip or ()),
        engine=None if engine == "auto" else engine,
        address=cluster_to_join(address) if engine != "local" else None,
        plain=plain,
        quiet=as_json,
    )
    if dry_run:
        planned = show_plan(config, folder, runs, asked)
        if as_json:
            print_json(planned)
        return
    told = run_pipeline(config, folder, runs, asked)
    if as_json:
        print_json({"run": folder.typed, "folder": str(folder.root), **asdict(told)})
    if told.exit_code:
        raise typer.Exit(told.exit_code)


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
    """Play against a model or another player, in the terminal."""
    from cluster.matches.match import play_in_terminal

    play_in_terminal(opponent, game=game, person=int(second), simulations=simulations, runs=runs)


@verb
def match(
    first: Annotated[
        str,
        typer.Argument(
            help="a run, random, mcts:400, solver, gtp:gnugo:1, uci:stockfish:4, model:…", metavar="PLAYER"
        ),
    ],
    second: Annotated[str, typer.Argument(help="likewise", metavar="PLAYER")],
    game: Annotated[str | None, typer.Option(help="which game, when no player tells", metavar="GAME")] = None,
    games: Annotated[int, typer.Option(help="games to play, an even number", min=1, metavar="N")] = 100,
    simulations: ModelSimulations = 64,
    opening_plies: Annotated[int, typer.Option(help="random moves before each game", min=0, metavar="N")] = 2,
    seed: Annotated[int, typer.Option(help="seed of openings and players", min=0, metavar="N")] = 0,
    engine_command: EngineCommands = None,
    engine: Engine = "ray",
    address: Address = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Let two players meet; score and Elo with their intervals.

    Each opening is played from both sides. A player is a run, RUN@VERSION, a .safetensors file, random, mcts:N, solver,
    open_spiel_mcts:N, model:RUN:N or model:RUN:policy, N simulations a move; gtp:NAME:LEVEL or uci:NAME:DEPTH.
    """
    from cluster.matches.match import play_match

    result = play_match(
        first,
        second,
        game=game,
        games=games,
        simulations=simulations,
        opening_plies=opening_plies,
        seed=seed,
        engine_commands=engine_command or (),
        engine=engine,
        address=cluster_to_join(address) if engine == "ray" else None,
        runs=runs,
        quiet=as_json,
    )
    if as_json:
        print_json(result)
    if not result["games"]:
        raise typer.Exit(1)


@verb
def evaluate(
    model: Annotated[str, typer.Argument(help="a run, RUN@VERSION or a .safetensors file", metavar="MODEL")],
    data: Annotated[
        list[str],
        typer.Option(
            help="a file or folder of games, or a folder of shuffled rows; may be given several times",
            metavar="FILES",
        ),
    ],
    max_rows: Annotated[
        int | None, typer.Option(help="judge by at most so many positions", min=1, metavar="N")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Judge a model by games: which moves and winners it foretells.

    Moves count from ply 2 on. Of shuffled rows those count that were kept apart for validation.
    """
    from cluster.data.evaluate import evaluate_model

    report = evaluate_model(model, data, runs=runs, as_json=as_json, max_rows=max_rows)
    if as_json:
        print_json(report)
    if report["files_set_aside"]:
        raise typer.Exit(1)


for work in (solve, status, scale, dashboard, stop, gtp, why, health, locks):
    verb(work)


def main() -> None:
    """Run the command line; Ctrl-C becomes exit code 130."""
    environment.prepare()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
