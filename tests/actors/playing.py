"""Groups of games played to their ends by a model that costs nothing, and their moves played again by the rules."""

from collections.abc import Callable
from typing import Any

import numpy as np

from actors.harvest import FinishedGame
from actors.selfplay import GameGroup
from configs.schema import SearchConfig
from core.errors import EvaluationError
from core.messages import Reply, Request
from games.catalog import make_game
from games.game import Game, States
from search.factory import make_search
from search.hash_evaluator import HashEvaluator

SETTINGS = SearchConfig(simulations=8, cheap_simulations=3, full_share=0.5, temperature_plies=4)


def a_group(
    game: Game, finished: list[FinishedGame], *, num_games: int = 4, seed: int = 0, **options: Any
) -> GameGroup:
    settings = options.pop("settings", SETTINGS)
    return GameGroup(
        game,
        options.pop("search", None) or make_search(settings, game, num_games),
        settings,
        num_games=num_games,
        random_opening_plies=options.pop("random_opening_plies", 0),
        model="main",
        seed=seed,
        finish=finished.append,
        **options,
    )


class Table:
    """A group at play: `step` answers what it asks and lets it think on."""

    def __init__(self, group: GameGroup, evaluate: Callable[[Request], Reply]) -> None:
        self._evaluate = evaluate
        self._play = group.play()
        self._requests = next(self._play)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            try:
                replies = tuple(self._evaluate(request) for request in self._requests)
            except EvaluationError as error:
                self._requests = self._play.throw(error)
            else:
                self._requests = self._play.send(replies)


def play_games(game_name: str, count: int, **options: Any) -> list[FinishedGame]:
    """Return the first `count` games that a group finishes."""
    game, finished = make_game(game_name), list[FinishedGame]()
    table = Table(a_group(game, finished, **options), HashEvaluator(game.num_actions))
    while len(finished) < count:
        table.step()
    return finished[:count]


def replay(game: Game, actions: list[int]) -> tuple[States, float]:
    """Play legal moves from the start; return (a pool with position p in row p, outcome for player 0).

    The game has to be over after the last move and not before.
    """
    states = game.new_states(len(actions) + 1)
    game.new(states, np.zeros(1, np.int32))
    for ply, action in enumerate(actions):
        row, child = np.array([ply], np.int32), np.array([ply + 1], np.int32)
        assert game.legal(states, row)[0, action], f"move {ply + 1} of {actions} is not legal"
        game.play(states, row, np.array([action], np.int16), child)
    last = np.array([len(actions)], np.int32)
    terminal, values = game.outcome(states, last)
    assert terminal[0], f"{actions} is no whole game"
    mover = game.to_play(states, last)[0]
    return states, float(values[0]) if mover == 0 else -float(values[0])


def views_of(game: Game, states: States, ply: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (cells, place of each action) of the position after `ply` moves under each symmetry."""
    row = np.array([ply], np.int32)
    seen = []
    for symmetry in range(game.num_symmetries):
        arrays, views = game.encode(states, row, np.array([symmetry], np.int8))
        seen.append((arrays["cells"][0], game.views[views[0]].astype(np.int64)))
    return seen
