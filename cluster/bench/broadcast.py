"""`tamen bench broadcast`: how soon new weights answer while games are played, and what that costs the games.

The learner's role is played here: versions are published to the store of a real run, whose servers and actors play on.
What a learner does to make a version (copying it out of its network, its digest) is not measured.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster import environment
from cluster.bench.rig import WARM_UP_SECONDS, Measuring, folder_with_weights, untrained_weights, wait_until
from cluster.bench.selfplay import moves_everywhere, play_settings
from configs.schema import RunConfig
from networks.weights import Weights

if TYPE_CHECKING:
    from cluster.training.ray_engine import RayEngine

LATE_SECONDS = 30.0
"""After which weights that no game has seen end the benchmark."""


@dataclass(slots=True)
class Side:
    """What was measured with, or without, new weights.

    Attributes:
        evals_per_s: positions that the network evaluated for games, a figure for each round.
        sync_seconds: from the call of `publish` to a server's first answer, for each version and server.
    """

    evals_per_s: list[float] = field(default_factory=list)
    sync_seconds: list[float] = field(default_factory=list)


def broadcast_settings() -> list[str]:
    """Return settings with which every core serves, in batches of a few rows.

    Who waits for new weights waits for the batch that is under way and for the first of its own. With 10 MB of them
    a position takes about a millisecond of a core: batches of hundreds, as self-play likes them, would take longer than
    everything measured here. A cache forgets what it knows with every version: that is no cost of the broadcast.
    """
    return [
        *play_settings(32),
        "actors.games_per_group=8",
        "inference.cache_positions=0",
    ]


def bench_broadcast(config: RunConfig, measuring: Measuring, *, every_seconds: float) -> dict[str, Any]:
    """Play with and without a new version every so often, in turn, in one program.

    Returns:
        `p50_ms` and `p95_ms`, from the call of `publish` to the first answer of each server; `selfplay_loss_ratio`, the
        median over the rounds of the share of evaluations that the games lost.
    """
    first = untrained_weights(config)
    quiet, publishing = Side(), Side()
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder_with_weights(first, Path(temporary))
        environment.prepare_ray(None)
        from cluster.training.ray_engine import RayEngine

        engine = RayEngine(config, folder, address=None, report=measuring.say, learn=False)
        try:
            engine.start()
            wait_until(lambda: moves_everywhere(engine), lambda: engine.advance(0.5))
            engine.advance(WARM_UP_SECONDS)
            versions = _versions(first)
            before = engine.stats()
            for number in range(measuring.rounds):
                sides = [(quiet, None), (publishing, versions)]
                for side, new in sides if number % 2 == 0 else reversed(sides):
                    _play(engine, side, measuring.seconds, new, every_seconds=every_seconds)
                measuring.say(_in_words(number, quiet, publishing))
            after = engine.stats()
        finally:
            engine.stop()
    result = _result(first, quiet, publishing)
    measuring.say(
        f"new weights answer after {result['p50_ms']:.0f} ms, 95 % of them within {result['p95_ms']:.0f} ms;"
        f" the games lose {result['selfplay_loss_ratio']:.1%}"
    )
    return result | {
        "batch_ms": 1000 * _growth(before, after, "busy_seconds") / _growth(before, after, "batches"),
        "mean_batch": _growth(before, after, "rows") / _growth(before, after, "batches"),
        "every_seconds": every_seconds,
        "config": config.model_dump(mode="json"),
    }


def _versions(first: Weights) -> Iterator[Weights]:
    """Yield versions, each of other weights than the one before; what is slow about that is done here and now."""
    changed = Weights.pack(
        {name: tensor * np.float32(1.001) for name, tensor in first.tensors.items()},
        model=first.model,
        version=first.version,
        game=first.game,
        network=first.network,
    )
    sets = itertools.cycle((changed, first))
    return (dataclasses.replace(next(sets), version=number) for number in itertools.count(first.version + 1))


def _play(
    engine: "RayEngine",
    side: Side,
    seconds: float,
    versions: Iterator[Weights] | None,
    *,
    every_seconds: float,
) -> None:
    """Let the games go on for a while; publish every so often if there are `versions`. Both sides look on alike."""
    from cluster.on_ray.weights import WeightsPublisher

    publisher = WeightsPublisher(engine.program.handles("store")[0])
    before, began = engine.stats(), time.monotonic()
    stats, elapsed = before, 0.0
    while seconds - elapsed > every_seconds / 2:
        due = time.monotonic() + every_seconds
        weights = next(versions) if versions is not None else None
        if weights is not None:
            publisher.publish(weights)
        engine.advance(due - time.monotonic())
        stats, elapsed = engine.stats(), time.monotonic() - began
        if weights is not None:
            side.sync_seconds += _synced(engine, stats, weights.version)
    side.evals_per_s.append(_growth(before, stats, "forward_rows") / elapsed)


def _synced(engine: "RayEngine", stats: dict[str, Any], version: int) -> list[float]:
    """Return after how long each server answered with a version, waiting for those that have not."""

    def servers() -> list[dict[str, Any]]:
        return [one for part, one in stats.items() if part.startswith("inference")]

    def look() -> None:
        nonlocal stats
        engine.advance(0.1)
        stats = engine.stats()

    wait_until(lambda: all(one["synced_version"] >= version for one in servers()), look, LATE_SECONDS)
    return [one["sync_seconds"] for one in servers()]


def _result(weights: Weights, quiet: Side, publishing: Side) -> dict[str, Any]:
    losses = [1 - less / most for less, most in zip(publishing.evals_per_s, quiet.evals_per_s, strict=True)]
    return {
        "p50_ms": 1000 * float(np.quantile(publishing.sync_seconds, 0.5)),
        "p95_ms": 1000 * float(np.quantile(publishing.sync_seconds, 0.95)),
        "max_ms": 1000 * max(publishing.sync_seconds),
        "selfplay_loss_ratio": statistics.median(losses),
        "selfplay_loss_rounds": losses,
        "evals_per_s": statistics.median(quiet.evals_per_s),
        "evals_per_s_publishing": statistics.median(publishing.evals_per_s),
        "syncs": len(publishing.sync_seconds),
        "megabytes": sum(tensor.nbytes for tensor in weights.tensors.values()) / 1e6,
    }


def _in_words(number: int, quiet: Side, publishing: Side) -> str:
    alone, beside = quiet.evals_per_s[-1], publishing.evals_per_s[-1]
    median_ms = 1000 * statistics.median(publishing.sync_seconds)
    return (
        f"round {number + 1}: {alone:,.0f} evaluations/s, with new weights {beside:,.0f} ({beside / alone - 1:+.1%});"
        f" they answer after {median_ms:.0f} ms"
    )


def _growth(before: dict[str, Any], after: dict[str, Any], name: str) -> float:
    return sum(now[name] - before[part][name] for part, now in after.items() if part.startswith("inference"))
