"""How many rivers a GPU solves beside one core: iterations and samples a second, of the same situations.

Usage: python -m benchmarks.solve_gpu [--device cuda] [--situations 4096] [--seconds 20] [--samples 20480] [--fused]
Prints one JSON object. Stacks of 20,000, bets of the pot and all-in, the default variant, as `tamen bench solve`.

iters_per_s_100, …_1000, …_10000: pots of so much a side, on as many boards as there are situations by 32; iterations of
all together, both players learning in each. samples_per_s_fixed: situations by the law of pots, 1,000 iterations each;
samples_per_s_adaptive: until 0.25 % of the pot, looked at every 20 iterations. Each has the device, one core with its
lanes, and the ratio; cores solve for as many seconds, groups of each interval of pots in turn. Nothing counts that
comes before the first iteration is done: drawing, compiling and recording; but with samples a batch's own tables and
recordings do.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache

from cluster import environment

environment.prepare()

import numpy as np  # noqa: E402 (numba and torch read the environment when they are imported)
import torch  # noqa: E402

from core.messages import without_asking  # noqa: E402
from poker.batches import Solved, Stop, solve_group  # noqa: E402
from poker.betting import Betting  # noqa: E402
from poker.gpu import DeviceSolver, bytes_of_row, river, rows_that_fit, solve_on_device  # noqa: E402
from poker.holdem import board_hands  # noqa: E402
from poker.program import compile_tree  # noqa: E402
from poker.sampling import POT_LAW, Law, Situation, draw_group  # noqa: E402
from poker.schedules import DEFAULT_VARIANT, make_schedule  # noqa: E402
from poker.solver import Solver  # noqa: E402
from poker.subgames import Subgame  # noqa: E402

BETTING = Betting(20_000.0)
SCHEDULE = make_schedule(DEFAULT_VARIANT)
POT_HALVES = (100, 1_000, 10_000)
STOPS = {"fixed": Stop(None, 1_000), "adaptive": Stop(0.0025, 10_000)}
STEP = 20
GROUP = 32


def main() -> None:
    given = _arguments()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    report: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else given.device,
        "torch": torch.__version__,
        "fused": given.fused,
        "situations": given.situations,
        "variant": DEFAULT_VARIANT,
    }
    for pot_half in POT_HALVES:
        situations = drawn((pot_half, pot_half), given.situations)
        report[f"iters_per_s_{pot_half}"] = _compared(
            device_iterations(situations, device, given.seconds, fused=given.fused),
            lane_iterations(situations, given.seconds),
        )
    groups = [drawn(POT_LAW[k % len(POT_LAW)], GROUP, k) for k in range(-(-given.samples // GROUP))]
    for name, stop in STOPS.items():
        rate, solved = device_samples(groups, stop, device, given.situations, fused=given.fused)
        report[f"samples_per_s_{name}"] = _compared(rate, lane_samples(groups, stop, given.seconds))
        report[f"of_{name}"] = {
            "samples": len(solved),
            "mean_iterations": round(float(np.mean([each.iterations for each in solved])), 1),
            "mean_exploitability_pct": round(
                100 * float(np.mean([each.exploitability for each in solved])), 4
            ),
            "exact": all(each.exact for each in solved),
        }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def drawn(pots: tuple[int, int], number: int, group: int = 0) -> list[Situation]:
    """Return situations with pots of an interval, `GROUP` of them on each board; groups have one form."""
    law = Law(seed=1, group=min(GROUP, number), pots=(pots,))
    groups = range(group, group + -(-number // law.group))
    return [situation for k in groups for situation in draw_group(law, k, _form)][:number]


def device_iterations(
    situations: list[Situation], device: torch.device, seconds: float, *, fused: bool
) -> dict[str, object]:
    """Return iterations a second of all that fit on a device, and what they take of its memory."""
    pot_half = situations[0].pot_half
    compiled = compile_tree(river(BETTING, pot_half))
    rows = min(len(situations), rows_that_fit(compiled, SCHEDULE, device) or len(situations))
    solver = DeviceSolver(BETTING, pot_half, SCHEDULE, rows, 10_000, device=device, fused=fused)
    solver.begin(range(rows), situations[:rows])
    rate = rows * _rate(lambda: solver.iterate(STEP), lambda: _wait(device), seconds) * STEP
    return {
        "per_s": round(rate),
        "rows": rows,
        "gb_by_the_book": round(rows * bytes_of_row(compiled, SCHEDULE) / 1e9, 2),
        "gb_at_most": _most_memory(device),
        "exploitability_of_all": round(float(solver.exploitability().mean() / 2), 6),
    }


def lane_iterations(situations: list[Situation], seconds: float) -> float:
    """Return those of one core, with as many of one board as there are lanes."""
    tree = river(BETTING, situations[0].pot_half)
    solver = Solver(tree, board_hands(situations[0].board).hands, lanes=True)
    for lane in range(solver.lanes):
        solver.begin(lane, tree, situations[lane % min(GROUP, len(situations))].masses)
    return solver.lanes * _rate(lambda: solver.iterate(SCHEDULE, STEP), lambda: None, seconds) * STEP


def device_samples(
    groups: list[list[Situation]], stop: Stop, device: torch.device, together: int, *, fused: bool
) -> tuple[dict[str, object], list[Solved]]:
    """Return samples a second of a device, one form of tree after the other, and what was solved."""
    forms: dict[bytes, list[Situation]] = defaultdict(list)
    for group in groups:
        forms[_form(group[0].pot_half)] += group
    _wait(device)
    began = time.perf_counter()
    solved = [
        each
        for situations in forms.values()
        for each in solve_on_device(
            situations, BETTING, SCHEDULE, stop, device=device, most_together=together, fused=fused
        )
    ]
    taken = time.perf_counter() - began
    return {"per_s": round(len(solved) / taken, 2), "forms": len(forms), "seconds": round(taken, 2)}, solved


def lane_samples(groups: list[list[Situation]], stop: Stop, seconds: float) -> float:
    """Return those of one core, which begins with the first groups and stops after so many seconds."""
    number, began = 0, time.perf_counter()
    for at in range(0, len(groups), len(POT_LAW)):
        for group in groups[at : at + len(POT_LAW)]:
            number += len(without_asking(solve_group(group, Subgame("river", BETTING), SCHEDULE, stop)))
        if time.perf_counter() - began > seconds:
            break
    return number / (time.perf_counter() - began)


def _rate(step: Callable[[], None], wait: Callable[[], None], seconds: float) -> float:
    """Return how often a second a step is taken, but for the first."""
    step()
    wait()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        wait()
        steps += 1
    return steps / (time.perf_counter() - began)


def _compared(device: dict[str, object], core: float) -> dict[str, object]:
    rate = device["per_s"]
    assert isinstance(rate, int | float)
    return {**device, "one_core_per_s": round(core, 2), "ratio": round(rate / core, 3)}


@cache
def _form(pot_half: int) -> bytes:
    return compile_tree(river(BETTING, pot_half)).programs[0].code.tobytes()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _most_memory(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="rivers on a device beside one core")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--situations", type=int, default=4096, help="at most side by side")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of a rate")
    parser.add_argument("--samples", type=int, default=20_480, help="by the law of pots, in groups of 32")
    parser.add_argument("--fused", action="store_true", help="let torch compile operations")
    return parser.parse_args()


if __name__ == "__main__":
    main()
