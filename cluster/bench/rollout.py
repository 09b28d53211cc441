"""`tamen bench rollout`: how fast an environment is stepped and learnt, from the first step until it is solved."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.bench.rig import Measuring
from cluster.run.run_folder import open_run, run_folder
from cluster.training.train import make_engine
from configs.loading import load, override
from configs.schema import RunConfig
from core.errors import TamenError

if TYPE_CHECKING:
    from cluster.monitoring.observer import Stats

LOOK_SECONDS = 0.25
EPISODES = 100
"""Of training, over whose mean return an environment counts as solved: the field's rule."""


@dataclass(frozen=True, slots=True)
class Solving:
    """One run.

    Attributes:
        start_seconds: until all parts were there and actors began.
        seconds: from then until it was solved, or the time was over.
        env_steps: steps of all environments in that time.
        solved: whether the mean return of the last `EPISODES` episodes of training reached the threshold.
        mean_return: of the last episodes of training, at the end.
        data_wait_ratio: share of its time that the learner waited for rows.
    """

    start_seconds: float
    seconds: float
    env_steps: int
    solved: bool
    mean_return: float
    data_wait_ratio: float


def rollout_config(environment: str, settings: Sequence[str], *, seed: int) -> RunConfig:
    """Return the preset of CartPole for any environment, changed by `settings`, without evaluation or an end."""
    given = [f"game=gym:{environment}", "evaluation.episodes=0", "stop.minutes=null", f"seed={seed}"]
    return load("cartpole", [*given, *settings], "cpu")


def solved_at(environment: str) -> float | None:
    """Return the mean return at which the environment's authors call it solved; None where they do not say.

    Raises:
        UsageError: when there is no such environment.
    """
    from actors.environments import registered

    return registered(environment).reward_threshold


def bench_rollout(
    environment: str,
    settings: Sequence[str],
    measuring: Measuring,
    *,
    engine: Literal["ray", "local"],
    first_seed: int = 0,
) -> dict[str, Any]:
    """Train anew for each of `measuring.rounds` seeds until the environment is solved, or for `measuring.seconds`."""
    threshold, runs = solved_at(environment), []
    config = rollout_config(environment, settings, seed=first_seed)
    for seed in range(first_seed, first_seed + measuring.rounds):
        runs.append(
            solve(override(config, [f"seed={seed}"]), threshold, seconds=measuring.seconds, engine=engine)
        )
        measuring.say(_in_words(seed, runs[-1]))
    return _summary(runs, threshold) | {"config": config.model_dump(mode="json")}


def solve(
    config: RunConfig, threshold: float | None, *, seconds: float, engine: Literal["ray", "local"]
) -> Solving:
    """Train in a folder of its own until the last episodes' mean return reaches `threshold`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = run_folder(Path(temporary), "bench")
        lock = open_run(folder, config)
        created = time.monotonic()
        part = make_engine(engine, config, folder, address=None, report=_raise)
        try:
            part.start()
            began = time.monotonic()
            while True:
                part.advance(LOOK_SECONDS)
                stats, elapsed = part.stats(), time.monotonic() - began
                if elapsed >= seconds or _is_solved(stats, threshold):
                    return _solving(stats, threshold, start=began - created, elapsed=elapsed)
        finally:
            part.stop()
            lock.release()


def _raise(text: str) -> None:
    raise TamenError(
        "the benchmark met a fault", why=text, fix="look at it with `tamen train` and the same settings"
    )


def _is_solved(stats: "Stats", threshold: float | None) -> bool:
    replay = stats.get("replay", {})
    return (
        threshold is not None
        and replay.get("returns_counted", 0) >= EPISODES
        and replay["mean_return"] >= threshold
    )


def _solving(stats: "Stats", threshold: float | None, *, start: float, elapsed: float) -> Solving:
    return Solving(
        start_seconds=start,
        seconds=elapsed,
        env_steps=sum(int(part.get("moves", 0)) for name, part in stats.items() if name.startswith("actor")),
        solved=_is_solved(stats, threshold),
        mean_return=stats.get("replay", {}).get("mean_return", float("nan")),
        data_wait_ratio=float(stats.get("learner", {}).get("data_wait_ratio", float("nan"))),
    )


def _summary(runs: Sequence[Solving], threshold: float | None) -> dict[str, Any]:
    solved = [run for run in runs if run.solved]
    return {
        "env_steps_per_s": statistics.median(run.env_steps / run.seconds for run in runs),
        "solved_s": statistics.median(run.seconds for run in solved) if solved else None,
        "solved_env_steps": statistics.median(run.env_steps for run in solved) if solved else None,
        "learner_data_wait_ratio": statistics.median(run.data_wait_ratio for run in runs),
        "solved_of_seeds": [len(solved), len(runs)],
        "threshold": threshold,
        "start_s": statistics.median(run.start_seconds for run in runs),
        "runs": [
            {
                "env_steps_per_s": run.env_steps / run.seconds,
                "seconds": run.seconds,
                "env_steps": run.env_steps,
                "solved": run.solved,
                "mean_return": run.mean_return,
                "learner_data_wait_ratio": run.data_wait_ratio,
            }
            for run in runs
        ],
    }


def _in_words(seed: int, run: Solving) -> str:
    end = "solved" if run.solved else f"mean return {run.mean_return:.1f}"
    return (
        f"seed {seed}: {end} after {run.seconds:.1f} s and {run.env_steps:,} steps,"
        f" {run.env_steps / run.seconds:,.0f} steps/s, learner waited {run.data_wait_ratio:.0%}"
    )
