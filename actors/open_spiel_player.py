"""OpenSpiel's Monte Carlo tree search as a player: an opponent that others have written."""

import re
from collections.abc import Sequence

import numpy as np
import pyspiel
from open_spiel.python.algorithms.mcts import MCTSBot, RandomRolloutEvaluator

from core.errors import UsageError
from core.messages import Steps
from games.game import Game, States


class OpenSpielPlayer:
    """OpenSpiel's Python `MCTSBot` with one random rollout a leaf and proven values backed up, as it comes.

    It plays on OpenSpiel's own board, on which the moves of each game are replayed.

    Args:
        name: how results call it.
        game: tic-tac-toe, connect four, Hex, or any `open_spiel:` game.
        simulations: for each move, at least 2.
        exploration: the constant of UCT.

    Raises:
        UsageError: when OpenSpiel has no such game.
    """

    rows_per_game = 1

    def __init__(self, name: str, game: Game, *, simulations: int, exploration: float = 2.0) -> None:
        self.name = name
        self._rules = pyspiel.load_game(open_spiel_name(game.name))
        self._simulations = simulations
        self._exploration = exploration

    def choose(
        self,
        game: Game,
        states: States,
        roots: np.ndarray,
        *,
        histories: Sequence[Sequence[int]],
        keys: np.ndarray,
    ) -> Steps[np.ndarray]:
        """See `Player`. Asks no model."""
        yield from ()
        moves = [self._move(history, int(key)) for history, key in zip(histories, keys, strict=True)]
        return np.array(moves, np.int16)

    def _move(self, history: Sequence[int], key: int) -> int:
        state = self._rules.new_initial_state()
        for action in history:
            state.apply_action(action)
        random = np.random.RandomState([key & 0xFFFFFFFF, key >> 32])
        bot = MCTSBot(
            self._rules,
            self._exploration,
            self._simulations,
            RandomRolloutEvaluator(n_rollouts=1, random_state=random),
            random_state=random,
        )
        return bot.step(state)


def open_spiel_name(name: str) -> str:
    """Return OpenSpiel's name of the game that is called `name` here; its actions have the same numbers."""
    if name in ("tic_tac_toe", "connect_four"):
        return name
    if found := re.fullmatch(r"connect_four_([0-9]+)x([0-9]+)", name):
        return f"connect_four(rows={found[2]},columns={found[1]})"
    if found := re.fullmatch(r"hex([0-9]+)(-swap)?", name):
        return f"hex(board_size={found[1]},swap={found[2] is not None})"
    if name.startswith("open_spiel:"):
        return name.removeprefix("open_spiel:")
    raise UsageError(
        f"OpenSpiel's search cannot play {name}",
        why="it plays tic_tac_toe, connect_four, hex and the open_spiel: games",
        fix="choose one of these games, or a player such as mcts:400",
    )
