"""Positions that self-play searched, as training rows at rest: shards, and the data sets that are made of them.

    train/searched_0000.npz         the columns, uncompressed; numpy.load reads them
    train/searched_0000.npz.json    what they are: schema, game, cells, actions, rows, games, size, digest
    manifest.json                   of the whole data set, written last; see `SearchedSet`

Files are written and checked as `replay.npz` says. Unlike the rows of `replay.shards` these keep what the search
found: how it spread its moves, and what it took the position to be worth. Everything is in the frame of a view
(docs/decisions/0008). Shapes: `R` rows, `C` cells of the board, `A` actions.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.errors import DataError, UsageError
from core.files import digest, file_digest, write_atomic
from core.seeds import derive_seed
from replay.experience import POLICY_SUM_TOLERANCE
from replay.npz import (
    damaged,
    missing_columns,
    read_columns,
    save_columns,
    shape_problems,
    sidecar_of,
    wrong_rows,
)
from replay.records import VALUE_LIMIT, GameRecord

SEARCHED_SCHEMA = 1
MANIFEST = "manifest.json"

Side = Literal["train", "validation"]
SIDES: tuple[Side, Side] = ("train", "validation")

SEARCHED_COLUMNS = {
    "cells": np.dtype("int8"),
    "policy": np.dtype("float16"),
    "policy_weight": np.dtype("float32"),
    "outcome": np.dtype("float32"),
    "search_value": np.dtype("float32"),
    "game": np.dtype("uint64"),
    "ply": np.dtype("int16"),
}
"""Name and type of each column, all with R rows, in the order in which they are written.

    cells: [R, C], own stones 1, the other's -1, empty 0.
    policy: [R, A], the search's; sums to 1 where policy_weight is above 0.
    policy_weight: of the policy in the loss; 0 where there is none.
    outcome: of the game, from the view of the player to move, in [-1, 1].
    search_value: from the view of the player to move, in [-1, 1].
    game: number of the game that the row was cut from, see `game_number`.
    ply: moves made before.
"""


@dataclass(frozen=True, slots=True)
class SearchedAbout:
    """What a writer knows of its rows beside the columns.

    Attributes:
        game: name of the game, as `games.catalog.make_game` knows it.
        cells, actions: C and A.
    """

    game: str
    cells: int
    actions: int

    def record(self) -> np.dtype:
        """Return the type of a row as a record of all its columns, without gaps."""
        shapes = {"cells": (self.cells,), "policy": (self.actions,)}
        return np.dtype([(name, dtype, shapes.get(name, ())) for name, dtype in SEARCHED_COLUMNS.items()])


@dataclass(frozen=True, slots=True)
class SearchedInfo:
    """What a sidecar says.

    Attributes:
        schema: version of the columns and of the sidecar.
        game, cells, actions: see `SearchedAbout`.
        rows: R.
        games: that they were cut from.
        size: bytes of the file of rows.
        digest: of that file, as `core.files.digest` makes it.
    """

    schema: int
    game: str
    cells: int
    actions: int
    rows: int
    games: int
    size: int
    digest: str

    def to_json(self) -> bytes:
        """Return the sidecar's text, the same for equal infos."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True)
class SearchedFile:
    """A shard that a data set names, by its path within the folder."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class SearchedSet:
    """What a data set says of itself.

    Attributes:
        schema: version of the shards and of the manifest.
        game, cells, actions: see `SearchedAbout`.
        games: that were exported; of some no row may have been kept.
        train_rows, validation_rows: of each side.
        validation_share: of games that are kept apart, see `replay.splitting`.
        seed: of the order of rows.
        files: its shards; those of one side follow each other.
    """

    schema: int
    game: str
    cells: int
    actions: int
    games: int
    train_rows: int
    validation_rows: int
    validation_share: float
    seed: int
    files: tuple[SearchedFile, ...]

    @property
    def digest(self) -> str:
        """Of the manifest, and so of every row: equal for equal data sets wherever they lie."""
        return digest(self.to_json())

    def side(self, side: Side) -> tuple[SearchedFile, ...]:
        return tuple(file for file in self.files if file.name.startswith(f"{side}/"))

    def to_json(self) -> bytes:
        """Return the manifest's text, the same for equal data sets."""
        return (json.dumps(asdict(self), indent=1, allow_nan=False) + "\n").encode()


def game_number(record: GameRecord) -> int:
    """Return the number of a game, 64 bits: of (run, actor, epoch, seq), which name it, and of its moves.

    Runs in different places may bear one name. By their moves other games stay others, and a copy is a copy.
    """
    moves = record.actions.astype("<i2").tobytes().hex()
    return derive_seed(0, "searched game", record.run, record.actor, record.epoch, record.seq, moves)


def encode_searched_shard(rows: Mapping[str, np.ndarray], about: SearchedAbout) -> tuple[bytes, SearchedInfo]:
    """Return the bytes of a shard, and what its sidecar is to say. Equal rows give equal bytes.

    Args:
        rows: the columns; they may be fields of an array of records.
        about: what else is to be said of them.

    Raises:
        ValueError: when the rows are not sound, see `check_valid`.
    """
    if problems := check_valid(rows, about):
        raise ValueError(f"rows of {about.game} are not sound: {'; '.join(problems)}")
    buffer = io.BytesIO()
    save_columns(buffer, rows, SEARCHED_COLUMNS)
    data = buffer.getvalue()
    games = len(np.unique(rows["game"]))
    info = SearchedInfo(
        schema=SEARCHED_SCHEMA,
        **asdict(about),
        rows=len(rows["game"]),
        games=games,
        size=len(data),
        digest=digest(data),
    )
    return data, info


