import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.schema import ReplayConfig
from core.errors import DataError, TamenError, UsageError
from games.hex import Hex
from replay.archive import Archive
from replay.buffer import ReplayBuffer
from replay.records import Chunk, decode_columns
from replay.sampling import Sample, Wait
from tests.replay.experience import CONFIG, GAME, a_chunk, a_game, open_buffer, same, with_column

SMALL_WINDOW = ReplayConfig(min_rows=12, capacity_rows=12, samples_per_insert_slack_rows=10**6)
"""Four games of three rows."""


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What survives a crash is the claim of test_faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def fill(buffer: ReplayBuffer, chunks: int, *, first: int = 0, games: int = 2, epoch: int = 0) -> None:
    for k in range(first, first + chunks):
        buffer.add(a_chunk(range(k * games, (k + 1) * games), epoch=epoch).encode())


def stored_games(buffer: ReplayBuffer) -> list[tuple[int, int, int]]:
    """(actor, epoch, seq) of every game that can be drawn, in the order of arrival."""
    chunks = [Chunk.decode(data) for data in buffer.handles(buffer.live_chunks())]
    return [(game.actor, game.epoch, game.seq) for chunk in chunks for game in chunk.games]


def texts(folder: Path) -> list[str]:
    lines = [line for file in sorted((folder / "games").iterdir()) for line in file.read_text().splitlines()]
    return [line for line in lines if not line.startswith("# ")]


