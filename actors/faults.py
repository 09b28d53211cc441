"""Environments that fail: the episode is dropped, the others go on; three in a row of one environment stop the run.

Shapes: `G` environments that are stepped together.

A fault is an exception, an observation of another shape than the environment's space, or a number that float32 cannot
hold: NaN, infinite, too large. It is told as a step that truncates the episode, with the reason in `infos[FAULT]`.

An environment may say in a word how an episode ended, as `infos["end"]` of its last step; `infos[END]` has that word.
"""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorWrapper

from core.errors import TamenError
from core.seeds import derive_seed
from engines.errors import EngineFault

FAULT = "tamen_fault"
"""Key of a step's infos: an array [G] of reasons, None where all is well; `CUT` where only others are to blame."""
CUT = ""
END = "tamen_end"
"""Key of a step's infos: an array [G] of words, None where no episode ended or nobody says how, `CUT` where another
says it."""

MAX_SEED = 2**31
FAULTS_IN_A_ROW = 3
USELESS_STEPS_OF_A_FAULT = 1000
"""What a slot gives may stay of no use until its environment resets itself; so many steps of it are one more fault."""

_LONGEST_WORD = 40
_END_SECONDS = 5.0
"""How long processes that are told to end may take before they are killed."""
_TRACEBACK_LINES = 12
_TRACEBACK_CHARACTERS = 4000
_LARGEST = np.float64(np.finfo(np.float32).max)

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
"""What `VectorEnv.step` returns: observations [G, …], rewards, terminated, truncated [G], infos."""


class FaultCount:
    """Counts the faults of G environments.

    Attributes:
        total: so far.
        last: which environment had the last of them, and the reason; "" before any.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._name = env.spec.id if env.spec is not None else repr(env)
        self._in_a_row = [0] * env.num_envs
        self.total = 0
        self.last = ""

    def note(self, slot: int, reason: str) -> None:
        """Count a fault of one environment.

        Raises:
            TamenError: at the third without an episode that it completed in between.
        """
        self.total += 1
        self.last = f"{self._name}, number {slot}: {reason}"
        self._in_a_row[slot] += 1
        if self._in_a_row[slot] >= FAULTS_IN_A_ROW:
            raise TamenError(
                f"environment {self._name}, number {slot} of {len(self._in_a_row)},"
                f" failed {FAULTS_IN_A_ROW} times in a row",
                why=reason,
                fix="mend the environment; stepping it alone with gymnasium.make should show the same",
            )

    def completed(self, slot: int) -> None:
        """Note that an environment completed an episode."""
        self._in_a_row[slot] = 0


class Guard(gymnasium.Wrapper):
    """One environment, whose faults are steps that truncate.

    A reset that fails is told by the step that follows it; meanwhile the environment has been made anew.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        self._shape, self._dtype = space.shape, space.dtype
        self._reason: str | None = None
        self._kind = ""
        self._seed = 0
        self._next_seed: int | None = None
        self._times_made_anew = 0

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._reason is None:
            try:
                observation, reward, terminated, truncated, infos = self.env.step(action)
                return (
                    self._checked(observation),
                    _checked_reward(reward),
                    bool(terminated),
                    bool(truncated),
                    {END: str(infos["end"])[:_LONGEST_WORD]} if "end" in infos else {},
                )
            except Exception as error:
                self._note(error)
        infos, self._reason = {FAULT: self._reason, END: self._kind}, None
        return self._nothing(), 0.0, False, True, infos

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._reason = None
        if seed is None:
            seed = self._next_seed
        else:
            self._seed = seed
        self._next_seed = None
        try:
            observation, _ = self.env.reset(seed=seed, options=options)
            return self._checked(observation), {}
        except Exception as error:
            self._note(error)
        self._make_anew()
        return self._nothing(), {}

    def _note(self, error: Exception) -> None:
        self._reason = told(error)
        self._kind = error.kind if isinstance(error, EngineFault) else type(error).__name__

    def _checked(self, observation: Any) -> np.ndarray:
        array = np.asarray(observation)
        if array.shape != self._shape:
            raise _UnusableError(f"an observation of shape {array.shape}, its space has {self._shape}")
        if not representable(array):
            raise _UnusableError(f"an observation with {_example(array)}")
        return array.astype(self._dtype, casting="same_kind", copy=False)

    def _make_anew(self) -> None:
        self._times_made_anew += 1
        self._next_seed = derive_seed(self._seed, "made anew", self._times_made_anew) % MAX_SEED
        spec = self.env.spec
        if spec is None:
            return
        with suppress(Exception):  # the old one stays, and its next reset tells what is wrong
            old, self.env = self.env, gymnasium.make(spec)
            old.close()

    def _nothing(self) -> np.ndarray:
        return np.zeros(self._shape or (), self._dtype)


