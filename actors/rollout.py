"""Rollouts: groups of environments that one network leads, endless until wound up, recorded as unrolls.

Shapes: `G` environments of a group, `T` steps of an unroll, `P` numbers of a policy.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from actors.action_sampling import sample
from actors.environments import action_writer, observation_reader
from actors.faults import CUT, END, FAULT, MAX_SEED, FaultCount, close_environments, representable
from actors.unrolls import Ended, Recording, Unrolls
from configs.schema import RolloutConfig
from core.environments import EnvironmentSpec
from core.errors import EvaluationError
from core.messages import Reply, Request, Steps
from core.seeds import derive_rng, derive_seed

_MOST_WORDS = 16
"""By which ends are told apart; they come from the environment, and each is a series of a metric."""


class EnvironmentGroup:
    """G environments in lockstep; after every T steps their unrolls go to `finish`, until `wind_up`.

    Where an environment failed, the part of its episode that is in the present unroll becomes invalid, and the episode
    does not count; parts that earlier unrolls carried were steps like others.

    Args:
        env: the environments, as `actors.environments.open_environments` gives them.
        spec: what the network knows of them.
        config: steps of an unroll, and the discount.
        model: name of the model that is asked.
        seed: from which the environments' resets and the choice of actions derive.
        finish: called with the G unrolls.

    Attributes:
        moves: steps of episodes so far.
        set_aside: episodes that a fault of their environment cut, and evaluations that failed or were of no use.
        set_aside_cause: why, of the last of them.
        faults: of the environments.
        ends: of episodes, counted by how: in the environment's own words (see `actors.faults`), else "terminated" or
            "truncated"; of those that a fault cut, by the fault's kind.
        in_play: unrolls that have begun and would be lost.
    """

    def __init__(
        self,
        env: VectorEnv,
        spec: EnvironmentSpec,
        config: RolloutConfig,
        *,
        model: str,
        seed: int,
        finish: Callable[[Unrolls], None],
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._env = env
        self._spec = spec
        self._config = config
        self._model = model
        self._reset_seed = derive_seed(seed, "reset") % MAX_SEED
        self._rng = derive_rng(seed, "actions")
        self._finish = finish
        self._clock = clock
        self._observed = observation_reader(env)
        self._acted = action_writer(env)
        self._in_play = _InPlay(env.num_envs, config.discount, clock())
        self.moves = 0
        self.set_aside = 0
        self.set_aside_cause = ""
        self.in_play = 0
        self._winding_up = False
        self.faults = FaultCount(env)
        self.ends: Counter[str] = Counter()

    def wind_up(self) -> None:
        """Begin no more unrolls; `play` ends with those that are in play. Any thread may call."""
        self._winding_up = True

    def play(self) -> Steps[None]:
        """Step until wound up: have the present observations evaluated, act, and hand over what is full.

        A step without requests tells that an evaluation came to nothing; what is sent for it is ignored. The
        environments have not moved meanwhile, and the same is asked again.

        Raises:
            TamenError: when one environment fails again and again.
        """
        observation, _ = self._env.reset(seed=self._reset_seed)
        unroll = self._begin(self._observed(observation), steps_before=0)
        while True:
            try:
                (reply,) = yield (Request(self._model, {"observation": unroll.present}),)
                policy, value = usable(reply)
            except EvaluationError as error:
                self._set_aside(error.why)
                yield ()
                continue
            unroll.evaluated(value, reply.weights_version)
            if unroll.full:
                self._finish(unroll.rows())
                unroll = self._begin(unroll.present, steps_before=unroll.steps_after)
                unroll.evaluated(value, reply.weights_version)
                self.in_play = 0
            if self._winding_up and not self.in_play:
                return
            self._step(unroll, policy)
            self.in_play = self._env.num_envs

    def close(self) -> None:
        """Close the environments: there will be no more steps."""
        close_environments(self._env)

    def _begin(self, first: np.ndarray, *, steps_before: int) -> Recording:
        return Recording(
            self._spec,
            num_steps=self._config.unroll_steps,
            num_envs=self._env.num_envs,
            first=first,
            steps_before=steps_before,
        )

    def _step(self, unroll: Recording, policy: np.ndarray) -> None:
        """Act, and record what came of it."""
        t = unroll.t
        action, log_prob = sample(policy, self._spec.actions, self._rng)
        observation, reward, terminated, truncated, infos = self._env.step(self._acted(action))
        now, over = self._clock(), terminated | truncated
        valid = self._in_play.step(reward, over, now)
        unroll.action[t] = action
        unroll.log_prob[t] = log_prob
        unroll.reward[t] = reward
        unroll.terminated[t] = terminated
        unroll.truncated[t] = truncated
        unroll.valid[t] = valid
        unroll.discounted_return[t] = self._in_play.discounted_return
        unroll.observation[t + 1] = self._observed(observation)
        unroll.t = t + 1
        self.moves += int(np.count_nonzero(valid))
        if FAULT in infos:
            self._drop_faulty_episodes(unroll, infos[FAULT], _words(infos, len(over)))
        if over.any():
            words = _words(infos, len(over))
            for slot in np.flatnonzero(unroll.valid[t] & over).tolist():
                unroll.ended.append(self._in_play.ended(slot, now))
                self.faults.completed(slot)
                said = words[slot]
                self._count_end(("terminated" if terminated[slot] else "truncated") if said is None else said)

    def _drop_faulty_episodes(
        self, unroll: Recording, reasons: np.ndarray, words: Sequence[str | None]
    ) -> None:
        for slot, reason in enumerate(reasons):
            if reason is not None:
                begun = max(0, unroll.t - int(self._in_play.steps[slot]))
                unroll.valid[begun : unroll.t, slot] = False
                if reason != CUT:
                    self._count_end(words[slot] or "fault")
                    self.faults.note(slot, reason)
                    self._set_aside(self.faults.last)

    def _count_end(self, word: str) -> None:
        if word == CUT:
            return
        known = word in self.ends or len(self.ends) < _MOST_WORDS
        self.ends[word if known else "other"] += 1

    def _set_aside(self, cause: str) -> None:
        self.set_aside += 1
        self.set_aside_cause = cause


def _words(infos: Mapping[str, Any], num_envs: int) -> Sequence[str | None]:
    """Return what environments say of how their episodes ended."""
    return infos[END] if END in infos else (None,) * num_envs


class _InPlay:
    """The episode that each of G environments is in.

    Attributes:
        steps: int64 [G], made so far.
        total_reward, discounted_return: float64 [G], of them.
        began: float64 [G], by the clock.
        over: bool [G], whether the last step ended it, so that the next only resets.
    """

    def __init__(self, num_envs: int, discount: float, now: float) -> None:
        self._discount = discount
        self.steps = np.zeros(num_envs, np.int64)
        self.total_reward = np.zeros(num_envs)
        self.discounted_return = np.zeros(num_envs)
        self.began = np.full(num_envs, now)
        self.over = np.zeros(num_envs, bool)

    def step(self, reward: np.ndarray, over: np.ndarray, now: float) -> np.ndarray:
        """Take in a step; return bool [G], where it was one of an episode and no reset."""
        resets = self.over
        self.steps += 1
        self.total_reward += reward
        self.discounted_return *= self._discount
        self.discounted_return += reward
        if resets.any():
            for sums in (self.steps, self.total_reward, self.discounted_return):
                sums[resets] = 0
            self.began[resets] = now
        self.over = over
        return ~resets

    def ended(self, slot: int, now: float) -> Ended:
        """Tell of an episode that is over."""
        seconds = now - float(self.began[slot])
        return Ended(slot, float(self.total_reward[slot]), int(self.steps[slot]), seconds)


def usable(reply: Reply) -> tuple[np.ndarray, np.ndarray]:
    """Return policy [G, P] and value [G] of a reply. Raises EvaluationError when a number is not finite."""
    policy, value = reply.arrays["policy"], reply.arrays["value"]
    if not (representable(policy) and representable(value)):
        raise EvaluationError(
            "what the network answers is of no use",
            why=f"weights version {reply.weights_version} gives numbers that are not finite",
            fix="look at the learner's losses; resume from an earlier checkpoint if they are not finite either",
        )
    return policy, value
