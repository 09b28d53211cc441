"""The presets of environments learn what they are for: the untrained net fails a bound that later weights reach."""

from pathlib import Path
from statistics import fmean

import pytest

from actors.environments import open_environments
from actors.rollout_evaluator import play_episodes
from cluster.run import parts
from cluster.run.run_folder import RunFolder
from cluster.training.local_engine import LocalEngine
from configs.loading import load
from configs.schema import RunConfig
from inference_server.client import InlineClient, drive
from inference_server.weights_store import WeightsStore
from tests.cluster.tiny import tiny_run

LONG_SECONDS = 600.0
"""Far more than a run of these tests takes; the bound of steps ends it."""


def evaluated(config: RunConfig, run: RunFolder) -> float:
    """Return the mean return of the newest weights over episodes with the likeliest actions."""
    assert config.environment is not None
    env = open_environments(config.environment, config.rollout, num_envs=config.evaluation.episodes)
    evaluate = parts.make_local_evaluate(config, WeightsStore(run.models).get("main"))
    steps = play_episodes(env, model="main", seed=1000)
    episodes = drive(steps, InlineClient(evaluate), should_stop=lambda: False)
    env.close()
    assert episodes is not None
    return fmean(episode.total_reward for episode in episodes)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("preset", "steps", "bound"), [("acrobot", 1600, -100.0), ("pendulum", 6400, -250.0)]
)
def test_a_preset_reaches_what_its_environment_asks_for(
    preset: str, steps: int, bound: float, seed: int, tmp_path: Path
) -> None:
    """Acrobot's authors call -100 a solution; a pendulum that is swung up and held costs 150 to 200."""
    config = load(preset, [f"seed={seed}", f"stop.learner_steps={steps}"], "cpu")
    run = tiny_run(tmp_path / "run", config)
    engine = LocalEngine(config, run)
    engine.start()
    untrained = evaluated(config, run)
    engine.advance(LONG_SECONDS)
    engine.stop()
    assert untrained < bound <= evaluated(config, run)
