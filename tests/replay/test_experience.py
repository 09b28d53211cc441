"""Rows of environments: what a replay accepts of them, and how it counts what has no games."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import ReplayConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import DataError
from replay.buffer import LocalObjects, ReplayBuffer
from replay.experience import BoardExperience, RolloutExperience, problems_of
from replay.records import Chunk, Episodes
from replay.sampling import Sample, Wait
from tests.replay.experience import GAME, ROLLOUTS, a_chunk, a_rollout_chunk, same, with_column

ON_POLICY = ReplayConfig(
    capacity_rows=100,
    min_rows=1,
    samples_per_insert=1,
    samples_per_insert_slack_rows=6,
    sampler="fifo",
)


def open_rollouts(folder: Path, **changes: Any) -> ReplayBuffer:
    config = ON_POLICY.model_copy(update=changes)
    return ReplayBuffer(folder, config, run="test", experience=ROLLOUTS, seed=5, objects=LocalObjects())


def spoilt(name: str, value: object, place: Any = 0) -> Callable[[], Chunk]:
    def chunk() -> Chunk:
        column = a_rollout_chunk().columns[name].copy()
        column[place] = value
        return with_column(a_rollout_chunk(), name, column)

    return chunk


def with_episodes(**changes: np.ndarray) -> Callable[[], Chunk]:
    return lambda: replace(a_rollout_chunk(), episodes=replace(a_rollout_chunk().episodes, **changes))


def without_column(name: str) -> Chunk:
    chunk = a_rollout_chunk()
    return replace(chunk, columns={key: column for key, column in chunk.columns.items() if key != name})


def test_a_sound_chunk_comes_back_as_it_was() -> None:
    chunk = a_rollout_chunk(7)
    read = Chunk.decode(chunk.encode())
    assert problems_of(read, ROLLOUTS) == []
    assert same(dict(read.columns), dict(chunk.columns))
    assert (read.seqs, read.num_games) == ([7, 8, 9], 1)
    assert read.episodes.total_reward.tolist() == [12.5]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (spoilt("observation", np.nan), "observation is not finite"),
        (spoilt("reward", np.inf), "reward is not finite"),
        (spoilt("value", np.nan), "value is not finite"),
        (spoilt("log_prob", 0.5), "log_prob reaches from"),
        (spoilt("action", 3), "an action is none of the environment's"),
        (spoilt("action", -1), "action reaches from -1"),
        (spoilt("weights_version", -1), "weights_version reaches from -1"),
        (spoilt("step", -1), "step reaches from -1"),
        (spoilt("seq", 5), "the seq of its rows does not rise"),
        (lambda: with_column(a_rollout_chunk(), "valid", np.ones((3, 5), bool)), "'valid' is bool[3, 5]"),
        (lambda: with_column(a_rollout_chunk(), "more", np.ones(3)), "its columns are"),
        (lambda: without_column("reward"), "its columns are"),
        (lambda: replace(a_rollout_chunk(), games=a_chunk([0, 1, 2]).games), "of another run, game"),
        (lambda: a_rollout_chunk(rows=3).only([]), "it holds no game and no row"),
        (with_episodes(seq=np.array([99], np.int64)), "an episode ended in a row that is not in the chunk"),
        (with_episodes(steps=np.array([0], np.int32)), "steps of an episode reaches from 0"),
        (with_episodes(total_reward=np.array([np.nan], np.float32)), "total_reward of an episode is not"),
        (with_episodes(seconds=np.zeros(2, np.float32)), "the arrays of its episodes differ in length"),
    ],
)
def test_a_wrong_value_is_found_and_named(make: Callable[[], Chunk], problem: str) -> None:
    found = problems_of(Chunk.decode(make().encode()), ROLLOUTS)
    assert any(problem in one for one in found), found


MASKED = EnvironmentSpec((6,), "float32", ActionSpec("categorical", (2, 3)), masked=True)


def a_masked_chunk(*, taken: tuple[int, int], forbidden: int, valid: bool = True) -> tuple[Chunk, list[str]]:
    """Return unrolls of two choices in one action, a number of whose policy one step forbids; and what is wrong."""
    experience = RolloutExperience(ROLLOUTS.name, MASKED, unroll_steps=4)
    chunk = a_rollout_chunk()
    observation = np.ones((3, 5, 6), np.float32)
    observation[1, 2, 1 + forbidden] = 0
    observation[:, -1, 1:] = 0  # of what an unroll leads to nothing is chosen
    action = np.zeros((3, 4, 2), np.int64)
    action[1, 2] = taken
    columns = {"observation": observation, "action": action, "valid": np.ones((3, 4), bool)}
    columns["valid"][1, 2] = valid
    chunk = replace(chunk, columns={**chunk.columns, **columns})
    return chunk, problems_of(chunk, experience)


@pytest.mark.parametrize(("taken", "forbidden"), [((1, 0), 1), ((0, 0), 2), ((0, 2), 4)])
def test_an_action_that_its_mask_forbids_is_found(taken: tuple[int, int], forbidden: int) -> None:
    assert a_masked_chunk(taken=taken, forbidden=forbidden)[1] == ["an action is one that its mask forbids"]
    assert a_masked_chunk(taken=taken, forbidden=forbidden, valid=False)[1] == []
    others = [number for number in range(5) if number not in (taken[0], 2 + taken[1])]
    assert all(a_masked_chunk(taken=taken, forbidden=number)[1] == [] for number in others)


def test_a_forbidden_action_is_refused_and_counted(tmp_path: Path) -> None:
    experience = RolloutExperience(ROLLOUTS.name, MASKED, unroll_steps=4)
    buffer = ReplayBuffer(
        tmp_path, ON_POLICY, run="test", experience=experience, seed=5, objects=LocalObjects()
    )
    with pytest.raises(DataError, match="its mask forbids"):
        buffer.add(a_masked_chunk(taken=(1, 0), forbidden=1)[0].encode())
    assert (buffer.stats()["refused_chunks"], buffer.stats()["rows"]) == (1, 0)
    assert buffer.add(a_masked_chunk(taken=(1, 0), forbidden=0)[0].encode()).rows == 3


def test_rows_of_one_workload_are_none_of_the_other() -> None:
    assert problems_of(a_rollout_chunk(), BoardExperience(GAME))
    assert problems_of(a_chunk(), ROLLOUTS)


def test_rows_without_games_are_counted_by_their_own_numbers(tmp_path: Path) -> None:
    buffer = open_rollouts(tmp_path)
    ack = buffer.add(a_rollout_chunk(0).encode())
    assert (ack.accepted, ack.duplicates, ack.rows) == (3, 0, 3)
    again = buffer.add(a_rollout_chunk(2).encode())
    assert (again.accepted, again.duplicates, again.rows) == (2, 1, 2)
    stats = buffer.stats()
    # The second chunk's episode ended in the row that had come before.
    assert (stats["rows"], stats["games"], stats["mean_return"], stats["returns_counted"]) == (5, 1, 12.5, 1)
    assert buffer.check_valid() == []
    assert not list((tmp_path / "games").iterdir()), "an environment has no games to write"


def test_each_row_is_drawn_once_in_the_order_of_arrival_and_then_leaves(tmp_path: Path) -> None:
    buffer = open_rollouts(tmp_path)
    for first in (0, 3, 6):
        buffer.add(a_rollout_chunk(first).encode())
    drawn = []
    for _ in range(4):
        sample = buffer.sample(2)
        assert isinstance(sample, Sample)
        drawn += list(zip(sample.chunk_ids.tolist(), sample.rows.tolist(), strict=True))
    assert drawn == [(chunk, row) for chunk in range(3) for row in range(3)][:8]
    assert isinstance(buffer.sample(2), Wait)
    assert buffer.live_chunks().tolist() == [2]
    assert buffer.check_valid() == []


def test_what_was_drawn_is_not_drawn_again_by_a_replay_that_was_killed(tmp_path: Path) -> None:
    buffer = open_rollouts(tmp_path)
    buffer.add(a_rollout_chunk(0).encode())
    first = buffer.sample(2)
    assert isinstance(first, Sample)
    again = open_rollouts(tmp_path)
    again.restore_counters(0, 0)  # a learner that knows of no draw
    again.add(a_rollout_chunk(3).encode())
    second = again.sample(2)
    assert isinstance(second, Sample)
    assert (second.chunk_ids.tolist(), second.rows.tolist()) == ([0, 1], [2, 0])


def test_what_is_not_persisted_leaves_no_files_and_numbers_no_chunk_twice(tmp_path: Path) -> None:
    buffer = open_rollouts(tmp_path, persisted=False)
    buffer.add(a_rollout_chunk(0).encode())
    assert not list((tmp_path / "replay").glob("*.chunk"))
    assert buffer.check_valid() == []
    assert isinstance(buffer.sample(2), Sample)
    again = open_rollouts(tmp_path, persisted=False)
    assert again.stats()["rows"] == 0
    again.add(a_rollout_chunk(3).encode())
    assert again.live_chunks()[0] > buffer.live_chunks()[0]
    assert again.open_epoch(0) == 1


def test_a_damaged_ledger_of_what_is_not_persisted_gives_no_number_out_twice(tmp_path: Path) -> None:
    numbers, epochs = [], []
    for _ in range(3):
        buffer = open_rollouts(tmp_path, persisted=False)
        epochs.append(buffer.open_epoch(0))
        buffer.add(a_rollout_chunk(0).encode())
        numbers.append(int(buffer.live_chunks()[-1]))
        ledger = tmp_path / "replay" / "ledger.sealed"
        ledger.write_bytes(ledger.read_bytes()[:-1])
        time.sleep(0.002)
    assert numbers == sorted(set(numbers))
    assert epochs[1] > epochs[0]


def test_bytes_bound_the_window_too(tmp_path: Path) -> None:
    one = len(a_rollout_chunk(0).encode())
    buffer = open_rollouts(tmp_path, sampler="uniform", capacity_bytes=int(2.5 * one))
    for first in range(0, 15, 3):
        buffer.add(a_rollout_chunk(first).encode())
        assert buffer.stats()["bytes"] <= 2.5 * one
    assert buffer.stats()["chunks"] == 2
    assert buffer.check_valid() == []


def test_rows_that_nobody_used_in_time_are_counted(tmp_path: Path) -> None:
    buffer = open_rollouts(tmp_path, capacity_rows=6)
    for first in range(0, 15, 3):
        buffer.add(a_rollout_chunk(first).encode())
    assert buffer.stats()["rows"] == 6
    assert buffer.stats()["rows_unused"] == 9


def test_an_environments_chunk_does_not_fit_another(tmp_path: Path) -> None:
    chunk = replace(a_rollout_chunk(), game="gym:Other-v0")
    with pytest.raises(DataError, match="is of run 'test' and game 'gym:Other-v0'"):
        open_rollouts(tmp_path).add(chunk.encode())


def test_no_episodes_are_nothing() -> None:
    assert (len(Episodes.none()), Episodes.none().check_valid()) == (0, [])
