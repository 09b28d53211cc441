"""The contract every search fulfils.

Shapes: `B` games searched in lockstep, `A` actions.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from games.game import Game, States


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a search concluded about B positions. Values and policies are from the view of the player to move.

    Attributes:
        actions: int16 [B], the move to play.
        policies: float32 [B, A], the improved policy: what a network should have said. It sums to 1 and
            is 0 on illegal moves.
        values: float32 [B], in [-1, 1], the search's estimate of each position.
        visits: int32 [B, A], simulations that went through each move.
        weights_version: the oldest weights that took part; -1 when no model was asked.
    """

    actions: np.ndarray
    policies: np.ndarray
    values: np.ndarray
    visits: np.ndarray
    weights_version: int


class Search(Protocol):
    """Decides moves for many games at once by asking a model about positions.

    Attributes:
        rows_per_game: state rows one game needs; its root is the first of them, the rest is for the search.
    """

    rows_per_game: int

    def decide(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        budgets: np.ndarray,
        keys: np.ndarray,
        model: str,
        noise: np.ndarray,
        sample: np.ndarray,
    ) -> Steps[Decisions]:
        """Search the positions in `roots`, none of them terminal, and return a decision for each.

        Args:
            game: the rules.
            states: the pool.
            roots: int32 [B], the row of each position; the block behind each belongs to its search.
            budgets: int32 [B], simulations each position may use; at least 1, at most the settings' maximum.
            keys: uint64 [B], all randomness of a row derives from its key, so that a decision does not depend
                on which other games stand beside it.
            model: name of the model to ask.
            noise: bool [B], whether to look beyond what the model prefers, as a search that is learned from.
            sample: bool [B], whether to draw the move, as early in a game of self-play, or to play the best.
        """
        ...


def ask(requests: tuple[Request, ...]) -> Steps[tuple[Reply, ...]]:
    """Yield `requests` and return their replies; a failed evaluation is asked once more.

    Raises:
        EvaluationError: when it fails twice. Whoever owns the games sets them aside; the search is then void.
    """
    try:
        return (yield requests)
    except EvaluationError:
        return (yield requests)
