"""What actors deliver: training rows in named columns, and the games or episodes that they are cut from.

Shapes: `T` plies of a game, `R` rows of a chunk, `E` episodes.
(run, actor, epoch, seq) names one delivered thing for ever, a game with its rows or, where there are no games, a row:
`epoch` counts an actor's lives, `seq` what it delivered in one. What a row's other columns are is for the workload to
say (`replay.experience`).

Both records carry a version of their own. A reader refuses versions that it does not know; a change of fields
raises the version and leaves a golden file of each older one in the tests.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from core.errors import DataError
from replay.codec import decode_record, encode_record

GAME_RECORD_VERSION = 1
CHUNK_VERSION = 2

PROVENANCE = {"seq": "int64", "step": "int32", "weights_version": "int32"}
"""Name and dtype of the columns [R] that every chunk has, of whatever workload."""

_GAME_ARRAYS = {"actions": "int16", "values": "float32", "recorded": "bool", "weights_versions": "int32"}
_EPISODE_ARRAYS = {"seq": "int64", "total_reward": "float32", "steps": "int32", "seconds": "float32"}
_MAX_ORIGIN = 2**31 - 1
_MAX_SEQ = 2**63 - 1
# Means of many values in [-1, 1] may round to a little more than 1.
VALUE_LIMIT = 1.001


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
        problems = _origin_problems(self.actor, self.epoch) + value_problems("outcome", self.outcome)
        problems += [
            f"{name} has {len(array)} entries for {plies} actions"
            for name, array in (
                ("values", self.values),
                ("recorded", self.recorded),
                ("weights_versions", self.weights_versions),
            )
            if len(array) != plies
        ]
        problems += value_problems("values", self.values)
        problems += range_problems("actions", self.actions, 0, None)
        problems += range_problems("weights_versions", self.weights_versions, -1, None)
        if not 0 <= self.opening_plies <= plies:
            problems.append(f"opening_plies is {self.opening_plies} of {plies} plies")
        if not 0 <= self.seq <= _MAX_SEQ:
            problems.append(f"seq is {self.seq}, allowed are 0 to {_MAX_SEQ}")
        return [f"game {self.seq}: {problem}" for problem in problems]


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """Episodes that ended within the rows of a chunk, whole or in their last part.

    Attributes:
        seq: int64 [E], the row in which each ended.
        total_reward: float32 [E], undiscounted and as the environment gave it.
        steps: int32 [E].
        seconds: float32 [E], from the first step to the last.
    """

    seq: np.ndarray
    total_reward: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray

    @staticmethod
    def none() -> "Episodes":
        return Episodes(**{name: np.zeros(0, dtype) for name, dtype in _EPISODE_ARRAYS.items()})

    def __len__(self) -> int:
        return len(self.seq)

    def only(self, chosen: np.ndarray) -> "Episodes":
        """Return those of a mask bool [E]."""
        return Episodes(**{name: getattr(self, name)[chosen] for name in _EPISODE_ARRAYS})

    def check_valid(self) -> list[str]:
        """Return what is wrong with them, in words."""
        if len({len(getattr(self, name)) for name in _EPISODE_ARRAYS}) != 1:
            return ["the arrays of its episodes differ in length"]
        problems = range_problems("total_reward of an episode", self.total_reward, -np.inf, None)
        problems += range_problems("steps of an episode", self.steps, 1, None)
        return problems + range_problems("seconds of an episode", self.seconds, 0, None)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Rows of one actor's life, and what they were cut from.

    Attributes:
        run, game, actor, epoch: as in each of the games.
        games: in the order of their `seq`, which rises by one as an actor delivers them; none where the rows are no
            positions of games.
        episodes: of environments; none where there are games.
        columns: arrays with the same R ≥ 0 rows, those of the workload and:
            seq: int64 [R], the game a row was cut from; where there are no games, the row itself.
            step: int32 [R], moves before it in the game, or steps before it in its environment.
            weights_version: int32 [R], oldest weights that took part.
    """

    run: str
    game: str
    actor: int
    epoch: int
    columns: Mapping[str, np.ndarray]
    games: tuple[GameRecord, ...] = ()
    episodes: Episodes = field(default_factory=Episodes.none)

    @property
    def num_rows(self) -> int:
        return len(self.columns["seq"])

    @property
    def num_games(self) -> int:
        """How many games or episodes ended in it."""
        return len(self.games) or len(self.episodes)

    @property
    def seqs(self) -> list[int]:
        """What is in it, rising: the numbers of its games, or of its rows where there are no games."""
        return [game.seq for game in self.games] or self.columns["seq"].tolist()

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
                "episodes": {name: getattr(self.episodes, name) for name in _EPISODE_ARRAYS},
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
        episodes = _take(record, "episodes", dict, source=source)
        for name, dtype in _EPISODE_ARRAYS.items():
            _check_array(episodes, name, dtype, 1, source=source)
        return Chunk(
            run=_take(record, "run", str, source=source),
            game=_take(record, "game", str, source=source),
            actor=_take(record, "actor", int, source=source),
            epoch=_take(record, "epoch", int, source=source),
            games=tuple(
                _game_from(game, source=source) for game in _take(record, "games", list, source=source)
            ),
            episodes=Episodes(**{name: episodes[name] for name in _EPISODE_ARRAYS}),
            columns=_columns_from(_take(record, "columns", dict, source=source), source=source),
        )

    def check_valid(self) -> list[str]:
        """Return what is wrong with the values, in words; nothing if the chunk is sound, whatever its workload."""
        lengths = [
            f"column {name} has {len(column)} rows, seq has {self.num_rows}"
            for name, column in self.columns.items()
            if len(column) != self.num_rows
        ]
        problems = lengths + _origin_problems(self.actor, self.epoch) + self.episodes.check_valid()
        if problems:
            return problems
        problems = range_problems("weights_version", self.columns["weights_version"], 0, None)
        problems += range_problems("step", self.columns["step"], 0, None)
        return problems + (self._game_problems() if self.games else self._unit_problems())

    def training_columns(self) -> dict[str, np.ndarray]:
        """Return the columns, and with them who made each row: "actor" and "epoch", int32 [R]."""
        return {
            **self.columns,
            "actor": np.full(self.num_rows, self.actor, np.int32),
            "epoch": np.full(self.num_rows, self.epoch, np.int32),
        }

    def only(self, seqs: Collection[int]) -> "Chunk":
        """Return the chunk with what `seqs` names alone, and its rows."""
        chosen = np.array(sorted(seqs), np.int64)
        rows = np.isin(self.columns["seq"], chosen)
        return replace(
            self,
            games=tuple(game for game in self.games if game.seq in seqs),
            episodes=self.episodes.only(np.isin(self.episodes.seq, chosen)),
            columns={name: column[rows] for name, column in self.columns.items()},
        )

    def _unit_problems(self) -> list[str]:
        if not self.num_rows:
            return ["it holds no game and no row"]
        seq = self.columns["seq"]
        if (seq[1:] <= seq[:-1]).any() or seq[0] < 0:
            return ["the seq of its rows does not rise"]
        if not np.isin(self.episodes.seq, seq).all():
            return ["an episode ended in a row that is not in the chunk"]
        return []

    def _game_problems(self) -> list[str]:
        problems = [problem for game in self.games for problem in game.check_valid()]
        origin = (self.run, self.game, self.actor, self.epoch)
        problems += [
            f"game {game.seq} is of another run, game, actor or epoch than its chunk"
            for game in self.games
            if (game.run, game.game, game.actor, game.epoch) != origin
        ]
        if any(later <= earlier for earlier, later in pairwise(self.seqs)):
            problems.append("the seq of its games does not rise")
        return problems + self._place_problems()

    def _place_problems(self) -> list[str]:
        """Check that each row points at a position of a game of this chunk."""
        plies = {game.seq: len(game.actions) for game in self.games}
        limits = np.array([plies.get(seq, -1) for seq in self.columns["seq"].tolist()], np.int64)
        problems = []
        if (limits < 0).any():
            problems.append("a row is cut from a game that is not in the chunk")
        if ((self.columns["step"] >= limits) & (limits >= 0)).any():
            problems.append("a row is cut from a ply that its game does not have")
        return problems


