"""What a second worker brings to data generation, and what Ray costs it.

Usage: python benchmarks/datagen_scale.py [--shards N] [--rounds N]
Prints one JSON object. The same shards of rivers (64 situations each, to 0.25 % of the pot) are made by a bare loop in
this process, by two processes, and by Ray tasks on one worker and on two, in turn. Rates are samples a second.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cluster import environment

environment.prepare()

from cluster.hands.plan import recipe_of  # noqa: E402 (numba reads the environment when it is imported)
from cluster.on_ray.executing import executor_for  # noqa: E402
from configs.datagen import DATAGEN  # noqa: E402
from pipeline.contract import Context, Executor  # noqa: E402
from pipeline.executors import Inline, Processes  # noqa: E402
from pipeline.hand_samples import HandSamplesStep, Recipe  # noqa: E402

SETTINGS = ("target_pct=0.25", "shard_samples=64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    recipe = recipe_of(DATAGEN.load("development", SETTINGS), "river", "train", {})
    rates: dict[str, list[float]] = {}
    with (
        Processes(2) as processes,
        executor_for(1, "ray", None) as ray_one,
        executor_for(2, "ray", None) as ray_two,
    ):
        sides: dict[str, Executor] = {
            "bare": Inline(),
            "processes_2": processes,
            "ray_1": ray_one,
            "ray_2": ray_two,
        }
        for executor in sides.values():
            _rate(recipe, executor, 2)  # compiles
        for number in range(given.rounds):
            for name, executor in sides.items():
                own = replace(recipe, law=replace(recipe.law, seed=number + 1))
                rates.setdefault(name, []).append(_rate(own, executor, given.shards))
    ratios: dict[str, Callable[[int], float]] = {
        "processes_2_over_bare": lambda k: rates["processes_2"][k] / rates["bare"][k],
        "ray_1_over_bare": lambda k: rates["ray_1"][k] / rates["bare"][k],
        "ray_2_over_ray_1": lambda k: rates["ray_2"][k] / rates["ray_1"][k],
    }
    report = {
        "samples_per_s": {name: [round(rate, 1) for rate in each] for name, each in rates.items()},
        **{
            name: {
                "median": round(statistics.median(map(ratio, range(given.rounds))), 3),
                "rounds": [round(ratio(k), 3) for k in range(given.rounds)],
            }
            for name, ratio in ratios.items()
        },
    }
    sys.stdout.write(json.dumps(report) + "\n")


def _rate(recipe: Recipe, executor: Executor, shards: int) -> float:
    samples = shards * recipe.shard_samples
    with tempfile.TemporaryDirectory(prefix="tamen-") as folder:
        around = Context(executor, lambda *told: None, lambda: False, lambda line: None)
        began = time.perf_counter()
        HandSamplesStep("train", recipe, samples).run({}, Path(folder), around)
        return samples / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
