"""Solves situations side by side, each until it is exact enough, the next in the lane of the one that is done.

Where a street ends in leaves these are asked of a network, all lanes at once: so solving is a computation that asks, as
`core.messages.Steps` are. Where it goes to the end it asks nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.messages import Steps
from poker.holdem import board_hands
from poker.leaves import NetworkLeaves
from poker.sampling import Situation
from poker.schedules import Schedule
from poker.solver import Solver
from poker.subgames import Subgame


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
        exploitability: in parts of the whole pot. Where a network says what leaves are worth it is that of the street
            alone: leaves stay worth what they are when both play their average strategies. NaN where nothing was
            played.
        iterations: taken.
        exact: whether it is as exact as was wanted.
    """

    situation: Situation
    values: np.ndarray
    exploitability: float
    iterations: int
    exact: bool


def solve_group(
    situations: Sequence[Situation],
    subgame: Subgame,
    schedule: Schedule,
    stop: Stop,
    *,
    model: str = "main",
) -> Steps[list[Solved]]:
    """Return what comes of situations of one board and one form, in the order in which they are done.

    What comes of each does not depend on the others, but for how a network rounds.

    Args:
        situations: of the subgame's street.
        subgame: what is played.
        schedule: of the solver; it has to be simultaneous where there are leaves.
        stop: when a situation is done.
        model: that says what leaves are worth.
    """
    lanes = _Lanes(situations, subgame, model)
    done: list[Solved] = []
    while lanes.held:
        yield from lanes.iterate(schedule, stop.every if stop.target is not None else stop.iterations)
        done += yield from lanes.take_done(stop)
    return done


class _Lanes:
    """The lanes of a solver, and the situations in them and still to come.

    Attributes:
        held: the situation in each lane.
    """

    def __init__(self, situations: Sequence[Situation], subgame: Subgame, model: str) -> None:
        self._subgame = subgame
        hands = board_hands(situations[0].board)
        self._solver = Solver(subgame.tree(situations[0].pot_half), hands.hands, lanes=True)
        self._network = None if subgame.to_the_end else NetworkLeaves(hands, model)
        self._waiting = list(situations)[::-1]
        self._stacks = np.zeros(self._solver.lanes)
        self.held: dict[int, Situation] = {}
        for lane in range(self._solver.lanes):
            self._refill(lane)

    def iterate(self, schedule: Schedule, count: int) -> Steps[None]:
        """Take so many iterations."""
        if self._network is None:
            self._solver.iterate(schedule, count)
            return
        for _ in range(count):
            yield from self._ask(self._network, mean=False)
            self._solver.iterate(schedule, 1)

    def take_done(self, stop: Stop) -> Steps[list[Solved]]:
        """Return what is done, and begin the next situations in its place."""
        if self._network is not None:
            yield from self._ask(self._network, mean=True)
        solver = self._solver
        reached = solver.exploitability() / 2
        exact = reached <= stop.target if stop.target is not None else np.ones(solver.lanes, bool)
        lanes = [lane for lane in self.held if exact[lane] or solver.iterations[lane] >= stop.iterations]
        values = solver.values() if lanes else np.zeros(0)
        done = [
            Solved(
                self.held[lane],
                values[:, :, lane].copy(),
                float(reached[lane]),
                int(solver.iterations[lane]),
                bool(exact[lane]),
            )
            for lane in lanes
        ]
        for lane in lanes:
            self._refill(lane)
        return done

    def _ask(self, network: NetworkLeaves, *, mean: bool) -> Steps[None]:
        solver = self._solver
        masses = solver.leaf_masses(mean=mean)
        values = yield from network.values(masses, solver.leaf_stakes, self._stacks)
        solver.set_leaf_values(values)

    def _refill(self, lane: int) -> None:
        """Begin the next situation in a lane, if there is one left."""
        if not self._waiting:
            self.held.pop(lane, None)
            self._stacks[lane] = 0.0
            return
        situation = self.held[lane] = self._waiting.pop()
        self._stacks[lane] = self._subgame.betting.stack / situation.pot_half
        self._solver.begin(lane, self._subgame.tree(situation.pot_half), situation.masses)
