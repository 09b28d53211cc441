"""What turns are worth when a network says what hands are worth at their end, beside turns solved to the end.

Usage: python -m benchmarks.turns_by_network RUN [--runs FOLDER] [--spots N] [--target-pct X]
RUN is a run of `tamen train turn_end_values`. Of each interval of DeepStack's law of pots N spots on one board are
solved both ways, to X % of the pot (of the street alone where a network is asked). Prints one JSON object: by pots and
in all, the mean absolute difference of values and their correlation, both weighed by ranges, in units of what each
player has put in, and seconds for a sample on one core.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster import environment

environment.prepare()

from cluster.hands.networks import Here, find_networks  # noqa: E402 (numba reads the environment when it is imported)
from core.messages import without_asking  # noqa: E402
from inference_server.client import Client, drive_all  # noqa: E402
from poker.batches import Solved, Stop, solve_group  # noqa: E402
from poker.betting import Betting  # noqa: E402
from poker.sampling import POT_LAW, Law, Situation, draw_group  # noqa: E402
from poker.schedules import DEFAULT_VARIANT, make_schedule  # noqa: E402
from poker.subgames import Subgame  # noqa: E402

BETTING = Betting(20_000.0)
TO_THE_END, BY_NETWORK = Subgame("turn", BETTING), Subgame("turn", BETTING, to_the_end=False)
MOST_ITERATIONS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--spots", type=int, default=16)
    parser.add_argument("--target-pct", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    client = Here(find_networks([given.run], given.runs)["turn_end"])()
    stop = Stop(given.target_pct / 100, MOST_ITERATIONS)
    _both(_drawn(POT_LAW[-1], 16, seed=given.seed + 1), Stop(None, 1), client)  # compiles
    parts = {}
    everything: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for interval in POT_LAW:
        ends, networks, seconds = _both(_drawn(interval, given.spots, seed=given.seed), stop, client)
        columns = [np.stack([each.values for each in some]).astype(np.float64) for some in (networks, ends)]
        weights = np.stack([each.situation.masses for each in ends])
        everything.append((columns[0], columns[1], weights))
        parts[f"{interval[0]}-{interval[1]}"] = {
            **_compared(*everything[-1]),
            "exploitability_pct": round(100 * float(np.mean([each.exploitability for each in ends])), 3),
            "iterations": [
                round(float(np.mean([each.iterations for each in some])), 1) for some in (ends, networks)
            ],
            "seconds_per_sample": [round(each / given.spots, 3) for each in seconds],
        }
        sys.stderr.write(f"{interval}: {parts[f'{interval[0]}-{interval[1]}']}\n")
    together = [np.concatenate(each) for each in zip(*everything, strict=True)]
    costs = np.mean([part["seconds_per_sample"] for part in parts.values()], axis=0)
    report: dict[str, Any] = {
        "spots": given.spots * len(POT_LAW),
        "by_pots": parts,
        **_compared(*together),
        "seconds_per_sample": {"to_the_end": round(costs[0], 3), "by_network": round(costs[1], 3)},
        "times_cheaper": round(costs[0] / costs[1], 2),
    }
    sys.stdout.write(json.dumps(report) + "\n")


def _drawn(interval: tuple[int, int], spots: int, *, seed: int) -> list[Situation]:
    return draw_group(Law(seed, 4, group=spots, pots=(interval,)), 0, TO_THE_END.form)


def _both(
    situations: list[Situation], stop: Stop, client: Client
) -> tuple[list[Solved], list[Solved], tuple[float, float]]:
    """Return what comes of situations when they are solved to the end, and by a network, and the seconds of each."""
    plain = make_schedule(DEFAULT_VARIANT)
    began = time.perf_counter()
    ends = without_asking(solve_group(situations, TO_THE_END, plain, stop))
    middle = time.perf_counter()
    asking = solve_group(situations, BY_NETWORK, replace(plain, simultaneous=True), stop)
    (networks,) = drive_all([asking], client, together=1)
    seconds = middle - began, time.perf_counter() - middle
    return _in_order(ends), _in_order(networks), seconds


def _in_order(solved: list[Solved]) -> list[Solved]:
    return sorted(solved, key=lambda each: each.situation.number)


def _compared(found: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    weights = weights / weights.sum()
    x, y = (each - (weights * each).sum() for each in (found, wanted))
    correlation = (weights * x * y).sum() / np.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    return {
        "difference": round(float((weights * np.abs(found - wanted)).sum()), 4),
        "deviation": round(float(np.sqrt((weights * y * y).sum())), 4),
        "correlation": round(float(correlation), 4),
    }


if __name__ == "__main__":
    main()
