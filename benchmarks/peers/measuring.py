"""What the peers share: processes that measure at the same moment, and the best of several settings.

Needs nothing but Python, since every peer lives in an environment of its own. A peer's file is both the command and
the worker that it starts, as many as asked for: the workers get ready, wait for each other, and measure together. The
cores are dealt out among them, so that no library starts more threads than its cores can run.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OPENING_PLIES = 20
"""A game begins with 0 to this many random moves, so that positions of all plies are met from the first second."""
READY_SECONDS = 420.0
"""How long workers may compile and warm up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one worker measures.

    Attributes:
        simulations: of every move.
        blocks, channels: of the network.
        batch: games side by side.
        seconds: of playing; a quarter of it for the raw forward.
    """

    simulations: int
    blocks: int
    channels: int
    batch: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a peer does, once ready.

    Attributes:
        play: search and play some moves; return (moves, positions that the network evaluated).
        evaluate: evaluate positions as many at a time as `play` does; return how many.
    """

    play: Callable[[], tuple[int, int]]
    evaluate: Callable[[], int]


def run_peer(
    module: str,
    prepare: Callable[[Task], Work],
    *,
    peer: Callable[[], str],
    description: str | None,
    batches: Sequence[int],
    processes: Sequence[int] = (),
) -> None:
    """Be the command, or the worker, that the arguments ask for, and print one JSON object.

    Args:
        module: name by which Python finds the peer's file.
        prepare: makes the peer ready to work.
        peer: returns its name and version.
        description: of the command.
        batches: sizes that are tried when none is asked for.
        processes: how many workers are tried when that is not asked for either; () is one for each core.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("simulations", 32), ("blocks", 4), ("channels", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument(
        "--batch", type=_numbers, default=tuple(batches), help="games side by side in each: N,N,…"
    )
    parser.add_argument(
        "--processes",
        type=_numbers,
        default=tuple(processes) or (len(usable_cores()),),
        help="at a time: N,N,…",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        _be_worker(prepare, Task(**json.loads(given.worker)))
        return
    shape = {name: getattr(given, name) for name in ("simulations", "blocks", "channels", "seconds")}
    tried: list[dict[str, Any]] = []
    for count, batch in itertools.product(given.processes, given.batch):
        rates = _together(module, Task(batch=batch, **shape), processes=count)
        tried.append({"processes": count, "batch": batch, **rates})
        say(f"{module}: {count} × batch {batch}: {rates['moves_per_s']:,.1f} moves/s")
    best = max(tried, key=lambda one: one["moves_per_s"])
    print(json.dumps({"peer": peer(), **shape, "precision": "fp32", **best, "tried": tried}))


def say(text: str) -> None:
    """Tell a person how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def usable_cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))


def _together(module: str, task: Task, *, processes: int) -> dict[str, float]:
    """Let `processes` workers measure at the same time and return the sums. Raises RuntimeError if one fails."""
    dealt = [usable_cores()[index::processes] for index in range(processes)]
    workers = [_start(module, task, cores=cores or usable_cores()) for cores in dealt]
    limit = threading.Timer(READY_SECONDS + 3 * task.seconds, lambda: [worker.kill() for worker in workers])
    limit.start()
    try:
        for worker in workers:
            _line(worker)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        results = [json.loads(_line(worker)) for worker in workers]
    finally:
        limit.cancel()
        for worker in workers:
            worker.kill()
            worker.wait(timeout=60)
    sums = {name: sum(result[name] for result in results) for name in results[0]}
    return {name: round(value, 2) for name, value in sums.items()}


def _start(module: str, task: Task, *, cores: list[int]) -> "subprocess.Popen[str]":
    surroundings = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TAMEN_PEER_CORES": json.dumps(cores),
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, "--worker", json.dumps(asdict(task))],
        cwd=ROOT,
        env={**os.environ, **surroundings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(worker: "subprocess.Popen[str]") -> str:
    """Return the next line that a worker says; it ends when the worker does."""
    assert worker.stdout is not None
    if line := worker.stdout.readline():
        return line
    raise RuntimeError(f"a worker ended, or was too slow: exit code {worker.wait(timeout=60)}")


def _be_worker(prepare: Callable[[Task], Work], task: Task) -> None:
    """Get ready, wait for the others, measure, and print the result."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, json.loads(os.environ["TAMEN_PEER_CORES"]))
    work = prepare(task)
    for _ in range(2):
        work.play()
        work.evaluate()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    print(json.dumps(measure(work, seconds=task.seconds)), flush=True)


def measure(work: Work, *, seconds: float, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Return moves and evaluations a second, how many cores that kept busy, and the raw forward's rate."""
    moves = evals = rows = 0
    cpu_began, began = time.process_time(), clock()
    while (elapsed := clock() - began) < seconds:
        played = work.play()
        moves, evals = moves + played[0], evals + played[1]
    busy = (time.process_time() - cpu_began) / elapsed
    rates = {"moves_per_s": moves / elapsed, "evals_per_s": evals / elapsed}
    began = clock()
    while (elapsed := clock() - began) < seconds / 4:
        rows += work.evaluate()
    return rates | {"raw_per_s": rows / elapsed, "busy_cores": busy}
