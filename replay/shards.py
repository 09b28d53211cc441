"""Positions of finished games as training rows at rest: files that the pipeline writes and the learner reads.

    shuffled_0000.npz         the columns, uncompressed; numpy.load reads them
    shuffled_0000.npz.json    what they are: schema, game, cells, rows, size, digest, sources

A shard is there when its sidecar is: the rows are written first, each of the two in one step. Damage is found by the
digest when the rows are read. Why this format: docs/decisions/0016.

Everything is in the frame of a view (docs/decisions/0008): the player to move sees the board turned so that his goal is
always the same. Shapes: `R` rows, `C` cells of the board.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from core.files import digest, file_digest
from replay.npz import (
    check_digest,
    damaged,
    is_whole,
    missing_columns,
    read_columns,
    save_columns,
    shape_problems,
    sidecar_of,
    write_columns,
    wrong_rows,
)

SHARD_SCHEMA = 1

COLUMNS = {
    "stones": np.dtype("uint8"),
    "action": np.dtype("int16"),
    "outcome": np.dtype("int8"),
    "game": np.dtype("uint64"),
    "ply": np.dtype("int16"),
    "plies": np.dtype("int16"),
}
"""Name and type of each column, all with R rows, in the order in which they are written.

    stones: [R, 2, ceil(C/8)], two planes of bits (numpy.packbits): those of the player to move, and the other's.
    action: the move that was played, as index of the policy; -1 where there is none to be learnt.
    outcome: from the view of the player to move: 1 won, -1 lost, 0 unknown.
    game: number of the game that the row was cut from, the same for all its rows and for no other game.
    ply: moves made before, which is also how many stones there are.
    plies: moves of the whole game.
"""


@dataclass(frozen=True, slots=True)
class ShardAbout:
    """What a writer knows of its rows beside the columns.

    Attributes:
        game: name of the game, as `games.catalog.make_game` knows it.
        cells: C.
        sources: names of the files that the rows were made from.
    """

    game: str
    cells: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a sidecar says.

    Attributes:
        schema: version of the columns and of the sidecar.
        game, cells, sources: see `ShardAbout`.
        rows: R.
        size: bytes of the file of rows.
        digest: of that file, as `core.files.digest` makes it.
    """

    schema: int
    game: str
    cells: int
    rows: int
    size: int
    digest: str
    sources: tuple[str, ...]

    def to_json(self) -> bytes:
        """Return the sidecar's text, the same for equal infos."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def write_shard(
    path: Path, rows: Mapping[str, np.ndarray], about: ShardAbout, *, known_sound: bool = False
) -> ShardInfo:
    """Write columns and sidecar, durably; one that was there before is replaced.

    Args:
        path: of the columns.
        rows: the columns; they may be fields of an array of records.
        about: what else is to be said of them.
        known_sound: for rows that lay in a shard before; to look at their values takes a third of the time.

    Raises:
        ValueError: when the rows are not sound, see `check_valid`.
        OSError: when it cannot be written; then there is no shard.
    """
    _refuse_unsound(rows, about, shapes_only=known_sound)
    return write_columns(
        path, rows, COLUMNS, lambda size, digest: _info(rows, about, size=size, digest=digest)
    )


def encode_shard(
    rows: Mapping[str, np.ndarray], about: ShardAbout, *, known_sound: bool = False
) -> tuple[bytes, ShardInfo]:
    """Return the bytes that `write_shard` writes, and what it says of them. Raises ValueError."""
    _refuse_unsound(rows, about, shapes_only=known_sound)
    buffer = io.BytesIO()
    save_columns(buffer, rows, COLUMNS)
    data = buffer.getvalue()
    return data, _info(rows, about, size=len(data), digest=digest(data))


def is_complete(path: Path) -> bool:
    """Say whether a shard is there, whole as far as its length tells; `read_shard` looks at every byte."""
    return is_whole(path, load_info)


def load_info(path: Path) -> ShardInfo:
    """Return what the sidecar of the shard at `path` says. Raises DataError."""
    sidecar = sidecar_of(path)
    try:
        return info_from_json(sidecar.read_bytes(), source=str(sidecar))
    except OSError as error:
        raise damaged(sidecar, str(error)) from error


def info_from_json(data: bytes, *, source: str) -> ShardInfo:
    """Return what a sidecar says. Raises DataError naming `source`."""
    try:
        said = json.loads(data)
    except ValueError as error:
        raise damaged(source, str(error)) from error
    match said:
        case {"schema": int(schema)} if schema != SHARD_SCHEMA:
            raise DataError(
                f"{source} is of another release",
                why=f"its rows have schema {schema}, this release reads schema {SHARD_SCHEMA}",
                fix="make the rows anew from the games: tamen pipeline --from positions",
            )
        case {
            "schema": int(),
            "game": str(game),
            "cells": int(cells),
            "rows": int(rows),
            "size": int(size),
            "digest": str(digest_),
            "sources": list(sources),
        } if all(isinstance(name, str) for name in sources):
            return ShardInfo(SHARD_SCHEMA, game, cells, rows, size, digest_, tuple(sources))
    raise damaged(source, f"it is no object of {', '.join(ShardInfo.__dataclass_fields__)}")


def read_shard(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a shard. Raises DataError when a byte is missing, added or altered, or it is foreign."""
    info = load_info(path)
    rows = read_columns(path, info, COLUMNS)
    problems = _shape_problems(rows, info.cells) or (
        [f"it holds {len(rows['game'])} rows instead of {info.rows}"]
        if len(rows["game"]) != info.rows
        else []
    )
    if problems:
        raise damaged(path, "; ".join(problems))
    return rows


