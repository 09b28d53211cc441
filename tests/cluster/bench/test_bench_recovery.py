"""Faults come as they are planned, witnesses find what is lost or doubled, and the whole gives its figures."""

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.bench.recovery import CALM, STRUCK, RecoveryBench, bench_recovery, recovery_config, summary
from cluster.bench.recovery_account import (
    AckLog,
    Acknowledged,
    KeptChunks,
    account_for,
    read_acks,
    rows_by_game,
)
from cluster.bench.recovery_faults import Fault, percentile, schedule
from cluster.bench.recovery_rig import shared_cores
from cluster.bench.replay import random_chunk
from core.errors import DataError, UsageError
from games.catalog import make_game
from replay.archive import StoredChunk
from replay.records import Ack, Chunk
from tests.cluster.commands import assert_three_lines, run_here

Capsys = pytest.CaptureFixture[str]


def chunks(count: int) -> list[Chunk]:
    """Return chunks of 50 rows of 5 games, no two of one game and step."""
    game = make_game("hex3")
    made = [random_chunk(game, number, rows=50, games=5, run="bench") for number in range(count)]
    for chunk in made:
        chunk.columns["step"][:] = np.arange(50) % 10
    return made


def acknowledged(chunks: Sequence[Chunk]) -> list[Acknowledged]:
    return [Acknowledged(float(number), rows_by_game(chunk)) for number, chunk in enumerate(chunks)]


def test_of_each_ten_faults_one_takes_a_machine_and_none_comes_at_the_end() -> None:
    faults = schedule(600.0, 15.0, seed=3)

    assert [fault.at for fault in faults] == [15.0 * k for k in range(1, 40)]
    kinds = [fault.kind for fault in faults]
    assert [kinds[k : k + 10].count("node") for k in (0, 10, 20)] == [1, 1, 1]
    nodes = [number for number, kind in enumerate(kinds) if kind == "node"]
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(nodes))
    assert schedule(600.0, 15.0, seed=3) == faults != schedule(600.0, 15.0, seed=4)


@pytest.mark.parametrize("seed", range(5))
def test_of_a_few_faults_one_takes_a_machine_all_the_same(seed: int) -> None:
    faults = schedule(42.0, 8.0, seed=seed)

    assert [fault.at for fault in faults] == [8.0, 16.0, 24.0, 32.0]
    assert [fault.kind for fault in faults].count("node") == 1
    assert schedule(15.0, 8.0, seed=seed) == ()


def test_what_is_kept_as_it_was_acknowledged_is_neither_lost_nor_doubled() -> None:
    kept = chunks(3)
    account = account_for(acknowledged(kept), kept)

    assert (account.acknowledged_rows, account.kept_rows) == (150, 150)
    assert (account.acknowledged_games, account.kept_games) == (15, 15)
    assert (account.lost_rows, account.lost_games) == (0, 0)
    assert (account.duplicated_rows, account.duplicated_games, account.unseen_rows) == (0, 0, 0)


def test_a_chunk_that_was_acknowledged_and_is_nowhere_is_lost() -> None:
    made = chunks(3)
    account = account_for(acknowledged(made), made[:2])

    assert (account.lost_rows, account.lost_games, account.duplicated_rows) == (50, 5, 0)


def test_a_game_of_which_some_rows_are_nowhere_has_lost_them() -> None:
    (chunk,) = chunks(1)
    rows = np.arange(50) != 7
    cut = Chunk(
        run=chunk.run,
        game=chunk.game,
        actor=chunk.actor,
        epoch=chunk.epoch,
        games=chunk.games,
        columns={name: column[rows] for name, column in chunk.columns.items()},
    )
    account = account_for(acknowledged([chunk]), [cut])

    assert (account.lost_rows, account.lost_games) == (1, 0)


def test_a_chunk_that_was_taken_in_twice_is_doubled_however_often_it_was_acknowledged() -> None:
    made = chunks(3)
    account = account_for(acknowledged([*made, made[1]]), [*made, made[1]])

    assert (account.duplicated_rows, account.duplicated_games) == (50, 5)
    assert (account.acknowledged_rows, account.lost_rows) == (150, 0)


def test_what_nobody_saw_acknowledged_is_no_loss() -> None:
    made = chunks(3)
    account = account_for(acknowledged(made[:2]), made)

    assert (account.unseen_rows, account.lost_rows, account.duplicated_rows) == (50, 0, 0)


def test_a_witness_writes_each_acknowledgement_when_its_actor_is_told(tmp_path: Path) -> None:
    from cluster.bench.recovery_witness import watch

    class Delivery:
        def __init__(self) -> None:
            self.acks: list[Ack | None] = []

        def send(self, chunk: bytes | None) -> None:
            pass

        def poll(self, timeout_seconds: float) -> Ack | None:
            return self.acks.pop(0)

    first, refused = chunks(2)
    delivery = Delivery()
    watch(delivery, AckLog(tmp_path, 3))  # pyright: ignore[reportArgumentType]
    taken = Ack(accepted=5, duplicates=0, rows=50, pause_seconds=0.0, total_rows=50)
    for chunk, acks in ((first, [None, taken]), (refused, [Ack.nothing()]), (None, [taken])):
        delivery.acks = list(acks)
        delivery.send(None if chunk is None else chunk.encode())
        for ack in acks:
            before = len(read_acks(tmp_path))
            assert delivery.poll(0.0) == ack
            assert len(read_acks(tmp_path)) - before == (chunk is first and ack is taken)

    assert [one.rows for one in read_acks(tmp_path)] == [rows_by_game(first)]
    assert [file.name for file in tmp_path.iterdir()] == [f"acks-3-{os.getpid()}.jsonl"]


