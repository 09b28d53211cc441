"""The benchmark of feeding delivers what it counts, and both its sides make the same kind of batch."""

from pathlib import Path

import numpy as np
import pytest

from cluster.bench.replay import (
    LocalRows,
    bench_replay,
    chunk_sizes,
    decades,
    random_chunk,
    replay_settings,
)
from cluster.bench.rig import Measuring, bench_config
from games.catalog import make_game
from replay.records import Chunk
from tests.cluster.commands import run_here


@pytest.mark.parametrize(("rows", "games"), [(200, 3), (200, 1), (3, 8)])
def test_what_the_replay_is_given_is_sound_and_no_game_comes_twice(rows: int, games: int) -> None:
    game = make_game("hex3")
    chunks = [random_chunk(game, number, rows=rows, games=games, run="bench") for number in range(3)]
    for chunk in chunks:
        assert chunk.check_valid() == []
        assert Chunk.decode(chunk.encode()).num_rows == rows
    seqs = [record.seq for chunk in chunks for record in chunk.games]
    assert seqs == list(range(3 * games))


def test_the_floor_takes_any_of_its_rows_with_all_their_columns() -> None:
    game, local = make_game("hex3"), LocalRows(50)
    chunks = [random_chunk(game, number, rows=25, games=25, run="bench") for number in range(2)]
    for chunk in chunks:
        local.add(chunk.training_columns())
    batch = local.batch(2000)

    assert batch.keys() == chunks[0].training_columns().keys()
    assert np.unique(batch["seq"]).tolist() == list(range(50))
    cells = np.concatenate([chunk.columns["cells"] for chunk in chunks])
    assert np.array_equal(batch["cells"], cells[batch["seq"]])
    assert local.row_bytes == sum(column[0].nbytes for column in batch.values())


def test_a_window_is_filled_to_the_row() -> None:
    assert chunk_sizes(5000, 2048) == [2048, 2048, 904]
    assert chunk_sizes(4096, 2048) == [2048, 2048]


def test_a_window_grows_by_powers_of_ten() -> None:
    assert decades(100, 10_000) == [100, 1000, 10_000]
    assert decades(100, 9_999) == [100, 1000]
    assert decades(100, 50) == [100]


def test_the_command_tells_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    said = run_here(capsys, "bench", "replay", "--help")
    assert said.code == 0
    for option in ("--rows", "--grown-rows", "--batch-rows", "--json"):
        assert option in said.out


@pytest.mark.system
def test_delivered_and_local_batches_are_measured_in_turn(tmp_path: Path) -> None:
    config = bench_config(
        "hex3",
        blocks=1,
        channels=1,
        precision="fp32",
        settings=[*replay_settings(64), "actors.chunk_rows=100"],
    )
    measuring = Measuring(seconds=0.3, rounds=2, quiet=True)
    result = bench_replay(config, measuring, rows=1000, grown_rows=10_000)

    assert len(result["delivered_over_local_rounds"]) == 2
    assert 0 < result["delivered_over_local"] < 10
    assert result["delivered_rows_per_s"] > 0
    assert result["inserts_per_s"] > 0
    assert [(one["rows"], one["chunks"]) for one in result["growth"]] == [(1000, 10), (10_000, 100)]
    assert result["growth_ratio"] > 0
