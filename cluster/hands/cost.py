"""What samples cost on this machine, as far as a few of them tell."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from pipeline.hand_recipe import Recipe
from pipeline.hand_samples import Connect, ShardTask, make_shard
from poker.batches import Stop
from poker.rows import LANES

_RIVER_GROUPS = 8
_TRIED_ITERATIONS = 6
_PCT_ITERATIONS, _PCT_POWER = 0.25, 0.7
_MEAN_ITERATIONS = 180
"""That it takes to 0.25 % of the pot on average; to t % some 180 · (0.25 / t)^0.7."""


def measured_rate(recipe: Recipe, connect: Connect | None) -> float:
    """Return samples/s of a core.

    Rivers, and what is only asked of a network, are made, a few groups. Of what is solved on turns and flops a few
    iterations are taken on pots between, and the others reckoned.

    Args:
        recipe: how samples are made.
        connect: how to reach its network.
    """
    quick = recipe.street == "river" or not recipe.solves
    law = replace(recipe.law, group=LANES, seed=recipe.law.seed + 1)
    small = replace(recipe, law=law, shard_groups=_RIVER_GROUPS if recipe.street == "river" else 1)
    if not quick:
        middle = (law.pots[len(law.pots) // 2],)
        small = replace(small, law=replace(law, pots=middle), stop=Stop(None, _TRIED_ITERATIONS))
    with tempfile.TemporaryDirectory(prefix="tamen-") as folder:
        task = ShardTask(small, 0, small.shard_samples, Path(folder) / "samples_0000.npz", connect)
        make_shard(replace(task, samples=1, recipe=replace(small, stop=Stop(None, 1))))  # compiles
        began = time.perf_counter()
        make_shard(task)
        seconds = time.perf_counter() - began
    more = 1.0 if quick else _expected_iterations(recipe.stop) / _TRIED_ITERATIONS
    return task.samples / (seconds * more)


def _expected_iterations(stop: Stop) -> float:
    if stop.target is None:
        return stop.iterations
    expected = _MEAN_ITERATIONS * (_PCT_ITERATIONS / (100 * stop.target)) ** _PCT_POWER
    return min(expected, stop.iterations)
