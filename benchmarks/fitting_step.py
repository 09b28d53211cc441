"""What a step of fitting costs on a CPU: the tower in kernels beside eager torch, and Muon beside Adam.

Usage: python benchmarks/fitting_step.py [BLOCKS] [CHANNELS] [BATCH_ROWS] [SECONDS]
Prints one JSON object: rows a second of steps on 10×10 hex, by one thread and by as many as there are cores, the ways
in turn, each compared with eager torch and Adam of the same round.
"""

import json
import statistics
import sys
import time

from cluster import environment

environment.prepare()

import numpy as np  # noqa: E402 (numba and torch read the environment when they are imported)
import torch  # noqa: E402

from cluster.run.program import Machine  # noqa: E402
from configs.schema import LearnerConfig, NetworkConfig  # noqa: E402
from games.catalog import make_game  # noqa: E402
from learner.board_objective import BoardObjective  # noqa: E402
from learner.flat_parameters import FlatParameters  # noqa: E402
from learner.muon import Muon  # noqa: E402
from learner.objective import ROW_ID, Columns  # noqa: E402
from learner.step import Trainer  # noqa: E402
from networks.build import Net, new_net  # noqa: E402
from networks.precision import resolve  # noqa: E402
from networks.tower import BoardNet  # noqa: E402
from networks.winograd_training import fastest_trainable  # noqa: E402

GAME = "hex10"
ROUNDS = 5
WAYS = {"eager": (False, False), "kernels": (True, False), "kernels_muon": (True, True)}
"""By name: whether the tower runs in kernels, and whether Muon steps its filters."""


def main() -> None:
    given = [float(text) for text in sys.argv[1:]]
    blocks, channels, rows, seconds = (*given, *(5, 48, 128, 3)[len(given) :])
    report: dict[str, object] = {
        "network": {"blocks": int(blocks), "channels": int(channels)},
        "rows": int(rows),
    }
    for threads in sorted({1, Machine.here().cpus}):
        torch.set_num_threads(threads)
        report[f"threads_{threads}"] = speeds(int(blocks), int(channels), int(rows), seconds)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def speeds(blocks: int, channels: int, rows: int, seconds: float) -> dict[str, object]:
    trainers = {name: trainer(blocks, channels, *way) for name, way in WAYS.items()}
    batch = random_batch(rows)
    for each in trainers.values():
        each.step(batch)
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, each in trainers.items():
            rates[name].append(rows_per_second(each, batch, rows, seconds))
    return {
        "rows_per_s": {name: round(statistics.median(one), 1) for name, one in rates.items()},
        "over_eager": {
            name: [round(fast / slow, 3) for fast, slow in zip(one, rates["eager"], strict=True)]
            for name, one in rates.items()
            if name != "eager"
        },
    }


def rows_per_second(each: Trainer, batch: Columns, rows: int, seconds: float) -> float:
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        each.step(batch)
        steps += 1
    return steps * rows / (time.perf_counter() - began)


def random_batch(rows: int) -> Columns:
    """Return rows of no meaning: what a step costs does not depend on it."""
    rng, game = np.random.default_rng(0), make_game(GAME)
    return {
        "cells": rng.integers(-1, 2, (rows, game.board.height * game.board.width)).astype(np.int8),
        "policy": np.eye(game.num_actions, dtype=np.float32)[rng.integers(0, game.num_actions, rows)],
        "policy_weight": np.ones(rows, np.float32),
        "outcome": rng.choice(np.float32([-1, 1]), rows),
        "search_value": np.zeros(rows, np.float32),
        **dict.fromkeys(ROW_ID, np.zeros(rows, np.int64)),
    }


def trainer(blocks: int, channels: int, in_kernels: bool, by_muon: bool) -> Trainer:
    precision = resolve("fp32", "cpu")
    network = NetworkConfig(blocks=blocks, channels=channels, precision="fp32")
    net = precision.place(new_net(make_game(GAME).board, network, seed=0))
    config = LearnerConfig(microbatch_rows=4096, warmup_steps=0)

    def muon(net: Net, parameters: FlatParameters) -> Muon:
        assert isinstance(net, BoardNet)
        filters = [each for each in net.blocks.parameters() if each.ndim == 4]
        return Muon(parameters.all, filters, rate_ratio=10.0)

    return Trainer(
        net,
        BoardObjective(config),
        config,
        precision,
        optimizer=muon if by_muon else None,
        forward=fastest_trainable(net) if in_kernels else None,
    )


if __name__ == "__main__":
    main()
