"""Rows are drawn by weight, each once an epoch, in an order that a seed and a number determine."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError, UsageError
from games.hex import Hex
from learner.mixing import DataSet, MixedRows, Targets, learning_columns, read_manifest, validation_rows
from learner.objective import Columns
from replay.splitting import is_validation
from tests.learner.shuffled import make_data_set, played

GAME = Hex(5)
STILL = Targets(half_turns=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("second"), games=20, first=1000, shards=3)


def mixed(*sets: DataSet, seed: int = 1, targets: Targets = STILL, max_rows: int | None = None) -> MixedRows:
    return MixedRows(sets, GAME, seed=seed, max_rows=max_rows, targets=targets)


def names_of(batch: Columns) -> list[tuple[int, int]]:
    return list(zip(batch["seq"].tolist(), batch["step"].tolist(), strict=True))


def rows_of(folder: Path) -> Counter[tuple[int, int]]:
    shards = [file.read() for file in read_manifest(folder).files["train"]]
    return Counter(
        pair
        for shard in shards
        for pair in zip(shard["game"].view(np.int64).tolist(), shard["ply"].tolist(), strict=True)
    )


def drawn_names(rows: MixedRows, count: int, *, start: int = 0, batch: int = 37) -> list[tuple[int, int]]:
    names = []
    for at in range(start, start + count, batch):
        names += names_of(rows.batch(at, min(batch, start + count - at)))
    return names


def test_an_epoch_is_every_row_once_and_the_next_another_order(first: Path) -> None:
    rows = mixed(DataSet(first))
    size = rows.rows_per_epoch
    once, again = drawn_names(rows, size), drawn_names(rows, size, start=size)
    assert Counter(once) == Counter(again) == rows_of(first)
    assert once != again


def test_what_follows_does_not_depend_on_what_was_read_before(first: Path, second: Path) -> None:
    sets = DataSet(first), DataSet(second, weight=3)
    straight = mixed(*sets)
    for at in range(0, 500, 50):
        straight.batch(at, 50)
    expected, found = straight.batch(500, 50), mixed(*sets).batch(500, 50)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert names_of(mixed(*sets, seed=2).batch(500, 50)) != names_of(found)


def test_weights_decide_how_often_rows_are_drawn(first: Path, second: Path) -> None:
    rows = mixed(DataSet(first), DataSet(second, weight=2))
    one, other = rows_of(first), rows_of(second)
    assert rows.rows_per_epoch == one.total() + 2 * other.total()
    counts = Counter(drawn_names(rows, 2 * rows.rows_per_epoch))
    of_one = sum(counts[name] for name in one)
    assert abs(of_one - 2 * one.total()) <= 4
    assert {counts[name] for name in other} <= {3, 4, 5}


def test_files_are_skipped_and_rows_capped(first: Path) -> None:
    files = read_manifest(first).files["train"]
    left = sum(file.rows for k, file in enumerate(files) if k not in (1, 2))
    assert mixed(DataSet(first, skip=(1, 2))).rows_per_epoch == left
    capped = mixed(DataSet(first), max_rows=100)
    assert capped.rows_per_epoch == 100
    assert len(set(drawn_names(capped, 300))) == 100


def test_nothing_left_and_other_games_are_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows to learn from"):
        mixed(DataSet(first, skip=(0, 99)))
    foreign = make_data_set(tmp_path / "hex4", size=4)
    with pytest.raises(UsageError, match=r"(?s)cannot be mixed in.*hex4"):
        mixed(DataSet(first), DataSet(foreign))
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        mixed(DataSet(tmp_path))


def test_a_damaged_manifest_is_told(first: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"game": "hex5", "files": [{"name": "train/a"}]}))
    with pytest.raises(DataError, match=r"manifest\.json cannot be used"):
        read_manifest(tmp_path)


def test_half_turns_turn_cells_and_moves_of_half_the_rows(first: Path) -> None:
    plain, turned = mixed(DataSet(first)), mixed(DataSet(first), targets=Targets(half_turns=True))
    as_is, other = plain.batch(0, 200), turned.batch(0, 200)
    back = np.all(as_is["cells"] == other["cells"][:, ::-1], axis=1)
    same = np.all(as_is["cells"] == other["cells"], axis=1)
    assert np.all(back | same)
    assert 60 < np.count_nonzero(back & ~same) < 140
    flipped = np.where((back & ~same)[:, None], other["policy"][:, ::-1], other["policy"])
    empty = ~as_is["cells"].any(axis=1)
    assert np.array_equal(flipped[~empty], as_is["policy"][~empty])
    assert np.array_equal(as_is["outcome"], other["outcome"])


def test_rows_become_targets() -> None:
    rows = played(GAME, 3)
    rows["action"][1] = -1
    rows["outcome"][2] = 0
    columns = learning_columns(rows, GAME, np.zeros(len(rows["game"]), bool), label_smoothing=0.1)
    has_move = rows["action"] >= 0
    assert np.array_equal(columns["policy_weight"], has_move)
    assert np.array_equal(columns["policy"].argmax(1)[has_move], rows["action"][has_move])
    assert np.allclose(columns["policy"].sum(1)[has_move], 1)
    assert np.isclose(columns["policy"][has_move].max(), 0.9 + 0.1 / 25)
    assert columns["value_weight"].tolist() == (rows["outcome"] != 0).tolist()


def test_validation_rows_are_those_kept_apart_up_to_a_number(first: Path, second: Path) -> None:
    sets = [DataSet(first), DataSet(second)]
    everything = list(validation_rows(sets, most=10**9))
    total = sum(file.rows for one in sets for file in read_manifest(one.folder).files["validation"])
    assert sum(len(rows["game"]) for rows in everything) == total
    assert sum(len(rows["game"]) for rows in validation_rows(sets, most=33)) == 33
    assert list(validation_rows(sets, most=0)) == []


def with_share(folder: Path, to: Path, share: float) -> DataSet:
    shutil.copytree(folder, to)
    manifest = json.loads((to / "manifest.json").read_text())
    (to / "manifest.json").write_text(json.dumps(manifest | {"validation_share": share}))
    return DataSet(to)


def test_games_that_one_set_teaches_are_not_judged_by(first: Path, second: Path, tmp_path: Path) -> None:
    most = with_share(first, tmp_path / "most", 0.5)
    less = with_share(second, tmp_path / "less", 0.25)

    def games(*sets: DataSet) -> set[int]:
        return {game for rows in validation_rows(sets, most=10**9) for game in rows["game"].tolist()}

    of_most = np.array(sorted(games(most)), np.uint64)
    kept = set(of_most[is_validation(of_most, 0.25)].tolist())
    assert games(most, less) == kept | games(less)
    assert kept < games(most)
    assert games(most, with_share(second, tmp_path / "none", 0.0)) <= games(DataSet(second))


def test_a_shard_of_another_data_set_is_refused(first: Path, second: Path, tmp_path: Path) -> None:
    mixed_up = with_share(first, tmp_path / "mixed", 0.1).folder
    for name in ("shuffled_0000.npz", "shuffled_0000.npz.json"):
        shutil.copy(second / "train" / name, mixed_up / "train" / name)
    with pytest.raises(DataError, match="is not of this data set"):
        drawn_names(mixed(DataSet(mixed_up)), 500)
