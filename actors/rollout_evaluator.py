"""How good is it? Whole episodes with the likeliest actions, on seeds that training does not use."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from actors.action_sampling import likeliest
from actors.environments import action_writer, environment_spec, observation_reader, open_environments
from actors.faults import CUT, FAULT, MAX_SEED, FaultCount, close_environments
from actors.rollout import usable
from actors.two_seats import SeatsApart
from configs.schema import EvaluationConfig, RolloutConfig
from core.errors import EvaluationError, UsageError
from core.messages import Request, Steps
from core.ratings import Interval
from core.seeds import derive_seed
from inference_server.client import Client, drive
from search.contract import ask

POLL_SECONDS = 0.5


class Episode(NamedTuple):
    """Sum of rewards and number of steps of an episode."""

    total_reward: float
    steps: int


def play_episodes(
    env: VectorEnv, *, model: str, seed: int, episodes: int | None = None
) -> Steps[list[Episode]]:
    """Play the first episodes of each environment to their end, so that short ones count no more often than long ones.

    An episode that a fault of the environment cut is none; its environment plays another.

    Args:
        episodes: in all, as many of each environment; the first ones play the rest. None: one of each.

    Raises:
        EvaluationError: when the model cannot be asked, or what it answers is of no use.
        TamenError: when one environment fails again and again.
    """
    spec, observed, acted = environment_spec(env), observation_reader(env), action_writer(env)
    faults = FaultCount(env)
    wanted = env.num_envs if episodes is None else episodes
    left = wanted // env.num_envs + (np.arange(env.num_envs) < wanted % env.num_envs)
    played: list[Episode] = []
    total_reward, steps = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    over = np.zeros(env.num_envs, bool)
    observation, _ = env.reset(seed=seed)
    while len(played) < wanted:
        seen = np.array(observed(observation), spec.observation_dtype, order="C")
        (reply,) = yield from ask((Request(model, {"observation": seen}),))
        policy, _ = usable(reply)
        action = likeliest(policy, spec.actions)
        resets = over
        observation, reward, terminated, truncated, infos = env.step(acted(action))
        over = terminated | truncated
        total_reward = np.where(resets, 0.0, total_reward + reward)
        steps = np.where(resets, 0, steps + 1)
        reasons = infos.get(FAULT, (None,) * env.num_envs)
        for slot in np.flatnonzero(over).tolist():
            if reasons[slot] is not None:
                if reasons[slot] != CUT:
                    faults.note(slot, reasons[slot])
            elif not resets[slot]:
                faults.completed(slot)
                if left[slot]:
                    left[slot] -= 1
                    played.append(Episode(float(total_reward[slot]), int(steps[slot])))
    return played


class RolloutEvaluator:
    """Plays episodes with the newest weights, again and again while a run goes on.

    Args:
        environment: its name, as `actors.environments.open_environments` takes it.
        config: how many episodes, and how often.
        rollout: how the environments are stepped.
        client: the way to the brain.
        newest_version: version of the weights that are newest now.
        model: name that the brain knows them by; a version is asked for as "name@version".
        results_file: where results are appended, a JSON object a line: mean return with its 95 % interval, which is
            null where a single episode says nothing of it.
        seed: of the environments; every round begins with the same episodes, so that rounds compare.

    Attributes:
        rounds: that were finished.
        last_trouble: why the last round was broken off; "" once one was not.
    """

    def __init__(
        self,
        environment: str,
        config: EvaluationConfig,
        rollout: RolloutConfig,
        *,
        client: Client,
        newest_version: Callable[[], int | None],
        model: str,
        results_file: Path,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._env = _opened(environment, config, rollout) if config.episodes else None
        self._client = client
        self._newest_version = newest_version
        self._model = model
        self._results_file = results_file
        self._seed = derive_seed(seed, "evaluation") % MAX_SEED
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._evaluated = -1
        self.rounds = 0
        self.last_trouble = ""

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Evaluate whenever it is due and there are new weights, until told to stop; then close the environments."""
        try:
            self._run(should_stop)
        finally:
            if self._env is not None:
                close_environments(self._env)

    def _run(self, should_stop: Callable[[], bool]) -> None:
        due = self._clock()
        while not should_stop():
            version = self._newest_version()
            if version is None or version == self._evaluated or self._clock() < due:
                self._sleep(POLL_SECONDS)
                continue
            due = self._clock() + self._config.every_seconds
            try:
                self.evaluate(version, should_stop)
                self.last_trouble = ""
            except EvaluationError as error:  # the brain is away; the next round asks again
                self.last_trouble = f"{error.what}: {error.why}"

    def evaluate(self, version: int, should_stop: Callable[[], bool]) -> None:
        """Measure one version."""
        if self._env is not None:
            steps = play_episodes(
                self._env,
                model=f"{self._model}@{version}",
                seed=self._seed,
                episodes=self._config.episodes,
            )
            episodes = drive(steps, self._client, should_stop=should_stop)
            if episodes is None:
                return
            self._append(_line(episodes, version, round(self._clock() - self._began, 1)))
        self._evaluated = version
        self.rounds += 1

    def stats(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "evaluated_version": self._evaluated, "trouble": self.last_trouble}

    def _append(self, line: dict[str, Any]) -> None:
        with self._results_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _opened(environment: str, config: EvaluationConfig, rollout: RolloutConfig) -> VectorEnv:
    """Open as many environments as divide the episodes evenly, at most those of a group."""
    rounds = math.ceil(config.episodes / rollout.envs_per_group)
    options = {**rollout.env_options, **config.env_options}
    rollout = rollout.model_copy(update={"env_options": options})
    env = open_environments(environment, rollout, num_envs=math.ceil(config.episodes / rounds))
    if isinstance(env, SeatsApart):
        close_environments(env)
        raise UsageError(
            "a network that plays both seats cannot be evaluated",
            why="what one of them wins the other loses, however strong it is",
            fix="name another opponent for the evaluation, as in evaluation.env_options='{opponent: random}',"
            " or set evaluation.episodes=0",
        )
    return env


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Return Student's interval (1908) of the mean of independent `values`; None of fewer than two."""
    if len(values) < 2:
        return None
    reach = student_t(len(values) - 1, confidence) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values) - reach, fmean(values) + reach)


def student_t(degrees: int, confidence: float) -> float:
    """Return the t that bounds the middle `confidence` of Student's distribution, to 1e-9 of its angle."""
    low, high = 0.0, math.pi / 2  # of atan(t / sqrt(degrees)), in which the distribution is a finite sum
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_middle(middle, degrees) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _student_middle(angle: float, degrees: int) -> float:
    """Return the probability within ±t (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    square, odd = math.cos(angle) ** 2, degrees % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= square * (k - 1) / k
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def _line(episodes: list[Episode], version: int, seconds: float) -> dict[str, Any]:
    returns = [episode.total_reward for episode in episodes]
    interval = mean_interval(returns)
    return {
        "version": version,
        "seconds": seconds,
        "episodes": len(episodes),
        "mean_return": fmean(returns),
        "low": interval and interval.low,
        "high": interval and interval.high,
        "mean_steps": fmean(episode.steps for episode in episodes),
    }