def put_searched_shard(path: Path, data: bytes, info: SearchedInfo) -> None:
    """Write what was encoded, durably; a shard that was there before is replaced.

    Raises:
        OSError: when it cannot be written; then there is no shard.
    """
    sidecar_of(path).unlink(missing_ok=True)
    write_atomic(path, data)
    write_atomic(sidecar_of(path), info.to_json())


def holds(path: Path, info: SearchedInfo) -> bool:
    """Say whether the shard at `path` is the one that `info` is of, to the last byte."""
    try:
        return load_searched_info(path) == info and file_digest(path)[0] == info.digest
    except (OSError, DataError):
        return False


def load_searched_info(path: Path) -> SearchedInfo:
    """Return what the sidecar of the shard at `path` says. Raises DataError."""
    sidecar = sidecar_of(path)
    try:
        said = json.loads(sidecar.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(sidecar, str(error)) from error
    _refuse_other_schema(said, str(sidecar))
    match said:
        case {
            "schema": int(schema),
            "game": str(game),
            "cells": int(cells),
            "actions": int(actions),
            "rows": int(rows),
            "games": int(games),
            "size": int(size),
            "digest": str(found),
        }:
            return SearchedInfo(schema, game, cells, actions, rows, games, size, found)
    raise damaged(sidecar, f"it is no object of {', '.join(SearchedInfo.__dataclass_fields__)}")


def read_searched_shard(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a shard. Raises DataError when a byte is missing, added or altered, or it is foreign."""
    info = load_searched_info(path)
    rows = read_columns(path, info, SEARCHED_COLUMNS)
    problems = _shape_problems(rows, SearchedAbout(info.game, info.cells, info.actions)) or (
        [f"it holds {len(rows['game'])} rows instead of {info.rows}"]
        if len(rows["game"]) != info.rows
        else []
    )
    if problems:
        raise damaged(path, "; ".join(problems))
    return rows


def read_searched_set(folder: Path) -> SearchedSet:
    """Return what the data set in `folder` says of itself.

    Raises:
        UsageError: when there is none.
        DataError: when its manifest is damaged, or of something else.
    """
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{folder} is no data set of searched positions",
            why=f"it has no {MANIFEST}, which is written last",
            fix="export the games once more, or name another folder",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    _refuse_other_schema(said, str(path))
    match said:
        case {
            "schema": int(schema),
            "game": str(game),
            "cells": int(cells),
            "actions": int(actions),
            "games": int(games),
            "train_rows": int(train_rows),
            "validation_rows": int(validation_rows),
            "validation_share": int() | float() as share,
            "seed": int(seed),
            "files": list(named),
        }:
            files = tuple(_file_from(each, path) for each in named)
            counts = games, train_rows, validation_rows
            return SearchedSet(schema, game, cells, actions, *counts, float(share), seed, files)
    raise damaged(path, f"it is no object of {', '.join(SearchedSet.__dataclass_fields__)}")


def read_searched_file(folder: Path, file: SearchedFile) -> dict[str, np.ndarray]:
    """Return the columns of a shard of a data set. Raises DataError when it is damaged, or another than was named."""
    path = folder / file.name
    found = load_searched_info(path).digest
    if found != file.digest:
        raise damaged(path, f"its digest is {found}, the {MANIFEST} says {file.digest}")
    return read_searched_shard(path)


def check_valid(rows: Mapping[str, np.ndarray], about: SearchedAbout) -> list[str]:
    """Return what is wrong with rows, in words; nothing if they are sound."""
    if problems := _shape_problems(rows, about):
        return problems
    policy, weight = rows["policy"], rows["policy_weight"]
    with np.errstate(invalid="ignore", over="ignore"):
        sums = policy.sum(axis=1, dtype=np.float32)
        tests = {
            "a cell is not -1, 0 or 1": (np.abs(rows["cells"].astype(np.int16)) > 1).any(axis=1),
            "a share of the policy is not from 0 to 1": ~((policy >= 0) & (policy <= 1)).all(axis=1),
            "policy_weight is not finite and at least 0": ~(np.isfinite(weight) & (weight >= 0)),
            "the policy does not sum to 1": (weight > 0) & ~(np.abs(sums - 1) <= POLICY_SUM_TOLERANCE),
            "outcome is not from -1 to 1": ~(np.abs(rows["outcome"]) <= VALUE_LIMIT),
            "search_value is not from -1 to 1": ~(np.abs(rows["search_value"]) <= VALUE_LIMIT),
            "ply is below 0": rows["ply"] < 0,
        }
    return wrong_rows(tests)


def _shape_problems(rows: Mapping[str, np.ndarray], about: SearchedAbout) -> list[str]:
    if missing := missing_columns(rows, SEARCHED_COLUMNS):
        return missing
    count = len(rows["game"])
    shapes = {"cells": (count, about.cells), "policy": (count, about.actions)}
    return shape_problems(
        rows, {name: (dtype, shapes.get(name, (count,))) for name, dtype in SEARCHED_COLUMNS.items()}
    )


def _refuse_other_schema(said: Any, source: str) -> None:
    match said:
        case {"schema": int(schema)} if schema != SEARCHED_SCHEMA:
            raise DataError(
                f"{source} is of another release",
                why=f"its rows have schema {schema}, this release reads schema {SEARCHED_SCHEMA}",
                fix="export the games once more, or read them with the release that wrote them",
            )


def _file_from(said: Any, manifest: Path) -> SearchedFile:
    match said:
        case {"name": str(name), "rows": int(rows), "digest": str(found)}:
            if len(parts := name.split("/")) == 2 and parts[0] in SIDES and parts[1] not in ("", "..", "."):
                return SearchedFile(name, rows, found)
    raise damaged(manifest, f"{str(said)[:100]} names no shard of {' or '.join(SIDES)}")
