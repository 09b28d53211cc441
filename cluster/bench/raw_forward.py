"""The floor that inference is judged by: the network doing nothing but forwards, one thread a process.

Run as `python -m cluster.bench.raw_forward GAME NETWORK_JSON SECONDS [compile]`; prints one JSON object.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from cluster.bench.random_positions import random_positions
from configs.schema import NetworkConfig
from games.catalog import make_game

BATCH_ROWS = (16, 32, 64, 128, 256, 512, 1024)
GPU_BATCH_ROWS = (*BATCH_ROWS, 2048, 4096, 8192, 16384)


def measure(game_name: str, network: NetworkConfig, *, seconds: float, compiled: bool) -> dict[str, Any]:
    """Return the positions per second of the best way and batch size, on real positions, and which that was.

    All are tried for a short while; the one that seemed best is measured, for the highest of many short readings would
    be a lucky one.

    Args:
        seconds: of the measurement; each try takes a twentieth of it.
        compiled: also try `torch.compile`, which needs a C++ compiler and up to a minute for each size.

    Returns:
        positions_per_s: of the best; "rates" has those of all tries.
    """
    import torch

    from networks.build import new_net
    from networks.precision import resolve
    from networks.winograd import fastest_forward

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = resolve(network.precision, device)
    game = make_game(game_name)
    net = precision.prepare(new_net(game.board, network, seed=0))
    modes: dict[str, Callable[..., Any]] = {"eager": net}
    if (fastest := fastest_forward(net)) is not net:
        modes["winograd"] = fastest
    if compiled:
        modes["compiled"] = torch.compile(net, dynamic=False)
    synchronize = torch.cuda.synchronize if device == "cuda" else None

    def rate(mode: str, rows: int, lasting: float) -> float:
        positions = random_positions(game, rows, seed=rows)
        inputs = {name: torch.from_numpy(array).to(device) for name, array in positions.items()}
        return rows * _calls_per_second(modes[mode], inputs, lasting, synchronize)

    sizes = GPU_BATCH_ROWS if device == "cuda" else BATCH_ROWS
    with torch.inference_mode():
        rates = {(mode, rows): rate(mode, rows, seconds / 20) for rows in sizes for mode in modes}
        best = max(rates, key=rates.__getitem__)
        positions_per_s = rate(*best, seconds)
    return {
        "positions_per_s": positions_per_s,
        "best": f"{best[0]}-{best[1]}",
        "precision": precision.name,
        "rates": {f"{mode}-{rows}": one for (mode, rows), one in rates.items()},
    }


def _calls_per_second(
    forward: Callable[..., Any],
    inputs: dict[str, Any],
    seconds: float,
    synchronize: Callable[[], None] | None,
) -> float:
    for _ in range(3):
        forward(inputs)
    calls, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        forward(inputs)
        calls += 1
        if synchronize is not None:
            synchronize()
    return calls / (now - began)


def measure_processes(
    game: str, network: NetworkConfig, *, seconds: float, processes: int, compiled: bool = False
) -> list[dict[str, Any]]:
    """Run `processes` measurements at the same time, each in a process of its own; return what each says."""
    command = [
        sys.executable,
        "-m",
        "cluster.bench.raw_forward",
        game,
        network.model_dump_json(),
        str(seconds),
    ]
    command += ["compile"] if compiled else []
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    answers = [process.communicate(timeout=600 + 40 * seconds)[0] for process in running]
    return [json.loads(answer.strip().splitlines()[-1]) for answer in answers]


if __name__ == "__main__":
    name, description, duration, *rest = sys.argv[1:]
    measured = measure(
        name,
        NetworkConfig.model_validate_json(description),
        seconds=float(duration),
        compiled="compile" in rest,
    )
    sys.stdout.write(json.dumps(measured) + "\n")
