"""What actors deliver: finished games, and the training rows cut from them.

Shapes: `T` plies of a game, `R` rows of a chunk, `A` actions, `H*W` cells.
(run, actor, epoch, seq) names one game for ever: `epoch` counts an actor's lives, `seq` its games in one.

Both records carry a version of their own. A reader refuses versions that it does not know; a change of fields
raises the version and leaves a golden file of each older one in the tests.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from core.errors import DataError
from replay.codec import decode_record, encode_record

GAME_RECORD_VERSION = 1
CHUNK_VERSION = 1

COLUMNS = {
    "cells": ("int8", 2),
    "policy": ("float16", 2),
    "policy_weight": ("float32", 1),
    "outcome": ("float32", 1),
    "search_value": ("float32", 1),
    "seq": ("int64", 1),
    "ply": ("int16", 1),
    "weights_version": ("int32", 1),
}
"""Name of each column of a chunk: its dtype and number of axes."""

_GAME_ARRAYS = {"actions": "int16", "values": "float32", "recorded": "bool", "weights_versions": "int32"}
_MAX_ORIGIN = 2**31 - 1
_MAX_SEQ = 2**63 - 1
# Means of many values in [-1, 1] may round to a little more than 1.
_VALUE_LIMIT = 1.001
# float16 keeps 11 bits: a policy rounded to it is off its sum by at most 2^-11, and a little from underflow.
_POLICY_SUM_TOLERANCE = 2e-3


@dataclass(frozen=True, slots=True, eq=False)
class GameRecord:
    """One finished game: enough to play it again and to judge how it was decided.

    Attributes:
        run: name of the run.
        game: name of the game, as `games.catalog.make_game` knows it.
        actor: number of the actor, 0 … 2³¹-1.
        epoch: the actor's life, as the replay gave it out; 0 … 2³¹-1.
        seq: number of the game in that life, 0 … 2⁶³-1.
        actions: int16 [T], the moves in the board frame, those of the opening included.
        outcome: from the view of player 0, in [-1, 1].
        values: float32 [T], the search's value from the view of the mover; 0 in the opening.
        recorded: bool [T], whether the full search was made and a row kept.
        weights_versions: int32 [T], oldest weights that took part in each decision; -1 where none did.
        opening_plies: random moves at the start, which no search chose.
    """

    run: str
    game: str
    actor: int
    epoch: int
    seq: int
    actions: np.ndarray
    outcome: float
    values: np.ndarray
    recorded: np.ndarray
    weights_versions: np.ndarray
    opening_plies: int

    def encode(self) -> bytes:
        """Return the record as bytes for `decode`."""
        return encode_record("game", GAME_RECORD_VERSION, _game_fields(self))

    @staticmethod
    def decode(data: bytes, *, source: str = "a game record") -> "GameRecord":
        """Return the record that was encoded. Raises DataError if damaged, foreign or of another version."""
        return _game_from(decode_record(data, "game", GAME_RECORD_VERSION, source=source), source=source)

    def check_valid(self) -> list[str]:
        """Return what is wrong with the record, in words; nothing if it is sound."""
        plies = len(self.actions)
        problems = _origin_problems(self.actor, self.epoch) + _value_problems("outcome", self.outcome)
        problems += [
            f"{name} has {len(array)} entries for {plies} actions"
            for name, array in (
                ("values", self.values),
                ("recorded", self.recorded),
                ("weights_versions", self.weights_versions),
            )
            if len(array) != plies
        ]
        problems += _value_problems("values", self.values)
        problems += _range_problems("actions", self.actions, 0, None)
        problems += _range_problems("weights_versions", self.weights_versions, -1, None)
        if not 0 <= self.opening_plies <= plies:
            problems.append(f"opening_plies is {self.opening_plies} of {plies} plies")
        if not 0 <= self.seq <= _MAX_SEQ:
            problems.append(f"seq is {self.seq}, allowed are 0 to {_MAX_SEQ}")
        return [f"game {self.seq}: {problem}" for problem in problems]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some finished games of one actor's life and the rows to train on.

    Attributes:
        run, game, actor, epoch: as in each of the games.
        games: in the order of their `seq`, which rises by one as an actor delivers them.
        columns: arrays with the same R ≥ 0 rows:
            cells: int8 [R, H*W], the board in a view: own stones 1, the other's -1, empty 0.
            policy: float16 [R, A], the search's policy in the frame of that view; sums to 1.
            policy_weight: float32 [R], of the policy in the loss; 0 where there is none.
            outcome: float32 [R], of the game, from the view of the player to move, in [-1, 1].
            search_value: float32 [R], from the view of the player to move, in [-1, 1].
            seq: int64 [R], the game a row was cut from.
            ply: int16 [R], its position in that game.
            weights_version: int32 [R], oldest weights that took part in the search.
    """

    run: str
    game: str
    actor: int
    epoch: int
    games: tuple[GameRecord, ...]
    columns: Mapping[str, np.ndarray]

    @property
    def num_rows(self) -> int:
        return len(self.columns["seq"])

    def encode(self) -> bytes:
        """Return the chunk as bytes for `decode`. Raises DataError when it is too large to be read again."""
        return encode_record(
            "chunk",
            CHUNK_VERSION,
            {
                "run": self.run,
                "game": self.game,
                "actor": self.actor,
                "epoch": self.epoch,
                "games": [_game_fields(game) for game in self.games],
                "columns": dict(self.columns),
            },
        )

    @staticmethod
    def decode(data: bytes, *, source: str = "a chunk") -> "Chunk":
        """Return the chunk that was encoded: every field is there, of its type; `check_valid` judges values.

        Raises:
            DataError: when it is damaged, foreign or of another version.
        """
        record = decode_record(data, "chunk", CHUNK_VERSION, source=source)
        return Chunk(
            run=_take(record, "run", str, source=source),
            game=_take(record, "game", str, source=source),
            actor=_take(record, "actor", int, source=source),
            epoch=_take(record, "epoch", int, source=source),
            games=tuple(
                _game_from(game, source=source) for game in _take(record, "games", list, source=source)
            ),
            columns=_columns_from(_take(record, "columns", dict, source=source), source=source),
        )

    def check_valid(self) -> list[str]:
        """Return what is wrong with the values, in words; nothing if the chunk is sound."""
        return [*_origin_problems(self.actor, self.epoch), *self._game_problems(), *self._row_problems()]

    def training_columns(self) -> dict[str, np.ndarray]:
        """Return the columns, and with them who made each row: "actor" and "epoch", int32 [R]."""
        return {
            **self.columns,
            "actor": np.full(self.num_rows, self.actor, np.int32),
            "epoch": np.full(self.num_rows, self.epoch, np.int32),
        }

    def only(self, seqs: Collection[int]) -> "Chunk":
        """Return the chunk with the games of `seqs` alone, and their rows."""
        rows = np.isin(self.columns["seq"], np.array(sorted(seqs), np.int64))
        return replace(
            self,
            games=tuple(game for game in self.games if game.seq in seqs),
            columns={name: column[rows] for name, column in self.columns.items()},
        )

    def _game_problems(self) -> list[str]:
        if not self.games:
            return ["it holds no game"]
        problems = [problem for game in self.games for problem in game.check_valid()]
        origin = (self.run, self.game, self.actor, self.epoch)
        problems += [
            f"game {game.seq} is of another run, game, actor or epoch than its chunk"
            for game in self.games
            if (game.run, game.game, game.actor, game.epoch) != origin
        ]
        seqs = [game.seq for game in self.games]
        if any(later <= earlier for earlier, later in pairwise(seqs)):
            problems.append("the seq of its games does not rise")
        return problems

    def _row_problems(self) -> list[str]:
        columns = self.columns
        problems = [
            f"column {name} has {len(column)} rows, seq has {self.num_rows}"
            for name, column in columns.items()
            if len(column) != self.num_rows
        ]
        if problems:
            return problems
        problems += _range_problems("cells", columns["cells"], -1, 1)
        problems += _value_problems("outcome", columns["outcome"])
        problems += _value_problems("search_value", columns["search_value"])
        problems += _range_problems("policy_weight", columns["policy_weight"], 0, None)
        problems += _range_problems("weights_version", columns["weights_version"], 0, None)
        return problems + self._policy_problems() + self._place_problems()

    def _policy_problems(self) -> list[str]:
        problems = _range_problems("policy", self.columns["policy"], 0, 1)
        if problems:
            return problems
        sums = self.columns["policy"].sum(axis=1, dtype=np.float32)
        worst = np.abs(sums - 1)[self.columns["policy_weight"] > 0].max(initial=0)
        return [f"a policy misses a sum of 1 by {worst:.4f}"] if worst > _POLICY_SUM_TOLERANCE else []

    def _place_problems(self) -> list[str]:
        """Check that each row points at a position of a game of this chunk."""
        plies = {game.seq: len(game.actions) for game in self.games}
        limits = np.array([plies.get(seq, -1) for seq in self.columns["seq"].tolist()], np.int64)
        ply = self.columns["ply"]
        problems = []
        if (limits < 0).any():
            problems.append("a row is cut from a game that is not in the chunk")
        if ((ply < 0) | ((ply >= limits) & (limits >= 0))).any():
            problems.append("a row is cut from a ply that its game does not have")
        return problems


