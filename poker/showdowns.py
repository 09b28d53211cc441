"""What hands win when they are shown at once, all cards to come being dealt."""

import numpy as np

from poker.holdem import BoardHands
from poker.rows import LANES
from poker.solver import Solver
from poker.tree import Showdown


def values_of_showdowns(hands: BoardHands, masses: np.ndarray) -> np.ndarray:
    """Return float32 [R, 2, H]: counterfactual values, in units of what each player has put in, without another bet.

    Args:
        hands: of a board.
        masses: [R, 2, H], in the order of `hands`.
    """
    if hands.equities is not None:
        rows = masses[:, ::-1].reshape(-1, masses.shape[2]).astype(np.float32)
        return (rows @ hands.equities.T).reshape(masses.shape)
    tree = Showdown(1.0)
    solver = Solver(tree, hands.hands, lanes=True)
    values = np.empty(masses.shape, np.float32)
    for first in range(0, len(masses), LANES):
        some = masses[first : first + LANES]
        for lane, ranges in enumerate(some):
            solver.begin(lane, tree, ranges)
        values[first : first + LANES] = solver.values().transpose(2, 0, 1)[: len(some)]
    return values
