"""A peer that searches one position at a time: OpenSpiel's Python `MCTSBot` on connect four, with tamen's network.

    .venv/bin/python -m benchmarks.peers.open_spiel_mcts [--simulations 32] [--seconds 20] [--processes 2]

Run it from the checkout, in tamen's own environment. Search, evaluator and choice of moves are as in OpenSpiel's Python
AlphaZero (`open_spiel/python/algorithms/alpha_zero`), whose settings are the defaults of its example: PUCT, Dirichlet
noise at the root, no proven values and so no early stop, and answers kept in a cache of 65,536 positions, without
which every position that is visited twice would be evaluated twice. Its actors are processes that share
nothing, and so they are here.
"""

from importlib.metadata import version
from typing import Any

import numpy as np
import pyspiel
import torch
from open_spiel.python.algorithms.mcts import Evaluator, MCTSBot, SearchNode
from open_spiel.python.utils.lru_cache import LRUCache

from benchmarks.peers.measuring import OPENING_PLIES, Task, Work, run_peer
from benchmarks.peers.tamen_net import TamenNet, random_cells

CACHE_POSITIONS = 2**16
UCT_C = 1.41
NOISE_SHARE, NOISE_ALPHA = 0.25, 1.0
PLIES_DRAWN = 2
"""Moves of a game that are drawn by visits; later ones are the best."""


class NetEvaluator(Evaluator):
    """Value and priors of one state at a time, as `AlphaZeroEvaluator` asks its model for them."""

    def __init__(self, net: TamenNet) -> None:
        self._net = net
        self._cache = LRUCache(CACHE_POSITIONS)

    def evaluate(self, state: Any) -> np.ndarray:
        """Return the value for each player."""
        value, _ = self._infer(state)
        return np.array([value, -value] if state.current_player() == 0 else [-value, value])

    def prior(self, state: Any) -> list[tuple[int, float]]:
        """Return each legal action with its probability."""
        _, policy = self._infer(state)
        return [(action, policy[action]) for action in state.legal_actions()]

    def _infer(self, state: Any) -> tuple[float, list[float]]:
        observation = np.asarray(state.observation_tensor(), np.int8)
        mask = np.asarray(state.legal_actions_mask(), np.bool_)
        key = observation.tobytes() + mask.tobytes()
        return self._cache.make(key, lambda: self._forward(observation, mask, state.current_player()))

    def _forward(self, observation: np.ndarray, mask: np.ndarray, player: int) -> tuple[float, list[float]]:
        logits, value = self._net(torch.from_numpy(to_cells(observation, player)[None]))
        policy = torch.softmax(logits[0].masked_fill(~torch.from_numpy(mask), -torch.inf), dim=0)
        return float(value[0]), policy.tolist()


def to_cells(observation: np.ndarray, player: int) -> np.ndarray:
    """Return int8 [42] as tamen shows a board: seen by the player to move, the top row first.

    Args:
        observation: int8 [3 * 42], planes of player 0's stones, player 1's and empty cells, the bottom row first.
        player: who is to move.
    """
    first, second, _ = observation.reshape(3, 6, 7)[:, ::-1]
    return np.ascontiguousarray((first - second) * (1 - 2 * player)).ravel()


class SelfPlay:
    """Plays game after game, as `_play_game` of OpenSpiel's AlphaZero does."""

    def __init__(self, task: Task) -> None:
        self.net = TamenNet(blocks=task.blocks, channels=task.channels)
        self._random = np.random.RandomState(0)
        self._simulations = task.simulations
        self._rules = pyspiel.load_game("connect_four")
        self._bot = MCTSBot(
            self._rules,
            UCT_C,
            task.simulations,
            NetEvaluator(self.net),
            solve=False,
            random_state=self._random,
            child_selection_fn=SearchNode.puct_value,
            dirichlet_noise=(NOISE_SHARE, NOISE_ALPHA),
            dont_return_chance_node=True,
        )
        self._begin()

    def play_move(self) -> tuple[int, int]:
        """Search and play one move; return 1 and how many positions the network evaluated for it."""
        rows_before = self.net.rows
        root = self._bot.mcts_search(self._state)
        assert root.explore_count == self._simulations
        if self._plies < PLIES_DRAWN:
            visits = np.array([child.explore_count for child in root.children])
            action = self._random.choice([child.action for child in root.children], p=visits / visits.sum())
        else:
            action = root.best_child().action
        self._state.apply_action(action)
        self._plies += 1
        if self._state.is_terminal():
            self._begin()
        return 1, self.net.rows - rows_before

    def _begin(self) -> None:
        """Begin a game with random moves that leave it undecided."""
        self._state, self._plies = self._rules.new_initial_state(), 0
        for _ in range(self._random.randint(OPENING_PLIES + 1)):
            self._state.apply_action(self._random.choice(self._state.legal_actions()))
            if self._state.is_terminal():
                self._state = self._rules.new_initial_state()
                break


def prepare(task: Task) -> Work:
    games, one = SelfPlay(task), random_cells(1)
    return Work(play=games.play_move, evaluate=lambda: len(games.net(one)[1]))


def peer_name() -> str:
    return f"open_spiel {version('open_spiel')} (Python MCTS)"


if __name__ == "__main__":
    run_peer("benchmarks.peers.open_spiel_mcts", prepare, peer=peer_name, description=__doc__, batches=[1])
