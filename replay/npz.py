"""Columns of arrays as files: what the kinds of shards have in common.

    NAME.npz         the columns, uncompressed; numpy.load reads them
    NAME.npz.json    what they are; with size and digest of the columns

A shard is there when its sidecar is: the columns are written first, each of the two in one step. Damage is found by the
digest when the columns are read.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from core.errors import DataError
from core.files import digest, file_digest, open_atomic, write_atomic

Shapes = Mapping[str, tuple[np.dtype, tuple[int, ...]]]
"""Type and shape that each column has to have."""

_SAVED_ROWS = 1 << 14


class Sidecar(Protocol):
    """What a sidecar says of the file of columns beside it, and more."""

    @property
    def size(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def to_json(self) -> bytes: ...


SidecarT = TypeVar("SidecarT", bound=Sidecar)


def sidecar_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def write_columns(
    path: Path,
    rows: Mapping[str, np.ndarray],
    names: Mapping[str, np.dtype],
    say: Callable[[int, str], SidecarT],
) -> SidecarT:
    """Write columns and sidecar, durably; a shard that was there before is replaced.

    Args:
        path: of the columns.
        rows: they may be fields of an array of records.
        names: of the columns, in the order in which they are written.
        say: makes the sidecar of the size and the digest of the columns.

    Raises:
        OSError: when it cannot be written; then there is no shard.
    """
    sidecar_of(path).unlink(missing_ok=True)
    with open_atomic(path) as file:
        save_columns(file, rows, names)
    found, size = file_digest(path)
    said = say(size, found)
    write_atomic(sidecar_of(path), said.to_json())
    return said


def save_columns(file: BinaryIO, rows: Mapping[str, np.ndarray], names: Mapping[str, np.dtype]) -> None:
    """Write what numpy.savez writes, byte for byte, holding a copy of no more than some rows."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            column = rows[name]
            # What would be written of a column that lies in memory by itself, also where it is a field of records.
            header = {"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for begin in range(0, len(column), _SAVED_ROWS):
                    some = np.ascontiguousarray(column[begin : begin + _SAVED_ROWS])
                    member.write(some.reshape(-1).view(np.uint8).data)


def read_columns(path: Path, said: Sidecar, names: Mapping[str, np.dtype]) -> dict[str, np.ndarray]:
    """Return the columns of a shard. Raises DataError when a byte is missing, added or altered, or one is not there."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, str(error)) from error
    check_digest(path, digest(data), said)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise damaged(path, str(error)) from error


def is_whole(path: Path, load_info: Callable[[Path], Sidecar]) -> bool:
    """Say whether a shard is there, whole as far as its length tells."""
    try:
        return path.stat().st_size == load_info(path).size
    except (OSError, DataError):
        return False


def shape_problems(rows: Mapping[str, np.ndarray], shapes: Shapes) -> list[str]:
    """Return which columns have another type or shape, in words."""
    return [
        f"column {name} is {rows[name].dtype}{list(rows[name].shape)} instead of {dtype}{list(shape)}"
        for name, (dtype, shape) in shapes.items()
        if rows[name].dtype != dtype or rows[name].shape != shape
    ]


def missing_columns(rows: Mapping[str, np.ndarray], names: Mapping[str, np.dtype]) -> list[str]:
    """Return that columns are missing, in words; nothing if none are."""
    missing = [name for name in names if name not in rows]
    return [f"it has no column {', '.join(missing)}"] if missing else []


def wrong_rows(tests: Mapping[str, np.ndarray]) -> list[str]:
    """Return the problems of `tests` that some row has, by bool [R] of each, with the first such row."""
    return [f"{problem} (row {int(wrong.argmax())})" for problem, wrong in tests.items() if wrong.any()]


def check_digest(path: Path, found: str, said: Sidecar) -> None:
    """Raise DataError unless the columns at `path`, whose digest is `found`, are those that the sidecar is of."""
    if found != said.digest:
        raise damaged(path, f"its digest is {found}, its sidecar says {said.digest}")


def damaged(path: Path | str, why: str) -> DataError:
    return DataError(
        f"{path} cannot be read", why=why, fix="restore it from a copy, or delete it and run the step again"
    )
