"""How the positions of games become requests: what `tamen bench phases` compares."""

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.messages import Request, Steps
from games.game import Game, States
from search.contract import Decisions, Search
from search.split import ask_in_pieces, split

Pieces = Literal["positions", "seed", "levels"]

_MOVES_LOOKED_AT_TWICE = 5


@dataclass(frozen=True, slots=True)
class Phase:
    """How the positions of games become requests.

    Attributes:
        groups, games_per_group: games in flight; those of a group are searched in lockstep.
        pieces: "positions": each is a request, and waits for the one before; "seed": those of the last level
            together, the others likewise one by one, and the values of the five best moves once before that;
            "levels": what a level of the search asks at once, for all games of the group.
    """

    groups: int
    games_per_group: int
    pieces: Pieces


class InPieces:
    """A search whose requests are cut as a phase says; it decides the same."""

    def __init__(self, search: Search, pieces: Pieces) -> None:
        self.rows_per_game = search.rows_per_game
        self._search = search
        self._pieces = pieces

    def decide(self, game: Game, states: States, roots: np.ndarray, **rest: Any) -> Steps[Decisions]:
        """See `search.contract.Search`."""
        steps = self._search.decide(game, states, roots, **rest)
        if self._pieces == "positions":
            return split(steps, max_rows=1, sequential=True)
        if self._pieces == "seed":
            return _ask_with_leaves_at_once(steps)
        return steps


def _ask_with_leaves_at_once(steps: Steps[Decisions]) -> Steps[Decisions]:
    """Ask about the root and its moves one by one, about the best few of these twice, and then a level at once.

    A program that calls for values and for policies, and batches the leaves alone, asks like that.
    """
    try:
        requests = next(steps)
        for level in itertools.count():
            if level == 1:
                yield from ask_in_pieces(_first_rows(requests, _MOVES_LOOKED_AT_TWICE), 1, sequential=True)
            if level < 2:
                replies = yield from ask_in_pieces(requests, 1, sequential=True)
            else:
                replies = yield requests
            requests = steps.send(replies)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()
    raise AssertionError("a search ends by returning")


def _first_rows(requests: tuple[Request, ...], most: int) -> tuple[Request, ...]:
    return tuple(
        Request(request.model, {name: array[:most] for name, array in request.arrays.items()})
        for request in requests
    )