class VectorGuard(VectorWrapper):
    """Environments that are stepped as one, whose faults are steps that truncate.

    A slot that gave numbers of no use is out until its environment begins another episode by itself, for nobody else
    can reset it alone: it is truncated at every step. An exception drops the episodes of all slots, and the next step
    opens the environments anew.

    Args:
        env: the environments, in NEXT_STEP mode.
        reopen: makes them anew.
        timeout_seconds: for a step or a reset of environments in processes of their own; others cannot be left alone.
    """

    def __init__(self, env: VectorEnv, reopen: Callable[[], VectorEnv], *, timeout_seconds: float) -> None:
        super().__init__(env)
        self._reopen = reopen
        self._timeout_seconds = timeout_seconds
        self._shape = (env.num_envs, *(env.single_observation_space.shape or ()))
        self._seed = 0
        self._times_opened_anew = 0
        self._reason: str | None = None
        self._lost = False
        self._out = np.zeros(env.num_envs, bool)
        self._useless_steps = np.zeros(env.num_envs, np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._reason = None
        self._out[:] = False
        self._useless_steps[:] = 0
        self._seed = self._seed if seed is None else seed
        try:
            if self._lost:
                close_environments(self.env)
                self.env = self._reopen()
                self._lost = False
            observation = self._checked(self._reset(seed, options))
            if not representable(observation):
                raise _UnusableError(f"an observation with {_example(observation)}")
            return observation, {}
        except Exception as error:
            self._reason, self._lost = told(error), True
            return self._nothing(), {}

    def step(self, actions: Any) -> Outcome:
        if self._lost:
            return self._step_that_reopens()
        if self._reason is not None:
            return self._all_lost(self._reason)
        try:
            observation, reward, terminated, truncated, infos = self._step(actions)
            observation = self._checked(observation)
        except TimeoutError as error:
            return self._all_lost(told(error), self._silent())
        except Exception as error:
            return self._all_lost(told(error))
        infos = {key: infos[key] for key in (FAULT, END) if key in infos}
        outcome = (observation, reward, terminated, truncated, infos)
        if representable(observation) and representable(reward) and not self._out.any():
            return outcome
        return self._without_slots_that_are_out(*outcome)

    def close(self, **_: Any) -> None:
        """Close the environments, whatever they are at; see `close_environments`."""
        close_environments(self.env)

    def _reset(self, seed: int | None, options: dict[str, Any] | None) -> Any:
        if not isinstance(self.env, AsyncVectorEnv):
            return self.env.reset(seed=seed, options=options)[0]
        self.env.reset_async(seed=seed, options=options)
        return self.env.reset_wait(timeout=self._timeout_seconds)[0]

    def _step(self, actions: Any) -> Outcome:
        if not isinstance(self.env, AsyncVectorEnv):
            return self.env.step(actions)
        self.env.step_async(actions)
        return self.env.step_wait(timeout=self._timeout_seconds)

    def _without_slots_that_are_out(
        self,
        observation: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        infos: dict[str, Any],
    ) -> Outcome:
        useful = _fits(observation.reshape(len(reward), -1)).all(axis=1) & _fits(reward)
        self._useless_steps += ~useful
        reasons = infos.get(FAULT, np.full(len(reward), None, object))
        for slot in np.flatnonzero(~useful & (self._useless_steps % USELESS_STEPS_OF_A_FAULT == 1)):
            reasons[slot] = _complaint(observation[slot], reward[slot])
        out = self._out | ~useful
        self._out = out & ~(terminated | truncated)
        self._useless_steps[~self._out] = 0
        observation = observation.copy()
        observation[~useful] = 0
        return (
            observation,
            np.where(out, 0, reward),
            terminated & ~out,
            truncated | out,
            infos | {FAULT: reasons},
        )

    def _step_that_reopens(self) -> Outcome:
        self._times_opened_anew += 1
        seed = derive_seed(self._seed, "opened anew", self._times_opened_anew) % MAX_SEED
        observation, _ = self.reset(seed=seed)
        if self._reason is not None:
            return self._all_lost(self._reason)
        G = self.num_envs
        return observation, np.zeros(G), np.zeros(G, bool), np.zeros(G, bool), {}

    def _silent(self) -> np.ndarray:
        """Return bool [G], whose processes have not answered."""
        assert isinstance(self.env, AsyncVectorEnv)
        return np.array([not pipe.poll(0) for pipe in self.env.parent_pipes])

    def _all_lost(self, reason: str, guilty: np.ndarray | None = None) -> Outcome:
        """Cut all episodes; of the faults that did it, all are told, or those of the `guilty` [G]."""
        self._lost = True
        G = self.num_envs
        reasons = np.full(G, reason, object)
        if guilty is not None:
            reasons[~guilty] = CUT
        return (
            self._nothing(),
            np.zeros(G),
            np.zeros(G, bool),
            np.ones(G, bool),
            {FAULT: reasons},
        )

    def _checked(self, observation: Any) -> np.ndarray:
        array = np.asarray(observation)
        if array.shape != self._shape:
            raise _UnusableError(f"observations of shape {array.shape}, their space has {self._shape}")
        return array

    def _nothing(self) -> np.ndarray:
        return np.zeros(self._shape, self.single_observation_space.dtype)


def representable(array: np.ndarray) -> bool:
    """Whether float32 can hold every number of an array."""
    if array.dtype.kind != "f":
        return True
    return bool((np.isfinite(array) if array.itemsize <= 4 else _fits(array)).all())


def told(error: Exception) -> str:
    """Return the last lines of an exception's traceback; of what is no fault of the environment's code, what it is."""
    if isinstance(error, EngineFault):
        return f"{error.what}: {error.why}; {error.fix}"
    if isinstance(error, _UnusableError):
        return str(error)
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:])[-_TRACEBACK_CHARACTERS:]