def test_a_chunk_is_acknowledged_and_can_be_drawn(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    chunk = a_chunk([0, 1])
    ack = buffer.add(chunk.encode())
    assert (ack.accepted, ack.duplicates, ack.rows, ack.total_rows) == (2, 0, 6, 6)
    sample = buffer.sample(100)
    assert isinstance(sample, Sample)
    assert set(sample.chunk_ids.tolist()) == {0}
    assert set(sample.rows.tolist()) == set(range(6))
    assert same(decode_columns(buffer.handles([0])[0]), chunk.training_columns())
    assert buffer.check_valid() == []


def test_games_lie_on_disk_as_lines_of_text(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    buffer.add(replace(a_chunk([0]), games=(replace(a_game(0), outcome=-1.0),)).encode())
    (file,) = (tmp_path / "games").iterdir()
    assert file.name == "00000000.txt"
    assert file.read_text().startswith("# chunk 0: 1 games\ntic_tac_toe,")
    assert file.read_text().endswith(" o\n")


def test_games_of_hex_lie_on_disk_as_trmph(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, game=Hex(3))
    buffer.add(a_chunk([0], game="hex3").encode())
    (file,) = (tmp_path / "games").iterdir()
    assert file.name == "00000000.trmph"
    assert file.read_text().startswith("# chunk 0: 1 games\n#3,")


def test_lives_are_never_given_out_twice_not_even_by_another_buffer(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    assert [buffer.open_epoch(0), buffer.open_epoch(0), buffer.open_epoch(7)] == [0, 1, 0]
    again = open_buffer(tmp_path)
    assert [again.open_epoch(0), again.open_epoch(7), again.open_epoch(1)] == [2, 1, 0]


def test_a_chunk_that_comes_twice_counts_once(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    data = a_chunk([0, 1]).encode()
    buffer.add(data)
    ack = buffer.add(data)
    assert (ack.accepted, ack.duplicates, ack.rows, ack.total_rows) == (0, 2, 0, 6)
    assert stored_games(buffer) == [(0, 0, 0), (0, 0, 1)]
    assert buffer.stats()["duplicates"] == 2


def test_only_the_new_games_of_a_chunk_count_and_only_their_rows(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    buffer.add(a_chunk([0, 1]).encode())
    ack = buffer.add(a_chunk([1, 2, 3]).encode())
    assert (ack.accepted, ack.duplicates, ack.rows) == (2, 1, 6)
    assert decode_columns(buffer.handles([1])[0])["seq"].tolist() == [2, 2, 2, 3, 3, 3]
    assert len(texts(tmp_path)) == 4


def test_the_same_numbers_of_another_actor_or_life_are_other_games(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    for actor, epoch in ((0, 0), (1, 0), (0, 1)):
        assert buffer.add(a_chunk([0], actor=actor, epoch=epoch).encode()).accepted == 1


WINDOW_OF_FORTY = ReplayConfig(min_rows=120, capacity_rows=120, samples_per_insert_slack_rows=10**6)
"""Chunks of one game of three rows."""


def chunk_files(folder: Path) -> int:
    return len(list((folder / "replay").glob("*.chunk")))


def test_the_ledger_is_written_once_for_several_chunks_that_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer, written = open_buffer(tmp_path, WINDOW_OF_FORTY), []
    monkeypatch.setattr(Archive, "write_ledger", lambda archive: written.append(archive.ledger.next_number))
    fill(buffer, 40, games=1)
    assert written == []
    fill(buffer, 20, first=40, games=1)

    assert written == [45, 50, 55, 60], "five at a time: an eighth of the window"
    assert buffer.live_chunks().tolist() == list(range(20, 60))
    assert buffer.check_valid() == []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 30), max_size=6), st.sampled_from(["uniform", "fifo"]))
def test_chunks_that_have_left_but_are_on_disk_still_do_not_come_back(
    tmp_path_factory: pytest.TempPathFactory, lives: list[int], sampler: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    config = WINDOW_OF_FORTY.model_copy(update={"sampler": sampler, "persisted": True, "min_rows": 3})
    buffer, came = open_buffer(folder, config), 0
    for chunks in lives:
        fill(buffer, chunks, first=came, games=1)
        came += chunks
        while sampler == "fifo" and isinstance(buffer.sample(24), Sample):
            pass  # uses up whole chunks
        live, drawable = buffer.live_chunks().tolist(), buffer._sampler.drawable_rows
        assert len(live) <= chunk_files(folder) <= len(live) + max(1, len(live) // 8)
        buffer = open_buffer(folder, config)
        assert buffer._sampler.drawable_rows == drawable
        assert set(live) <= set(buffer.live_chunks().tolist())
        assert buffer.check_valid() == []
        if sampler == "uniform":
            assert buffer.live_chunks().tolist() == live
        assert buffer.add(a_chunk([0]).encode()).duplicates == 1
    assert buffer.stats()["games"] == came


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 5), st.integers(1, 3)), max_size=14
    ),
    st.sets(st.integers(0, 13), max_size=3),
)
def test_duplicated_and_reordered_deliveries_leave_each_game_once(
    tmp_path_factory: pytest.TempPathFactory,
    deliveries: list[tuple[int, int, int, int]],
    reopenings: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("run")
    buffer = open_buffer(folder)
    expected = set()
    for k, (actor, epoch, first, games) in enumerate(deliveries):
        if k in reopenings:
            buffer = open_buffer(folder)
        buffer.add(a_chunk(range(first, first + games), actor=actor, epoch=epoch).encode())
        expected |= {(actor, epoch, seq) for seq in range(first, first + games)}
    stored = stored_games(buffer)
    assert len(stored) == len(set(stored)) == len(texts(folder)) == buffer.stats()["games"]
    assert set(stored) == expected
    assert buffer.check_valid() == []


def test_missing_games_are_counted_until_they_come(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    buffer.add(a_chunk([4, 5]).encode())
    assert buffer.stats()["missing_games"] == 4
    assert buffer.add(a_chunk([0, 1, 2, 3]).encode()).accepted == 4
    assert buffer.stats()["missing_games"] == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"nonsense", "header"),
        (a_chunk().encode()[:-1], "bytes where its header says"),
        (replace(a_chunk(), run="other").encode(), "this replay is of run 'test' and game 'tic_tac_toe'"),
        (a_chunk(game="hex3").encode(), "this replay is of run 'test' and game 'tic_tac_toe'"),
        (with_column(a_chunk(), "cells", np.full((6, 9), 7, np.int8)).encode(), "cells reaches from 7 to 7"),
        (
            with_column(a_chunk(), "cells", np.zeros((6, 8), np.int8)).encode(),
            "is int8[6, 8], expected int8[B, [9]]",
        ),
        (
            with_column(a_chunk(), "policy", np.eye(6, 10, dtype=np.float16)).encode(),
            "is float16[6, 10], expected float16[B, [9]]",
        ),
        (
            replace(a_chunk([0]), games=(replace(a_game(), actions=np.full(5, 9, np.int16)),)).encode(),
            "game 0 has moves that tic_tac_toe does not have",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_chunk_is_refused_counted_and_leaves_no_trace(tmp_path: Path, data: bytes, why: str) -> None:
    buffer = open_buffer(tmp_path)
    with pytest.raises(DataError) as refusal:
        buffer.add(data)
    assert why in refusal.value.why
    stats = buffer.stats()
    assert (stats["refused_chunks"], stats["total_rows"], stats["games"]) == (1, 0, 0)
    assert buffer.add(a_chunk().encode()).accepted == 2
    assert buffer.check_valid() == []


def test_a_chunk_of_games_without_rows_is_kept_and_never_drawn(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    chunk = a_chunk([0, 1])
    empty = replace(chunk, columns={name: column[:0] for name, column in chunk.columns.items()})
    assert buffer.add(empty.encode()).accepted == 2
    fill(buffer, 2, first=1)
    sample = buffer.sample(200)
    assert isinstance(sample, Sample)
    assert set(sample.chunk_ids.tolist()) == {1, 2}
    assert len(texts(tmp_path)) == 6


def test_the_learner_waits_for_the_first_rows_and_then_for_the_actors(tmp_path: Path) -> None:
    config = ReplayConfig(min_rows=9, samples_per_insert=2, samples_per_insert_slack_rows=8)
    buffer = open_buffer(tmp_path, config)
    buffer.add(a_chunk([0, 1]).encode())
    wait = buffer.sample(8)
    assert isinstance(wait, Wait)
    assert wait.reason == "6 of 9 rows have come"
    assert wait.seconds > 0
    buffer.add(a_chunk([2]).encode())
    assert isinstance(buffer.sample(8), Sample)
    wait = buffer.sample(8)
    assert isinstance(wait, Wait)
    assert wait.reason == "each row may be drawn 2 times, and the actors are behind"
    assert buffer.stats()["draws"] == 1


def test_actors_pause_for_the_learner_and_go_on_after_it(tmp_path: Path) -> None:
    config = ReplayConfig(min_rows=3, samples_per_insert=4, samples_per_insert_slack_rows=10)
    buffer = open_buffer(tmp_path, config)
    assert buffer.add(a_chunk([0]).encode()).pause_seconds == 0
    assert buffer.add(a_chunk([1]).encode()).pause_seconds > 0
    assert buffer.admission().pause_seconds > 0
    buffer.sample(2)
    ack = buffer.admission()
    assert (ack.pause_seconds, ack.accepted, ack.rows, ack.total_rows) == (0, 0, 0, 6)


def test_nobody_pauses_where_nobody_learns(tmp_path: Path) -> None:
    config = ReplayConfig(min_rows=3, samples_per_insert=4, samples_per_insert_slack_rows=1)
    buffer = open_buffer(tmp_path, config, limited=False)
    fill(buffer, 5)
    assert buffer.admission().pause_seconds == 0


def test_a_batch_that_could_never_be_drawn_is_refused_at_once(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, ReplayConfig(samples_per_insert_slack_rows=10))
    with pytest.raises(UsageError, match="a batch of 21 rows can never be drawn"):
        buffer.sample(21)


def test_the_oldest_chunks_leave_the_window_whole(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, SMALL_WINDOW)
    fill(buffer, 5)
    assert buffer.live_chunks().tolist() == [3, 4]
    assert [file.name for file in sorted((tmp_path / "replay").glob("*.chunk"))] == [
        "00000003.chunk",
        "00000004.chunk",
    ]
    stats = buffer.stats()
    assert (stats["rows"], stats["total_rows"], stats["games"], stats["window_rows"]) == (12, 30, 10, 12)
    sample = buffer.sample(300)
    assert isinstance(sample, Sample)
    assert set(sample.chunk_ids.tolist()) == {3, 4}
    assert len(texts(tmp_path)) == 10
    assert buffer.check_valid() == []


def test_games_that_left_the_window_are_still_known_after_reopening(tmp_path: Path) -> None:
    fill(open_buffer(tmp_path, SMALL_WINDOW), 5)
    buffer = open_buffer(tmp_path, SMALL_WINDOW)
    assert buffer.add(a_chunk([0, 1]).encode()).duplicates == 2
    assert buffer.stats()["total_rows"] == 30
    assert buffer.add(a_chunk([10]).encode()).accepted == 1
    assert buffer.live_chunks().tolist()[-1] == 5


def test_a_chunk_drawn_just_before_it_left_can_still_be_fetched(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, SMALL_WINDOW)
    fill(buffer, 5)
    assert Chunk.decode(buffer.handles([0])[0]).games[0].seq == 0
    fill(buffer, 20, first=5)
    with pytest.raises(DataError, match="chunk 0 cannot be had"):
        buffer.handles([0])
    with pytest.raises(DataError, match="chunk 99 cannot be had"):
        buffer.handles([99])


class Shelf:
    """An object store that numbers what it is given."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def put(self, data: bytes) -> int:
        self.kept.append(data)
        return len(self.kept) - 1


def test_handles_are_those_of_the_object_store_and_made_again_on_opening(tmp_path: Path) -> None:
    shelf = Shelf()
    buffer = open_buffer(tmp_path, objects=shelf)
    fill(buffer, 3)
    assert buffer.handles(np.array([2, 0])) == [2, 0]
    new_shelf = Shelf()
    assert open_buffer(tmp_path, objects=new_shelf).handles([0, 1, 2]) == [0, 1, 2]
    assert new_shelf.kept == shelf.kept


class FullShelf:
    def put(self, data: bytes) -> Any:
        raise TamenError("the object store is full", why="a test", fix="make room")


def test_a_full_object_store_leaves_the_chunk_unknown(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, objects=FullShelf())
    with pytest.raises(TamenError, match="the object store is full"):
        buffer.add(a_chunk().encode())
    assert buffer.stats()["games"] == 0
    assert open_buffer(tmp_path).add(a_chunk().encode()).accepted == 2


def test_while_chunks_cannot_be_stored_those_who_ask_are_told_so_for_a_second(tmp_path: Path) -> None:
    now = [0.0]
    shelf = FullShelf()
    buffer = open_buffer(tmp_path, objects=shelf, clock=lambda: now[0])
    assert buffer.admission().pause_seconds == 0.0
    with pytest.raises(TamenError):
        buffer.add(a_chunk().encode())
    with pytest.raises(TamenError, match="the object store is full"):
        buffer.admission()
    now[0] = 1.0
    assert buffer.admission().accepted == 0
    shelf.put = lambda data: data
    now[0] = 0.5
    assert buffer.add(a_chunk().encode()).accepted == 2
    assert buffer.admission().accepted == 0


def draws(buffer: ReplayBuffer, count: int) -> list[Sample]:
    samples = [buffer.sample(16) for _ in range(count)]
    return [sample for sample in samples if isinstance(sample, Sample)]


def equal_draws(one: Sequence[Sample], other: Sequence[Sample]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.chunk_ids, b.chunk_ids)
        and np.array_equal(a.rows, b.rows)
        and (a.draws, a.sampled_rows) == (b.draws, b.sampled_rows)
        for a, b in zip(one, other, strict=True)
    )


def test_draws_go_on_from_the_counters_of_a_checkpoint(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    fill(buffer, 4)
    before = draws(buffer, 5)
    assert len(before) == 5
    assert not np.array_equal(before[0].rows, before[1].rows)

    again = open_buffer(tmp_path)
    again.restore_counters(before[1].draws, before[1].sampled_rows)
    assert equal_draws(draws(again, 3), before[2:])


def test_a_replay_that_restarts_alone_remembers_the_draws_before_its_last_chunk(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    fill(buffer, 4)
    draws(buffer, 3)
    fill(buffer, 1, first=4)
    draws(buffer, 2)
    stats = open_buffer(tmp_path).stats()
    assert (stats["draws"], stats["sampled_rows"]) == (3, 48)


def test_counters_of_the_ledger_count_when_it_is_newer_than_the_last_chunk(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    fill(buffer, 4)
    draws(buffer, 3)
    buffer.open_epoch(1)
    assert open_buffer(tmp_path).stats()["draws"] == 3


def test_lowered_counters_stay_lowered_after_a_restart(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    fill(buffer, 4)
    draws(buffer, 5)
    fill(buffer, 1, first=4)
    buffer.restore_counters(2, 32)
    fill(buffer, 1, first=5)
    assert open_buffer(tmp_path).stats()["draws"] == 2


def test_a_checkpoint_does_not_hold_up_a_replay_that_was_emptied(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, ReplayConfig(min_rows=3, samples_per_insert_slack_rows=100))
    buffer.restore_counters(10**6, 10**9)
    buffer.add(a_chunk(range(40)).encode())
    assert isinstance(buffer.sample(16), Sample)


def test_samples_per_insert_is_reported_once_it_was_measured(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    assert "samples_per_insert" not in buffer.stats()
    fill(buffer, 2)
    draws(buffer, 3)
    assert buffer.stats()["samples_per_insert"] == 48 / 12


@pytest.mark.parametrize("ledger", [True, False])
@pytest.mark.parametrize(("run", "game"), [("other", None), ("test", Hex(3))])
def test_a_folder_of_another_run_or_game_is_refused(
    tmp_path: Path, run: str, game: Hex | None, ledger: bool
) -> None:
    fill(open_buffer(tmp_path), 1)
    if not ledger:
        (tmp_path / "replay" / "ledger.sealed").unlink()
    with pytest.raises(DataError, match="is of run 'test' and game 'tic_tac_toe'"):
        open_buffer(tmp_path, run=run, game=game or GAME)


def test_a_folder_that_cannot_be_written_is_told_in_three_lines(tmp_path: Path) -> None:
    (tmp_path / "replay").write_text("in the way")
    with pytest.raises(TamenError, match="could not be read or written"):
        open_buffer(tmp_path)


def test_the_newest_game_can_be_shown(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    assert buffer.newest_game is None
    buffer.add(a_chunk([0, 1]).encode())
    buffer.add(a_chunk([0, 1]).encode())
    assert buffer.newest_game is not None
    assert buffer.newest_game.seq == 1


def test_an_inconsistent_buffer_is_found_out(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, CONFIG)
    fill(buffer, 2)
    (tmp_path / "replay" / "00000001.chunk").unlink()
    assert buffer.check_valid() == ["chunks [0, 1] are held, [0] are on disk"]
