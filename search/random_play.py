"""The weakest player: any legal move."""

import numpy as np
from numba import njit

from core.messages import Steps
from games.game import Game, States
from search.contract import Decisions
from search.randomness import MOVE, random_bits


class RandomPlay:
    """Draws each move evenly from the legal ones, whatever budget, noise and sample say. Asks no model."""

    rows_per_game = 1

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
        """See `search.contract.Search`. The policy is even, the values and visits are 0."""
        yield from ()
        legal = game.legal(states, roots)
        return Decisions(
            actions=draw_legal(legal, keys, MOVE, np.zeros(len(roots), np.int64)),
            policies=(legal / legal.sum(axis=1, keepdims=True)).astype(np.float32),
            values=np.zeros(len(roots), np.float32),
            visits=np.zeros(legal.shape, np.int32),
            weights_version=-1,
        )


@njit(cache=True, nogil=True)
def draw_legal(legal, keys, stream, counters):
    """Return int16 [B]: for each row of bool [B, A] one that is True, drawn by keys[i] and counters[i]."""
    actions = np.empty(len(legal), np.int16)
    for i in range(len(legal)):
        ahead = random_bits(keys[i], stream, counters[i]) % np.uint64(legal[i].sum())
        for action in range(legal.shape[1]):
            if legal[i, action]:
                if ahead == 0:
                    actions[i] = action
                    break
                ahead -= np.uint64(1)
    return actions