def close_environments(env: VectorEnv) -> None:
    """Close environments, also such as are past closing themselves, as when one of their processes has died."""
    inner = env.unwrapped
    if not isinstance(inner, AsyncVectorEnv):
        with suppress(Exception):
            env.close()
        return
    for process in inner.processes:
        process.terminate()
    deadline = time.monotonic() + _END_SECONDS
    for process in inner.processes:
        process.join(timeout=max(0.0, deadline - time.monotonic()))
        process.kill()
    for process in inner.processes:
        process.join(timeout=_END_SECONDS)
    inner.closed = True


class _UnusableError(Exception):
    """What an environment gave is of no use."""


def _checked_reward(reward: Any) -> float:
    number = float(reward)
    if not abs(number) <= _LARGEST:
        raise _UnusableError(f"a reward of {number}")
    return number


def _complaint(observation: np.ndarray, reward: np.floating) -> str:
    if _fits(observation).all():
        return f"a reward of {reward}"
    return f"an observation with {_example(observation)}"


def _example(array: np.ndarray) -> str:
    """Name the first number that float32 cannot hold, and where it is."""
    flat = array.ravel()
    place = int(np.argmin(_fits(flat)))
    return f"{flat[place]} at {place} of {flat.size}"


def _fits(array: np.ndarray) -> np.ndarray:
    return np.abs(array) <= _LARGEST
