"""Solves public trees for many hands at once by counterfactual regret minimisation.

Values. A counterfactual value of a hand is what the player wins with it on average, times the other's mass on hands
that go with it: Σ over these of reach · gain. They are in the unit of the stakes. Both players have the same H hands,
of which ranges give each a mass.

A tree with leaves is solved in steps: `leaf_masses` says with which hands players come to each, `set_leaf_values` is
told what these are worth, and `iterate` takes one iteration with that.
"""

import numpy as np

from poker import kernels
from poker.hands import HandSet
from poker.program import ROOT_VALUE, CompiledTree, compile_tree, leaf_stakes, stakes
from poker.rows import LANES
from poker.schedules import Schedule
from poker.tree import Node

PLAYERS = (0, 1)


class Solver:
    """A tree of some form on a hand set, in as many situations side by side as there are lanes.

    Lanes do not know of each other: what comes of a situation is the same in any of them, whatever the others hold.
    Each has its own ranges, stakes and number of iterations.

    Args:
        tree: whose form all situations have, and, until `begin` gives others, its stakes.
        hands: of both players.
        lanes: whether to compute in `LANES` lanes of float32, or one situation in float64, more slowly.

    Attributes:
        iterations: int64 [lanes], that each has taken.
        leaf_stakes: float64 [leaves, lanes], what each player has put in there.
    """

    def __init__(self, tree: Node, hands: HandSet, *, lanes: bool) -> None:
        self.hands = hands
        self.compiled: CompiledTree = compile_tree(tree)
        self._lanes = lanes
        self._tables = kernels.tables(hands)
        number = hands.number
        self._arrays = kernels.new_arrays(self.compiled.actions, self.compiled.slots, number, lanes=lanes)
        self._learnt = self._arrays.regrets
        ends = stakes(tree).shape[1]
        self._stakes = [kernels.new_rows(ends, lanes=lanes) for _ in PLAYERS]
        self._leaves = [kernels.new_rows(self.compiled.leaves * number, lanes=lanes) for _ in PLAYERS]
        self.leaf_stakes = np.ones((self.compiled.leaves, self.lanes))
        self._mass = np.ones(self.lanes)
        self.iterations = np.zeros(self.lanes, np.int64)
        self._schedule: Schedule | None = None
        self._known = np.zeros((0, kernels.WEIGHTS))  # its weights, iteration after iteration

    @property
    def lanes(self) -> int:
        return LANES if self._lanes else 1

    def begin(self, lane: int, tree: Node, ranges: np.ndarray) -> None:
        """Put a situation into a lane, with nothing learnt.

        Args:
            lane: which.
            tree: of the same form as the solver's.
            ranges: [2, H], at least 0; in lanes sums from 1e-6 to 1e6 keep clear of the ends of float32.
        """
        if self.iterations[lane]:
            for array in (self._arrays.regrets, self._arrays.average):
                self._lane(array, lane)[:] = 0.0
        for player, own in enumerate(stakes(tree)):
            self._lane(self._stakes[player], lane)[:] = own
            self._lane(self._slot(player), lane)[:] = ranges[player]
        self.leaf_stakes[:, lane] = leaf_stakes(tree)
        self._mass[lane] = float((ranges[0] * self.hands.compatible(ranges[1].astype(np.float64))).sum())
        self.iterations[lane] = 0

    def iterate(self, schedule: Schedule, count: int) -> None:
        """Take so many iterations in every lane; with leaves one, of a schedule that is simultaneous."""
        if schedule.simultaneous and self._learnt is self._arrays.regrets:
            self._learnt = self._arrays.regrets.copy()
        kernels.iterate(
            tuple(program.code for program in self.compiled.programs),
            self._tables,
            self._arrays,
            self._learnt if schedule.simultaneous else self._arrays.regrets,
            tuple(self._stakes),
            tuple(self._leaves),
            *self._weights(schedule, count),
            schedule.simultaneous,
            schedule.floor,
        )
        self.iterations += count

    def leaf_masses(self, *, mean: bool) -> np.ndarray:
        """Return the masses [2, leaves, H, lanes] with which players come to each leaf, overwriting leaf values.

        Args:
            mean: by average strategies, instead of those of the next iteration.
        """
        source = self._arrays.average if mean else self._arrays.regrets
        for player in PLAYERS:
            self._traverse(player, source, kernels.REACH)
        return np.stack(
            [self._leaf_rows(1 - player) for player in PLAYERS]
        )  # each traversal tells the other's

    def set_leaf_values(self, values: np.ndarray) -> None:
        """Take counterfactual values [2, leaves, H, lanes], for the masses that `leaf_masses` told."""
        for player in PLAYERS:
            self._leaf_rows(player)[:] = values[player]

    def values(self) -> np.ndarray:
        """Return counterfactual values float [2, H, lanes] at the root when both play their average strategies."""
        return self._root_values(kernels.MEAN)

    def best_values(self) -> np.ndarray:
        """Return those of each player's best answer to the other's average strategy."""
        return self._root_values(kernels.BEST)

    def expected(self, values: np.ndarray) -> np.ndarray:
        """Return float64 [2, lanes]: what players win on average, given counterfactual values [2, H, lanes]."""
        ranges = np.stack([self._all_lanes(self._slot(player)) for player in PLAYERS]).astype(np.float64)
        return (ranges * values).sum(1) / self._mass

    def exploitability(self) -> np.ndarray:
        """Return float64 [lanes]: the mean of what best answers would win more than average strategies do."""
        return np.maximum(self.expected(self.best_values()).sum(0) / 2, 0.0)  # rounding may leave less

    def strategy(self, decision: int, count: int, lane: int = 0) -> np.ndarray:
        """Return the average strategy float64 [count, H] of a decision, by its number among decisions in tree order."""
        first, number = self.compiled.first[decision], self.hands.number
        rows = self._lane(self._arrays.average, lane)[first * number : (first + count) * number]
        parts = rows.reshape(count, number).astype(np.float64)
        mass = parts.sum(0)
        return np.where(mass > 0, parts / np.where(mass > 0, mass, 1.0), 1.0 / count)

    def _root_values(self, mode: int) -> np.ndarray:
        return np.stack([self._value(player, mode) for player in PLAYERS])

    def _value(self, player: int, mode: int) -> np.ndarray:
        self._traverse(player, self._arrays.average, mode)
        return self._all_lanes(self._slot(ROOT_VALUE)).copy()

    def _traverse(self, player: int, source: np.ndarray, mode: int) -> None:
        code, stakes = self.compiled.programs[player].code, self._stakes[player]
        leaves = self._leaves[player]
        kernels.traverse(code, self._tables, self._arrays, source, self._learnt, stakes, leaves, mode, False)

    def _leaf_rows(self, player: int) -> np.ndarray:
        """Return a view [leaves, H, lanes]."""
        return self._leaves[player].reshape(self.compiled.leaves, self.hands.number, self.lanes)

    def _slot(self, slot: int) -> np.ndarray:
        number = self.hands.number
        return self._arrays.work[slot * number : (slot + 1) * number]

    def _weights(self, schedule: Schedule, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `weights` and `counted` of `kernels.iterate` for the next iterations of each lane."""
        wanted = int(self.iterations.max()) + count
        if self._schedule is not schedule or len(self._known) < wanted:
            self._schedule = schedule
            numbers = [schedule.weights(t) for t in range(1, 2 * wanted + 1)]
            self._known = np.array(numbers).reshape(-1, kernels.WEIGHTS)
        of_lanes = self._known[self.iterations[:, None] + np.arange(count)]
        counted = (of_lanes[:, :, 2:] != (1.0, 0.0)).any((0, 2))
        rows = kernels.new_rows(count * kernels.WEIGHTS, lanes=self._lanes)
        flat = of_lanes.reshape(self.lanes, -1)
        rows[:] = flat.T if self._lanes else flat[0]
        return rows, counted

    def _lane(self, array: np.ndarray, lane: int) -> np.ndarray:
        return array[:, lane] if self._lanes else array

    def _all_lanes(self, array: np.ndarray) -> np.ndarray:
        return array if self._lanes else array[:, None]
