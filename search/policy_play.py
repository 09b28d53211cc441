"""A player that does not look ahead: the move its model prefers."""

import numpy as np
from numba import njit

from core.messages import Steps
from games.game import Game, States
from search.contract import Decisions
from search.lockstep import Batch, evaluate_roots
from search.randomness import MOVE, draw, uniform
from search.tree import make_trees


class PolicyPlay:
    """Plays by one evaluation for up to `games` games at once; a row with `sample` draws from the policy.

    It takes no noise, and shows positions as they are, under no symmetry.
    """

    rows_per_game = 1

    def __init__(self, game: Game, *, games: int) -> None:
        self._trees = make_trees(games, max_nodes=1, num_actions=game.num_actions)

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
        """See `search.contract.Search`. Policy and values are the model's own, the visits are 0."""
        batch = Batch(
            game=game, states=states, roots=roots, budgets=np.zeros_like(roots), keys=keys, trees=self._trees
        )
        version = yield from evaluate_roots(batch, model)
        policies = self._trees.open_priors[: len(roots), 0].copy()
        return Decisions(
            actions=_pick(policies, keys, sample),
            policies=policies,
            values=self._trees.nodes["value"][: len(roots), 0].copy(),
            visits=np.zeros(policies.shape, np.int32),
            weights_version=version,
        )


@njit(cache=True, nogil=True)
def _pick(policies, keys, sample):
    actions = np.empty(len(keys), np.int16)
    for i in range(len(keys)):
        luck = uniform(keys[i], MOVE, 0)
        actions[i] = draw(policies[i], luck) if sample[i] else np.argmax(policies[i])
    return actions
