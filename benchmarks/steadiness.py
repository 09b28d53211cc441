"""How steady this machine is: the same small step of training, on one core alone and on all of them at once.

    python benchmarks/steadiness.py [--rounds 10] [--steps 1000]

A step whose cost moves while nothing else runs is slowed by what this program cannot see: neighbours on the same host,
who share a core's pipelines, caches and clock. Processor time does not tell, for it grows as the clock's time does.
Where the spread is wide, compare two programs in turn, several times, and not one reading with another.
"""

import argparse
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch


def milliseconds_a_step(core: int, steps: int) -> float:
    """Return the clock's time of a step of a perceptron on 256 rows, bound to a core."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64))
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    rows = torch.randn(256, 64)
    for number in range(steps + steps // 10):
        if number == steps // 10:
            began = time.perf_counter()
        optimizer.zero_grad()
        net(rows).square().mean().backward()
        optimizer.step()
    return 1000 * (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    alone: list[float] = []
    together: list[float] = []
    with ProcessPoolExecutor(len(cores), mp_context=get_context("spawn")) as pool:
        for _ in range(given.rounds):
            alone.append(pool.submit(milliseconds_a_step, cores[0], given.steps).result())
            each = [pool.submit(milliseconds_a_step, core, given.steps) for core in cores]
            together += [one.result() for one in each]
    for name, times in (("one core", alone), (f"all {len(cores)} at once", together)):
        middle, low, high = statistics.median(times), min(times), max(times)
        print(f"{name}: {middle:.2f} ms a step ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
