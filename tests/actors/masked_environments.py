"""Environments in which not everything may be done, registered with gymnasium; who does what is forbidden fails."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Shown = dict[str, np.ndarray]


class Keys(gymnasium.Env):
    """Of six keys two or three are at hand. The last of them pays 1 while the light is on, the first while it is off.

    Args:
        empty_at: step at which no key is at hand though the episode goes on.
    """

    KEYS = 6
    STEPS = 8

    def __init__(self, empty_at: int = -1) -> None:
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(-1, 1, (1, 2), np.float64),
                "action_mask": spaces.MultiBinary(self.KEYS),
            }
        )
        self.action_space = spaces.Discrete(self.KEYS, start=10)
        self._empty_at = empty_at
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Shown, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._shown(), {}

    def step(self, action: int) -> tuple[Shown, float, bool, bool, dict[str, Any]]:
        at_hand = np.flatnonzero(self._at_hand)
        if action - 10 not in at_hand:
            raise RuntimeError(f"key {action - 10} is not at hand")
        reward = float(action - 10 == at_hand[-1 if self._light else 0])
        self._step += 1
        return self._shown(), reward, self._step == self.STEPS, False, {}

    def _shown(self) -> Shown:
        self._at_hand = np.zeros(self.KEYS, np.int8)
        self._light = bool(self.np_random.integers(2))
        if self._step not in (self.STEPS, self._empty_at):
            count = self.np_random.integers(2, 4)
            self._at_hand[self.np_random.permutation(self.KEYS)[:count]] = 1
        return {"observation": np.array([[self._light, 1.0]]), "action_mask": self._at_hand}


class TwoLocks(gymnasium.Env):
    """Two choices in one action, of 2 and of 3; only the second of the first and the first of the second are free."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {"observation": spaces.Box(0, 1, (1,)), "action_mask": spaces.Box(0, 1, (5,), np.int8)}
        )
        self.action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, **_: Any) -> tuple[Shown, dict[str, Any]]:
        return self._shown(), {}

    def step(self, action: np.ndarray) -> tuple[Shown, float, bool, bool, dict[str, Any]]:
        assert action.tolist() == [1, 0]
        return self._shown(), 1.0, False, False, {}

    def _shown(self) -> Shown:
        return {"observation": np.zeros(1, np.float32), "action_mask": np.array([0, 1, 1, 0, 0], np.int8)}


if "TamenKeys-v0" not in gymnasium.registry:
    gymnasium.register("TamenKeys-v0", entry_point=Keys)
    gymnasium.register("TamenTwoLocks-v0", entry_point=TwoLocks)
