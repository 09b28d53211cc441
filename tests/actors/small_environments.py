"""Environments so small that what they should give can be said, and a network that costs nothing."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from actors.faults import Guard, VectorGuard
from core.errors import EvaluationError
from core.messages import Reply, Request, Steps


class Counting(gymnasium.Env):
    """Shows (episode, step), pays the number of the step, and ends after `length` steps.

    Args:
        faults: what goes wrong at which step of its life, resets counted as steps: "raise", "nan", "inf", "shape" or
            "reward".
    """

    def __init__(self, length: int = 4, faults: Mapping[int, str] | None = None) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self._length = length
        self._faults = faults or {}
        self._calls = 0
        self._episode = self._step = 0
        self.seeds: list[int | None] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.seeds.append(seed)
        self._episode, self._step = self._episode + 1, 0
        return self._seen()[0], {"episode": self._episode}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        observation, fault = self._seen()
        reward = np.nan if fault == "reward" else float(self._step)
        return observation, reward, self._step == self._length, False, {"step": self._step}

    def _seen(self) -> tuple[np.ndarray, str]:
        fault = self._faults.get(self._calls, "")
        self._calls += 1
        if fault == "raise":
            raise RuntimeError(f"call {self._calls - 1} of {type(self).__name__}")
        observation = np.array([self._episode, self._step], np.float32)
        if fault in ("nan", "inf"):
            observation[1] = float(fault)
        return (observation[:1] if fault == "shape" else observation), fault


class Doomed(Counting):
    """Cannot be reset, not even when it is made anew."""

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        raise RuntimeError("doomed from the start")


class Hanging(Counting):
    """Never comes back from its third step."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._step == 2:
            time.sleep(3600)
        return super().step(action)


class CountingVector(VectorEnv):
    """The same as one: G slots that end together with `length`, whose numbers or whole step may go wrong."""

    def __init__(
        self,
        num_envs: int = 2,
        length: int = 4,
        faults: Mapping[int, str] | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        single = Counting(length)
        self.num_envs = num_envs
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.metadata = {"autoreset_mode": autoreset_mode}
        self._length = length
        self._faults = faults or {}
        self._calls = self._episode = self._step = 0
        self.seeds: list[int | None] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.seeds.append(seed)
        self._episode, self._step = self._episode + 1, 0
        return self._seen()[0], {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        resets = self._step == self._length
        self._episode, self._step = (self._episode + 1, 0) if resets else (self._episode, self._step + 1)
        observation, fault = self._seen()
        reward = np.full(self.num_envs, float(self._step), np.float32)
        if fault == "reward":
            reward[0] = np.nan
        over = np.full(self.num_envs, self._step == self._length)
        return observation, reward, over, np.zeros(self.num_envs, bool), {}

    def _seen(self) -> tuple[np.ndarray, str]:
        fault = self._faults.get(self._calls, "")
        self._calls += 1
        if fault == "raise":
            raise RuntimeError(f"call {self._calls - 1} of all")
        observation = np.tile(np.array([self._episode, self._step], np.float32), (self.num_envs, 1))
        if fault in ("nan", "inf"):
            observation[0, 1] = float(fault)
        return (observation[:, :1] if fault == "shape" else observation), fault


class Bare(gymnasium.Env):
    """Has spaces and does nothing."""

    def __init__(self, seen: spaces.Space, done: spaces.Space) -> None:
        self.observation_space, self.action_space = seen, done


def of_spaces(seen: spaces.Space, done: spaces.Space, *, num_envs: int = 1) -> VectorEnv:
    return SyncVectorEnv([lambda: Bare(seen, done)] * num_envs)


def counting(*faults: Mapping[int, str], length: int = 4) -> VectorEnv:
    """Return a guarded environment for each of `faults`."""
    return SyncVectorEnv([lambda own=own: Guard(Counting(length, own)) for own in faults])


def guarded(**options: Any) -> VectorGuard:
    """Return guarded environments that are one."""
    return VectorGuard(CountingVector(**options), lambda: CountingVector(**options), timeout_seconds=60)


if "TamenCounting-v0" not in gymnasium.registry:
    gymnasium.register("TamenCounting-v0", entry_point=Counting)
    gymnasium.register("TamenDoomed-v0", entry_point=Doomed)
    gymnasium.register("TamenHanging-v0", entry_point=Hanging)
    gymnasium.register("TamenLimited-v0", entry_point=Counting, max_episode_steps=3)
    gymnasium.register("TamenVector-v0", entry_point=Counting, vector_entry_point=CountingVector)
    gymnasium.register(
        "TamenSameStep-v0",
        entry_point=Counting,
        vector_entry_point=lambda **options: CountingVector(
            **options, autoreset_mode=AutoresetMode.SAME_STEP
        ),
    )


class Network:
    """Says of a row what follows from its observation alone, so that it can be said again."""

    def __init__(self, num_policy: int) -> None:
        self._num_policy = num_policy
        self.version = 0
        self.failing = False
        self.models: list[str] = []

    def policy(self, observation: np.ndarray) -> np.ndarray:
        first = observation.reshape(len(observation), -1).astype(np.float32)[:, :1]
        return np.sin(first * 7 + np.arange(self._num_policy, dtype=np.float32))

    def value(self, observation: np.ndarray) -> np.ndarray:
        return observation.reshape(len(observation), -1).astype(np.float32).sum(axis=1)

    def __call__(self, request: Request) -> Reply:
        self.models.append(request.model)
        if self.failing:
            raise EvaluationError("no answer", why="the brain is away", fix="wait")
        seen = request.arrays["observation"]
        return Reply({"policy": self.policy(seen), "value": self.value(seen)}, self.version)


class Driver:
    """A group in play: `step` answers what it asks and lets it go on."""

    def __init__(self, play: Steps, evaluate: Callable[[Request], Reply]) -> None:
        self._play = play
        self._evaluate = evaluate
        self.requests = next(play)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            try:
                replies = tuple(self._evaluate(request) for request in self.requests)
            except EvaluationError as error:
                self.requests = self._play.throw(error)
            else:
                self.requests = self._play.send(replies)
