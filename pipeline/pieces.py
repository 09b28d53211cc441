"""What lies between the two phases of the shuffle: rows of a shard as records, sorted by bucket in each block.

    hex10_000.piece              blocks, one after the other
    hex10_000.piece.index.npy    what is where in them; a piece is there when its index is

Nothing waits for the disk here: a process that is killed loses nothing that it has written. What a loss of power leaves
of a piece is found by its checksums, and made again.
"""

import contextlib
import mmap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.errors import DataError
from replay.shards import COLUMNS

# Of the vector that an index is written as: size of the piece, games for training, for validation, blocks.
_HEAD = 4


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """What is where in a piece.

    Attributes:
        counts: int64 [blocks, buckets], rows of each bucket in each block; they follow each other.
        checksums: int64 [blocks, buckets], the CRC-32 of those rows.
        games: how many have rows in the piece, for training and for validation.
    """

    counts: np.ndarray
    checksums: np.ndarray
    games: tuple[int, ...] = ()


def write_blocks(
    piece: Path,
    blocks: Iterator[tuple[Mapping[str, np.ndarray], np.ndarray]],
    *,
    cells: int,
    num_buckets: int,
) -> Index:
    """Write blocks, each as columns and the bucket uint16 [R] of each row; return their index. Raises OSError."""
    record = _record(cells)
    counts, checksums = [], []
    with _replacing(piece) as file:
        for columns, buckets in blocks:
            records = np.empty(len(buckets), record)
            for name in COLUMNS:
                records[name] = columns[name]
            records = _in_order(records, np.argsort(buckets, kind="stable"))
            counts.append(np.bincount(buckets, minlength=num_buckets))
            parts = np.split(records, np.cumsum(counts[-1])[:-1])
            checksums.append([zlib.crc32(_bytes_of(part)) for part in parts])
            file.write(_bytes_of(records))
    return Index(
        np.array(counts, np.int64).reshape(-1, num_buckets),
        np.array(checksums, np.int64).reshape(-1, num_buckets),
    )


def write_index(piece: Path, index: Index, *, games: Sequence[int]) -> None:
    """Say of a piece what is in it: from now on it is there. Raises OSError."""
    head = [piece.stat().st_size, *games, len(index.counts)]
    # One plain vector: each bucket reads the indices of all pieces, and an archive takes ten times as long to open.
    with _replacing(_index_of(piece)) as file:
        np.save(file, np.concatenate([head, index.counts.ravel(), index.checksums.ravel()]).astype(np.int64))


def read_index(piece: Path) -> Index | None:
    """Return the index of a piece, None unless the piece is there, as long as its index says."""
    try:
        vector = np.load(_index_of(piece), allow_pickle=False)
        size, *games, blocks = vector[:_HEAD].tolist()
        counts, checksums = vector[_HEAD:].reshape(2, blocks, -1)
        return Index(counts, checksums, tuple(games)) if piece.stat().st_size == size else None
    except (OSError, ValueError, EOFError):
        return None


def sure_index(piece: Path) -> Index:
    """Return the index of a piece. Raises DataError when it is not there as it was written."""
    if (index := read_index(piece)) is None:
        raise _damaged(piece, "it is not there, or its length is not what it was")
    return index


def read_bucket(
    pieces: Sequence[Path], bucket: int, *, cells: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the columns of a bucket in random order, as fields of an array of records.

    Records go to their places as they are read, so that no row is in memory twice.

    Raises:
        DataError: when a piece is damaged; the next run will make it again.
    """
    indices = [sure_index(piece) for piece in pieces]
    places = rng.permutation(sum(int(index.counts[:, bucket].sum()) for index in indices))
    record = _record(cells)
    # A map of its own, which goes back to the system at once: malloc would keep as much again.
    memory = mmap.mmap(-1, max(1, len(places) * record.itemsize))
    records = np.frombuffer(memory, record, count=len(places))
    done = 0
    for piece, index in zip(pieces, indices, strict=True):
        counts = index.counts
        begins = (counts.cumsum() - counts.ravel()).reshape(counts.shape)[:, bucket]
        with piece.open("rb") as file:
            for begin, count, checksum in zip(
                begins.tolist(), counts[:, bucket].tolist(), index.checksums[:, bucket].tolist(), strict=True
            ):
                file.seek(begin * records.itemsize)
                data = file.read(count * records.itemsize)
                if zlib.crc32(data) != checksum:
                    _index_of(piece).unlink(missing_ok=True)
                    raise _damaged(piece, f"the rows of bucket {bucket} do not match their checksum")
                _raw(records)[places[done : done + count]] = np.frombuffer(data, _raw(records).dtype)
                done += count
    return {name: records[name] for name in COLUMNS}


def _record(cells: int) -> np.dtype:
    """Return the type of a row in a piece: all its columns, without gaps."""
    shapes = {"stones": (2, (cells + 7) // 8)}
    return np.dtype([(name, dtype, shapes.get(name, ())) for name, dtype in COLUMNS.items()])


def _in_order(records: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return records[order]; moved by their places as raw bytes, which numpy does three times as fast."""
    places = np.empty(len(order), np.intp)
    places[order] = np.arange(len(order))
    moved = np.empty_like(records)
    _raw(moved)[places] = _raw(records)
    return moved


def _raw(records: np.ndarray) -> np.ndarray:
    return records.view(f"V{records.itemsize}")


def _bytes_of(records: np.ndarray) -> memoryview:
    return records.view(np.uint8).data


def _index_of(piece: Path) -> Path:
    return piece.with_name(f"{piece.name}.index.npy")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is at `path` once the block has ended; unlike `core.files.open_atomic` not durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _damaged(piece: Path, why: str) -> DataError:
    return DataError(f"{piece} is damaged", why=why, fix="run the step again, which makes it anew")
