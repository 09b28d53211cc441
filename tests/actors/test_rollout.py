"""Every column of an unroll says what happened, as stepping the environment by hand shows."""

import math
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.vector import VectorEnv

from actors.action_sampling import log_prob
from actors.environments import environment_spec, open_environments
from actors.faults import MAX_SEED
from actors.rollout import EnvironmentGroup
from actors.unrolls import Unrolls
from configs.schema import RolloutConfig
from core.errors import TamenError
from core.messages import Reply, Request
from core.seeds import derive_seed
from tests.actors.small_environments import Driver, Network, counting

PER_ROW = ("step", "weights_version")
LIMIT = 12
CARTPOLE = {"unroll_steps": 8, "discount": 0.9, "env_options": {"max_episode_steps": LIMIT}}


def a_group(
    env: VectorEnv, finished: list[Unrolls], *, seed: int = 0, **config: Any
) -> tuple[EnvironmentGroup, Network, Driver]:
    spec = environment_spec(env)
    network = Network(spec.actions.num_policy)
    config = {"unroll_steps": 4, **config}
    group = EnvironmentGroup(
        env, spec, RolloutConfig.model_validate(config), model="main", seed=seed, finish=finished.append
    )
    return group, network, Driver(group.play(), network)


def cartpoles(vectorization: str, num_envs: int, steps: int) -> list[Unrolls]:
    finished: list[Unrolls] = []
    config = CARTPOLE | {"vectorization": vectorization}
    env = open_environments("CartPole-v1", RolloutConfig.model_validate(config), num_envs=num_envs)
    _, _, driver = a_group(env, finished, **config)
    driver.step(steps)
    return finished


def joined(finished: list[Unrolls], name: str, slot: int) -> np.ndarray:
    """Return a column of one environment over all unrolls, without what begins the next one again."""
    length = finished[0].columns["reward"].shape[1]
    return np.concatenate([unrolls.columns[name][slot, :length] for unrolls in finished])


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_every_column_is_what_a_cartpole_stepped_by_hand_gives(vectorization: str) -> None:
    finished = cartpoles(vectorization, 5, 101)
    assert len(finished) == 12
    ends = set()
    for slot in range(5):
        column = {name: joined(finished, name, slot) for name in finished[0].columns if name not in PER_ROW}
        last = finished[-1].columns["observation"][slot, -1]
        following = np.concatenate([column["observation"][1:], last[None]])
        episode, resets = np.zeros(3), False  # steps, total, discounted
        expected = []
        for t, observation in enumerate(column["observation"]):
            assert column["valid"][t] == (not resets)
            if resets:
                assert (np.abs(following[t]) <= 0.05).all()
                assert column["reward"][t] == column["discounted_return"][t] == 0
                assert not column["terminated"][t]
                assert not column["truncated"][t]
                episode, resets = np.zeros(3), False
                continue
            single = CartPoleEnv()
            single.reset(seed=0)
            single.state = observation.astype(np.float64)
            after, reward, terminated, _, _ = single.step(int(column["action"][t, 0]))
            episode = np.array([episode[0] + 1, episode[1] + reward, 0.9 * episode[2] + reward])
            assert following[t] == pytest.approx(after, abs=1e-5)
            assert column["reward"][t] == reward
            assert column["terminated"][t] == terminated
            assert column["truncated"][t] == (episode[0] == LIMIT)
            assert column["discounted_return"][t] == pytest.approx(episode[2], rel=1e-6)
            resets = bool(terminated or column["truncated"][t])
            if resets:
                ends.add("terminated" if terminated else "truncated")
                expected.append((episode[1], int(episode[0])))
        ended = [one for unrolls in finished for one in unrolls.ended if one.slot == slot]
        assert [(one.total_reward, one.steps) for one in ended] == expected
    assert ends == {"terminated", "truncated"}


def test_a_single_cartpole_by_its_seed_is_the_one_that_gymnasium_makes() -> None:
    finished = cartpoles("sync", 2, 41)
    for slot in range(2):
        single = gymnasium.make("CartPole-v1", max_episode_steps=LIMIT)
        observation, _ = single.reset(seed=reset_seed() + slot)
        resets = False
        for seen, action in zip(
            joined(finished, "observation", slot), joined(finished, "action", slot), strict=True
        ):
            assert np.array_equal(seen, observation)
            if resets:
                (observation, _), resets = single.reset(), False
            else:
                observation, _, terminated, truncated, _ = single.step(int(action[0]))
                resets = terminated or truncated


