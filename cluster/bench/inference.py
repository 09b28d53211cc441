"""`tamen bench inference`: how much of the raw forward of one thread two client actors receive through Ray.

The raw forward is measured with batches of many sizes; `record_best_batch` writes down for later runs which is best.
"""

import datetime
import importlib.metadata
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.bench.rig import (
    WARM_UP_SECONDS,
    Measuring,
    Republisher,
    around,
    best_rates,
    folder_with_weights,
    medians,
    raw_forward,
    untrained_weights,
    wait_until,
)
from cluster.run.machine_file import Tuning, batches_of, device_name, machine_file, write_tuning
from cluster.run.program import Machine, plan, plan_serving
from configs.schema import RunConfig

LOAD = ("actors.count=2", "actors.groups_per_actor=2", "actors.games_per_group=512")
"""Clients, and their requests in flight."""
NEARLY_BEST = 0.97
"""Batches that reach this share of the best rate are as good: the smaller they are, the sooner they are answered."""


def bench_inference(config: RunConfig, measuring: Measuring) -> dict[str, Any]:
    """Serve positions to client actors that do nothing else, and compare with the raw forward of one thread."""
    raw, served = [raw_forward(config, measuring, processes=1)[0]], []
    for number in range(measuring.rounds):
        served.append(_serve(config, measuring.seconds))
        raw.append(raw_forward(config, measuring, processes=1)[0])
        measuring.say(
            f"round {number + 1}: raw {raw[-1]['positions_per_s']:,.0f}/s"
            f"  served {served[-1]['served_per_s']:,.0f}/s"
        )
    floors = around([one["positions_per_s"] for one in raw])
    ratios = [one["served_per_s"] / floor for one, floor in zip(served, floors, strict=True)]
    result = medians(served) | {
        "raw_per_s": statistics.median(floors),
        "raw_best": raw[-1]["best"],
        "raw_rates": best_rates([one["rates"] for one in raw]),
        "precision": raw[-1]["precision"],
        "max_batch_rows": batches_of(config).rows,
        "served_over_raw_rounds": ratios,
        "served_over_raw": statistics.median(ratios),
    }
    measuring.say(
        f"served over raw: {result['served_over_raw']:.2f}, mean batch {result['mean_batch']:.0f} rows"
    )
    return result | {"config": config.model_dump(mode="json")}


def best_batch_rows(rates: Mapping[int, float], *, latency_ms: float) -> int:
    """Return the smallest batch whose rate is nearly the best of those that take no longer than `latency_ms`.

    Where all take longer it is the smallest that was measured.
    """
    soon = [rows for rows, rate in rates.items() if 1000 * rows / rate <= latency_ms] or [min(rates)]
    best = max(rates[rows] for rows in soon)
    return min(rows for rows in soon if rates[rows] >= NEARLY_BEST * best)


def record_best_batch(config: RunConfig, result: Mapping[str, Any], *, latency_ms: float) -> Tuning:
    """Write into this machine's file how large the batches of such a network are best, and return that.

    Args:
        result: what `bench_inference` returned.
        latency_ms: the longest that a batch may take.
    """
    rates = result["raw_rates"]
    tuning = Tuning(
        device=device_name(),
        game=config.game,
        blocks=config.network.blocks,
        channels=config.network.channels,
        asked=config.network.precision,
        precision=result["precision"],
        batch_rows=best_batch_rows(rates, latency_ms=latency_ms),
        latency_ms=latency_ms,
        rates=rates,
        measured_on=datetime.datetime.now(datetime.UTC).date().isoformat(),
        versions={name: importlib.metadata.version(name) for name in ("tamen", "torch", "numpy")},
    )
    write_tuning(tuning, machine_file())
    return tuning


def in_words(tuning: Tuning) -> str:
    """Say what was found and where it is written."""
    rate = tuning.rates[tuning.batch_rows]
    return (
        f"batches of {tuning.batch_rows} rows are best for {tuning.game}, {tuning.blocks}×{tuning.channels} in"
        f" {tuning.precision}: {rate:,.0f}/s, {1000 * tuning.batch_rows / rate:.1f} ms each\n"
        f"written to {machine_file()}: runs with inference.max_batch_rows=auto on {tuning.device} use it"
    )


def _serve(config: RunConfig, seconds: float) -> dict[str, float]:
    """Run one server and its clients on Ray for a while; count between two moments after the warm-up.

    Shares are of the time; `transfer_share` is what the server's process computes beside forwards.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder_with_weights(untrained_weights(config), Path(temporary))
        environment.prepare_ray(None)
        import ray

        from cluster.bench.load_actor import LoadActor
        from cluster.on_ray.address import connect
        from cluster.on_ray.client import call
        from cluster.on_ray.program import RayProgram, dressed

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
            wait_until(lambda: call(server.stats)["batches"] > 0, lambda: ray.wait(running, timeout=0.1))
            republisher = Republisher(folder, program.handles("store")[0])
            time.sleep(WARM_UP_SECONDS)
            before, began = call(server.stats), time.monotonic()
            republisher.pass_time(seconds, time.sleep)
            after, elapsed = call(server.stats), time.monotonic() - began
        finally:
            ray.shutdown()

    def growth(name: str) -> float:
        return after[name] - before[name]

    return {
        "served_per_s": growth("rows") / elapsed,
        "mean_batch": growth("rows") / max(1, growth("batches")),
        "busy_ratio": growth("busy_seconds") / elapsed,
        "forward_share": growth("forward_seconds") / elapsed,
        "transfer_share": (growth("process_seconds") - growth("forward_cpu_seconds")) / elapsed,
        "wait_ms": 1000 * growth("wait_seconds") / max(1, growth("requests")),
        "weights_swaps": growth("weights_swaps"),
    }