@dataclass(frozen=True, slots=True)
class Ack:
    """The replay's answer to a chunk: its games are on disk, in this delivery or an earlier one.

    Attributes:
        accepted_games: games that were new.
        duplicate_games: games that had come before; their rows were dropped.
        rows: rows that were kept.
        pause_seconds: how long the actor should wait before it asks for admission again; 0 to go on.
        total_rows: rows ever kept.
    """

    accepted_games: int
    duplicate_games: int
    rows: int
    pause_seconds: float
    total_rows: int

    @staticmethod
    def nothing() -> "Ack":
        """Return what an actor goes on with when its chunk was refused for good."""
        return Ack(accepted_games=0, duplicate_games=0, rows=0, pause_seconds=0.0, total_rows=0)


def decode_columns(data: bytes, *, source: str = "a chunk") -> dict[str, np.ndarray]:
    """Return the training columns of an encoded chunk, see `Chunk.training_columns`. Raises DataError."""
    return Chunk.decode(data, source=source).training_columns()


def _game_fields(game: GameRecord) -> dict[str, Any]:
    return {
        "run": game.run,
        "game": game.game,
        "actor": game.actor,
        "epoch": game.epoch,
        "seq": game.seq,
        "actions": game.actions,
        "outcome": float(game.outcome),
        "values": game.values,
        "recorded": game.recorded,
        "weights_versions": game.weights_versions,
        "opening_plies": game.opening_plies,
    }


