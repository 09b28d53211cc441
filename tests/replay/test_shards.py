import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.errors import DataError
from core.files import digest
from replay.shards import (
    COLUMNS,
    check_valid,
    encode_shard,
    is_complete,
    load_info,
    pack_cells,
    read_blocks,
    read_shard,
    sidecar_of,
    unpack_cells,
    write_shard,
)
from tests.replay.shard_rows import about, some_rows


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "rows_0000.npz"
    write_shard(path, some_rows(20), about())
    return path


def same_rows(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize("size", [3, 5, 8, 10, 19])
def test_rows_come_back_as_they_were_written(tmp_path: Path, size: int) -> None:
    rows = some_rows(7, size=size)
    info = write_shard(tmp_path / "a.npz", rows, about(size, "x.trmph", "y.trmph"))
    assert same_rows(read_shard(tmp_path / "a.npz"), rows)
    assert load_info(tmp_path / "a.npz") == info
    assert (info.game, info.cells, info.rows) == (f"hex{size}", size * size, len(rows["game"]))
    assert info.sources == ("x.trmph", "y.trmph")


def test_numpy_alone_reads_it(shard: Path) -> None:
    with np.load(shard, allow_pickle=False) as file:
        assert same_rows({name: file[name] for name in file}, read_shard(shard))
    said = json.loads(sidecar_of(shard).read_text())
    assert said.keys() == {"schema", "game", "cells", "rows", "size", "digest", "sources"}


def test_no_rows_are_rows(tmp_path: Path) -> None:
    none = {name: column[:0] for name, column in some_rows(1).items()}
    write_shard(tmp_path / "a.npz", none, about())
    assert same_rows(read_shard(tmp_path / "a.npz"), none)
    assert list(read_blocks(tmp_path / "a.npz", 10)) == []


def test_equal_rows_are_equal_bytes_and_those_that_numpy_writes(tmp_path: Path) -> None:
    """Also when they are fields of records."""
    rows = some_rows(5)
    data, info = encode_shard(rows, about())
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: rows[name] for name in COLUMNS})
    assert data == buffer.getvalue()
    records = np.empty(
        len(rows["game"]), [(name, column.dtype, column.shape[1:]) for name, column in rows.items()]
    )
    for name, column in rows.items():
        records[name] = column
    fields = {name: records[name] for name in COLUMNS}
    assert encode_shard(fields, about(), known_sound=True) == (data, info)
    assert write_shard(tmp_path / "a.npz", fields, about()) == info
    assert (tmp_path / "a.npz").read_bytes() == data


@pytest.mark.parametrize("block_rows", [1, 7, 10_000])
def test_blocks_hold_the_same_rows_in_order(shard: Path, block_rows: int) -> None:
    blocks = list(read_blocks(shard, block_rows))
    assert max(len(block["game"]) for block in blocks) <= block_rows
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in COLUMNS}
    assert same_rows(joined, read_shard(shard))


@given(hnp.arrays(np.int8, st.tuples(st.integers(0, 4), st.integers(1, 30)), elements=st.integers(-1, 1)))
def test_cells_survive_packing(cells: np.ndarray) -> None:
    packed = pack_cells(cells)
    assert packed.shape == (len(cells), 2, (cells.shape[1] + 7) // 8)
    assert np.array_equal(unpack_cells(packed, cells.shape[1]), cells)


def test_every_altered_byte_is_found(shard: Path) -> None:
    data = shard.read_bytes()
    for position in np.linspace(0, len(data) - 1, 60).astype(int).tolist():
        shard.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(DataError, match=r"rows_0000\.npz cannot be read"):
            read_shard(shard)
        with pytest.raises(DataError, match=r"rows_0000\.npz cannot be read"):
            list(read_blocks(shard, 50))


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_shard_cut_short_is_found_and_is_not_complete(shard: Path, length: int) -> None:
    assert is_complete(shard)
    shard.write_bytes(shard.read_bytes()[:length])
    assert not is_complete(shard)
    with pytest.raises(DataError, match="its digest is"):
        read_shard(shard)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1, "game": "hex5"}', "\0\xff"])
def test_a_sidecar_that_says_nothing_is_found(shard: Path, text: str) -> None:
    sidecar_of(shard).write_text(text)
    with pytest.raises(DataError, match=r"rows_0000\.npz\.json cannot be read"):
        read_shard(shard)
    assert not is_complete(shard)


def test_another_schema_is_refused(shard: Path) -> None:
    said = json.loads(sidecar_of(shard).read_text())
    sidecar_of(shard).write_text(json.dumps(said | {"schema": 2}))
    with pytest.raises(DataError, match="another release"):
        read_shard(shard)


@pytest.mark.parametrize("gone", [lambda shard: shard, sidecar_of])
def test_what_is_not_there_is_told(shard: Path, gone) -> None:
    gone(shard).unlink()
    assert not is_complete(shard)
    with pytest.raises(DataError, match="No such file"):
        read_shard(shard)


def test_a_foreign_archive_under_a_true_digest_is_refused(tmp_path: Path) -> None:
    """Whoever makes a sidecar for columns of his own is told which ones are wrong."""
    path = tmp_path / "a.npz"
    info = write_shard(path, some_rows(3), about())
    rows = some_rows(3)
    for wrong in (
        {"ply": rows["ply"].astype(np.int64)},
        {"stones": rows["stones"][:, :, :2]},
        {"action": None},
    ):
        columns = {name: column for name, column in (rows | wrong).items() if column is not None}
        np.savez(path, allow_pickle=False, **columns)
        said = json.loads(info.to_json()) | {"digest": digest(path.read_bytes())}
        sidecar_of(path).write_text(json.dumps(said))
        for read in (read_shard, lambda path: list(read_blocks(path, 5))):
            with pytest.raises(DataError, match=next(iter(wrong))):
                read(path)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("action", 25, "action is not"),
        ("action", -2, "action is not"),
        ("outcome", 2, "outcome is not"),
        ("ply", 3, "not as many stones"),
        ("plies", -1, "ply is not"),
        ("stones", 255, "two stones"),
        ("stones", 1, "behind the last cell"),
    ],
)
def test_unsound_rows_are_not_written(tmp_path: Path, column: str, value: int, problem: str) -> None:
    rows = some_rows(3)
    assert check_valid(rows, 25) == []
    rows[column] = rows[column].copy()
    rows[column][5] = value
    with pytest.raises(ValueError, match=problem):
        write_shard(tmp_path / "a.npz", rows, about())
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_smaller_board_are_not_sound() -> None:
    assert check_valid(some_rows(3, size=5), 16)
    assert check_valid({"game": np.zeros(3, np.uint64)}, 16)
