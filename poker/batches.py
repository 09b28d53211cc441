"""Solves situations side by side, each until it is exact enough, the next in the lane of the one that is done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from poker.betting import Betting, last_round
from poker.holdem import board_hands
from poker.sampling import Situation
from poker.schedules import Schedule
from poker.solver import Solver
from poker.tree import Node


@dataclass(frozen=True, slots=True)
class Stop:
    """When a situation is done.

    Attributes:
        target: mean of what best answers win more, in parts of the whole pot; None: after `iterations`.
        iterations: after how many it is given up; with a target up to `every` less one more are taken.
        every: so many iterations between two looks.
    """

    target: float | None = 0.001
    iterations: int = 5000
    every: int = 20


@dataclass(frozen=True, slots=True)
class Solved:
    """What came of a situation.

    Attributes:
        situation: it.
        values: float32 [2, H], counterfactual values of both players' average strategies, in units of `pot_half`.
        exploitability: in parts of the whole pot.
        iterations: taken.
        exact: whether it is as exact as was wanted.
    """

    situation: Situation
    values: np.ndarray
    exploitability: float
    iterations: int
    exact: bool


def tree_of(betting: Betting, pot_half: float) -> Node:
    """Return the tree of a river in units of `pot_half`."""
    return last_round(Betting(betting.stack / pot_half, betting.sizes), 1.0)


def solve_group(
    situations: Sequence[Situation],
    betting: Betting,
    schedule: Schedule,
    stop: Stop,
) -> Iterator[Solved]:
    """Yield what comes of situations of one board and one form, in the order in which they are done.

    What comes of each does not depend on the others.
    """
    hands = board_hands(situations[0].board)
    solver = Solver(tree_of(betting, situations[0].pot_half), hands.hands, lanes=True)
    waiting = list(situations)[::-1]
    held: dict[int, Situation] = {}
    for lane in range(solver.lanes):
        _refill(solver, lane, held, waiting, betting)
    while held:
        step = stop.every if stop.target is not None else stop.iterations
        solver.iterate(schedule, step)
        reached = solver.exploitability() / 2
        exact = reached <= stop.target if stop.target is not None else np.ones(solver.lanes, bool)
        done = [lane for lane in held if exact[lane] or solver.iterations[lane] >= stop.iterations]
        if not done:
            continue
        values = solver.values()
        for lane in done:
            yield Solved(
                held.pop(lane),
                values[:, :, lane].copy(),
                float(reached[lane]),
                int(solver.iterations[lane]),
                bool(exact[lane]),
            )
            _refill(solver, lane, held, waiting, betting)


def _refill(
    solver: Solver, lane: int, held: dict[int, Situation], waiting: list[Situation], betting: Betting
) -> None:
    """Begin the next situation in a lane, if there is one left."""
    if not waiting:
        return
    situation = held[lane] = waiting.pop()
    solver.begin(lane, tree_of(betting, situation.pot_half), situation.masses)
