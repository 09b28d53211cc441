"""`tamen bench selfplay`: how much of the raw forward of all cores reaches games, and where the time goes."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cluster import environment
from cluster.bench_rig import (
    WARM_UP_SECONDS,
    Measuring,
    Republisher,
    folder_with_weights,
    medians,
    raw_forward,
    wait_until,
)
from cluster.program import Machine
from configs.schema import RunConfig

if TYPE_CHECKING:
    from cluster.ray_engine import RayEngine


def play_settings(simulations: int) -> list[str]:
    """Return settings with which every move has all its simulations and every core serves."""
    machine = Machine.here()
    return [
        f"search.simulations={simulations}",
        f"search.cheap_simulations={simulations}",
        "search.full_share=1.0",
        f"inference.servers={machine.gpus or machine.cpus}",
        "actors.count=1",
        "actors.groups_per_actor=4",
        "actors.games_per_group=128",
    ]


def bench_selfplay(config: RunConfig, measuring: Measuring) -> dict[str, Any]:
    """Play with real search on the whole machine, and compare with every core doing nothing but forwards."""
    raw, played = [], []
    for number in range(measuring.rounds):
        cores = raw_forward(config, measuring, processes=Machine.here().cpus)
        raw.append(sum(one["positions_per_s"] for one in cores))
        played.append(_play(config, measuring.seconds))
        measuring.say(
            f"round {number + 1}: raw {raw[-1]:,.0f}/s  games {played[-1]['evals_per_s']:,.0f} evaluations/s"
        )
    ratios = [p["evals_per_s"] / r for p, r in zip(played, raw, strict=True)]
    result = medians(played) | {
        "raw_per_s": statistics.median(raw),
        "evals_over_raw_rounds": ratios,
        "evals_over_raw": statistics.median(ratios),
    }
    measuring.say(
        f"evaluations over raw: {result['evals_over_raw']:.2f}, {result['moves_per_s']:,.0f} moves/s"
    )
    return result | {"config": config.model_dump(mode="json")}


def _play(config: RunConfig, seconds: float) -> dict[str, float]:
    """Run self-play without a learner on Ray for a while; count between two moments after the warm-up."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder_with_weights(config, Path(temporary))
        environment.prepare_ray(None)
        from cluster.ray_engine import RayEngine

        engine = RayEngine(config, folder, address=None, report=lambda text: None, learn=False)
        try:
            engine.start()
            wait_until(lambda: _moves_everywhere(engine), lambda: engine.advance(0.5))
            republisher = Republisher(folder, engine.program.handles("store")[0])
            engine.advance(WARM_UP_SECONDS)
            before, cpu_before, began = engine.stats(), _cpu_seconds(), time.monotonic()
            republisher.pass_time(seconds, engine.advance)
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


def _moves_everywhere(engine: "RayEngine") -> bool:
    actors = [stats for part, stats in engine.stats().items() if part.startswith("actor")]
    return bool(actors) and all(stats.get("moves", 0) for stats in actors)


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
