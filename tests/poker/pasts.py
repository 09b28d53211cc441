"""Solvers that have already learnt something."""

import numpy as np

from poker.solver import Solver
from tests.poker.oracles import Situation, SlowSolver, decisions

Past = list[tuple[np.ndarray, np.ndarray]]
"""Regrets and sums of strategies [A, H] of each decision."""


def random_past(situation: Situation, rng: np.random.Generator, *, floor: bool = False) -> Past:
    """Return one in which every hand has a positive regret, so that strategies do not jump for rounding errors."""
    past = []
    for _, at in decisions(situation.tree):
        regrets = rng.normal(size=(len(at.actions), situation.hands.number))
        regrets[0] = np.abs(regrets[0])
        past.append((np.maximum(regrets, 0) if floor else regrets, rng.random(regrets.shape)))
    return past


def remember(solver: Solver, past: Past, done: int) -> None:
    """Go on after so many iterations, in the last lane."""
    for array, of in ((solver._arrays.regrets, 0), (solver._arrays.average, 1)):
        into = array[:, -1] if solver.lanes > 1 else array
        into[:] = np.concatenate([np.zeros(0), *(each[of].reshape(-1) for each in past)])
    solver.iterations[-1] = done


def remember_slowly(slow: SlowSolver, past: Past, done: int) -> None:
    for path, (regrets, average) in zip(slow.regrets, past, strict=True):
        slow.regrets[path], slow.average[path] = regrets, average
    slow.iterations = done