@dataclass(frozen=True, slots=True)
class Ack:
    """The replay's answer to a chunk: what is in it is safe, by this delivery or an earlier one.

    Attributes:
        accepted: games, or rows where there are no games, that were new.
        duplicates: those that had come before; their rows were dropped.
        rows: rows that were kept.
        pause_seconds: how long the actor should wait before it asks for admission again; 0 to go on.
        total_rows: rows ever kept.
    """

    accepted: int
    duplicates: int
    rows: int
    pause_seconds: float
    total_rows: int

    @staticmethod
    def nothing() -> "Ack":
        """Return what an actor goes on with when its chunk was refused for good."""
        return Ack(accepted=0, duplicates=0, rows=0, pause_seconds=0.0, total_rows=0)


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
    for name, dtype in PROVENANCE.items():
        _check_array(columns, name, dtype, 1, source=source)
    for name, column in columns.items():
        if not isinstance(column, np.ndarray) or not column.ndim:
            raise _foreign(source, f"column {name} is no array of rows")
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


def value_problems(name: str, array: Any) -> list[str]:
    return range_problems(name, array, -VALUE_LIMIT, VALUE_LIMIT)


def range_problems(name: str, array: Any, low: float, high: float | None) -> list[str]:
    """Say whether a value of `array` is not finite, below `low` or above `high`."""
    if not np.isfinite(array).all():
        return [f"{name} is not finite"]
    if np.any(array < low) or (high is not None and np.any(array > high)):
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        return [f"{name} reaches from {np.min(array)} to {np.max(array)}, allowed is {allowed}"]
    return []


def _foreign(source: str, why: str) -> DataError:
    return DataError(f"{source} does not hold what was expected", why=why, fix="check where it comes from")
