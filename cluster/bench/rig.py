"""What the benchmarks share: a configuration and weights to measure with, the raw forward, and medians.

The sides of a benchmark take turns, so that a slow minute of a shared machine meets them all; a figure is the median
of its rounds.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cluster.bench.raw_forward import measure_processes
from cluster.cli.terminal import console
from cluster.run.models import find_model
from cluster.run.parts import MODEL, make_store
from cluster.run.run_folder import RunFolder
from configs.loading import override
from configs.schema import RunConfig
from core.errors import ClusterError
from games.catalog import make_game
from networks.weights import Weights, network_parts

WARM_UP_SECONDS = 5.0
PUBLISH_SECONDS = 10.0
"""How often new weights come while something is measured, as they do in a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How to measure.

    Attributes:
        seconds: of each measurement.
        rounds: measurements of each side, in turn.
        compiled: whether the raw forward may be compiled, which takes minutes.
        quiet: say nothing on the way.
    """

    seconds: float
    rounds: int
    compiled: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        if not self.quiet:
            console().print(text, markup=False)


def bench_config(
    game: str, *, blocks: int, channels: int, precision: str, settings: Sequence[str]
) -> RunConfig:
    """Return a run without evaluation that keeps every row, changed by `settings`."""
    network = {"blocks": blocks, "channels": channels, "precision": precision}
    config = RunConfig.model_validate({"game": game, "network": network, "evaluation": {"games": 0}})
    return override(config, ["replay.window_exponent=1.0", "replay.window_growth=1.0", *settings])


def raw_forward(config: RunConfig, measuring: Measuring, *, processes: int) -> list[dict[str, Any]]:
    """Measure `processes` processes that do nothing but forwards, at the same time."""
    return measure_processes(
        config.game,
        config.network,
        seconds=measuring.seconds,
        processes=processes,
        compiled=measuring.compiled,
    )


def around(readings: Sequence[float]) -> list[float]:
    """Return the mean of every two readings in a row: what is to be compared with what was measured between them.

    The speed of a shared machine changes by a third within a minute; one reading beside it may be of another machine.
    """
    return [(before + after) / 2 for before, after in pairwise(readings)]


def best_rates(rounds: Sequence[Mapping[str, float]]) -> dict[int, float]:
    """Return positions a second by rows of a batch: the median of the rounds, in the fastest mode that servers use.

    Args:
        rounds: rates by "mode-rows", as `cluster.bench.raw_forward` names them. Servers do not compile.
    """
    rates: dict[int, float] = {}
    for name in rounds[0]:
        mode, _, rows = name.rpartition("-")
        if mode != "compiled":
            median = statistics.median(one[name] for one in rounds)
            rates[int(rows)] = max(median, rates.get(int(rows), 0.0))
    return rates


def untrained_weights(config: RunConfig) -> Weights:
    """Return what is measured with by default: how fast a net is does not depend on what it knows."""
    from networks.build import new_net, to_weights

    net = new_net(make_game(config.game).board, config.network, seed=0)
    return to_weights(net, model=MODEL, version=0, game=config.game)


def with_model(config: RunConfig, model: str | None, *, runs: Path) -> tuple[RunConfig, Weights]:
    """Return `config` with the game and network of `model`, and its weights; None takes an untrained net.

    Raises:
        UsageError, DataError: as `cluster.run.models.find_model`.
    """
    if model is None:
        return config, untrained_weights(config)
    weights = find_model(model, runs=runs).weights
    _, shape = network_parts(weights.network)
    network = shape.model_dump(include={"blocks", "channels", "soft_policy"})
    changed = {"game": weights.game, "network": config.network.model_dump() | network}
    return RunConfig.model_validate(config.model_dump() | changed), weights


def folder_with_weights(weights: Weights, root: Path) -> RunFolder:
    """Return a run folder that holds nothing but `weights`."""
    folder = RunFolder(root / "bench")
    make_store(folder).publish(dataclasses.replace(weights, model=MODEL))
    return folder


def wait_until(
    ready: Callable[[], bool], advance: Callable[[], object], timeout_seconds: float = 120.0
) -> None:
    """Let `advance` pass time until what is measured is `ready`. Raises ClusterError when it does not begin."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(
                "the benchmark did not begin",
                why=f"nothing was answered within {timeout_seconds:.0f} s",
                fix="ask for less: fewer games by --set actors.games_per_group=…, or a smaller network",
            )
        advance()


class Republisher:
    """Publishes weights that are as good as those before but not the same, as a learner does.

    Args:
        folder: whose newest weights are the first.
        store: handle of the actor that holds them.
    """

    def __init__(self, folder: RunFolder, store: Any) -> None:
        self._weights = make_store(folder).get(MODEL)
        self._store = store

    def publish(self) -> None:
        from cluster.on_ray.weights import WeightsPublisher

        old = self._weights
        self._weights = Weights.pack(
            {name: tensor * np.float32(1.0001) for name, tensor in old.tensors.items()},
            model=old.model,
            version=old.version + 1,
            game=old.game,
            network=old.network,
        )
        WeightsPublisher(self._store).publish(self._weights)

    def pass_time(self, seconds: float, advance: Callable[[float], object]) -> None:
        """Let `advance` pass the time, and publish every `PUBLISH_SECONDS`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.publish()
            advance(min(PUBLISH_SECONDS, left))


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return the median of every figure."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
