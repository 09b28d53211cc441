"""One answer to the learner has all that it needs to make batches."""

import os
from pathlib import Path

import numpy as np
import pytest

from configs.schema import ReplayConfig
from core.errors import UsageError
from replay.buffer import ReplayBuffer
from replay.drawing import MAX_CHUNKS, Drawn, draw
from replay.sampling import Wait
from tests.replay.experience import CONFIG, a_chunk, open_buffer

ROWS = 5


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def filled(folder: Path, chunks: int, config: ReplayConfig = CONFIG) -> ReplayBuffer:
    """Return a replay that was given chunks of one game, three rows each."""
    replay = open_buffer(folder, config)
    for seq in range(chunks):
        replay.add(a_chunk([seq]).encode())
    return replay


def ask(replay: ReplayBuffer, *, most: int = 1, newest_held: int = -1) -> Drawn:
    return draw(replay, ROWS, most=most, newest_held=newest_held)


def numbers(drawn: Drawn) -> list[int]:
    return [number for number, _ in drawn.chunks]


def test_the_chunks_that_the_learner_does_not_hold_come_with_the_samples(tmp_path: Path) -> None:
    replay = filled(tmp_path, 5)
    for newest_held in range(-1, 6):
        drawn = ask(replay, newest_held=newest_held)
        assert numbers(drawn) == list(range(newest_held + 1, 5))
        assert [handle for _, handle in drawn.chunks] == replay.handles(numbers(drawn))
        assert (len(drawn.samples), drawn.oldest, drawn.wait) == (1, 0, None)


def test_samples_of_one_answer_are_those_of_as_many_questions(tmp_path: Path) -> None:
    together = ask(filled(tmp_path / "a", 5), most=3).samples
    replay = filled(tmp_path / "b", 5)
    apart = [replay.sample(ROWS) for _ in range(3)]

    assert [sample.draws for sample in together] == [1, 2, 3]
    for one, other in zip(together, apart, strict=True):
        assert not isinstance(other, Wait)
        assert np.array_equal(one.chunk_ids, other.chunk_ids)
        assert np.array_equal(one.rows, other.rows)
        assert one.sampled_rows == other.sampled_rows


def test_a_learner_that_lacks_many_chunks_is_given_them_before_its_samples(tmp_path: Path) -> None:
    replay = filled(tmp_path, 2 * MAX_CHUNKS + 1)
    held: list[int] = []
    for _ in range(2):
        drawn = ask(replay, newest_held=held[-1] if held else -1)
        assert (drawn.samples, drawn.wait, len(drawn.chunks)) == ((), None, MAX_CHUNKS)
        held += numbers(drawn)
    last = ask(replay, newest_held=held[-1])
    assert len(last.samples) == 1
    assert held + numbers(last) == replay.live_chunks().tolist()
    assert replay.stats()["draws"] == 1


def test_the_oldest_chunk_tells_which_have_left(tmp_path: Path) -> None:
    replay = filled(tmp_path, 6, ReplayConfig(min_rows=6, capacity_rows=6, samples_per_insert=100))
    drawn = ask(replay, newest_held=3)
    assert (drawn.oldest, numbers(drawn)) == (4, [4, 5])
    assert set(drawn.samples[0].chunk_ids.tolist()) <= {4, 5}


def test_an_answer_without_samples_tells_why_and_brings_the_chunks_all_the_same(tmp_path: Path) -> None:
    drawn = ask(filled(tmp_path, 1))
    assert drawn.samples == ()
    assert isinstance(drawn.wait, Wait)
    assert drawn.wait.reason == "3 of 4 rows have come"
    assert numbers(drawn) == [0]


def test_an_empty_replay_has_nothing_to_give_and_all_has_left_it(tmp_path: Path) -> None:
    drawn = ask(open_buffer(tmp_path), newest_held=7)
    assert (drawn.samples, drawn.chunks, drawn.oldest) == ((), (), 8)
    assert isinstance(drawn.wait, Wait)


def test_as_many_samples_come_as_the_rate_limiter_allows(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"samples_per_insert": 1.0, "samples_per_insert_slack_rows": 10})
    replay = filled(tmp_path, 3, config)  # credit 5 rows, and a slack of 10
    drawn = ask(replay, most=8)
    assert (len(drawn.samples), drawn.wait) == (3, None)
    assert isinstance(ask(replay, most=8, newest_held=2).wait, Wait)


def test_a_sample_that_may_never_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can never be drawn"):
        draw(filled(tmp_path, 3), 10**9, most=1, newest_held=-1)
