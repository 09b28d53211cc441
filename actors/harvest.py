"""Finished games gathered into chunks, numbered in the order in which they leave the actor."""

from dataclasses import dataclass

import numpy as np

from core.messages import BoardSpec
from core.metrics import Metrics
from replay.records import Chunk, GameRecord


@dataclass(frozen=True, slots=True)
class Row:
    """A training position: one that was searched in full.

    Attributes:
        ply: moves played before it, opening included.
        mover: the player to move, 0 or 1.
        inputs: the network's input arrays of this position, without B, in a view.
        policy: float16 [A], the search's policy in the same view.
    """

    ply: int
    mover: int
    inputs: dict[str, np.ndarray]
    policy: np.ndarray


@dataclass(frozen=True, slots=True)
class FinishedGame:
    """A game from its first move to its end. The lists have one entry a ply, opening included.

    Attributes:
        outcome: from the view of player 0.
        values: the search's value of each position, from the view of the player to move.
        recorded: whether the position was searched in full and so became a row.
        versions: weights version that each move was made with.
        seconds: how long it took, from its first to its last move.
    """

    actions: list[int]
    outcome: float
    values: list[float]
    recorded: list[bool]
    versions: list[int]
    rows: list[Row]
    opening_plies: int
    seconds: float


class GameHarvest:
    """Turns finished games into chunks.

    Args:
        board: of the game; the shapes of a chunk's columns.
        run, game, actor, epoch: provenance of every chunk; (run, actor, epoch, sequence number) names a game.
    """

    def __init__(
        self, board: BoardSpec, *, run: str, game: str, actor: int, epoch: int, metrics: Metrics
    ) -> None:
        self._board = board
        self._run = run
        self._game = game
        self._actor = actor
        self._epoch = epoch
        self._metrics = metrics
        self._next_seq = 0
        self._waiting: list[FinishedGame] = []
        self.rows_waiting = 0
        self.games = 0
        self.plies = 0

    def add(self, finished: FinishedGame) -> None:
        self._waiting.append(finished)
        self.rows_waiting += len(finished.rows)
        self.games += 1
        self.plies += len(finished.actions)
        self._metrics.observe("tamen_game_duration_seconds", finished.seconds)
        self._metrics.observe("tamen_game_plies", len(finished.actions))

    @property
    def games_waiting(self) -> int:
        return len(self._waiting)

    def take_chunk(self) -> Chunk | None:
        """Return everything that waits as one chunk; None when no game does."""
        if not self._waiting:
            return None
        games, self._waiting, self.rows_waiting = self._waiting, [], 0
        first_seq = self._next_seq
        self._next_seq += len(games)
        return Chunk(
            run=self._run,
            game=self._game,
            actor=self._actor,
            epoch=self._epoch,
            games=tuple(self._record(seq, game) for seq, game in enumerate(games, first_seq)),
            columns=_columns(games, first_seq, self._board),
        )

    def _record(self, seq: int, game: FinishedGame) -> GameRecord:
        return GameRecord(
            run=self._run,
            game=self._game,
            actor=self._actor,
            epoch=self._epoch,
            seq=seq,
            actions=np.array(game.actions, np.int16),
            outcome=game.outcome,
            values=np.array(game.values, np.float32),
            recorded=np.array(game.recorded, bool),
            weights_versions=np.array(game.versions, np.int32),
            opening_plies=game.opening_plies,
        )


def _columns(games: list[FinishedGame], first_seq: int, board: BoardSpec) -> dict[str, np.ndarray]:
    """Return the columns of all rows of `games`; outcomes turn to the view of each row's player to move."""
    rows = [(seq, game, row) for seq, game in enumerate(games, first_seq) for row in game.rows]
    inputs = {
        spec.name: np.array([row.inputs[spec.name] for _, _, row in rows], spec.dtype).reshape(
            -1, *spec.shape
        )
        for spec in board.inputs
    }
    return inputs | {
        "policy": np.array([row.policy for _, _, row in rows], np.float16).reshape(-1, board.num_actions),
        "policy_weight": np.ones(len(rows), np.float32),
        "outcome": np.array([g.outcome if row.mover == 0 else -g.outcome for _, g, row in rows], np.float32),
        "search_value": np.array([game.values[row.ply] for _, game, row in rows], np.float32),
        "seq": np.array([seq for seq, _, _ in rows], np.int64),
        "step": np.array([row.ply for _, _, row in rows], np.int32),
        "weights_version": np.array([game.versions[row.ply] for _, game, row in rows], np.int32),
    }
