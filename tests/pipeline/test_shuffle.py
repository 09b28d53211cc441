import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from pipeline import shuffle
from pipeline.contract import Stopped
from pipeline.executors import Processes
from pipeline.positions import Selection, cut_rows
from pipeline.shuffle import MANIFEST, PIECES, ShuffleStep, Shuffling, data_sets
from pipeline.storage import join, list_files, read_bytes
from replay.shards import COLUMNS, check_valid, load_info, read_shard, write_shard
from replay.splitting import is_validation
from tests.pipeline.games_as_text import random_text
from tests.pipeline.running_here import Here, Killed, context
from tests.pipeline.s3 import bucket, s3_server  # noqa: F401 - fixtures
from tests.replay.shard_rows import about, some_rows

Rows = dict[str, np.ndarray]


def write_positions(folder: Path, shards: int = 3, *, games: int = 30, symmetries: bool = False) -> Path:
    """Shards of random games of hex5."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = random_text(shards * games).splitlines(keepends=True)
    for number in range(shards):
        text = b"".join(lines[number::shards])
        rows = cut_rows(text, 5, Selection(symmetries=symmetries), source="a test")
        write_shard(folder / f"hex5_{number:03d}.npz", rows, about(5, f"hex5_{number:03d}.trmph"))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_disk_is_waited_for() -> Iterator[None]:
    """A killed process loses nothing that it has written; only power loss would, which is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def positions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_positions(tmp_path_factory.mktemp("positions"))


def run(positions: Path, folder: Path, executor=None, *, shuffling=Shuffling(buckets=7), **kwargs) -> dict:  # noqa: B008
    folder.mkdir(exist_ok=True)
    should_stop = kwargs.pop("should_stop", lambda: False)
    step = ShuffleStep(shuffling, **kwargs)
    return step.run({"positions": positions}, folder, context(executor, should_stop=should_stop))


def rows_in(folder: Path, pattern: str = "*.npz") -> Rows:
    shards = [read_shard(path) for path in sorted(folder.glob(pattern))]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in COLUMNS}