def reset_seed() -> int:
    """Return the seed of the first reset of a group whose own is 0."""
    return derive_seed(0, "reset") % MAX_SEED


def test_values_and_probabilities_are_those_of_the_network_that_acted() -> None:
    finished = cartpoles("auto", 3, 60)
    network = Network(2)
    spec = environment_spec(open_environments("CartPole-v1", RolloutConfig(), num_envs=1))
    for unrolls in finished:
        columns = unrolls.columns
        for slot in range(3):
            observation = columns["observation"][slot]
            assert np.array_equal(columns["value"][slot], network.value(observation))
            told = log_prob(network.policy(observation[:-1]), columns["action"][slot], spec.actions)
            assert columns["log_prob"][slot] == pytest.approx(told, abs=1e-6)
            logits = network.policy(observation[:1])[0].astype(float)
            slowly = logits[columns["action"][slot, 0, 0]] - math.log(np.exp(logits).sum())
            assert columns["log_prob"][slot, 0] == pytest.approx(slowly, abs=1e-6)


def test_unrolls_follow_each_other_without_a_gap() -> None:
    finished = cartpoles("auto", 3, 60)
    for before, after in pairwise(finished):
        assert np.array_equal(before.columns["observation"][:, -1], after.columns["observation"][:, 0])
        assert np.array_equal(before.columns["value"][:, -1], after.columns["value"][:, 0])
    assert [unrolls.columns["step"].tolist() for unrolls in finished[:3]] == [[0] * 3, [8] * 3, [16] * 3]


def test_rows_have_the_types_and_shapes_of_the_contract() -> None:
    columns = cartpoles("auto", 3, 20)[0].columns
    forms = {name: (str(array.dtype), array.shape) for name, array in columns.items()}

    assert forms == {
        "observation": ("float32", (3, 9, 4)),
        "action": ("int64", (3, 8, 1)),
        "log_prob": ("float32", (3, 8)),
        "value": ("float32", (3, 9)),
        "reward": ("float32", (3, 8)),
        "terminated": ("bool", (3, 8)),
        "truncated": ("bool", (3, 8)),
        "valid": ("bool", (3, 8)),
        "discounted_return": ("float32", (3, 8)),
        "step": ("int32", (3,)),
        "weights_version": ("int32", (3,)),
    }
    assert all(array.flags.c_contiguous for array in columns.values())


def test_bounded_actions_are_stored_in_the_unit_of_the_policy() -> None:
    finished: list[Unrolls] = []
    env = open_environments("Pendulum-v1", RolloutConfig(), num_envs=2)
    _, _, driver = a_group(env, finished)
    driver.step(30)
    for unrolls in finished:
        for slot in range(2):
            c, s, speed = unrolls.columns["observation"][slot, 0].astype(float)
            torque = np.clip(2 * unrolls.columns["action"][slot, 0, 0], -2, 2)
            cost = math.atan2(s, c) ** 2 + 0.1 * speed**2 + 0.001 * torque**2
            assert unrolls.columns["reward"][slot, 0] == pytest.approx(-cost, abs=1e-4)


def test_what_was_sent_for_evaluation_is_never_written_again() -> None:
    sent: list[tuple[np.ndarray, np.ndarray]] = []
    env = counting({}, {})
    finished: list[Unrolls] = []
    group, network, _ = a_group(env, finished)

    def evaluate(request: Request) -> Reply:
        array = request.arrays["observation"]
        sent.append((array, array.copy()))
        return network(request)

    Driver(group.play(), evaluate).step(30)
    assert all(np.array_equal(array, copy) for array, copy in sent)
    assert all(array.flags.c_contiguous for array, _ in sent)


def test_the_oldest_weights_that_took_part_are_told() -> None:
    finished: list[Unrolls] = []
    _, network, driver = a_group(counting({}, {}), finished)
    for version in (5, 3, 4, 6, 7, 8, 9, 10, 11):
        network.version = version
        driver.step()

    assert [unrolls.columns["weights_version"].tolist() for unrolls in finished] == [[3, 3], [7, 7]]
    assert set(network.models) == {"main"}


def test_an_evaluation_that_failed_is_asked_for_again_and_nothing_is_lost() -> None:
    finished: list[Unrolls] = []
    group, network, driver = a_group(counting({}, {}, length=9), finished)
    driver.step(6)
    network.failing = True
    driver.step()
    assert driver.requests == ()
    assert (group.set_aside, group.set_aside_cause) == (1, "the brain is away")
    network.failing = False
    driver.step(6)

    first, second = (unrolls.columns for unrolls in finished)
    assert first["observation"][0].tolist() == [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4]]
    assert second["observation"][0].tolist() == [[1, 4], [1, 5], [1, 6], [1, 7], [1, 8]]
    assert (first["step"][0], second["step"][0]) == (0, 4)


