"""`tamen bench`: how much of the machine's raw forward reaches the games, each figure beside its floor in one run.

The two sides take turns, so that a slow minute of a shared machine meets both; a figure is the median of its rounds.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cluster import environment
from cluster.parts import MODEL, make_store
from cluster.program import Machine, plan, plan_serving
from cluster.raw_forward import measure_processes
from cluster.run_folder import RunFolder
from cluster.terminal import console
from configs.loading import override
from configs.schema import RunConfig
from core.errors import ClusterError
from games.catalog import make_game

WARM_UP_SECONDS = 5.0
LOAD = ("actors.count=2", "actors.groups_per_actor=2", "actors.games_per_group=256")
"""Clients of `bench inference`, and their requests in flight; --set changes it."""
PLAY = ("actors.count=1", "actors.groups_per_actor=4", "actors.games_per_group=128")
"""Actors and games of `bench selfplay`; --set changes it."""


def bench_inference(
    *,
    game: str | None,
    simulations: int,
    blocks: int | None,
    channels: int | None,
    precision: str,
    seconds: float,
    rounds: int,
    compiled: bool,
    overrides: Sequence[str],
    quiet: bool,
) -> dict[str, Any]:
    """Serve positions to two client actors that do nothing else, and compare with the raw forward of one thread."""
    config = _config(game or "hex13", blocks or 3, channels or 32, precision, [*LOAD, *overrides])
    raw, served = [], []
    for number in range(rounds):
        raw.append(_raw(config, seconds, 1, compiled)[0])
        served.append(_serve(config, seconds))
        _say(
            quiet,
            f"round {number + 1}: raw {raw[-1]['positions_per_s']:,.0f}/s  served {served[-1]['served_per_s']:,.0f}/s",
        )
    result = _medians(served) | {
        "raw_per_s": statistics.median(r["positions_per_s"] for r in raw),
        "raw_best": raw[-1]["best"],
        "precision": raw[-1]["precision"],
        "served_over_raw_rounds": [
            s["served_per_s"] / r["positions_per_s"] for s, r in zip(served, raw, strict=True)
        ],
    }
    result["served_over_raw"] = statistics.median(result["served_over_raw_rounds"])
    _say(
        quiet, f"served over raw: {result['served_over_raw']:.2f}, mean batch {result['mean_batch']:.0f} rows"
    )
    return result | {"config": config.model_dump(mode="json")}


def bench_selfplay(
    *,
    game: str | None,
    simulations: int,
    blocks: int | None,
    channels: int | None,
    precision: str,
    seconds: float,
    rounds: int,
    compiled: bool,
    overrides: Sequence[str],
    quiet: bool,
) -> dict[str, Any]:
    """Play with real search on the whole machine, and compare with every core doing nothing but forwards."""
    searches = [
        f"search.simulations={simulations}",
        "search.full_share=1.0",
        f"search.cheap_simulations={simulations}",
    ]
    machine = Machine.here()
    cores = machine.cpus
    servers = f"inference.servers={machine.gpus or cores}"
    settings = [*searches, *PLAY, servers, *overrides]
    config = _config(game or "connect_four", blocks or 4, channels or 64, precision, settings)
    raw, played = [], []
    for number in range(rounds):
        raw.append(sum(one["positions_per_s"] for one in _raw(config, seconds, cores, compiled)))
        played.append(_play(config, seconds))
        _say(
            quiet,
            f"round {number + 1}: raw {raw[-1]:,.0f}/s  games {played[-1]['evals_per_s']:,.0f} evaluations/s",
        )
    result = _medians(played) | {"raw_per_s": statistics.median(raw)}
    result["evals_over_raw_rounds"] = [p["evals_per_s"] / r for p, r in zip(played, raw, strict=True)]
    result["evals_over_raw"] = statistics.median(result["evals_over_raw_rounds"])
    _say(quiet, f"evaluations over raw: {result['evals_over_raw']:.2f}, {result['moves_per_s']:,.0f} moves/s")
    return result | {"config": config.model_dump(mode="json")}


def _config(game: str, blocks: int, channels: int, precision: str, overrides: Sequence[str]) -> RunConfig:
    network = {"blocks": blocks, "channels": channels, "precision": precision}
    config = RunConfig.model_validate({"game": game, "network": network, "evaluation": {"games": 0}})
    return override(config, ["replay.window_exponent=1.0", "replay.window_growth=1.0", *overrides])


def _raw(config: RunConfig, seconds: float, processes: int, compiled: bool) -> list[dict[str, Any]]:
    share = max(0.5, seconds / 5)
    return measure_processes(
        config.game, config.network, seconds=share, processes=processes, compiled=compiled
    )


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def _serve(config: RunConfig, seconds: float) -> dict[str, float]:
    """Run one server and its clients on Ray for a while; count between two moments after the warm-up."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = _folder_with_weights(config, Path(temporary))
        environment.prepare_ray(None)
        import ray

        from cluster.load_actor import LoadActor
        from cluster.ray_client import call
        from cluster.ray_program import RayProgram, connect, dressed

        connect(None, cpus=Machine.here().cpus)
        try:
            program = RayProgram(config, folder, plan_serving(Machine.here()), report=lambda text: None)
            program.start()
            (server,) = program.handles("inference")
            load = {"groups": config.actors.groups_per_actor, "rows": config.actors.games_per_group}
            clients = [
                dressed(LoadActor, num_cpus=0).remote(config.game, [server], **load, seed=number)
                for number in range(plan(config, Machine.here()).count("actor"))
            ]
            running = [client.run.remote() for client in clients]
            while not call(server.stats)["batches"]:
                ray.wait(running, timeout=0.1)
            time.sleep(WARM_UP_SECONDS)
            before, began = call(server.stats), time.monotonic()
            time.sleep(seconds)
            after, elapsed = call(server.stats), time.monotonic() - began
        finally:
            ray.shutdown()
    rows = after["rows"] - before["rows"]
    return {
        "served_per_s": rows / elapsed,
        "mean_batch": rows / max(1, after["batches"] - before["batches"]),
        "busy_ratio": (after["busy_seconds"] - before["busy_seconds"]) / elapsed,
        "forward_share": (after["forward_seconds"] - before["forward_seconds"]) / elapsed,
        "wait_ms": 1000
        * (after["wait_seconds"] - before["wait_seconds"])
        / max(1, after["requests"] - before["requests"]),
    }


