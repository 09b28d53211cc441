"""`tamen bench solve`: how fast one core solves rivers, iteration by iteration and sample by sample."""

import statistics
import time
from typing import Any

import numpy as np

from cluster.bench.rig import Measuring
from core.messages import without_asking
from poker.batches import Solved, Stop, solve_group
from poker.betting import Betting
from poker.cards import parse_cards
from poker.holdem import board_hands
from poker.sampling import Law, draw_group, draw_range
from poker.schedules import DEFAULT_VARIANT, make_schedule
from poker.solver import Solver
from poker.subgames import Subgame

RIVER = Subgame("river", Betting(20_000.0, (1.0,)))
BOARD = "Td9d6hQc3s"
POT_HALVES = (100, 1_000, 10_000)
FIXED_ITERATIONS = 1_000
ADAPTIVE_TARGET = 0.0025
STEP_ITERATIONS = 100


def bench_solve(measuring: Measuring) -> dict[str, Any]:
    """Solve rivers with bets of the pot and all-in, stacks of 20,000, as many of a board side by side as there are
    lanes.

    Returns:
        iters_per_s_100, …_1000, …_10000: iterations of all lanes together, both players learning in each; medians.
        samples_per_s_fixed: situations drawn by the law, 1,000 iterations each.
        samples_per_s_adaptive: the same until 0.25 % of the pot, looked at every 20 iterations.
        mean_iterations, mean_exploitability_pct, max_exploitability_pct: of the adaptive ones.
    """
    report: dict[str, Any] = {}
    for pot_half in POT_HALVES:
        rounds = [
            _iterations_per_second(pot_half, measuring.seconds, seed) for seed in range(measuring.rounds)
        ]
        report[f"iters_per_s_{pot_half}"] = round(statistics.median(rounds))
        report[f"iters_per_s_{pot_half}_rounds"] = [round(rate) for rate in rounds]
        measuring.say(f"pot-half {pot_half}: {statistics.median(rounds):,.0f} iterations/s")
    for name, stop in (
        ("fixed", Stop(None, FIXED_ITERATIONS)),
        ("adaptive", Stop(ADAPTIVE_TARGET, 10 * FIXED_ITERATIONS)),
    ):
        rates, solved = _samples_per_second(stop, measuring)
        report[f"samples_per_s_{name}"] = round(statistics.median(rates), 2)
        report[f"samples_per_s_{name}_rounds"] = [round(rate, 2) for rate in rates]
        measuring.say(f"{name}: {statistics.median(rates):,.1f} samples/s")
        if name == "adaptive":
            exploitability = [100 * each.exploitability for each in solved]
            report |= {
                "mean_iterations": round(statistics.mean(each.iterations for each in solved), 1),
                "mean_exploitability_pct": round(statistics.mean(exploitability), 4),
                "max_exploitability_pct": round(max(exploitability), 4),
                "samples": len(solved),
            }
    return report | {"variant": DEFAULT_VARIANT}


def _iterations_per_second(pot_half: int, seconds: float, seed: int) -> float:
    hands, rng = board_hands(parse_cards(BOARD)), np.random.default_rng(seed)
    tree = RIVER.tree(pot_half)
    solver = Solver(tree, hands.hands, lanes=True)
    for lane in range(solver.lanes):
        solver.begin(lane, tree, np.stack([draw_range(rng, hands.strengths) for _ in range(2)]))
    schedule = make_schedule(DEFAULT_VARIANT)
    solver.iterate(schedule, STEP_ITERATIONS)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        solver.iterate(schedule, STEP_ITERATIONS)
        steps += 1
    return steps * STEP_ITERATIONS * solver.lanes / (time.perf_counter() - began)


def _samples_per_second(stop: Stop, measuring: Measuring) -> tuple[list[float], list[Solved]]:
    """Return the rate of each round, groups of all forms of trees in each, and all that was solved."""
    rates, everything, group = [], list[Solved](), 0
    for _ in range(measuring.rounds):
        began, before = time.perf_counter(), len(everything)
        while time.perf_counter() - began < 5 * measuring.seconds:
            for _ in range(len(Law(0).pots)):
                everything += _solve(group, stop)
                group += 1
        rates.append((len(everything) - before) / (time.perf_counter() - began))
    return rates, everything


def _solve(group: int, stop: Stop) -> list[Solved]:
    """Solve a group of situations; of each five groups one has its pots in each interval of the law."""
    intervals = Law(0).pots
    law = Law(seed=1, pots=(intervals[group % len(intervals)],))
    situations = draw_group(law, group, RIVER.form)
    return without_asking(solve_group(situations, RIVER, make_schedule(DEFAULT_VARIANT), stop))
