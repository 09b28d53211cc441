"""Does a fast forward say what the float32 net says? On positions of real games, under weights that have learned.

Usage: python benchmarks/forward_agreement.py RUN_FOLDER [POSITIONS]
Prints one JSON object: for each forward the share of positions whose best move is the same as in float64, the mean and
largest difference of values, and positions a second beside eager float32, the forwards in turn.

Real positions: those of the newest games in the run's replay, each of them once, in the board's own frame.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cluster import environment

environment.prepare()

import numpy as np  # noqa: E402 (numba and torch read the environment when they are imported)
import torch  # noqa: E402

from cluster.run.parts import MODEL, make_store  # noqa: E402
from cluster.run.run_folder import RunFolder  # noqa: E402
from games.catalog import make_game  # noqa: E402
from games.game import Game  # noqa: E402
from networks.build import build_net  # noqa: E402
from networks.precision import resolve  # noqa: E402
from networks.winograd import fastest_forward  # noqa: E402
from replay.archive import StoredChunk  # noqa: E402
from replay.records import Chunk  # noqa: E402

BATCH_ROWS = 256
ROUNDS = 5


def main() -> None:
    folder = RunFolder(Path(sys.argv[1]))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    torch.set_num_threads(1)
    weights = make_store(folder).get(MODEL)
    game = make_game(weights.game)
    cells, legal = positions_of_games(game, folder, count)
    net = resolve("fp32", "cpu").prepare(build_net(weights))
    forwards: dict[str, Callable[..., Any]] = {"eager fp32": net, "winograd fp32": fastest_forward(net)}
    bf16 = resolve("bf16", "cpu").prepare(build_net(weights))
    exact = evaluate(build_net(weights).double().eval(), cells)
    report: dict[str, Any] = {"run": folder.name, "version": weights.version, "positions": len(cells)}
    for name, forward in {**forwards, "eager bf16": bf16}.items():
        report[name] = agreement(evaluate(forward, cells), exact, legal)
    rates: dict[str, list[float]] = {name: [] for name in forwards}
    for _ in range(ROUNDS):
        for name, forward in forwards.items():
            began = time.perf_counter()
            evaluate(forward, cells[:4096])
            rates[name].append(min(4096, len(cells)) / (time.perf_counter() - began))
    ratios = [fast / slow for slow, fast in zip(*rates.values(), strict=True)]
    report["positions_per_s"] = {name: round(statistics.median(one)) for name, one in rates.items()}
    report["winograd_over_eager"] = {"median": statistics.median(ratios), "rounds": ratios}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def positions_of_games(game: Game, folder: RunFolder, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return (cells int8 [B, H*W], legal bool [B, A]) of `count` different undecided positions of the newest games."""
    states, row = game.new_states(1), np.zeros(1, np.int32)
    found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    for actions in games_of(folder):
        game.new(states, row)
        for action in actions:
            arrays, _ = game.encode(states, row, np.zeros(1, np.int8))
            cells = arrays["cells"][0].copy()
            found.setdefault(cells.tobytes(), (cells, game.legal(states, row)[0].copy()))
            game.play(states, row, np.array([action], np.int16), row)
        if len(found) >= count:
            break
    chosen = list(found.values())[:count]
    return torch.from_numpy(np.stack([cells for cells, _ in chosen])), np.stack(
        [legal for _, legal in chosen]
    )


def games_of(folder: RunFolder) -> Iterator[np.ndarray]:
    """Yield the moves of each game that the run's replay holds, the newest chunk's first."""
    for file in sorted((folder.root / "replay").glob("*.chunk"), reverse=True):
        stored = StoredChunk.decode(file.read_bytes(), source=str(file))
        for game in Chunk.decode(stored.chunk, source=str(file)).games:
            yield game.actions


def evaluate(forward: Callable[..., Any], cells: torch.Tensor) -> dict[str, np.ndarray]:
    """Return float64 policy [B, A] and value [B]."""
    with torch.inference_mode():
        parts = [forward({"cells": part}) for part in cells.split(BATCH_ROWS)]
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in ("policy", "value")}


def agreement(
    got: dict[str, np.ndarray], exact: dict[str, np.ndarray], legal: np.ndarray
) -> dict[str, float]:
    best, exact_best = (np.where(legal, one["policy"], -np.inf).argmax(axis=1) for one in (got, exact))
    error = np.abs(got["value"] - exact["value"])
    return {
        "same_best_move": float((best == exact_best).mean()),
        "mean_value_error": float(error.mean()),
        "largest_value_error": float(error.max()),
    }


if __name__ == "__main__":
    main()