def test_a_line_of_a_witness_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    AckLog(tmp_path, 0).note(Acknowledged(1.0, {(0, 0, 0): 3}))
    with next(tmp_path.iterdir()).open("ab") as file:
        file.write(b'{"at": 1.0, "games": [[0, 0')

    with pytest.raises(DataError):
        read_acks(tmp_path)


def test_chunks_stay_when_the_replay_deletes_them(tmp_path: Path) -> None:
    replay, made = tmp_path / "replay", chunks(3)
    replay.mkdir()
    kept = KeptChunks(replay, tmp_path / "kept")
    for number, chunk in enumerate(made[:2]):
        (replay / f"{number:08d}.chunk").write_bytes(StoredChunk(0, 0, 0, 0, chunk.encode()).encode())
    kept.look()
    (replay / "00000000.chunk").unlink()
    kept.look()

    assert [chunk.seqs for chunk in kept.chunks()] == [chunk.seqs for chunk in made[:2]]
    assert kept.missed() == 0

    (replay / "00000003.chunk").write_bytes(StoredChunk(0, 0, 0, 0, made[2].encode()).encode())
    kept.look()
    assert kept.missed() == 1, "number 2 came and went between two looks"


@pytest.mark.parametrize(
    ("numbers", "share", "expected"),
    [([], 0.95, None), ([3.0], 0.95, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), (list(range(1, 101)), 0.95, 95)],
)
def test_a_percentile_is_one_of_the_numbers(numbers: list[float], share: float, expected: float) -> None:
    assert percentile(numbers, share) == expected


def test_machines_share_out_the_cores_unless_they_share_them() -> None:
    assert shared_cores({0, 1, 4, 5}, bound=True) == ({0, 1}, {4, 5})
    assert shared_cores({0, 1}, bound=False) == ({0, 1}, {0, 1})
    assert shared_cores({2}, bound=True) == ({2}, {2})


def pair(
    ratio: float, *, lost: int = 0, left: int = 0, seconds: Sequence[float | None] = ()
) -> dict[str, Any]:
    account = {"lost_rows": lost, "duplicated_rows": 0}
    whole = {"account": account | {"lost_rows": 0}, "faults": [], "processes_left": 0}
    faults = [{"kind": "actor", "seconds": each, "overtaken": False} for each in seconds]
    return {
        "effective_ratio": ratio,
        CALM: whole,
        STRUCK: whole | {"account": account, "faults": faults, "processes_left": left, "faults_not_come": 0},
    }


def test_pairs_come_to_their_median_and_to_the_sum_of_what_is_lost() -> None:
    bench = RecoveryBench()
    result = summary(bench, [pair(0.8, seconds=(1.0, 5.0)), pair(0.9, seconds=(None,)), pair(0.95)], [])

    assert (result["effective_ratio"], result["effective_ratios"]) == (0.9, [0.8, 0.9, 0.95])
    assert (result["p95_recovery_s"], result["not_recovered"]) == (5.0, 1)
    assert (result["p95_node_s"], result["elo"], result["faults_by_kind"]) == (None, None, {"actor": 3})
    assert result["passed"]
    assert not summary(bench, [pair(0.9, lost=3), pair(0.9)], [])["passed"]
    assert not summary(bench, [pair(0.9, left=1)], [])["passed"]


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (("--minutes", "0.2", "--every", "15"), "faults every 15 s of 0.2 min"),
        (("--games", "3"), "even"),
        (("cartpole",), "rollouts"),
        (("replay.persisted=false",), "replay.persisted=false"),
        (("hex55",), "hex5"),
    ],
)
def test_what_cannot_be_measured_is_told(words: tuple[str, ...], mentions: str, capsys: Capsys) -> None:
    assert_three_lines(run_here(capsys, "bench", "recovery", *words), code=2, mentions=[mentions])


def test_a_folder_with_an_earlier_measurement_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "recovery.json").write_text("{}")
    with pytest.raises(UsageError):
        bench_recovery(RecoveryBench(), recovery_config("hex5", [], seed=0), folder=tmp_path, quiet=True)
    assert (tmp_path / "recovery.json").read_text() == "{}"


def test_faults_are_of_the_kinds_that_there_are() -> None:
    assert {fault.kind for fault in schedule(600.0, 15.0, seed=0)} == {"actor", "node"}
    assert all(0 <= fault.lot < 1 for fault in schedule(600.0, 15.0, seed=0))
    assert schedule(0.0, 15.0, seed=0) == ()
    assert Fault(1.0, "actor", 0.5) == Fault(1.0, "actor", 0.5)


@pytest.mark.soak
def test_a_run_under_faults_is_measured_beside_one_without(tmp_path: Path) -> None:
    bench = RecoveryBench(minutes=0.7, every=8.0, pairs=1, games=20)
    config = recovery_config("tic_tac_toe", ["learner.batch_rows=64", "replay.min_rows=500"], seed=0)
    result = bench_recovery(bench, config, folder=tmp_path, quiet=True)

    (one,) = result["pairs"]
    calm, struck = one[CALM], one[STRUCK]
    assert result["passed"], [struck["account"], calm["account"], struck["left"], calm["left"]]
    assert (calm["chunks_missed"], struck["chunks_missed"]) == (0, 0)
    assert calm["faults"] == []
    assert sorted(fault["kind"] for fault in struck["faults"]) == ["actor", "actor", "actor", "node"]
    assert 0 < struck["rows"] <= struck["account"]["acknowledged_rows"]
    assert result["games"] == 20
    assert struck["learner_steps"] > 0
    assert any("died" in said for said in struck["said"])
    assert any("has left" in said for said in struck["said"])
    assert (
        json.loads((tmp_path / "recovery.json").read_text())["effective_ratio"] == result["effective_ratio"]
    )
