"""Which decisions of a solved tree are reached, by which lines of actions, how often, and what is done there."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from poker.solver import Solver
from poker.tree import Decision, Node, nodes


@dataclass(frozen=True, slots=True)
class Reached:
    """A decision when both play their average strategies.

    Attributes:
        line: the actions before it.
        player: who decides.
        actions: their words.
        strategy: float64 [actions, H], how often each hand takes each.
        weights: float64 [H], how often the decision is reached, and with this hand.
    """

    line: tuple[str, ...]
    player: int
    actions: tuple[str, ...]
    strategy: np.ndarray
    weights: np.ndarray

    @property
    def often(self) -> float:
        """How often it is reached."""
        return float(self.weights.sum())

    @property
    def frequencies(self) -> np.ndarray | None:
        """How often each action is taken over all hands that get there; None where none does."""
        return self.strategy @ self.weights / self.often if self.often > 0 else None


def reached_decisions(tree: Node, solver: Solver, ranges: np.ndarray) -> Iterator[Reached]:
    """Yield the decisions before the next card, in tree order.

    Args:
        tree: of the form that was solved.
        solver: which has it in lane 0.
        ranges: float64 [2, H], with which it began.
    """
    mass = float((ranges[0] * solver.hands.compatible(ranges[1])).sum())
    number = 0

    def below(node: Node, line: tuple[str, ...], reaches: np.ndarray) -> Iterator[Reached]:
        nonlocal number
        if not isinstance(node, Decision):
            number += sum(isinstance(each, Decision) for each in nodes(node))
            return
        player, words = node.player, tuple(word for word, _ in node.actions)
        strategy = solver.strategy(number, len(words))
        number += 1
        # Sums less what is blocked may come out a little below 0.
        met = np.maximum(solver.hands.compatible(reaches[1 - player]), 0.0)
        yield Reached(line, player, words, strategy, reaches[player] * met / mass)
        for share, (word, child) in zip(strategy, node.actions, strict=True):
            on = reaches.copy()
            on[player] *= share
            yield from below(child, (*line, word), on)

    yield from below(tree, (), np.asarray(ranges, np.float64))
