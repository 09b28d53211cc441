"""`tamen gtp`: a player of ours behind the Go Text Protocol, for HexGui, GoGui and whoever speaks it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from actors.players import SearchPlayer
from cluster.matches.match import SERVED_AS, Contender, agree_on_game, answer_here, find_contender
from core.errors import UsageError
from core.messages import Reply, Request
from core.seeds import mix_keys
from engines.gtp_server import GtpServer, serve
from engines.gtp_table import SKIP, GameTable, Thought
from games.catalog import make_game
from games.game import Game, States
from search.contract import Search
from search.drive import run
from search.policy_play import PolicyPlay


class _HurriedError(Exception):
    """Somebody waits for an answer now."""


class ContenderMind:
    """A contender of matches as the mind behind a GTP table (`engines.gtp_table.Mind`).

    A hurried search is given up for what the model sees at a glance. Who has no model, or is no search of ours, cannot
    be hurried, and the latter's policy is the move that it plays; it goes by the moves of the game from its start.

    Args:
        contender: who plays.
        game: its name.
        evaluate: answers for the contender's model.
        seed: from which the randomness of every move derives, with the move's number.
    """

    def __init__(
        self, contender: Contender, game: str, evaluate: Callable[[Request], Reply], *, seed: int
    ) -> None:
        self.name = contender.label
        self._player = contender.player(game, games=1, served_as=SERVED_AS[1])
        self.rows = self._player.rows_per_game
        self._glance = PolicyPlay(make_game(game), games=1) if contender.model is not None else None
        self._evaluate = evaluate
        self._seed = seed

    def think(
        self,
        game: Game,
        states: States,
        history: Sequence[int],
        *,
        search: bool,
        hurried: Callable[[], bool],
    ) -> Thought:
        """See `engines.gtp_table.Mind`."""
        keys = mix_keys(np.array([self._seed], np.uint64), np.array([len(history)]))
        if not isinstance(self._player, SearchPlayer):
            if SKIP in history:
                raise UsageError(
                    f"{self.name} cannot say",
                    why="two moves of one colour came in a row",
                    fix="serve a model or mcts:400",
                )
            root = np.zeros(1, np.int32)
            moves = self._player.choose(game, states, root, histories=[history], keys=keys)
            action = int(run(moves, self._evaluate)[0])
            policy = np.zeros(game.num_actions, np.float32)
            policy[action] = 1.0
            return Thought(action, None, policy, np.zeros(game.num_actions, np.int32))
        if search or self._glance is None:
            with contextlib.suppress(_HurriedError):
                return self._decide(self._player.search, game, states, keys, hurried=hurried)
        assert self._glance is not None  # who has no model asks nobody, and so is never hurried
        return self._decide(self._glance, game, states, keys, hurried=lambda: False)

    def _decide(
        self, search: Search, game: Game, states: States, keys: np.ndarray, *, hurried: Callable[[], bool]
    ) -> Thought:
        assert isinstance(self._player, SearchPlayer)

        def evaluate(request: Request) -> Reply:
            if hurried():
                raise _HurriedError
            return self._evaluate(request)

        steps = search.decide(
            game,
            states,
            np.zeros(1, np.int32),
            budgets=np.array([self._player.simulations], np.int32),
            keys=keys,
            model=self._player.model,
            noise=np.zeros(1, bool),
            sample=np.zeros(1, bool),
        )
        made = run(steps, evaluate)
        return Thought(int(made.actions[0]), float(made.values[0]), made.policies[0], made.visits[0])


def serve_player(
    text: str, *, game: str | None, simulations: int, seed: int, runs: Path, source: int = 0, sink: int = 1
) -> None:
    """Serve the player that `text` names on the descriptors `source` and `sink`, until `quit` or the end.

    Raises:
        UsageError: when nobody is called so, he does not play the game, or GTP has no words for it.
    """
    contender = find_contender(text, simulations=simulations, runs=runs)
    name = agree_on_game((contender,), game)
    mind = ContenderMind(contender, name, answer_here((contender,)), seed=seed)
    server = GtpServer(GameTable(make_game(name), mind), version=version("tamen"))
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        serve(server, source, sink)


@contextlib.contextmanager
def own_output() -> Iterator[int]:
    """Give the descriptor of the responses, which nothing else writes to: what is printed meanwhile goes to stderr."""
    sink = os.dup(1)
    os.dup2(2, 1)
    try:
        yield sink
    finally:
        sys.stdout.flush()
        os.dup2(sink, 1)
        os.close(sink)