def _play(config: RunConfig, seconds: float) -> dict[str, float]:
    """Run self-play without a learner on Ray for a while; count between two moments after the warm-up."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = _folder_with_weights(config, Path(temporary))
        environment.prepare_ray(None)
        from cluster.ray_engine import RayEngine

        engine = RayEngine(config, folder, address=None, report=lambda text: None, learn=False)
        try:
            engine.start()
            _wait_for_moves(engine)
            engine.advance(WARM_UP_SECONDS)
            before, cpu_before, began = engine.stats(), _cpu_seconds(), time.monotonic()
            engine.advance(seconds)
            after, cpu_after, elapsed = engine.stats(), _cpu_seconds(), time.monotonic() - began
        finally:
            engine.stop()

    def growth(role: str, name: str) -> float:
        return sum(now[name] - before[part][name] for part, now in after.items() if part.startswith(role))

    capacity = elapsed * Machine.here().cpus
    forward = growth("inference", "forward_cpu_seconds") / capacity
    search = growth("actor", "search_cpu_seconds") / capacity
    used = (cpu_after - cpu_before) / capacity
    return {
        "moves_per_s": growth("actor", "moves") / elapsed,
        "evals_per_s": growth("inference", "forward_rows") / elapsed,
        "games_per_s": growth("actor", "games") / elapsed,
        "forward_share": forward,
        "search_share": search,
        "transfer_share": max(0.0, used - forward - search),
        "idle_share": max(0.0, 1.0 - used),
        "mean_batch": growth("inference", "rows") / max(1, growth("inference", "batches")),
        "cache_hit_ratio": growth("inference", "cached_rows") / max(1, growth("inference", "rows")),
    }


def _wait_for_moves(engine: Any, timeout_seconds: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        engine.advance(0.5)
        actors = [stats for part, stats in engine.stats().items() if part.startswith("actor")]
        if actors and all(stats.get("moves", 0) for stats in actors):
            return
    raise ClusterError(
        "the benchmark did not begin",
        why=f"an actor has made no move within {timeout_seconds:.0f} s",
        fix="lower actors.games_per_group or --simulations with --set",
    )


def _folder_with_weights(config: RunConfig, root: Path) -> RunFolder:
    """Return a run folder that holds an untrained net; how fast a net is does not depend on what it knows."""
    from networks.build import new_board_net, to_weights

    folder = RunFolder(root / "bench")
    net = new_board_net(make_game(config.game).board, config.network, seed=0)
    make_store(folder).publish(to_weights(net, model=MODEL, version=0, game=config.game))
    return folder


def _cpu_seconds() -> float:
    """Return the processor time of this process and all that it started, Ray's own included."""
    total = 0.0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        console().print(text, markup=False)
