"""The same games make the same data set, byte for byte, and each of its rows is one that was played."""

import json
import multiprocessing
import os
import shutil
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.harvest import GameHarvest
from configs.searched import SearchedExportSettings
from core.errors import UsageError
from core.metrics import NoMetrics
from games.catalog import make_game
from games.tic_tac_toe import TicTacToe
from pipeline.contract import Stopped
from pipeline.searched_rows import UNSORTED, Exported, check_target, export_searched
from replay.archive import StoredChunk
from replay.records import Chunk
from replay.searched_shards import (
    MANIFEST,
    SEARCHED_COLUMNS,
    game_number,
    read_searched_file,
    read_searched_set,
)
from replay.splitting import is_validation
from tests.actors.playing import play_games
from tests.replay.experience import a_chunk, open_buffer

GAME = TicTacToe()
SETTINGS = SearchedExportSettings(validation_share=0.25, seed=3, shard_rows=16)


def fill(folder: Path, chunks: Iterable[Chunk]) -> list[Chunk]:
    """Let a replay take chunks, and return them."""
    buffer, given = open_buffer(folder), list(chunks)
    for chunk in given:
        buffer.add(chunk.encode())
    return given


def some_chunks(actor: int, *, chunks: int = 4, games: int = 5) -> list[Chunk]:
    return [a_chunk(range(games * k, games * (k + 1)), actor=actor) for k in range(chunks)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two runs, of 20 games each."""
    runs = tmp_path_factory.mktemp("runs")
    folders = [runs / name for name in ("cycle_9", "cycle_10")]
    for actor, folder in enumerate(folders):
        fill(folder, some_chunks(actor))
    return folders


def export(folders: Sequence[Path], target: Path, **given: Any) -> Exported:
    settings = SETTINGS.model_copy(update=given.pop("settings", {}))
    return export_searched(folders, GAME, target, settings, **given)


def content(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def plain(played: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed export of both runs makes."""
    target = tmp_path_factory.mktemp("plain")
    export(played, target)
    return content(target)


def rows_of(folder: Path, side: str) -> dict[str, np.ndarray]:
    made = read_searched_set(folder)
    parts = [read_searched_file(folder, file) for file in made.files if file.name.startswith(side)]
    return {name: np.concatenate([part[name] for part in parts]) for name in SEARCHED_COLUMNS}


def in_words(columns: Any, games: np.ndarray, plies: np.ndarray) -> list[tuple[Any, ...]]:
    named = (columns[name] for name in ("cells", "policy", "policy_weight", "outcome", "search_value"))
    each = [column.reshape(len(games), -1).tolist() for column in named]
    return sorted(zip(games.tolist(), plies.tolist(), *each, strict=True))


def test_every_row_of_every_game_is_there_once(played: list[Path], tmp_path: Path) -> None:
    counts = export(played, tmp_path)
    expected: list[tuple[Any, ...]] = []
    for chunk in some_chunks(0) + some_chunks(1):
        number = {game.seq: game_number(game) for game in chunk.games}
        games = np.array([number[seq] for seq in chunk.columns["seq"].tolist()], np.uint64)
        expected += in_words(chunk.columns, games, chunk.columns["step"])
    sides = [rows_of(tmp_path, side) for side in ("train", "validation")]
    both = {name: np.concatenate([side[name] for side in sides]) for name in SEARCHED_COLUMNS}
    assert in_words(both, both["game"], both["ply"]) == sorted(expected)
    assert (counts.games, counts.rows, counts.validation_rows) == (40, 120, len(sides[1]["game"]))
    assert (counts.duplicates, counts.damaged, counts.vanished) == (0, 0, 0)


def test_a_game_is_on_one_side_and_rows_of_games_lie_apart(played: list[Path], tmp_path: Path) -> None:
    export(played, tmp_path)
    train, validation = (rows_of(tmp_path, side)["game"] for side in ("train", "validation"))
    assert not is_validation(train, 0.25).any()
    assert is_validation(validation, 0.25).all()
    assert len(validation)
    neighbours = np.mean(train[1:] == train[:-1])
    assert neighbours < 0.2  # in the order in which they were played it is 2 of 3
    assert (np.diff(train.astype(np.float64)) < 0).any()


def test_files_have_as_many_rows_as_they_may(played: list[Path], tmp_path: Path) -> None:
    counts = export(played, tmp_path, settings={"shard_rows": 7})
    made = read_searched_set(tmp_path)
    for side, rows in (("train", made.train_rows), ("validation", made.validation_rows)):
        sizes = [file.rows for file in made.files if file.name.startswith(side)]
        assert sizes == [7] * (rows // 7) + [rows % 7] * (rows % 7 > 0)
    assert made.train_rows + made.validation_rows == counts.rows
    assert made.digest == counts.digest


@settings(max_examples=30)
@given(order=st.permutations(range(2)), memory_bytes=st.integers(0, 8000), twice=st.booleans())
def test_neither_the_order_of_folders_nor_memory_changes_a_byte(
    played: list[Path],
    plain: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    memory_bytes: int,
    twice: bool,
) -> None:
    target = tmp_path_factory.mktemp("rows")
    folders = [played[k] for k in order] * (1 + twice)
    export(folders, target, memory_bytes=memory_bytes)
    assert content(target) == plain
    assert not (target / UNSORTED).exists()


def test_how_games_are_cut_into_chunks_and_where_they_lie_changes_no_byte(
    plain: dict[str, bytes], tmp_path: Path
) -> None:
    for actor, name in ((1, "another"), (0, "place")):
        whole = some_chunks(actor)
        fill(
            tmp_path / name,
            [chunk.only({seq}) for chunk in whole for seq in chunk.seqs],
        )
    export([tmp_path / "another", tmp_path / "place"], tmp_path / "rows")
    assert content(tmp_path / "rows") == plain


def test_the_seed_orders_and_moves_no_game_to_the_other_side(played: list[Path], tmp_path: Path) -> None:
    one, other = export(played, tmp_path / "one"), export(played, tmp_path / "other", settings={"seed": 4})
    assert one.digest != other.digest
    first, second = (rows_of(tmp_path / name, "train") for name in ("one", "other"))
    assert not np.array_equal(first["game"], second["game"])
    assert in_words(first, first["game"], first["ply"]) == in_words(second, second["game"], second["ply"])


def test_a_copy_of_a_run_adds_nothing(played: list[Path], plain: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(played[0], tmp_path / "copy")
    counts = export([*played, tmp_path / "copy"], tmp_path / "rows")
    assert counts.duplicates == 20
    assert content(tmp_path / "rows") == plain


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("max_games", [1, 7, 20, 33])
def test_the_newest_games_are_taken(played: list[Path], tmp_path: Path, max_games: int, order: int) -> None:
    """`cycle_10` is newer than `cycle_9`; in each, later chunks, and in a chunk later games."""
    counts = export(played[::order], tmp_path, settings={"max_games": max_games})
    newest_last = [game_number(game) for k in range(2) for chunk in some_chunks(k) for game in chunk.games]
    taken = {
        int(game)
        for side in ("train", "validation")
        if _has(tmp_path, side)
        for game in rows_of(tmp_path, side)["game"]
    }
    assert taken == set(newest_last[-max_games:])
    assert counts.games == read_searched_set(tmp_path).games == max_games


def _has(folder: Path, side: str) -> bool:
    return any(file.name.startswith(side) for file in read_searched_set(folder).files)


def test_rows_that_are_not_kept_are_left_out(played: list[Path], tmp_path: Path) -> None:
    counts = export(played, tmp_path, keep=lambda games, plies: (plies + games.astype(np.int64)) % 2 == 0)
    for side in ("train", "validation"):
        rows = rows_of(tmp_path, side)
        assert ((rows["ply"].astype(np.int64) + rows["game"].astype(np.int64)) % 2 == 0).all()
    assert counts.games == 40
    assert 0 < counts.rows < 120


def test_what_is_there_already_is_not_touched(played: list[Path], tmp_path: Path) -> None:
    first = export(played, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = export(played, tmp_path)
    assert (first.written, second.written) == (True, False)
    assert first.digest == second.digest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("harm", ["cut", "flip", "sidecar", "manifest", "strange"])
def test_what_was_harmed_is_made_whole(played: list[Path], tmp_path: Path, harm: str) -> None:
    export(played, tmp_path)
    before = content(tmp_path)
    shard = tmp_path / "train" / "searched_0001.npz"
    data = bytearray(shard.read_bytes())
    if harm == "cut":
        shard.write_bytes(data[:-1])
    elif harm == "flip":
        data[200] ^= 1
        shard.write_bytes(data)
    elif harm == "sidecar":
        shard.with_name(f"{shard.name}.json").write_text("{}")
    elif harm == "manifest":
        (tmp_path / MANIFEST).write_text("{")
    else:
        (tmp_path / "train" / "searched_0099.npz").write_bytes(data)
    assert export(played, tmp_path).written
    assert content(tmp_path) == before


def test_a_smaller_data_set_leaves_nothing_of_the_larger(played: list[Path], tmp_path: Path) -> None:
    export(played, tmp_path / "rows")
    export(played, tmp_path / "rows", settings={"max_games": 9})
    export(played, tmp_path / "small", settings={"max_games": 9})
    assert content(tmp_path / "rows") == content(tmp_path / "small")


def test_damaged_chunks_are_counted_told_and_left_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path / "run", some_chunks(0))
    chunks = tmp_path / "run" / "replay"
    data = bytearray((chunks / "00000001.chunk").read_bytes())
    data[100] ^= 1
    (chunks / "00000001.chunk").write_bytes(data)
    (chunks / "00000002.chunk").write_bytes(b"")
    (chunks / "00000009.chunk.damaged").write_bytes(b"set aside long ago")
    unsound = a_chunk(range(100, 105))
    unsound.columns["policy"][3] = 0.5
    stored = StoredChunk(total_rows=0, total_games=0, draws=0, sampled_rows=0, chunk=unsound.encode())
    (chunks / "00000007.chunk").write_bytes(stored.encode())
    before, told = content(tmp_path / "run"), list[str]()
    counts = export([tmp_path / "run"], tmp_path / "rows", log=told.append)
    assert (counts.damaged, counts.games, counts.rows) == (3, 10, 30)
    assert [next(name for name in ("1.chunk", "2.chunk", "7.chunk") if name in line) for line in told] == [
        "7.chunk",
        "2.chunk",
        "1.chunk",
    ]
    assert "sum of 1" in told[0]
    assert content(tmp_path / "run") == before


def test_chunks_that_go_while_others_are_read_are_no_harm(tmp_path: Path) -> None:
    fill(tmp_path / "run", some_chunks(0))

    def drop(done: float, total: float, unit: str) -> None:
        (tmp_path / "run" / "replay" / "00000001.chunk").unlink(missing_ok=True)

    counts = export([tmp_path / "run"], tmp_path / "rows", progress=drop)
    assert (counts.vanished, counts.damaged, counts.games) == (1, 0, 15)


def _keep_playing(folder: Path, go_on: Any, ready: Any) -> None:
    buffer, number = open_buffer(folder), 0
    while go_on.is_set():
        buffer.add(a_chunk(range(5 * number, 5 * number + 5), actor=7).encode())
        number += 1
        if number == 5:
            ready.set()


def test_a_run_that_plays_on_can_be_exported(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    go_on, ready = context.Event(), context.Event()
    go_on.set()
    player = context.Process(target=_keep_playing, args=(tmp_path / "run", go_on, ready))
    player.start()
    try:
        assert ready.wait(60)
        games = [export([tmp_path / "run"], tmp_path / "rows").games for _ in range(5)]
    finally:
        go_on.clear()
        player.join(60)
    assert player.exitcode == 0
    assert games == sorted(games)
    assert games[0] >= 25
    assert open_buffer(tmp_path / "run").opening_report.damaged == ()


@pytest.mark.parametrize("after", [0, 2, 9, 10])
def test_stopped_it_leaves_no_data_set_and_goes_through_the_next_time(
    played: list[Path], plain: dict[str, bytes], tmp_path: Path, after: int
) -> None:
    looks = [0]

    def should_stop() -> bool:
        looks[0] += 1
        return looks[0] > after

    try:
        export(played, tmp_path / "rows", should_stop=should_stop, memory_bytes=0)
    except Stopped:
        assert not (tmp_path / "rows" / MANIFEST).exists()
        assert not (tmp_path / "rows" / UNSORTED).exists()
    else:
        pytest.fail("it was not stopped")
    export(played, tmp_path / "rows")
    assert content(tmp_path / "rows") == plain


def test_what_a_killed_export_left_is_removed(
    played: list[Path], plain: dict[str, bytes], tmp_path: Path
) -> None:
    for name in (
        f"{UNSORTED}/00.rows",
        ".manifest.json.abc.tmp",
        "train/.searched_0000.npz.abc.tmp",
        "train/searched_0007.npz",
    ):
        path = tmp_path / "rows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(100))
    export(played, tmp_path / "rows")
    assert content(tmp_path / "rows") == plain


def test_rows_of_real_searches_can_be_exported(tmp_path: Path) -> None:
    game = make_game("connect_four")
    harvest = GameHarvest(game.board, run="real", game=game.name, actor=0, epoch=0, metrics=NoMetrics())
    finished = play_games(game.name, 8)
    for each in finished:
        harvest.add(each)
    chunk = harvest.take_chunk()
    assert chunk is not None
    open_buffer(tmp_path / "run", run="real", game=game).add(chunk.encode())
    counts = export_searched([tmp_path / "run"], game, tmp_path / "rows", SearchedExportSettings())
    assert counts.rows == sum(len(each.rows) for each in finished)
    rows = rows_of(tmp_path / "rows", "train")
    stones = np.count_nonzero(rows["cells"], axis=1)
    assert np.array_equal(stones, rows["ply"])


def test_a_folder_that_is_not_there_or_of_another_game_is_told(played: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere holds no games"):
        export([*played, tmp_path / "nowhere"], tmp_path / "rows")
    with pytest.raises(UsageError, match=r"its games are of tic_tac_toe, wanted are those of hex3"):
        export_searched(played, make_game("hex3"), tmp_path / "rows", SETTINGS)
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "train/rows.npz", "train/deep/searched_0000.npz", "replay/00000000.chunk", ""]
)
def test_what_is_not_of_a_data_set_is_never_overwritten(
    played: list[Path], tmp_path: Path, foreign: str
) -> None:
    target = tmp_path / "rows"
    (target / foreign).parent.mkdir(parents=True, exist_ok=True)
    (target / foreign).write_bytes(b"mine")
    with pytest.raises(UsageError, match="rows is not free for a data set of tic_tac_toe"):
        export(played, target)
    assert (target / foreign).read_bytes() == b"mine"


def test_a_data_set_of_another_game_is_not_overwritten(played: list[Path], tmp_path: Path) -> None:
    export(played, tmp_path)
    before = content(tmp_path)
    with pytest.raises(UsageError, match="it holds rows of tic_tac_toe"):
        check_target(tmp_path, "hex3")
    check_target(tmp_path, "tic_tac_toe")
    (tmp_path / MANIFEST).write_bytes(b"{")  # as a disk may leave it
    export(played, tmp_path)
    assert content(tmp_path) == before


def test_it_is_told_how_many_chunks_are_read_and_how_many_rows_written(
    played: list[Path], tmp_path: Path
) -> None:
    told: list[tuple[float, float, str]] = []
    export(played, tmp_path, progress=lambda *said: told.append(said))
    assert told == [(k, 8, "chunks") for k in range(1, 9)] + [(120, 120, "rows")]


@pytest.mark.parametrize("case", ["empty", "no folder", "nothing kept"])
def test_without_rows_there_is_no_data_set(played: list[Path], tmp_path: Path, case: str) -> None:
    (tmp_path / "run").mkdir()
    folders = {"empty": [tmp_path / "run"], "no folder": [], "nothing kept": played}[case]

    def keep(games: np.ndarray, plies: np.ndarray) -> np.ndarray:
        return np.zeros(len(plies), bool)

    with pytest.raises(UsageError, match="no rows to export") as caught:
        export(folders, tmp_path / "rows", keep=keep)
    assert len(str(caught.value).splitlines()) == 3
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    "setting",
    [
        {"max_games": 0},
        {"validation_share": 1.0},
        {"validation_share": float("nan")},
        {"validation_share": -0.1},
        {"seed": -1},
        {"shard_rows": 0},
        {"max_gmaes": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        SearchedExportSettings(**setting)


def test_rows_beyond_the_bound_are_not_in_memory(tmp_path: Path) -> None:
    peaks = []
    fill(tmp_path / "run", some_chunks(0, chunks=16, games=100))
    for memory_bytes in (10_000, 1_000_000_000):
        tracemalloc.start()
        try:
            target = tmp_path / f"rows_{memory_bytes}"
            counts = export(
                [tmp_path / "run"], target, memory_bytes=memory_bytes, settings={"shard_rows": 512}
            )
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    row_bytes = 9 + 2 * 9 + 3 * 4 + 8 + 2
    assert peaks[0] < peaks[1] - counts.rows * row_bytes


def test_the_manifest_reads_as_plain_json(played: list[Path], tmp_path: Path) -> None:
    counts = export(played, tmp_path)
    said = json.loads((tmp_path / MANIFEST).read_text())
    assert (said["game"], said["games"], said["seed"]) == ("tic_tac_toe", 40, 3)
    assert said["train_rows"] + said["validation_rows"] == sum(file["rows"] for file in said["files"])
    assert said["validation_rows"] == counts.validation_rows
