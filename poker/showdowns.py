"""What hands win when they are shown at once."""

import numpy as np

from poker.holdem import BoardHands
from poker.rows import LANES
from poker.solver import Solver
from poker.tree import Chance, Node, Showdown


def values_of_showdowns(hands: BoardHands, masses: np.ndarray) -> np.ndarray:
    """Return float32 [R, 2, H]: counterfactual values, in units of what each player has put in, without another bet.

    Args:
        hands: of a board of four or five cards; of four the last is dealt first.
        masses: float64 [R, 2, H], in the order of `hands`.
    """
    tree = _tree(hands)
    solver = Solver(tree, hands.hands, lanes=True)
    values = np.empty(masses.shape, np.float32)
    for first in range(0, len(masses), LANES):
        some = masses[first : first + LANES]
        for lane, ranges in enumerate(some):
            solver.begin(lane, tree, ranges)
        values[first : first + LANES] = solver.values().transpose(2, 0, 1)[: len(some)]
    return values


def _tree(hands: BoardHands) -> Node:
    if not hands.next_cards:
        return Showdown(1.0)
    # Two cards are in the hands.
    deals = tuple((board, Showdown(1.0, board)) for board in range(len(hands.next_cards)))
    return Chance(deals, cards=len(hands.next_cards) - 4)
