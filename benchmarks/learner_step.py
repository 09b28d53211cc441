"""What a learner's step costs: in 16 bits beside 32, and in four microbatches beside one.

Usage: python benchmarks/learner_step.py [DEVICE] [BLOCKS] [CHANNELS] [GAME]
Prints one JSON object, which `tamen plan cluster --measured` takes. Speed: rows a second of steps on 1,024 rows of a
game (hex13), the precisions in turn, each compared with fp32 of the same round. Memory: what steps add to what a
process (on a GPU, the device) takes at its highest, for batches of four microbatches of 256 rows and for ones of a
single such, as many microbatches of each. On a CPU every tensor is given pages of its own, for what the C library's
heap keeps of what was freed is more than the difference.

By itself a CPU takes 3 blocks × 32 channels, shorter rounds, and one to two minutes: without instructions for bf16
torch emulates it, a step takes 13 s, and one of 6 × 64 has eight times the products. Seconds are of the processor
there, so that neighbours matter less. `auto_precision` says what a run would take here.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from cluster import environment

environment.prepare()

import numpy as np  # noqa: E402 (numba and torch read the environment when they are imported)
import torch  # noqa: E402

from configs.schema import LearnerConfig, NetworkConfig  # noqa: E402
from games.catalog import make_game  # noqa: E402
from learner.board_objective import BoardObjective  # noqa: E402
from learner.objective import Columns  # noqa: E402
from learner.step import Trainer, new_trainer  # noqa: E402
from networks.precision import resolve  # noqa: E402

GAME = "hex13"
MICROBATCH_ROWS = 256
BATCH_ROWS = 4 * MICROBATCH_ROWS
CPU_NETWORK, NETWORK = (3, 32), (6, 64)
CPU_SECONDS, SECONDS = 3.0, 6.0
CPU_ROUNDS, ROUNDS = 3, 5
MICROBATCHES = 20
"""Of each of the two processes whose memory is compared."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where steps are taken, and of which network and game."""

    device: str
    blocks: int
    channels: int
    game: str


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        rows, device, blocks, channels, game = sys.argv[2:]
        setting = Setting(device, int(blocks), int(channels), game)
        sys.stdout.write(str(memory_of_steps(int(rows), setting)))
        return
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    network = CPU_NETWORK if device == "cpu" else NETWORK
    blocks, channels = (
        int(sys.argv[k]) if len(sys.argv) > k else default for k, default in zip((2, 3), network, strict=True)
    )
    setting = Setting(device, blocks, channels, sys.argv[4] if len(sys.argv) > 4 else GAME)
    torch.set_num_threads(1)
    fastest = resolve("auto", device)
    report: dict[str, object] = {
        "device": device,
        "auto_precision": f"{fastest.name}: {fastest.why}",
        "game": setting.game,
        "network": {"blocks": blocks, "channels": channels},
    }
    report |= speeds(setting) | memory(setting)
    sys.stdout.write(json.dumps(report) + "\n")


def speeds(setting: Setting) -> dict[str, object]:
    """Time steps in each precision, in turn."""
    device = setting.device
    names = ("fp32", "bf16", "fp16") if device != "cpu" else ("fp32", "bf16")
    trainers = {name: trainer(name, setting) for name in names}
    batch = random_batch(BATCH_ROWS, setting.game)
    rounds, seconds = (CPU_ROUNDS, CPU_SECONDS) if device == "cpu" else (ROUNDS, SECONDS)
    clock = time.process_time if device == "cpu" else time.perf_counter
    for each in trainers.values():
        each.step(batch)  # makes what the others find made
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, each in trainers.items():
            rates[name].append(rows_per_second(each, batch, seconds, clock))
    ratios = {
        f"{name}_over_fp32": [fast / slow for fast, slow in zip(rates[name], rates["fp32"], strict=True)]
        for name in names[1:]
    }
    return {
        "rows_per_s": {name: statistics.median(one) for name, one in rates.items()},
        **{name: statistics.median(one) for name, one in ratios.items()},
        "rounds": ratios,
    }


def rows_per_second(each: Trainer, batch: Columns, seconds: float, clock: Callable[[], float]) -> float:
    """Take steps for a while. Every step ends with numbers on the host, so the device is done with it."""
    began, steps = clock(), 0
    while clock() - began < seconds:
        each.step(batch)
        steps += 1
    return steps * BATCH_ROWS / (clock() - began)


def memory(setting: Setting) -> dict[str, float]:
    """Measure each size of batch in a process of its own."""
    words = list(map(str, astuple(setting)))
    taken = {
        rows: int(
            subprocess.check_output(
                [sys.executable, __file__, "--memory", str(rows), *words],
                env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
            )
        )
        for rows in (MICROBATCH_ROWS, BATCH_ROWS)
    }
    one, four = taken.values()
    return {
        "one_microbatch_megabytes": one / 1e6,
        "four_microbatches_megabytes": four / 1e6,
        "memory_four_over_one": four / one,
    }


def memory_of_steps(rows: int, setting: Setting) -> int:
    """Return the bytes that steps take at their highest beyond what was taken before."""
    torch.set_num_threads(1)
    each, batch = trainer("fp32", setting), random_batch(rows, setting.game)
    before = highest_bytes(setting.device)
    for _ in range(MICROBATCHES * MICROBATCH_ROWS // rows):
        each.step(batch)
    return highest_bytes(setting.device) - before


def highest_bytes(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def trainer(precision: str, setting: Setting) -> Trainer:
    size = {"blocks": setting.blocks, "channels": setting.channels}
    network = NetworkConfig.model_validate(size | {"precision": precision})
    config = LearnerConfig(batch_rows=BATCH_ROWS, microbatch_rows=MICROBATCH_ROWS, warmup_steps=0)
    objective = BoardObjective(config)
    board = make_game(setting.game).board
    return new_trainer(board, network, config, objective, seed=0, device=setting.device)


def random_batch(rows: int, game_name: str) -> Columns:
    """Return rows of no meaning: what a step costs does not depend on it."""
    rng, game = np.random.default_rng(0), make_game(game_name)
    zeros = np.zeros(rows, np.int64)
    policy = rng.random((rows, game.num_actions), np.float32)
    return {
        "cells": rng.integers(-1, 2, (rows, game.board.height * game.board.width)).astype(np.int8),
        "policy": policy / policy.sum(axis=1, keepdims=True),
        "policy_weight": np.ones(rows, np.float32),
        "outcome": rng.choice(np.float32([-1, 1]), rows),
        "search_value": np.zeros(rows, np.float32),
        "actor": zeros,
        "epoch": zeros,
        "seq": zeros,
        "step": zeros,
    }


if __name__ == "__main__":
    main()