def read_blocks(path: Path, block_rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the columns of a shard in blocks of `block_rows` rows, and never hold more. Raises DataError."""
    info = load_info(path)
    try:
        check_digest(path, file_digest(path)[0], info)
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            streams = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in COLUMNS}
            shapes = {name: _read_header(stream, name) for name, stream in streams.items()}
            for begin in range(0, info.rows, block_rows):
                length = min(block_rows, info.rows - begin)
                rows = {
                    name: np.frombuffer(
                        stream.read(length * COLUMNS[name].itemsize * int(np.prod(shapes[name][1:]))),
                        COLUMNS[name],
                    ).reshape(length, *shapes[name][1:])
                    for name, stream in streams.items()
                }
                if problems := _shape_problems(rows, info.cells):
                    raise ValueError("; ".join(problems))
                yield rows
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise damaged(path, str(error)) from error


def pack_cells(cells: np.ndarray) -> np.ndarray:
    """Return stones uint8 [R, 2, ceil(C/8)] of cells int8 [R, C]: 1 own, -1 the other's, 0 empty."""
    return np.packbits(np.stack([cells > 0, cells < 0], axis=1), axis=2)


def unpack_cells(stones: np.ndarray, cells: int) -> np.ndarray:
    """Return int8 [R, C], 1 own, -1 the other's, 0 empty, of stones uint8 [R, 2, ceil(C/8)]; `cells` is C."""
    planes = np.unpackbits(stones, axis=2, count=cells).view(np.int8)
    return planes[:, 0] - planes[:, 1]


def check_valid(rows: Mapping[str, np.ndarray], cells: int) -> list[str]:
    """Return what is wrong with rows of a board of `cells` cells, in words; nothing if they are sound."""
    if problems := _shape_problems(rows, cells):
        return problems
    stones, ply = rows["stones"], rows["ply"]
    own, other = np.bitwise_count(stones).sum(axis=2, dtype=np.int16).T
    tests = {
        "a cell holds two stones": (stones[:, 0] & stones[:, 1]).any(axis=1),
        "a stone lies behind the last cell": (stones[:, :, -1] & (0xFF >> (1 + (cells - 1) % 8))).any(axis=1),
        "there are not as many stones as plies, half of them the player's to move": (own + other != ply)
        | (own != ply // 2),
        f"action is not from -1 to {cells - 1}": (rows["action"] < -1) | (rows["action"] >= cells),
        "outcome is not -1, 0 or 1": np.abs(rows["outcome"]) > 1,
        "ply is not from 0 to plies": (ply < 0) | (ply > rows["plies"]),
    }
    return wrong_rows(tests)


def _refuse_unsound(rows: Mapping[str, np.ndarray], about: ShardAbout, *, shapes_only: bool) -> None:
    check = _shape_problems if shapes_only else check_valid
    if problems := check(rows, about.cells):
        raise ValueError(f"rows of {about.game} are not sound: {'; '.join(problems)}")


def _info(rows: Mapping[str, np.ndarray], about: ShardAbout, *, size: int, digest: str) -> ShardInfo:
    return ShardInfo(
        schema=SHARD_SCHEMA,
        game=about.game,
        cells=about.cells,
        rows=len(rows["game"]),
        size=size,
        digest=digest,
        sources=tuple(about.sources),
    )


def _shape_problems(rows: Mapping[str, np.ndarray], cells: int) -> list[str]:
    if missing := missing_columns(rows, COLUMNS):
        return missing
    count = len(rows["game"])
    planes = (count, 2, (cells + 7) // 8)
    return shape_problems(
        rows,
        {name: (dtype, planes if name == "stones" else (count,)) for name, dtype in COLUMNS.items()},
    )


def _read_header(stream: Any, name: str) -> tuple[int, ...]:
    """Read the .npy header of a column and return its shape. Raises ValueError unless its type is the column's."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"column {name} has the .npy version {version}")
    shape, fortran, found = np.lib.format.read_array_header_1_0(stream)
    if fortran or found != COLUMNS[name]:
        raise ValueError(f"column {name} is of {found} instead of {COLUMNS[name]}")
    return shape
