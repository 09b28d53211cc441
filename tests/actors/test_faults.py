"""An environment that fails loses its episode; the others go on, and it is said what was wrong."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from actors.environments import open_environments
from actors.faults import CUT, FAULT, USELESS_STEPS_OF_A_FAULT, FaultCount, Guard, representable
from configs.schema import RolloutConfig
from core.errors import TamenError
from tests.actors.small_environments import Counting, counting, guarded

SAID = {
    "raise": "RuntimeError: call 2 of",
    "nan": "an observation with nan at 1 of 2",
    "inf": "an observation with inf at 1 of 2",
    "shape": "an observation of shape (1,), its space has (2,)",
    "reward": "a reward of nan",
}
KINDS = pytest.mark.parametrize("kind", SAID)


def stepped(env: VectorEnv, times: int) -> list[tuple[list, list, list, list, list]]:
    """Reset and step; return observations, rewards, terminated, truncated and reasons of each step."""
    seen, _ = env.reset(seed=3)
    outcomes = [(seen.tolist(), [], [], [], [])]
    for _ in range(times):
        seen, reward, terminated, truncated, infos = env.step(np.zeros(env.num_envs, np.int64))
        reasons = list(infos.get(FAULT, [None] * env.num_envs))
        outcomes.append((seen.tolist(), reward.tolist(), terminated.tolist(), truncated.tolist(), reasons))
    return outcomes


@KINDS
def test_a_fault_in_a_step_cuts_that_episode_alone_and_another_begins(kind: str) -> None:
    outcomes = stepped(counting({2: kind}, {}), 4)

    seen, rewards, terminated, truncated, (reason, other) = outcomes[2]
    assert (seen, rewards) == ([[0, 0], [1, 2]], [0, 2])
    assert (terminated, truncated) == ([False, False], [True, False])
    assert SAID[kind] in reason
    assert other is None
    assert [outcome[0] for outcome in outcomes[3:]] == [[[2, 0], [1, 3]], [[2, 1], [1, 4]]]
    assert outcomes[3][4] == [None, None]


@pytest.mark.parametrize("kind", ["raise", "nan", "inf", "shape"])
def test_a_fault_in_a_reset_is_told_by_the_step_that_follows(kind: str) -> None:
    outcomes = stepped(counting({0: kind}, {}), 3)

    assert outcomes[0][0] == [[0, 0], [1, 0]]
    assert outcomes[1][3] == [True, False]
    assert SAID[kind].replace("call 2", "call 0") in outcomes[1][4][0]
    assert [outcome[0][0] for outcome in outcomes[2:]] == [[2, 0], [2, 1]]


def test_a_reason_ends_with_the_traceback() -> None:
    reason = stepped(counting({2: "raise"}), 2)[2][4][0]
    assert "small_environments.py" in reason
    assert reason.endswith("RuntimeError: call 2 of Counting")


def test_an_environment_that_cannot_be_reset_is_made_anew_with_a_seed_that_can_be_told_again() -> None:
    class Fragile(Counting):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Fragile.made += 1
            self._sound = Fragile.made % 2 == 0

        def reset(self, **told: Any) -> tuple[np.ndarray, dict[str, Any]]:
            if not self._sound:
                raise RuntimeError("not so")
            return super().reset(**told)

    seeds = []
    for _ in range(2):
        spec = EnvSpec("Fragile-v0", Fragile, disable_env_checker=True)
        guard = Guard(gymnasium.make(spec))
        guard.reset(seed=9)
        assert guard.step(0)[3]
        guard.reset()
        assert not guard.step(0)[3]
        seeds += guard.unwrapped.seeds

    assert Fragile.made == 4
    assert seeds[0] == seeds[1]
    assert seeds[0] not in (None, 9)


def test_an_observation_of_a_wider_type_is_narrowed_and_of_another_kind_refused() -> None:
    class Loose(Counting):
        def step(self, action: int) -> tuple[Any, ...]:
            return ([0.5, 1.5] if action else np.array([1j, 0])), 1.0, False, False, {}

    guard = Guard(Loose())
    guard.reset(seed=0)

    assert guard.step(1)[0].dtype == np.float32
    assert "Cannot cast" in guard.step(0)[4][FAULT]


def test_a_step_that_gives_something_else_is_a_fault() -> None:
    class Old(Counting):
        def step(self, action: int) -> Any:
            return np.zeros(2, np.float32), 0.0, False, {}

    guard = Guard(Old())
    guard.reset(seed=0)
    assert "not enough values to unpack" in guard.step(0)[4][FAULT]


@pytest.mark.parametrize("kind", ["nan", "inf", "reward"])
def test_a_slot_of_a_vector_environment_is_out_until_its_next_episode(kind: str) -> None:
    outcomes = stepped(guarded(length=4, faults={2: kind}), 6)

    assert [outcome[3][0] for outcome in outcomes[1:]] == [False, True, True, True, False, False]
    assert [outcome[2] for outcome in outcomes[3:5]] == [[False, False], [False, True]]
    assert [outcome[1][0] for outcome in outcomes[1:]] == [1, 0, 0, 0, 0, 1]
    assert all(np.isfinite(outcome[0]).all() for outcome in outcomes)
    assert SAID[kind] in outcomes[2][4][0]
    assert [outcome[4] for outcome in outcomes[3:]] == [[None, None]] * 4
    assert [outcome[0][1] for outcome in outcomes] == [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4], [2, 0], [2, 1]]
    assert not any(outcome[3][1] for outcome in outcomes[1:])


def test_a_slot_that_stays_of_no_use_is_a_fault_again() -> None:
    length = 2 * USELESS_STEPS_OF_A_FAULT + 10
    outcomes = stepped(guarded(length=length, faults=dict.fromkeys(range(1, length), "nan")), length - 2)
    told = [step for step, outcome in enumerate(outcomes) if any(outcome[4])]

    assert told == [1, USELESS_STEPS_OF_A_FAULT + 1, 2 * USELESS_STEPS_OF_A_FAULT + 1]


@pytest.mark.parametrize("kind", ["raise", "shape"])
def test_a_vector_environment_that_fails_loses_all_episodes_and_is_opened_anew(kind: str) -> None:
    env = guarded(length=4, faults={2: kind})
    first = env.unwrapped
    outcomes = stepped(env, 5)

    seen, rewards, terminated, truncated, reasons = outcomes[2]
    assert (seen, rewards) == ([[0, 0]] * 2, [0, 0])
    assert (terminated, truncated) == ([False, False], [True, True])
    assert all(("call 2 of all" if kind == "raise" else "shape (2, 1)") in reason for reason in reasons)
    assert outcomes[3] == ([[1, 0]] * 2, [0, 0], [False] * 2, [False] * 2, [None] * 2)
    assert outcomes[4][:4] == ([[1, 1]] * 2, [1, 1], [False] * 2, [False] * 2)
    assert outcomes[5][3] == [True, True]
    assert env.unwrapped is not first


def test_a_vector_environment_whose_reset_fails_is_told_by_the_step_that_follows() -> None:
    env = guarded(faults={0: "raise"})
    seen, _ = env.reset(seed=1)

    assert seen.tolist() == [[0, 0], [0, 0]]
    for _ in range(4):  # it fails again whenever it is opened
        assert env.step(np.zeros(2, np.int64))[3].all()
    assert env.unwrapped.seeds[-1] not in (None, 1)


def test_a_process_that_dies_is_a_fault_of_all_and_the_environments_are_opened_anew() -> None:
    env = open_environments("CartPole-v1", RolloutConfig(vectorization="async"), num_envs=2)
    try:
        env.reset(seed=0)
        env.unwrapped.processes[1].kill()
        env.unwrapped.processes[1].join(timeout=10)
        outcomes = [env.step(np.array([0, 1])) for _ in range(3)]

        assert [outcome[3].tolist() for outcome in outcomes] == [[True, True], [False, False], [False, False]]
        assert "Error" in outcomes[0][4][FAULT][0]
        assert [outcome[1].tolist() for outcome in outcomes[1:]] == [[0, 0], [1, 1]]
    finally:
        env.close()


def test_faults_of_processes_are_told_like_those_of_this_one() -> None:
    config = RolloutConfig.model_validate({"vectorization": "async"})
    env = open_environments("tests.actors.small_environments:TamenDoomed-v0", config, num_envs=2)
    try:
        env.reset(seed=0)
        infos = env.step(np.array([0, 1]))[4]
        assert all(reason.endswith("RuntimeError: doomed from the start") for reason in infos[FAULT])
    finally:
        env.close()


def test_a_process_that_hangs_is_a_fault_and_the_environments_are_opened_anew() -> None:
    config = RolloutConfig.model_validate({"vectorization": "async", "step_timeout_seconds": 0.5})
    env = open_environments("tests.actors.small_environments:TamenHanging-v0", config, num_envs=2)
    try:
        env.reset(seed=0)
        hung = list(env.unwrapped.processes)
        outcomes = [env.step(np.array([0, 1])) for _ in range(5)]
        assert [bool(outcome[3].all()) for outcome in outcomes] == [False, False, True, False, False]
        assert "Timeout" in outcomes[2][4][FAULT][0]
        assert outcomes[2][4][FAULT].tolist()[1] != CUT, "both hang"
        assert outcomes[4][0].tolist() == [[1, 1], [1, 1]]
        assert not any(process.is_alive() for process in hung)
    finally:
        env.close()


def test_three_faults_in_a_row_of_one_environment_stop_the_run() -> None:
    count = FaultCount(open_environments("CartPole-v1", RolloutConfig(), num_envs=4))
    for slot in (2, 1, 2, 0, 1):
        count.note(slot, "it broke")
    assert (count.total, count.last) == (5, "CartPole-v1, number 1: it broke")

    with pytest.raises(TamenError, match="CartPole-v1, number 2 of 4, failed 3 times") as stopped:
        count.note(2, "Traceback\nit broke again")
    assert stopped.value.why == "Traceback\nit broke again"


def test_an_episode_that_is_completed_ends_the_row() -> None:
    count = FaultCount(counting({}))
    for _ in range(5):
        count.note(0, "it broke")
        count.note(0, "it broke")
        count.completed(0)
    assert count.total == 10


@pytest.mark.parametrize(
    ("numbers", "fits"),
    [
        (np.array([1e30, -1e30], np.float32), True),
        (np.array([1.0, np.nan], np.float32), False),
        (np.array([[-np.inf]], np.float32), False),
        (np.array([1e38], np.float64), True),
        (np.array([-1e39], np.float64), False),
        (np.array([60000.0] * 9, np.float16), True),
        (np.array([np.inf], np.float16), False),
        (np.arange(4, dtype=np.uint8), True),
        (np.zeros(0), True),
    ],
)
def test_numbers_are_representable_if_each_of_them_is(numbers: np.ndarray, fits: bool) -> None:
    assert representable(numbers) is fits