def as_multiset(rows: Rows) -> list[bytes]:
    return sorted(b"".join(rows[name][k].tobytes() for name in COLUMNS) for k in range(len(rows["game"])))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any),
    buckets=st.sampled_from([1, 2, 5, 80]),
    share=st.sampled_from([0.0, 0.1, 0.9]),
    block_rows=st.sampled_from([7, 1000]),
    seed=st.integers(0, 5),
)
@settings(max_examples=12)
def test_every_row_is_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    buckets: int,
    share: float,
    block_rows: int,
    seed: int,
) -> None:
    """Also through one bucket, and through more buckets than there are rows."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "positions").mkdir()
    for number, games in enumerate(lengths):
        rows = some_rows(max(games, 1), seed=number)
        rows = rows if games else {name: column[:0] for name, column in rows.items()}
        write_shard(folder / "positions" / f"hex5_{number}.npz", rows, about())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "BLOCK_ROWS", block_rows)
        shuffling = Shuffling(buckets=buckets, validation_share=share, seed=seed)
        counts = run(folder / "positions", folder / "shuffled", shuffling=shuffling)
    before = rows_in(folder / "positions")
    after = {
        side: rows_in(folder / "shuffled", f"{side}/*.npz") if side == "train" or share else None
        for side in shuffle.SIDES
    }
    assert as_multiset(before) == sorted(
        row for rows in after.values() if rows is not None for row in as_multiset(rows)
    )
    assert counts["rows"] == len(before["game"])
    assert counts["games"] == len(np.unique(before["game"]))
    assert len(list((folder / "shuffled" / "train").glob("*.npz"))) == buckets
    for side, rows in after.items():
        if rows is not None:
            assert (is_validation(rows["game"], share) == (side == "validation")).all()
            assert counts[f"{side}_rows"] == len(rows["game"])


def test_no_game_is_on_both_sides(positions: Path, tmp_path: Path) -> None:
    run(positions, tmp_path / "a", shuffling=Shuffling(buckets=5, validation_share=0.3))
    train, validation = (set(rows_in(tmp_path / "a", f"{side}/*.npz")["game"]) for side in shuffle.SIDES)
    assert train
    assert validation
    assert not train & validation


@pytest.mark.parametrize("symmetries", [False, True])
@pytest.mark.parametrize("buckets", [4, 7, 12])
def test_rows_of_a_game_are_spread_evenly_over_all_shards(
    tmp_path: Path, symmetries: bool, buckets: int
) -> None:
    positions = write_positions(tmp_path / "positions", symmetries=symmetries)
    run(positions, tmp_path / "a", shuffling=Shuffling(buckets=buckets, validation_share=0))
    counts: dict[int, np.ndarray] = {}
    for number, path in enumerate(sorted((tmp_path / "a" / "train").glob("*.npz"))):
        for game in read_shard(path)["game"].tolist():
            counts.setdefault(game, np.zeros(buckets, int))[number] += 1
    assert len(counts) > 50
    for spread in counts.values():
        assert spread.max() - spread.min() <= 1


def test_games_begin_in_different_shards_and_go_on_in_different_orders(
    positions: Path, tmp_path: Path
) -> None:
    run(positions, tmp_path / "a", shuffling=Shuffling(buckets=7, validation_share=0))
    shards: dict[int, dict[int, int]] = {}
    for number, path in enumerate(sorted((tmp_path / "a" / "train").glob("*.npz"))):
        rows = read_shard(path)
        for game, ply in zip(rows["game"].tolist(), rows["ply"].tolist(), strict=True):
            shards.setdefault(game, {})[ply] = number
    paths = {(plies[0], plies[1]) for plies in shards.values() if len(plies) > 1}
    assert len(paths) > 20  # of 7 × 6


def test_places_in_a_shard_are_uniform(tmp_path: Path) -> None:
    """Where the empty boards lie, one of each game: chi-square over ten parts of all shards, at 1 in 10,000."""
    positions = write_positions(tmp_path / "positions", 4, games=250)
    run(positions, tmp_path / "a", shuffling=Shuffling(buckets=5, validation_share=0))
    counts = np.zeros((5, 10))
    for number, path in enumerate(sorted((tmp_path / "a" / "train").glob("*.npz"))):
        ply = read_shard(path)["ply"]
        np.add.at(counts[number], np.flatnonzero(ply == 0) * 10 // len(ply), 1)
    expected = counts.sum() / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < 98.2  # 49 degrees of freedom
    assert counts.sum() > 900


def test_neighbours_are_of_different_games(positions: Path, tmp_path: Path) -> None:
    run(positions, tmp_path / "a", shuffling=Shuffling(buckets=3, validation_share=0))
    before, after = rows_in(positions)["game"], rows_in(tmp_path / "a", "train/*.npz")["game"]
    assert (before[1:] == before[:-1]).mean() > 0.9
    assert (after[1:] == after[:-1]).mean() < 0.05


def test_the_seed_alone_decides(positions: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(positions, tmp_path / name, shuffling=Shuffling(buckets=7, seed=seed))
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
    assert (
        files_in(tmp_path / "a")["train/shuffled_0000.npz"]
        != files_in(tmp_path / "c")["train/shuffled_0000.npz"]
    )


def test_rows_stay_sound_and_shards_name_their_sources(positions: Path, tmp_path: Path) -> None:
    run(positions, tmp_path / "a")
    assert check_valid(rows_in(tmp_path / "a", "train/*.npz"), 25) == []
    info = load_info(tmp_path / "a" / "train" / "shuffled_0003.npz")
    assert (info.game, info.cells) == ("hex5", 25)
    assert info.sources == ("hex5_000.npz", "hex5_001.npz", "hex5_002.npz")


def test_the_manifest_names_all_files_with_rows(tmp_path: Path) -> None:
    positions = write_positions(tmp_path / "positions", 1, games=2)
    run(positions, tmp_path / "a", shuffling=Shuffling(buckets=60, validation_share=0, seed=3))
    said = json.loads((tmp_path / "a" / MANIFEST).read_text())
    assert (said["schema"], said["game"], said["cells"], said["seed"]) == (1, "hex5", 25, 3)
    infos = {
        str(path.relative_to(tmp_path / "a")): load_info(path) for path in (tmp_path / "a").rglob("*.npz")
    }
    named = {file["name"]: (file["rows"], file["digest"]) for file in said["files"]}
    assert named == {name: (info.rows, info.digest) for name, info in infos.items() if info.rows}
    assert len(named) < 60


ORDERS = [list, lambda numbers: numbers[::-1], lambda numbers: random.Random(1).sample(numbers, len(numbers))]


@pytest.fixture(scope="module")
def whole(positions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run(positions, folder)
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_tasks_makes_no_difference(positions: Path, whole: Path, tmp_path: Path, order) -> None:
    run(positions, tmp_path / "a", Here(order=order))
    assert files_in(tmp_path / "a") == files_in(whole)


def test_processes_make_the_same_bytes(positions: Path, whole: Path, tmp_path: Path) -> None:
    with Processes(2) as executor:
        run(positions, tmp_path / "a", executor)
    assert files_in(tmp_path / "a") == files_in(whole)


TASKS = 3 + 7 + 1  # shards, buckets of training, one of validation


@pytest.mark.parametrize("lives", range(TASKS))
def test_after_any_kill_it_goes_on_to_the_same_bytes_and_does_nothing_twice(
    positions: Path, whole: Path, tmp_path: Path, lives: int
) -> None:
    with pytest.raises(Killed):
        run(positions, tmp_path / "a", Here(lives=lives, order=ORDERS[lives % 3]))
    tear(tmp_path / "a")
    resumed = Here()
    run(positions, tmp_path / "a", resumed)
    assert len(resumed.ran) == TASKS - lives
    assert files_in(tmp_path / "a") == files_in(whole)


def test_many_kills_end_in_the_same_bytes(positions: Path, whole: Path, tmp_path: Path) -> None:
    ran = 0
    for _ in range(TASKS):
        executor = Here(lives=1, order=lambda numbers: random.sample(numbers, len(numbers)))
        try:
            run(positions, tmp_path / "a", executor)
        except Killed:
            tear(tmp_path / "a")
        ran += len(executor.ran)
    assert ran == TASKS
    assert files_in(tmp_path / "a") == files_in(whole)


def tear(folder: Path) -> None:
    """Leave what kills in the midst of writing leave: halves under temporary names, and shards without a sidecar."""
    for below in (PIECES, "train", "validation"):
        (folder / below).mkdir(exist_ok=True)
        (folder / below / ".shuffled_0001.npz.abc.tmp").write_bytes(b"half")
    unfinished = [
        folder / "train" / f"shuffled_{number:04d}.npz"
        for number in range(7)
        if not (folder / "train" / f"shuffled_{number:04d}.npz.json").exists()
    ]
    if unfinished:
        unfinished[0].write_bytes(b"old rows")


def test_a_finished_step_does_nothing_and_keeps_no_pieces(
    positions: Path, whole: Path, tmp_path: Path
) -> None:
    counts = run(positions, tmp_path / "a")
    executor = Here()
    assert run(positions, tmp_path / "a", executor) == counts
    assert executor.ran == []
    assert not (tmp_path / "a" / PIECES).exists()


def test_pieces_are_kept_when_asked_for(positions: Path, whole: Path, tmp_path: Path) -> None:
    run(positions, tmp_path / "a", keep_pieces=True)
    assert len(list((tmp_path / "a" / PIECES).glob("*.piece"))) == 3
    run(positions, tmp_path / "a")
    assert files_in(tmp_path / "a") == files_in(whole)


def test_a_lost_shard_is_made_again(positions: Path, whole: Path, tmp_path: Path) -> None:
    run(positions, tmp_path / "a")
    (tmp_path / "a" / "train" / "shuffled_0003.npz").unlink()
    executor = Here()
    run(positions, tmp_path / "a", executor)
    assert len(executor.ran) == 3 + 1
    assert files_in(tmp_path / "a") == files_in(whole)


@pytest.mark.parametrize("after", [0, 2, 3, 9])
def test_it_stops_between_two_tasks_and_goes_on(
    positions: Path, whole: Path, tmp_path: Path, after: int
) -> None:
    executor = Here()
    with pytest.raises(Stopped):
        run(positions, tmp_path / "a", executor, should_stop=lambda: len(executor.ran) >= after)
    assert len(executor.ran) == after
    run(positions, tmp_path / "a")
    assert files_in(tmp_path / "a") == files_in(whole)


def test_a_damaged_piece_is_found_and_made_again(positions: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(positions, tmp_path / "a", Here(lives=4))
    piece = tmp_path / "a" / PIECES / "hex5_001.piece"
    data = piece.read_bytes()
    piece.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match=r"hex5_001\.piece is damaged\n.*\n.*run the step again"):
        run(positions, tmp_path / "a")
    run(positions, tmp_path / "a")
    assert files_in(tmp_path / "a") == files_in(whole)


@pytest.mark.parametrize("name", ["hex5_001.piece", "hex5_001.piece.index.npy"])
def test_a_piece_that_a_loss_of_power_cut_short_is_made_again(
    positions: Path, whole: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(Killed):
        run(positions, tmp_path / "a", Here(lives=4))
    os.truncate(tmp_path / "a" / PIECES / name, 50)
    executor = Here()
    run(positions, tmp_path / "a", executor)
    assert len(executor.ran) == TASKS - 4 + 1
    assert files_in(tmp_path / "a") == files_in(whole)


def test_a_damaged_shard_of_positions_is_found(tmp_path: Path) -> None:
    positions = write_positions(tmp_path / "positions", 1)
    shard = positions / "hex5_000.npz"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"hex5_000\.npz cannot be read"):
        run(positions, tmp_path / "a")
    assert list((tmp_path / "a" / PIECES).iterdir()) == []


def test_nothing_to_shuffle_is_told(tmp_path: Path) -> None:
    (tmp_path / "positions").mkdir()
    with pytest.raises(DataError, match="holds no rows to shuffle"):
        run(tmp_path / "positions", tmp_path / "a")
    write_shard(tmp_path / "positions" / "a.npz", {k: v[:0] for k, v in some_rows(1).items()}, about())
    with pytest.raises(DataError, match="holds no rows to shuffle"):
        run(tmp_path / "positions", tmp_path / "a")


def test_a_place_that_holds_another_data_set_is_refused(positions: Path, tmp_path: Path) -> None:
    run(positions, tmp_path / "a")
    with pytest.raises(DataError, match=r"another data set\n.*differs in buckets, seed"):
        run(positions, tmp_path / "a", shuffling=Shuffling(buckets=8, seed=1))


def test_each_game_has_a_data_set_of_its_own(tmp_path: Path) -> None:
    positions = write_positions(tmp_path / "positions", 1)
    assert data_sets(tmp_path / "a") == {}
    run(positions, tmp_path / "a")
    assert data_sets(tmp_path / "a") == {"hex5": tmp_path / "a"}
    rows = cut_rows(random_text(20, size=4), 4, Selection(), source="a test")
    write_shard(positions / "hex4_000.npz", rows, about(4))
    counts = run(positions, tmp_path / "b")
    assert data_sets(tmp_path / "b") == {game: tmp_path / "b" / game for game in ("hex4", "hex5")}
    assert counts["rows"] == len(rows_in(positions, "hex5*.npz")["game"]) + len(rows["game"])
    assert files_in(tmp_path / "b" / "hex5") == files_in(tmp_path / "a")


def test_no_more_than_one_file_of_rows_is_open(
    positions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of pieces: here 3, read for each of 8 buckets."""
    most = 0
    plain_open = Path.open

    def counted(path: Path, *args, **kwargs):
        nonlocal most
        most = max(most, open_files())
        return plain_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counted)
    before = open_files()
    run(positions, tmp_path / "a")
    assert most - before <= 3


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_shards_go_to_s3_and_a_killed_run_goes_on_there(
    positions: Path,
    whole: Path,
    tmp_path: Path,
    bucket: str,  # noqa: F811
) -> None:
    in_s3 = f"{bucket}/data/set"
    with pytest.raises(Killed):
        run(positions, tmp_path / "a", Here(lives=6), target=in_s3)
    executor = Here()
    run(positions, tmp_path / "a", executor, target=in_s3)
    assert len(executor.ran) == TASKS - 6
    there = {
        location.removeprefix(f"{in_s3}/"): read_bytes(location)
        for folder in (in_s3, join(in_s3, "train"), join(in_s3, "validation"))
        for location in list_files(folder)
    }
    assert there == files_in(whole)
    assert files_in(tmp_path / "a") == {MANIFEST: there[MANIFEST]}