@pytest.mark.parametrize("which", ["policy", "value"])
def test_an_answer_that_is_not_finite_is_not_acted_upon(which: str) -> None:
    group, network, _ = a_group(counting({}, {}), [])

    def evaluate(request: Request) -> Reply:
        reply = network(request)
        reply.arrays[which][0] = np.nan
        return reply

    driver = Driver(group.play(), evaluate)
    driver.step()
    assert driver.requests == ()
    assert "not finite" in group.set_aside_cause
    assert group.moves == 0


@pytest.mark.parametrize("kind", ["raise", "nan", "shape"])
def test_an_episode_with_a_fault_is_dropped_and_the_others_go_on(kind: str) -> None:
    finished: list[Unrolls] = []
    group, _, driver = a_group(counting({6: kind}, {}, length=4), finished, unroll_steps=16)
    driver.step(17)
    (unrolls,) = finished

    # Calls 0 to 4 are the first episode; 5 resets; 6 fails; then an episode more, and so on.
    assert unrolls.columns["valid"].astype(int).tolist() == [
        [1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1],
    ]
    assert not unrolls.columns["truncated"].any()
    assert [(one.slot, one.total_reward, one.steps) for one in unrolls.ended] == [
        (slot, 10, 4) for slot in (0, 1, 1, 0, 1, 0)
    ]
    assert group.faults.total == group.set_aside == 1
    assert "number 0" in group.set_aside_cause


def test_a_fault_drops_the_steps_of_its_episode_that_the_unroll_has() -> None:
    finished: list[Unrolls] = []
    _, _, driver = a_group(counting({7: "nan"}, length=20), finished)
    driver.step(9)

    assert [unrolls.columns["valid"][0].tolist() for unrolls in finished] == [
        [True] * 4,
        [False, False, False, False],
    ]
    assert all(np.isfinite(array).all() for unrolls in finished for array in unrolls.columns.values())


def test_an_environment_that_always_fails_stops_the_run_with_its_traceback() -> None:
    name = "tests.actors.small_environments:TamenDoomed-v0"
    env = open_environments(name, RolloutConfig(), num_envs=2)
    _, _, driver = a_group(env, [])

    with pytest.raises(TamenError, match="TamenDoomed-v0, number 0 of 2, failed 3 times") as stopped:
        driver.step(10)
    assert "small_environments.py" in stopped.value.why
    assert stopped.value.why.endswith("RuntimeError: doomed from the start")


def test_an_environment_that_completes_episodes_in_between_may_fail_as_often_as_it_does() -> None:
    # Two steps and a reset are an episode; the fault of each fourth step is followed by a whole one.
    faults = dict.fromkeys(range(4, 400, 5), "raise")
    group, _, driver = a_group(counting(faults, length=2), [])
    driver.step(100)

    assert group.faults.total > 10


def test_steps_of_episodes_are_counted_and_resets_are_not() -> None:
    group, _, driver = a_group(counting({}, {}, length=4), [])
    driver.step(10)
    assert group.moves == 2 * 8


def everything(seed: int) -> list[np.ndarray]:
    finished: list[Unrolls] = []
    env = open_environments("CartPole-v1", RolloutConfig(), num_envs=4)
    _, _, driver = a_group(env, finished, seed=seed)
    driver.step(40)
    return [unrolls.columns[name] for unrolls in finished for name in ("observation", "action")]


def test_the_same_seed_gives_the_same_rollout_and_another_seed_another() -> None:
    first, again, other = everything(1), everything(1), everything(2)

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("steps", [0, 1, 8, 9, 13])
def test_a_group_that_is_wound_up_fills_its_unrolls_and_begins_none(steps: int) -> None:
    undisturbed, finished = cartpoles("auto", 2, 40), list[Unrolls]()
    env = open_environments("CartPole-v1", RolloutConfig.model_validate(CARTPOLE), num_envs=2)
    group, _, driver = a_group(env, finished, **CARTPOLE)
    driver.step(steps)
    assert group.in_play == (2 if steps else 0)
    group.wind_up()
    with pytest.raises(StopIteration):
        driver.step(100)

    assert (len(finished), group.in_play) == (math.ceil(steps / 8), 0)
    for one, other in zip(finished, undisturbed, strict=False):
        assert all(np.array_equal(one.columns[name], other.columns[name]) for name in one.columns)
