"""`tamen bench …`: what this machine can do, and what of it reaches the games."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cluster.cli.verbs import AsJson, Runs, add_verb, print_json, settings_without_preset
from cluster.verbs.engines import bench as bench_engines
from configs.names import preset_names

if TYPE_CHECKING:
    from cluster.bench.rig import Measuring

bench = typer.Typer(
    help="Measure what share of this machine's raw forward games receive.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, bench)

Game = Annotated[str, typer.Option(help="which game", metavar="GAME")]
Simulations = Annotated[int, typer.Option(help="of each move", min=1, metavar="N")]
Blocks = Annotated[int, typer.Option(help="of the network", min=1, metavar="N")]
Channels = Annotated[int, typer.Option(help="of the network", min=1, metavar="N")]
Precision = Annotated[
    Literal["auto", "bf16", "fp16", "fp32"], typer.Option(help="of the network's arithmetic")
]
Seconds = Annotated[float, typer.Option(help="of each measurement", min=1, metavar="SECONDS")]
Rounds = Annotated[int, typer.Option(help="measurements of each side, in turn", min=1, metavar="N")]
Compiled = Annotated[bool, typer.Option("--compiled", help="let the raw forward try torch.compile too")]
Model = Annotated[
    str | None,
    typer.Option(help="a trained network, its game with it, instead of an untrained one", metavar="RUN|FILE"),
]
Preset = Annotated[str, typer.Argument(help=f"one of {', '.join(preset_names())}", metavar="PRESET")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value …", metavar="SETTING")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value; may be repeated", metavar="SETTING")
]


@verb
def inference(
    game: Game = "hex13",
    blocks: Blocks = 3,
    channels: Channels = 32,
    precision: Precision = "auto",
    seconds: Seconds = 10.0,
    rounds: Rounds = 3,
    compiled: Compiled = False,
    write: Annotated[
        bool, typer.Option("--write", help="record the best size of a batch for runs on this machine")
    ] = False,
    latency_ms: Annotated[
        float, typer.Option(help="the longest that a recorded batch may take", min=0.1, metavar="MS")
    ] = 100.0,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Serve clients that do not think, beside the raw forward."""
    from cluster.bench.inference import LOAD, bench_inference, in_words, record_best_batch
    from cluster.bench.rig import bench_config
    from cluster.cli.terminal import console

    config = bench_config(
        game, blocks=blocks, channels=channels, precision=precision, settings=[*LOAD, *(settings or [])]
    )
    result = bench_inference(config, _measuring(seconds, rounds, compiled=compiled, quiet=as_json))
    if write:
        tuning = record_best_batch(config, result, latency_ms=latency_ms)
        result |= {"recorded": tuning.model_dump(mode="json")}
        if not as_json:
            console().print(in_words(tuning), markup=False, soft_wrap=True)
    if as_json:
        print_json(result)


