"""A shard of searched positions is whole and sound, or it is refused; so is the data set that names it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from core.files import digest
from core.seeds import derive_rng
from replay.npz import sidecar_of
from replay.searched_shards import (
    MANIFEST,
    SEARCHED_COLUMNS,
    SearchedAbout,
    SearchedFile,
    SearchedSet,
    check_valid,
    encode_searched_shard,
    game_number,
    holds,
    load_searched_info,
    put_searched_shard,
    read_searched_file,
    read_searched_set,
    read_searched_shard,
)
from tests.replay.experience import a_game

ABOUT = SearchedAbout(game="connect_four", cells=42, actions=7)


def some_rows(count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = derive_rng(seed, "searched")
    policy = rng.gamma(0.5, size=(count, 7)) + 1e-3
    return {
        "cells": rng.integers(-1, 2, (count, 42)).astype(np.int8),
        "policy": (policy / policy.sum(axis=1, keepdims=True)).astype(np.float16),
        "policy_weight": np.ones(count, np.float32),
        "outcome": rng.integers(-1, 2, count).astype(np.float32),
        "search_value": rng.uniform(-1, 1, count).astype(np.float32),
        "game": rng.integers(2**64, size=count, dtype=np.uint64),
        "ply": rng.integers(42, size=count).astype(np.int16),
    }


def put(path: Path, rows: dict[str, np.ndarray]) -> None:
    put_searched_shard(path, *encode_searched_shard(rows, ABOUT))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train" / "searched_0000.npz"
    put(path, some_rows(20))
    return path


@pytest.fixture
def data_set(shard: Path) -> Path:
    """A folder of one shard and its manifest."""
    file = SearchedFile("train/searched_0000.npz", 20, load_searched_info(shard).digest)
    made = SearchedSet(
        schema=1,
        **asdict(ABOUT),
        games=20,
        train_rows=20,
        validation_rows=0,
        validation_share=0.05,
        seed=3,
        files=(file,),
    )
    (shard.parent.parent / MANIFEST).write_bytes(made.to_json())
    return shard.parent.parent


@given(st.integers(0, 50), st.integers(0, 2**32))
def test_rows_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int
) -> None:
    path, rows = tmp_path_factory.mktemp("shard") / "a.npz", some_rows(count, seed=seed)
    put(path, rows)
    assert same(read_searched_shard(path), rows)
    info = load_searched_info(path)
    assert (info.rows, info.games) == (count, len(set(rows["game"].tolist())))
    assert holds(path, info)


def test_numpy_alone_reads_it(shard: Path) -> None:
    with np.load(shard, allow_pickle=False) as file:
        assert same({name: file[name] for name in file}, some_rows(20))
    said = json.loads(sidecar_of(shard).read_text())
    assert list(said) == ["schema", "game", "cells", "actions", "rows", "games", "size", "digest"]


def test_equal_rows_are_equal_bytes_also_as_fields_of_records() -> None:
    rows = some_rows(9)
    records = np.empty(9, ABOUT.record())
    for name, column in rows.items():
        records[name] = column
    fields = {name: records[name] for name in SEARCHED_COLUMNS}
    assert encode_searched_shard(fields, ABOUT) == encode_searched_shard(rows, ABOUT)
    assert ABOUT.record().itemsize == 42 + 2 * 7 + 3 * 4 + 8 + 2


def test_every_altered_byte_is_found(shard: Path) -> None:
    data, info = shard.read_bytes(), load_searched_info(shard)
    for position in np.linspace(0, len(data) - 1, 60).astype(int).tolist():
        shard.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert not holds(shard, info)
        with pytest.raises(DataError, match=r"searched_0000\.npz cannot be read"):
            read_searched_shard(shard)


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_shard_cut_short_is_found(shard: Path, length: int) -> None:
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(DataError, match="its digest is"):
        read_searched_shard(shard)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 1}', "\0\xff", pytest.param("[" * 10**5, id="deep")]
)
def test_a_sidecar_that_says_nothing_is_found(shard: Path, text: str) -> None:
    info = load_searched_info(shard)
    sidecar_of(shard).write_text(text)
    assert not holds(shard, info)
    with pytest.raises(DataError, match=r"searched_0000\.npz\.json cannot be read"):
        read_searched_shard(shard)


def test_another_release_is_refused(data_set: Path) -> None:
    for path, read in (
        (data_set / MANIFEST, lambda: read_searched_set(data_set)),
        (
            sidecar_of(data_set / "train/searched_0000.npz"),
            lambda: load_searched_info(data_set / "train/searched_0000.npz"),
        ),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
        with pytest.raises(DataError, match="another release"):
            read()


@pytest.mark.parametrize("gone", [lambda shard: shard, sidecar_of])
def test_what_is_not_there_is_told(shard: Path, gone: Any) -> None:
    info = load_searched_info(shard)
    gone(shard).unlink()
    assert not holds(shard, info)
    with pytest.raises(DataError, match="No such file"):
        read_searched_shard(shard)


def test_a_foreign_archive_under_a_true_digest_is_refused(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.npz", some_rows(2)
    put(path, rows)
    for wrong, problem in (
        ({"ply": rows["ply"].astype(np.int32)}, "ply"),
        ({"policy": rows["policy"][:, :6]}, "policy"),
        ({"cells": None}, "cells"),
        ({name: column[:1] for name, column in rows.items()}, "1 rows instead of 2"),
    ):
        columns = {name: column for name, column in (rows | wrong).items() if column is not None}
        np.savez(path, allow_pickle=False, **columns)
        said = json.loads(sidecar_of(path).read_text()) | {"digest": digest(path.read_bytes())}
        sidecar_of(path).write_text(json.dumps(said))
        with pytest.raises(DataError, match=problem):
            read_searched_shard(path)


@pytest.mark.parametrize(
    ("column", "place", "value", "problem"),
    [
        ("cells", (1, 3), 2, "cell is not"),
        ("cells", (1, 3), -128, "cell is not"),
        ("policy", (1, 0), -0.1, "from 0 to 1"),
        ("policy", (1, 0), np.nan, "from 0 to 1"),
        ("policy", 1, 0.1, "sum to 1"),
        ("policy_weight", 1, -1, "policy_weight"),
        ("policy_weight", 1, np.inf, "policy_weight"),
        ("outcome", 1, 1.1, "outcome"),
        ("outcome", 1, np.nan, "outcome"),
        ("search_value", 1, -np.inf, "search_value"),
        ("ply", 1, -1, "ply"),
    ],
)
def test_unsound_rows_are_refused(column: str, place: Any, value: float, problem: str) -> None:
    rows = some_rows(3)
    assert check_valid(rows, ABOUT) == []
    rows[column][place] = value
    with pytest.raises(ValueError, match=rf"{problem}.*row 1"):
        encode_searched_shard(rows, ABOUT)


def test_without_a_weight_a_policy_need_not_sum_to_1() -> None:
    rows = some_rows(3)
    rows["policy"][1], rows["policy_weight"][1] = 0, 0
    assert check_valid(rows, ABOUT) == []


def test_rows_of_another_board_are_not_sound() -> None:
    assert check_valid(some_rows(1), SearchedAbout("hex5", 25, 25))
    assert check_valid({"game": np.zeros(1, np.uint64)}, ABOUT)


def test_a_data_set_says_the_same_when_it_is_read(data_set: Path) -> None:
    made = read_searched_set(data_set)
    assert made.digest == digest((data_set / MANIFEST).read_bytes())
    assert (made.game, made.games, made.train_rows, made.side("validation")) == ("connect_four", 20, 20, ())
    (file,) = made.side("train")
    assert same(read_searched_file(data_set, file), some_rows(20))


def test_a_shard_of_another_data_set_is_refused(data_set: Path) -> None:
    (file,) = read_searched_set(data_set).files
    put(data_set / file.name, some_rows(20, seed=1))
    with pytest.raises(DataError, match=f"the {MANIFEST} says {file.digest}"):
        read_searched_file(data_set, file)


def test_a_folder_without_a_manifest_is_no_data_set(data_set: Path) -> None:
    (data_set / MANIFEST).unlink()
    for folder in (data_set, data_set / "nowhere", data_set / "train" / "searched_0000.npz"):
        with pytest.raises(UsageError, match="no data set of searched positions"):
            read_searched_set(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"games": "20"},
        {"files": {}},
        {"files": [{"name": "train/a.npz", "rows": 20}]},
        {"files": [{"name": "train/../../a.npz", "rows": 20, "digest": ""}]},
        {"files": [{"name": "../a.npz", "rows": 20, "digest": ""}]},
        {"files": [{"name": "/etc/passwd", "rows": 20, "digest": ""}]},
    ],
)
def test_a_manifest_of_something_else_is_refused(data_set: Path, change: dict[str, Any]) -> None:
    path = data_set / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        read_searched_set(data_set)


def test_a_game_has_one_number_and_no_other_game_has_it() -> None:
    games = [
        a_game(seq, actor=actor, epoch=epoch) for seq in range(4) for actor in range(3) for epoch in range(2)
    ]
    games.append(replace(games[0], run="other"))
    games.append(replace(games[0], actions=games[0].actions[::-1]))  # another run of the same name
    numbers = [game_number(game) for game in games]
    assert len(set(numbers)) == len(games)
    assert game_number(replace(games[0], actions=games[0].actions.copy(), outcome=0.5)) == numbers[0]
    assert all(0 <= number < 2**64 for number in numbers)


def test_numbers_stay_what_they_are() -> None:
    """Another number would move games between those learnt from and those judged by."""
    game = replace(a_game(7, actor=1, epoch=2), actions=np.array([4, 0, 8], np.int16))
    assert game_number(game) == 6_225_366_281_135_232_524
