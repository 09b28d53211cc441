"""A peer that searches many positions at a time: gumbel-mcts' Gumbel search on connect four, with tamen's network.

    PEERS/gumbel_mcts/bin/python -m benchmarks.peers.gumbel_mcts_peer [--batch 64,128,256,512] [--seconds 20]

Run it from the checkout, in an environment of its own (README.md beside it). gumbel-mcts keeps the trees of many games
in arrays and walks them by numba, in lockstep: one leaf of every game, one forward. It brings tic-tac-toe and gomoku;
the rules of connect four are in gumbel_mcts_game.py. `GumbelDense` is what its authors name for
few simulations and few actions. It shares its budget out among the moves at the root so that every search has exactly
its 32 simulations; a leaf where the game is over is one of them, without an evaluation.
"""

from importlib.metadata import version

import numpy as np
import torch
from gumbel_mcts import GumbelDense

from benchmarks.peers.gumbel_mcts_game import HEIGHT, WIDTH, ConnectFourLogic, fast_step
from benchmarks.peers.measuring import OPENING_PLIES, Task, Work, run_peer
from benchmarks.peers.tamen_net import TamenNet, random_cells


class Model:
    """tamen's network as gumbel-mcts asks for a model."""

    logic = ConnectFourLogic

    def __init__(self, net: TamenNet) -> None:
        self._net = net

    def forward_for_mcts(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return {"policy": probabilities [B, 7], "value": [B]}.

        Args:
            batch: {"boards": float [B, 42] with 1 and 2 for the players, "current_player": [B]}.
        """
        boards, player = batch["boards"], batch["current_player"][:, None]
        cells = (boards == player).to(torch.int8) - (boards == 3 - player).to(torch.int8)
        logits, values = self._net(cells)
        return {"policy": torch.softmax(logits, dim=1), "value": values}


class SelfPlay:
    """Plays `task.batch` games side by side."""

    def __init__(self, task: Task) -> None:
        self.net = TamenNet(blocks=task.blocks, channels=task.channels)
        self._model = Model(self.net)
        self._simulations = task.simulations
        self._games = list(range(task.batch))
        max_nodes = 1 + task.batch * (task.simulations + 1)
        self._search = GumbelDense(task.batch, max_nodes, ConnectFourLogic, device="cpu")
        self._random = np.random.default_rng(0)
        self._boards = np.zeros((task.batch, HEIGHT, WIDTH), np.int8)
        self._players = np.ones(task.batch, np.int8)
        for game in self._games:
            self._begin(game)

    def play_moves(self) -> tuple[int, int]:
        """Search and play one move in every game; return how many, and how many positions were evaluated."""
        rows_before = self.net.rows
        self._search.reset()
        self._search.initialize_roots(self._games, self._boards, self._players)
        moves = self._search.run_simulation_batch(self._model, self._games, self._simulations)
        roots = self._search.storage.root_indices
        # The evaluation of the root itself counts as a visit.
        assert (self._search.storage.visit_counts[roots] == self._simulations + 1).all()
        for game, move in enumerate(moves):
            if self._step(game, move):
                self._begin(game)
        return len(moves), self.net.rows - rows_before

    def _step(self, game: int, move: int) -> bool:
        """Play a move; return whether it ends the game."""
        _, _, over, _ = fast_step(self._boards[game], move, self._players[game])
        self._players[game] = 3 - self._players[game]
        return over

    def _begin(self, game: int) -> None:
        """Begin a game with random moves that leave it undecided."""
        self._boards[game], self._players[game] = 0, 1
        for _ in range(self._random.integers(OPENING_PLIES + 1)):
            if self._step(game, self._random.choice(np.flatnonzero(self._boards[game, 0] == 0))):
                self._boards[game], self._players[game] = 0, 1
                break


def prepare(task: Task) -> Work:
    games, cells = SelfPlay(task), random_cells(task.batch)
    return Work(play=games.play_moves, evaluate=lambda: len(games.net(cells)[1]))


def peer_name() -> str:
    return f"gumbel-mcts {version('gumbel-mcts')} (dense)"


if __name__ == "__main__":
    run_peer(
        "benchmarks.peers.gumbel_mcts_peer",
        prepare,
        peer=peer_name,
        description=__doc__,
        batches=[64, 128, 256, 512],
    )
