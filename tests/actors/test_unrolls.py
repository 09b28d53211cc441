"""Unrolls leave as chunks that the replay takes, numbered without a gap."""

import numpy as np

from actors.environments import environment_spec, open_environments
from actors.rollout import EnvironmentGroup
from actors.unrolls import UnrollHarvest
from configs.schema import RolloutConfig
from core.metrics import NoMetrics
from replay.experience import RolloutExperience, problems_of
from replay.records import Chunk
from tests.actors.small_environments import Driver, Network, counting

CONFIG = RolloutConfig(unroll_steps=4)


def a_harvest() -> UnrollHarvest:
    return UnrollHarvest(run="a run", game="gym:Counting", actor=2, epoch=1, metrics=NoMetrics())


def a_group(harvest: UnrollHarvest, *, length: int = 6) -> Driver:
    env = counting({}, {}, length=length)
    spec = environment_spec(env)
    group = EnvironmentGroup(env, spec, CONFIG, model="main", seed=0, finish=harvest.add)
    return Driver(group.play(), Network(spec.actions.num_policy))


def test_nothing_waits_before_an_unroll_is_full() -> None:
    harvest = a_harvest()
    a_group(harvest).step(4)

    assert harvest.take_chunk() is None
    assert harvest.rows_waiting == harvest.games_waiting == 0


def test_rows_are_numbered_in_the_order_in_which_they_leave() -> None:
    harvest = a_harvest()
    one, other = a_group(harvest), a_group(harvest)
    one.step(5)
    other.step(9)
    assert harvest.rows_waiting == harvest.games_waiting == 6
    first = harvest.take_chunk()
    assert harvest.rows_waiting == 0
    one.step(4)
    second = harvest.take_chunk()

    assert first is not None
    assert second is not None
    assert first.columns["seq"].tolist() == list(range(6))
    assert first.columns["step"].tolist() == [0, 0, 0, 0, 4, 4]
    assert second.columns["seq"].tolist() == [6, 7]
    assert (first.run, first.game, first.actor, first.epoch) == ("a run", "gym:Counting", 2, 1)


def test_an_episode_is_told_with_the_row_that_it_ended_in() -> None:
    harvest = a_harvest()
    driver = a_group(harvest, length=6)
    driver.step(5)
    harvest.take_chunk()
    driver.step(12)
    chunk = harvest.take_chunk()

    assert chunk is not None
    # Steps 4 to 15 of two environments: episodes of 6 steps and a reset end at steps 5 and 12.
    assert chunk.episodes.seq.tolist() == [2, 3, 6, 7]
    assert chunk.episodes.total_reward.tolist() == [21] * 4
    assert chunk.episodes.steps.tolist() == [6] * 4
    assert (chunk.episodes.seconds > 0).all()
    ends = chunk.columns["terminated"].any(axis=1)
    assert chunk.columns["seq"][ends].tolist() == chunk.episodes.seq.tolist()


def test_a_chunk_is_what_the_replay_expects_and_survives_the_way_there() -> None:
    harvest = a_harvest()
    config = RolloutConfig(unroll_steps=4)
    env = open_environments("CartPole-v1", config, num_envs=3)
    spec = environment_spec(env)
    group = EnvironmentGroup(env, spec, config, model="main", seed=0, finish=harvest.add)
    Driver(group.play(), Network(spec.actions.num_policy)).step(100)
    chunk = harvest.take_chunk()
    assert chunk is not None
    experience = RolloutExperience("gym:Counting", spec, unroll_steps=4)

    assert problems_of(chunk, experience) == []
    again = Chunk.decode(chunk.encode())
    assert all(np.array_equal(again.columns[name], column) for name, column in chunk.columns.items())
    assert len(again.episodes) == len(chunk.episodes) > 0


def test_episodes_and_their_steps_are_counted() -> None:
    harvest = a_harvest()
    a_group(harvest, length=6).step(17)

    assert harvest.games == 4
    assert harvest.plies == 4 * 6, "steps of episodes that go on are not among them"