@verb
def selfplay(
    game: Game = "connect_four",
    simulations: Simulations = 32,
    blocks: Blocks = 4,
    channels: Channels = 64,
    precision: Precision = "auto",
    model: Model = None,
    runs: Runs = Path("runs"),
    seconds: Seconds = 10.0,
    rounds: Rounds = 3,
    compiled: Compiled = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Play games with real search, beside the raw forward."""
    from cluster.bench.rig import bench_config, with_model
    from cluster.bench.selfplay import bench_selfplay, play_settings

    config = bench_config(
        game,
        blocks=blocks,
        channels=channels,
        precision=precision,
        settings=[*play_settings(simulations), *(settings or [])],
    )
    config, weights = with_model(config, model, runs=runs)
    result = bench_selfplay(config, weights, _measuring(seconds, rounds, compiled=compiled, quiet=as_json))
    if as_json:
        print_json(result)


@verb
def search(
    game: Game = "connect_four",
    simulations: Simulations = 32,
    games: Annotated[int, typer.Option(help="games side by side", min=1, metavar="N")] = 512,
    algorithm: Annotated[Literal["gumbel", "puct"], typer.Option(help="the search")] = "gumbel",
    seconds: Seconds = 3.0,
    rounds: Rounds = 5,
    as_json: AsJson = False,
) -> None:
    """Search on one core with evaluations that cost nothing."""
    from cluster.bench.search import bench_search
    from configs.schema import SearchConfig

    settings = SearchConfig(algorithm=algorithm, simulations=simulations, cheap_simulations=1)
    result = bench_search(game, settings, games=games, measuring=_measuring(seconds, rounds, quiet=as_json))
    if as_json:
        print_json(result)


@verb
def phases(
    game: Game = "hex13",
    widths: Annotated[str, typer.Option(help="moves looked at in each ply", metavar="N,N")] = "13,8",
    blocks: Blocks = 3,
    channels: Channels = 32,
    precision: Precision = "auto",
    model: Model = None,
    runs: Runs = Path("runs"),
    seconds: Seconds = 20.0,
    rounds: Rounds = 3,
    moves: Annotated[
        int, typer.Option(help="positions in which the moves are compared", min=1, metavar="N")
    ] = 300,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Play with ever larger requests: what batching is worth."""
    from cluster.bench.phases import bench_phases, parse_widths, phase_settings
    from cluster.bench.rig import bench_config, with_model

    config = bench_config(
        game,
        blocks=blocks,
        channels=channels,
        precision=precision,
        settings=[*phase_settings(parse_widths(widths)), *(settings or [])],
    )
    config, weights = with_model(config, model, runs=runs)
    measuring = _measuring(seconds, rounds, quiet=as_json)
    result = bench_phases(config, weights, measuring, identical_moves=moves)
    if as_json:
        print_json(result)


@verb
def curves(
    game: Game = "connect_four",
    simulations: Simulations = 32,
    blocks: Blocks = 4,
    channels: Channels = 64,
    precision: Precision = "auto",
    actors: Annotated[str, typer.Option(help="how many, one server for all", metavar="N,N")] = "1,2,4,8",
    games: Annotated[str, typer.Option(help="of each actor", metavar="N,N")] = "16,64,256,1024",
    groups: Annotated[int, typer.Option(help="of games of an actor", min=1, max=16, metavar="N")] = 4,
    message_ms: Annotated[
        float, typer.Option(help="a message's way in the simulation", min=0, metavar="MS")
    ] = 0.5,
    seconds: Seconds = 10.0,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Play with more and more actors and games, beside what the simulation of `plan capacity` says."""
    from cluster.bench.rig import bench_config
    from cluster.bench.selfplay import play_settings
    from cluster.plan.curves import bench_curves, parse_counts, show_curves

    config = bench_config(
        game,
        blocks=blocks,
        channels=channels,
        precision=precision,
        settings=[*play_settings(simulations), f"actors.groups_per_actor={groups}", *(settings or [])],
    )
    result = bench_curves(
        config,
        _measuring(seconds, 1, quiet=as_json),
        actors=parse_counts(actors, what="actors"),
        games=parse_counts(games, what="games"),
        message_ms=message_ms,
    )
    if as_json:
        print_json(result)
    else:
        show_curves(result)


@verb
def rollout(
    environment: Annotated[
        str, typer.Option("--env", help="as gymnasium names it", metavar="ID")
    ] = "CartPole-v1",
    seeds: Annotated[int, typer.Option(help="runs from anew", min=1, metavar="N")] = 5,
    seed: Annotated[int, typer.Option(help="of the first run", min=0, metavar="N")] = 0,
    seconds: Annotated[
        float, typer.Option(help="after which a run is given up", min=1, metavar="SECONDS")
    ] = 60.0,
    engine: Annotated[
        Literal["ray", "local"], typer.Option(help="Ray, or everything in one process")
    ] = "ray",
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train on an environment until it is solved."""
    from cluster.bench.rollout import bench_rollout

    measuring = _measuring(seconds, seeds, quiet=as_json)
    result = bench_rollout(environment, settings or [], measuring, engine=engine, first_seed=seed)
    if as_json:
        print_json(result)


@verb
def replay(
    game: Game = "hex13",
    rows: Annotated[int, typer.Option(help="in the window", min=1000, metavar="N")] = 100_000,
    grown_rows: Annotated[
        int, typer.Option(help="to which a window of small rows grows; 0: none does", min=0, metavar="N")
    ] = 10_000_000,
    batch_rows: Annotated[int, typer.Option(help="of a batch", min=1, metavar="N")] = 4096,
    seconds: Seconds = 5.0,
    rounds: Rounds = 5,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Feed a learner through Ray, beside taking its rows out of arrays."""
    from cluster.bench.replay import bench_replay, replay_settings
    from cluster.bench.rig import bench_config

    config = bench_config(
        game,
        blocks=1,
        channels=1,
        precision="fp32",
        settings=[*replay_settings(batch_rows), *(settings or [])],
    )
    measuring = _measuring(seconds, rounds, quiet=as_json)
    result = bench_replay(config, measuring, rows=rows, grown_rows=grown_rows)
    if as_json:
        print_json(result)


@verb
def broadcast(
    game: Game = "connect_four",
    blocks: Blocks = 8,
    channels: Channels = 128,
    precision: Precision = "auto",
    every: Annotated[float, typer.Option(help="between two versions", min=0.01, metavar="SECONDS")] = 1.0,
    seconds: Seconds = 10.0,
    rounds: Rounds = 10,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Publish new weights while games are played: how soon they answer, and what that costs."""
    from cluster.bench.broadcast import bench_broadcast, broadcast_settings
    from cluster.bench.rig import bench_config

    config = bench_config(
        game,
        blocks=blocks,
        channels=channels,
        precision=precision,
        settings=[*broadcast_settings(), *(settings or [])],
    )
    result = bench_broadcast(config, _measuring(seconds, rounds, quiet=as_json), every_seconds=every)
    if as_json:
        print_json(result)


@verb
def solve(seconds: Seconds = 3.0, rounds: Rounds = 5, as_json: AsJson = False) -> None:
    """Solve rivers of hold'em on one core."""
    from cluster.bench.solve import bench_solve

    result = bench_solve(_measuring(seconds, rounds, quiet=as_json))
    if as_json:
        print_json(result)


@verb
def locks(
    processes: Annotated[int, typer.Option(help="at the same lock", min=1, metavar="N")] = 8,
    sections: Annotated[int, typer.Option(help="of each process", min=1, metavar="N")] = 2000,
    backends: Annotated[
        str, typer.Option(help="who keeps the lock, in turn", metavar="NAME,NAME")
    ] = "file,redis,ray",
    ttl_seconds: Annotated[float, typer.Option(help="of the lock", min=0.1, metavar="SECONDS")] = 1.0,
    kills: Annotated[int, typer.Option(help="of processes in a section", min=0, metavar="N")] = 16,
    stops: Annotated[
        int, typer.Option(help="of processes in a section, beyond the TTL", min=0, metavar="N")
    ] = 8,
    restarts: Annotated[int, typer.Option(help="of Redis and of the lease actor", min=0, metavar="N")] = 2,
    jumps: Annotated[
        int, typer.Option(help="of the clock of half of the processes", min=0, metavar="N")
    ] = 16,
    seed: Annotated[int, typer.Option(help="of the order of faults", min=0, metavar="N")] = 0,
    as_json: AsJson = False,
) -> None:
    """Go through critical sections under kills, stops, restarts and clock jumps.

    Exit code 1 when two were in a section at a time, or a section was lost.
    """
    from cluster.bench.locks import LockBench, bench_locks

    faults = {"kills": kills, "stops": stops, "restarts": restarts, "jumps": jumps}
    given = LockBench(processes=processes, sections=sections, ttl_seconds=ttl_seconds, **faults, seed=seed)
    result = bench_locks(given, kinds=tuple(filter(None, backends.split(","))), quiet=as_json)
    if as_json:
        print_json(result)
    if not result["passed"]:
        raise typer.Exit(1)


@verb
def recovery(
    preset: Preset = "hex5",
    overrides: Overrides = None,
    minutes: Annotated[
        float, typer.Option(help="of each run, from when all play", min=0.1, metavar="MINUTES")
    ] = 10.0,
    every: Annotated[float, typer.Option(help="between two faults", min=1, metavar="SECONDS")] = 15.0,
    pairs: Annotated[
        int, typer.Option(help="of runs, one with faults and one without", min=1, metavar="N")
    ] = 3,
    games: Annotated[
        int, typer.Option(help="between the final models of a pair; 0: none", min=0, metavar="N")
    ] = 400,
    cores: Annotated[
        Literal["bound", "shared"],
        typer.Option(help="whether each of the two machines has half of the cores, or all have all"),
    ] = "bound",
    seed: Annotated[int, typer.Option(help="of runs, faults and openings", min=0, metavar="N")] = 0,
    folder: Annotated[
        Path | None,
        typer.Option(help="where runs and results stay (default: a temporary one)", metavar="FOLDER"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train under faults, beside a run that nothing befalls.

    Exit code 1 when acknowledged rows were lost or counted twice, or processes are left.
    """
    from cluster.bench.recovery import RecoveryBench, bench_recovery, recovery_config, whole_in_words
    from cluster.cli.terminal import console

    if (words := settings_without_preset(preset, overrides)) is not None:
        preset, overrides = "hex5", words
    given = RecoveryBench(
        minutes=minutes, every=every, pairs=pairs, games=games, seed=seed, bound=cores == "bound"
    )
    config = recovery_config(preset, overrides or [], seed=seed)
    result = bench_recovery(given, config, folder=folder)
    if as_json:
        print_json(result)
    else:
        console().print(whole_in_words(result), markup=False, soft_wrap=True)
    if not result["passed"]:
        raise typer.Exit(1)


def _measuring(seconds: float, rounds: int, *, compiled: bool = False, quiet: bool) -> "Measuring":
    from cluster.bench.rig import Measuring

    return Measuring(seconds=seconds, rounds=rounds, compiled=compiled, quiet=quiet)


add_verb(bench, bench_engines, "engines")
