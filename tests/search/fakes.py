"""What the tests of searches play and ask."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np

from core.errors import EvaluationError
from core.messages import ArraySpec, Reply, Request
from games.game import Game, States
from search.contract import Decisions, Search
from search.drive import run


class Board(NamedTuple):
    num_actions: int
    inputs: tuple[ArraySpec, ...]


class Pile:
    """Take one, two or three stones; who takes exactly two moves again; who takes the last one wins.

    A game in which players do not alternate, and the winner may be the one "to move" when it is over.
    """

    name = "pile"
    num_actions = 3
    num_symmetries = 1
    board = Board(3, (ArraySpec("pile", "int8", (1,)),))
    views = np.array([[0, 1, 2], [2, 1, 0]], np.int16)

    def __init__(self, stones: int = 15) -> None:
        self.stones = self.max_plies = stones

    def new_states(self, capacity: int) -> np.ndarray:
        return np.zeros((capacity, 3), np.int8)  # stones left, player to move, winner

    def new(self, states: np.ndarray, rows: np.ndarray) -> None:
        states[rows] = (self.stones, 0, 0)

    def copy(self, states: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> None:
        states[targets] = states[sources]

    def play(
        self, states: np.ndarray, parents: np.ndarray, actions: np.ndarray, children: np.ndarray
    ) -> None:
        stones, players, _ = states[parents].T
        left = stones - (actions + 1)
        states[children] = np.stack([left, np.where(actions == 1, players, 1 - players), players], axis=1)

    def legal(self, states: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.arange(3) < states[rows, :1]

    def to_play(self, states: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return states[rows, 1]

    def outcome(self, states: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stones, players, winners = states[rows].T
        values = np.where(players == winners, 1.0, -1.0) * (stones == 0)
        return stones == 0, values.astype(np.float32)

    def encode(
        self, states: np.ndarray, rows: np.ndarray, symmetries: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return {"pile": states[rows, :1]}, states[rows, 1].astype(np.int16)


def pile(stones: int = 15) -> Game:
    """Return a game of `Pile`; nobody wants to see it or to store it here."""
    return cast(Game, Pile(stones))


class EvenEvaluator:
    """Prefers no move and gives every position the same value."""

    def __init__(self, num_actions: int, *, value: float = 0.0) -> None:
        self._num_actions, self._value = num_actions, value

    def __call__(self, request: Request) -> Reply:
        policy = np.zeros((request.num_rows, self._num_actions), np.float16)
        return Reply({"policy": policy, "value": np.full(request.num_rows, self._value, np.float32)}, 0)


class FailingEvaluator:
    """Fails in the calls whose numbers it was given (from 0), and passes the others on."""

    def __init__(self, evaluate: Callable[[Request], Reply], failing_calls: set[int]) -> None:
        self._evaluate, self._failing_calls, self.calls = evaluate, failing_calls, 0

    def __call__(self, request: Request) -> Reply:
        call, self.calls = self.calls, self.calls + 1
        if call in self._failing_calls:
            raise EvaluationError("no answer", why="this test wants it so", fix="ask again")
        return self._evaluate(request)


def play_at_random(game: Game, rng: np.random.Generator, *, plies_left: int) -> list[int]:
    """Return the moves of a random game up to the position `plies_left` (at least 1) before its end."""
    states = game.new_states(1)
    row = np.zeros(1, np.int32)
    game.new(states, row)
    actions: list[int] = []
    while not game.outcome(states, row)[0][0]:
        actions.append(int(rng.choice(np.flatnonzero(game.legal(states, row)[0]))))
        game.play(states, row, np.array(actions[-1:], np.int16), row)
    return actions[: max(0, len(actions) - plies_left)]


def positions(game: Game, lines: list[list[int]], *, rows_per_game: int) -> tuple[States, np.ndarray]:
    """Return (a pool, roots int32 [B]) with the position after each line of moves."""
    states = game.new_states(len(lines) * rows_per_game)
    roots = (np.arange(len(lines)) * rows_per_game).astype(np.int32)
    game.new(states, roots)
    for root, line in zip(roots, lines, strict=True):
        row = np.array([root], np.int32)
        for action in line:
            game.play(states, row, np.array([action], np.int16), row)
    return states, roots


def decide(
    search: Search,
    game: Game,
    lines: list[list[int]],
    evaluate: Callable[[Request], Reply],
    *,
    budgets: Sequence[int],
    keys: Sequence[int] | None = None,
    noise: bool | Sequence[bool] = False,
    sample: bool | Sequence[bool] = False,
) -> Decisions:
    """Search the positions after `lines` of moves; keys count from 1 unless told."""
    states, roots = positions(game, lines, rows_per_game=search.rows_per_game)
    steps = search.decide(
        game,
        states,
        roots,
        budgets=np.array(budgets, np.int32),
        keys=np.array(range(1, len(lines) + 1) if keys is None else keys, np.uint64),
        model="fake",
        noise=np.broadcast_to(noise, len(lines)).copy(),
        sample=np.broadcast_to(sample, len(lines)).copy(),
    )
    return run(steps, evaluate)
