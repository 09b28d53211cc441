"""Both seats of a game are environments: each has its own rewards, and what goes wrong is told once."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actors.environments import environment_spec, open_environments
from actors.rollout import EnvironmentGroup
from actors.unrolls import Unrolls
from configs.schema import RolloutConfig
from core.errors import TamenError
from core.messages import Reply, Request
from tests.actors.small_environments import Driver

STEPS = 6
Shown = dict[str, np.ndarray]


class Coins(gymnasium.Env):
    """The seats take coins in turn, one or two of them; who has more when each was asked three times has won.

    Args:
        fails_at: step of its life that raises.
        locked: whether nobody may wait.
    """

    def __init__(self, fails_at: int = -1, *, locked: bool = False) -> None:
        self.observation_space = spaces.Dict(
            {"observation": spaces.Box(0, 9, (2, 3)), "action_mask": spaces.Box(0, 1, (2, 3), np.int8)}
        )
        self.action_space = spaces.MultiDiscrete([3, 3])
        self._fails_at, self._locked = fails_at, locked
        self._calls = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Shown, dict[str, Any]]:
        super().reset(seed=seed)
        self._step, self._coins = 0, [0, 0]
        return self._shown(), {}

    def step(self, action: np.ndarray) -> tuple[Shown, float, bool, bool, dict[str, Any]]:
        self._calls += 1
        if self._calls == self._fails_at:
            raise RuntimeError("the table fell over")
        seat = self._step % 2
        assert action[seat] in (1, 2)
        assert action[1 - seat] == 0
        self._coins[seat] += int(action[seat])
        self._step += 1
        over = self._step == STEPS
        reward = float(np.sign(self._coins[0] - self._coins[1])) if over else 0.0
        return self._shown(), reward, over, False, {"end": "counted"} if over else {}

    def _shown(self) -> Shown:
        seat, over = self._step % 2, self._step == STEPS
        mask = np.zeros((2, 3), np.int8)
        if not over:
            mask[seat, 1:] = 1
            mask[1 - seat, 0] = not self._locked
        seen = [[self._coins[own], self._coins[1 - own], own] for own in (0, 1)]
        return {"observation": np.array(seen, np.float32), "action_mask": mask}


if "TamenCoins-v0" not in gymnasium.registry:
    gymnasium.register("TamenCoins-v0", entry_point=f"{__name__}:Coins")


def greedy_second(request: Request) -> Reply:
    """Take two coins in the second seat, one in the first."""
    seen = request.arrays["observation"]
    wanted = np.where(seen[:, 2:3] == 1, [[0, 0, 9]], [[0, 9, 0]])
    return Reply(
        {"policy": np.where(seen[:, 3:] > 0, wanted, -1e9).astype(np.float32), "value": seen[:, 0]}, 0
    )


def played(steps: int, *, games: int = 2, **options: Any) -> tuple[EnvironmentGroup, dict[str, np.ndarray]]:
    config = RolloutConfig(vectorization="sync", unroll_steps=7, discount=0.5, env_options=options)
    env, finished = open_environments(f"{__name__}:TamenCoins-v0", config, num_envs=games), list[Unrolls]()
    spec = environment_spec(env)
    assert spec.masked
    assert spec.seen_shape == (3,)
    group = EnvironmentGroup(env, spec, config, model="main", seed=0, finish=finished.append)
    Driver(group.play(), greedy_second).step(steps)
    group.close()
    ended = [each for unrolls in finished for each in unrolls.ended]
    assert all(each.total_reward == (1.0 if each.slot % 2 else -1.0) for each in ended)
    columns = {
        name: np.concatenate([each.columns[name] for each in finished]) for name in finished[0].columns
    }
    return group, columns


def test_each_seat_has_a_trajectory_with_its_own_rewards() -> None:
    group, columns = played(8)
    assert columns["observation"].shape == (4, 8, 6)
    first, second = columns["reward"][0::2], columns["reward"][1::2]
    assert (first[:, STEPS - 1] == -1).all()
    np.testing.assert_array_equal(first, -second)
    assert (first[:, : STEPS - 1] == 0).all()
    assert columns["terminated"][:, STEPS - 1].all()
    np.testing.assert_array_equal(columns["valid"].sum(axis=1), [STEPS] * 4)  # the seventh is a reset
    waits = columns["observation"][:, :STEPS, 3] == 1
    np.testing.assert_array_equal(waits[0::2], [[False, True] * 3] * 2)
    np.testing.assert_array_equal(waits[1::2], [[True, False] * 3] * 2)
    assert (columns["action"][:, :STEPS, 0][waits] == 0).all()
    assert (columns["log_prob"][:, :STEPS][waits] == 0).all()
    assert group.ends == {"counted": 2}


def test_a_fault_is_counted_once_and_drops_both_seats() -> None:
    group, columns = played(30, games=1, fails_at=9)
    assert (group.faults.total, group.set_aside) == (1, 1)
    assert group.ends["RuntimeError"] == 1
    assert group.ends["counted"] == columns["terminated"].sum() / 2
    np.testing.assert_array_equal(columns["valid"][0::2], columns["valid"][1::2])
    assert not columns["valid"].all()


def test_who_waits_needs_a_choice() -> None:
    with pytest.raises(TamenError, match="3 times in a row") as caught:
        played(30, games=1, locked=True)
    assert "forbids everything to a seat" in caught.value.why
