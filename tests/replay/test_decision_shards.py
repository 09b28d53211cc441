"""Decisions at rest: what was added is read again, each game once, and damage is found wherever it is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DataError, UsageError
from replay import npz
from replay.decision_shards import (
    DECISION_COLUMNS,
    DecisionWriter,
    check_valid,
    decision_files,
    decisions_digest,
    load_decision_info,
    read_decision_shard,
    read_decisions,
)
from replay.npz import sidecar_of
from tests.replay.decision_rows import ABOUT, game_rows, write_games

NUMBER = 2**63 + 5
"""Of a game: it needs all 64 bits."""


def test_what_was_added_is_read_again(tmp_path: Path) -> None:
    writer = write_games(tmp_path, 40)
    found = read_decisions(tmp_path)
    for name, dtype in DECISION_COLUMNS.items():
        expected = np.concatenate([game_rows(game)[name] for game in range(40)])
        assert found.columns[name].dtype == dtype
        assert np.array_equal(found.columns[name], expected)
    assert (found.games, found.about, writer.games) == (40, ABOUT, 40)
    assert found.digest == decisions_digest(tmp_path)
    assert (39 in writer, 40 in writer) == (True, False)
    assert found.counts == {"labels_missing": sum(game % 3 for game in range(40))}
    assert [load_decision_info(path).rows for path in decision_files(tmp_path)] == [102, 102, 36]


def test_a_game_is_taken_once_also_by_who_comes_later(tmp_path: Path) -> None:
    writer = DecisionWriter(tmp_path, ABOUT)
    assert writer.add(NUMBER, game_rows(NUMBER), {})
    assert not writer.add(NUMBER, game_rows(NUMBER), {})
    writer.flush()
    assert not writer.add(NUMBER, game_rows(NUMBER), {})
    later = DecisionWriter(tmp_path, ABOUT)
    assert not later.add(NUMBER, game_rows(NUMBER), {})
    assert later.add(7, game_rows(7), {})
    later.flush()
    assert (writer.duplicates, later.duplicates, later.games) == (2, 1, 2)
    assert np.unique(read_decisions(tmp_path).columns["game"]).tolist() == [7, NUMBER]


def test_a_game_without_rows_is_known_too(tmp_path: Path) -> None:
    writer = DecisionWriter(tmp_path, ABOUT)
    empty = {name: column[:0] for name, column in game_rows(3).items()}
    assert writer.add(3, empty, {"labels_missing": 5})
    writer.flush()
    writer.flush()
    assert len(decision_files(tmp_path)) == 1
    assert not DecisionWriter(tmp_path, ABOUT).add(3, game_rows(3), {})
    assert read_decisions(tmp_path).counts == {"labels_missing": 5}


def test_equal_folders_have_one_digest_and_others_another(tmp_path: Path) -> None:
    for name, games in (("a", 20), ("b", 20), ("c", 21)):
        write_games(tmp_path / name, games)
    a, b, c = (read_decisions(tmp_path / name).digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("choice", 1, "the choice is not among"),
        ("choice", 9, "the choice is not among"),
        ("choice", -1, "the choice is not among"),
        ("outcome", 1.5, "outcome"),
        ("outcome", np.nan, "outcome"),
        ("value_weight", -1.0, "value_weight"),
        ("vector", np.inf, "a number to see"),
        ("kind", -1, "kind"),
        ("ply", -1, "ply"),
        ("game", 8, "of another game"),
    ],
)
def test_rows_that_are_not_sound_are_refused(tmp_path: Path, name: str, value: Any, problem: str) -> None:
    rows = game_rows(7)
    rows["mask"][2], rows["choice"][2] = [True, False, False, True], 0
    assert check_valid(rows, ABOUT) == []
    rows[name][2] = value
    writer = DecisionWriter(tmp_path, ABOUT)
    with pytest.raises(ValueError, match=problem):
        writer.add(7, rows, {})
    assert writer.games == 0
    assert writer.add(7, game_rows(7), {})


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.pop("mask"),
        lambda rows: rows.update(vector=rows["vector"].astype(np.float32)),
        lambda rows: rows.update(mask=rows["mask"][:, :2]),
        lambda rows: rows.update(ply=rows["ply"][:3]),
    ],
)
def test_columns_of_another_form_are_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    rows = game_rows(7)
    change(rows)
    with pytest.raises(ValueError, match="not sound"):
        DecisionWriter(tmp_path, ABOUT).add(7, rows, {})


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    write_games(tmp_path, 2)
    (path,) = decision_files(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError):
            read_decision_shard(path)
    for damaged in (whole[:-1], whole + b"x", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            read_decisions(tmp_path)
    path.write_bytes(whole)
    assert len(read_decision_shard(path)["game"]) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"rows": 11},
        {"games": [0]},
        {"games": ["0", "1"]},
        {"counts": {"x": "many"}},
        {"digest": "0" * 32},
        {"about": {"source": "a toy"}},
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_games(tmp_path, 2)
    (path,) = decision_files(tmp_path)
    said = json.loads(sidecar_of(path).read_text())
    sidecar_of(path).write_text(json.dumps(said | change))
    with pytest.raises(DataError):
        read_decisions(tmp_path)


def test_a_game_in_two_shards_is_found(tmp_path: Path) -> None:
    write_games(tmp_path, 2)
    (path,) = decision_files(tmp_path)
    copy = path.with_name("decisions_000007.npz")
    copy.write_bytes(path.read_bytes())
    sidecar_of(copy).write_bytes(sidecar_of(path).read_bytes())
    with pytest.raises(DataError, match="the same game"):
        read_decisions(tmp_path)


def test_a_folder_holds_rows_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no decisions"):
        read_decisions(tmp_path)
    write_games(tmp_path, 2)
    with pytest.raises(UsageError, match="another kind"):
        DecisionWriter(tmp_path, replace(ABOUT, observation=2))


def test_what_could_not_be_written_waits_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = DecisionWriter(tmp_path, ABOUT, shard_rows=10)
    writer.add(0, game_rows(0), {})

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(npz, "open_atomic", full_disk)
        with pytest.raises(OSError, match="No space"):
            writer.add(1, game_rows(1), {})
    assert decision_files(tmp_path) == []
    writer.flush()
    assert read_decisions(tmp_path).games == 2


def test_a_torn_shard_is_none_and_its_name_is_used_again(tmp_path: Path) -> None:
    write_games(tmp_path, 2)
    (path,) = decision_files(tmp_path)
    sidecar_of(path).unlink()
    writer = DecisionWriter(tmp_path, ABOUT)
    assert writer.add(0, game_rows(0), {})
    writer.flush()
    assert decision_files(tmp_path) == [path]
    assert read_decisions(tmp_path).games == 1
