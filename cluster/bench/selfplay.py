"""`tamen bench selfplay`: how much of the raw forward of all cores reaches games, and where the time goes."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import sub
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from cluster import environment
from cluster.bench.rig import (
    WARM_UP_SECONDS,
    Measuring,
    Republisher,
    around,
    folder_with_weights,
    medians,
    raw_forward,
    wait_until,
)
from cluster.run.program import Machine
from configs.schema import RunConfig
from networks.weights import Weights

if TYPE_CHECKING:
    from cluster.monitoring.observer import Stats
    from cluster.training.ray_engine import RayEngine

T = TypeVar("T")


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
        "actors.games_per_group=1024",
    ]


def bench_selfplay(config: RunConfig, weights: Weights, measuring: Measuring) -> dict[str, Any]:
    """Play with real search on the whole machine, and compare with every device doing nothing but forwards."""
    machine = Machine.here()

    def measure_raw() -> float:
        devices = raw_forward(config, measuring, processes=machine.gpus or machine.cpus)
        return sum(one["positions_per_s"] for one in devices)

    raw, played = [measure_raw()], []
    for number in range(measuring.rounds):
        played.append(measure_play(config, weights, measuring.seconds).shares())
        raw.append(measure_raw())
        measuring.say(
            f"round {number + 1}: raw {raw[-1]:,.0f}/s  games {played[-1]['evals_per_s']:,.0f} evaluations/s"
        )
    floors = around(raw)
    ratios = [p["evals_per_s"] / floor for p, floor in zip(played, floors, strict=True)]
    result = medians(played) | {
        "raw_per_s": statistics.median(floors),
        "evals_over_raw_rounds": ratios,
        "evals_over_raw": statistics.median(ratios),
    }
    measuring.say(
        f"evaluations over raw: {result['evals_over_raw']:.2f}, {result['moves_per_s']:,.0f} moves/s"
    )
    return result | {"config": config.model_dump(mode="json")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What happened between two moments of self-play.

    Attributes:
        before, after: counters of each part at both.
        seconds: between them.
        cpu_seconds: that all processes computed meanwhile, Ray's own included.
        pss_bytes, uss_bytes: memory of all these processes at the end: with what they share counted once in all, and
            without it.
    """

    before: "Stats"
    after: "Stats"
    seconds: float
    cpu_seconds: float
    pss_bytes: int
    uss_bytes: int

    def growth(self, role: str, name: str) -> float:
        """Return by how much a counter grew in all parts of a role."""
        return sum(
            now[name] - self.before[part][name] for part, now in self.after.items() if part.startswith(role)
        )

    def histogram(self, role: str, name: str) -> list[int]:
        """Return by how much each bucket grew in all parts of a role."""
        pairs = [
            (now[name], self.before[part][name]) for part, now in self.after.items() if part.startswith(role)
        ]
        return [sum(column) for column in zip(*(map(sub, now, then) for now, then in pairs), strict=True)]

    def rates(self) -> dict[str, float]:
        """Return moves, evaluations and games a second, and the rows of a batch."""
        return {
            "moves_per_s": self.growth("actor", "moves") / self.seconds,
            "evals_per_s": self.growth("inference", "forward_rows") / self.seconds,
            "games_per_s": self.growth("actor", "games") / self.seconds,
            "mean_batch": self.growth("inference", "rows") / max(1, self.growth("inference", "batches")),
        }

    def call_seconds(self) -> float:
        """Return what a request costs actors and servers in processor time, beside search and forward."""
        actors = self.growth("actor", "process_seconds") - self.growth("actor", "search_cpu_seconds")
        servers = self.growth("inference", "process_seconds") - self.growth(
            "inference", "forward_cpu_seconds"
        )
        return max(0.0, actors + servers) / max(1, self.growth("inference", "requests"))

    def shares(self) -> dict[str, float]:
        """Return the rates, and what the time was spent on.

        Shares are of the processor time of all cores. With GPUs `forward_share` is of their time, in which copies to
        and from them are included, and "transfer" is what the cores do beside search.
        """
        machine = Machine.here()
        cores = self.seconds * machine.cpus
        search = self.growth("actor", "search_cpu_seconds") / cores
        used = self.cpu_seconds / cores
        if machine.gpus:
            forward = self.growth("inference", "forward_seconds") / (self.seconds * machine.gpus)
            transfer = used - search
        else:
            forward = self.growth("inference", "forward_cpu_seconds") / cores
            transfer = used - search - forward
        return self.rates() | {
            "forward_share": forward,
            "search_share": search,
            "transfer_share": max(0.0, transfer),
            "idle_share": max(0.0, 1.0 - used),
            "cache_hit_ratio": self.growth("inference", "cached_rows")
            / max(1, self.growth("inference", "rows")),
        }


def measure_play(config: RunConfig, weights: Weights, seconds: float) -> Played:
    """Run self-play without a learner on Ray for a while; count between two moments after the warm-up."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder_with_weights(weights, Path(temporary))
        environment.prepare_ray(None)
        from cluster.training.ray_engine import RayEngine

        engine = RayEngine(config, folder, address=None, report=lambda text: None, learn=False)
        try:
            engine.start()
            wait_until(lambda: moves_everywhere(engine), lambda: engine.advance(0.5))
            republisher = Republisher(folder, engine.program.handles("store")[0])
            engine.advance(WARM_UP_SECONDS)
            before, cpu_before, began = engine.stats(), _cpu_seconds(), time.monotonic()
            republisher.pass_time(seconds, engine.advance)
            after, cpu_after, elapsed = engine.stats(), _cpu_seconds(), time.monotonic() - began
            memory = list(_of_all_processes(psutil.Process.memory_full_info))
        finally:
            engine.stop()
    return Played(
        before=before,
        after=after,
        seconds=elapsed,
        cpu_seconds=cpu_after - cpu_before,
        pss_bytes=sum(one.pss for one in memory),
        uss_bytes=sum(one.uss for one in memory),
    )


def moves_everywhere(engine: "RayEngine") -> bool:
    """Return whether every actor has played a move."""
    actors = [stats for part, stats in engine.stats().items() if part.startswith("actor")]
    return bool(actors) and all(stats.get("moves", 0) for stats in actors)


def _cpu_seconds() -> float:
    return sum(times.user + times.system for times in _of_all_processes(psutil.Process.cpu_times))


def _of_all_processes(ask: Callable[[psutil.Process], T]) -> Iterator[T]:
    """Yield what this process and each that it started answers, Ray's own included; not those that just ended."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield ask(process)