def _game_from(record: Any, *, source: str) -> GameRecord:
    if not isinstance(record, dict):
        raise _foreign(source, "a game is not a record")
    for name, dtype in _GAME_ARRAYS.items():
        _check_array(record, name, dtype, 1, source=source)
    return GameRecord(
        run=_take(record, "run", str, source=source),
        game=_take(record, "game", str, source=source),
        actor=_take(record, "actor", int, source=source),
        epoch=_take(record, "epoch", int, source=source),
        seq=_take(record, "seq", int, source=source),
        outcome=_take(record, "outcome", float, source=source),
        opening_plies=_take(record, "opening_plies", int, source=source),
        **{name: record[name] for name in _GAME_ARRAYS},
    )


def _columns_from(columns: dict[str, Any], *, source: str) -> dict[str, np.ndarray]:
    if columns.keys() != COLUMNS.keys():
        raise _foreign(source, f"its columns are {', '.join(columns)[:200]}, expected {', '.join(COLUMNS)}")
    for name, (dtype, axes) in COLUMNS.items():
        _check_array(columns, name, dtype, axes, source=source)
    return columns


def _take(record: dict[str, Any], key: str, kind: type, *, source: str) -> Any:
    value = record.get(key)
    if type(value) is not kind:
        raise _foreign(source, f"{key} is {type(value).__name__}, expected {kind.__name__}")
    return value


def _check_array(record: dict[str, Any], key: str, dtype: str, axes: int, *, source: str) -> None:
    array = record.get(key)
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != axes:
        got = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise _foreign(source, f"{key} is {got}, expected {dtype} with {axes} axes")


def _origin_problems(actor: int, epoch: int) -> list[str]:
    return [
        f"{name} is {value}, allowed are 0 to {_MAX_ORIGIN}"
        for name, value in (("actor", actor), ("epoch", epoch))
        if not 0 <= value <= _MAX_ORIGIN
    ]


def _value_problems(name: str, array: Any) -> list[str]:
    return _range_problems(name, array, -_VALUE_LIMIT, _VALUE_LIMIT)


def _range_problems(name: str, array: Any, low: float, high: float | None) -> list[str]:
    """Say whether a value of `array` is not finite, below `low` or above `high`."""
    if not np.isfinite(array).all():
        return [f"{name} is not finite"]
    if np.any(array < low) or (high is not None and np.any(array > high)):
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        return [f"{name} reaches from {np.min(array)} to {np.max(array)}, allowed is {allowed}"]
    return []


def _foreign(source: str, why: str) -> DataError:
    return DataError(f"{source} does not hold what was expected", why=why, fix="check where it comes from")
