"""`tamen train forge` as a whole: against a daemon in a JVM, until it stops, and nothing of it is left there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import pytest

from actors.environments import open_environments
from actors.rollout_evaluator import play_episodes
from cluster.bench.rollout import rollout_config
from cluster.run import parts
from cluster.run.run_folder import RunFolder
from cluster.training.local_engine import LocalEngine
from configs.loading import load
from configs.schema import RunConfig
from engines.forge_client import Endpoint, ForgeClient
from inference_server.client import InlineClient, drive
from inference_server.weights_store import WeightsStore
from tests.cluster.circle import Circle
from tests.cluster.tiny import tiny_run
from tests.engines.reference_daemon import reference_daemon

PATIENCE_SECONDS = 20.0
SMALL = (
    "actors.groups_per_actor=1",
    "rollout.envs_per_group=2",
    "rollout.unroll_steps=8",
    "actors.chunk_rows=2",
    "actors.flush_seconds=1",
    "replay.min_rows=8",
    "replay.samples_per_insert_slack_rows=16",
    "network.layers=[32]",
    "learner.batch_rows=4",
    "learner.publish_every_steps=2",
    "evaluation.episodes=3",
    "evaluation.every_seconds=1",
)

LEARNING = (
    "rollout.vectorization=sync",
    "rollout.discount=0.995",
    "rollout.normalise_rewards=false",
    "rollout.envs_per_group=8",
    "actors.chunk_rows=16",
    "learner.batch_rows=32",
    "replay.samples_per_insert_slack_rows=32",
    "policy_gradient.epochs=6",
    "policy_gradient.entropy_weight=0.01",
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Endpoint]:
    with reference_daemon(folder=tmp_path) as (endpoint, _):
        yield endpoint


def config(daemon: Endpoint, *settings: str, opponent: str) -> RunConfig:
    options = f"{{deck: aggro, opponent_deck: control, ports: {daemon.port}, opponent: {opponent}}}"
    return load("forge", [*SMALL, f"rollout.env_options={options}", *settings], "cpu")


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_games_that_are_in_play_when_a_run_stops_are_given_up_at_once(
    vectorization: str, daemon: Endpoint, tmp_path: Path
) -> None:
    given = config(daemon, f"rollout.vectorization={vectorization}", opponent="random")
    engine = LocalEngine(given, tiny_run(tmp_path / "run", given))
    engine.start()
    engine.turn()
    client = ForgeClient(daemon)
    assert client.status().active_games == 2
    engine.stop()
    until(lambda: client.status().active_games == 0, "the daemon's threads are free")


@pytest.mark.system
@pytest.mark.usefixtures("local_ray")
def test_a_run_on_ray_learns_both_seats_and_is_judged_against_another(
    daemon: Endpoint, tmp_path: Path
) -> None:
    circle = Circle(tmp_path / "run", config(daemon, opponent="self"))
    try:
        circle.until(
            lambda: circle.steps > 4 and circle.stats.get("evaluator", {}).get("rounds", 0) > 0, "lessons"
        )
        circle.until(lambda: sum(circle.stats["actor"]["ends"].values()) > 0, "the end of a game")
        assert set(circle.stats["actor"]["ends"]) <= {"won", "lost", "drawn"}
        circle.kill("actor")
        steps = circle.steps
        circle.until(lambda: circle.steps > steps + 4 and circle.stats["actor"]["moves"] > 0, "more lessons")
        assert circle.stats["replay"]["refused_chunks"] == circle.stats["actor"]["set_aside"] == 0
    finally:
        circle.program.stop()
    client = ForgeClient(daemon)
    until(lambda: client.status().active_games == 0, "the daemon's threads are free")


def judged(config: RunConfig, run: RunFolder, opponent: str) -> float:
    """Return the mean result of the newest weights against a fixed opponent, of equal decks, in [-1, 1]."""
    assert config.environment is not None
    options = {**config.rollout.env_options, "opponent": opponent}
    rollout = config.rollout.model_copy(update={"env_options": options})
    env = open_environments(config.environment, rollout, num_envs=10)
    evaluate = parts.make_local_evaluate(config, WeightsStore(run.models).get("main"))
    episodes = drive(
        play_episodes(env, model="main", seed=1000, episodes=60),
        InlineClient(evaluate),
        should_stop=lambda: False,
    )
    env.close()
    assert episodes is not None
    return fmean(episode.total_reward for episode in episodes)


@pytest.mark.soak
def test_who_has_learnt_from_both_seats_beats_the_fixed_players(tmp_path: Path) -> None:
    with reference_daemon("--threads", "40", folder=tmp_path) as (daemon, _):
        options = f"{{deck: aggro, opponent_deck: aggro, ports: {daemon.port}, opponent: self}}"
        settings = (f"rollout.env_options={options}", "stop.learner_steps=2400")
        config = rollout_config("engines.forge_environment:Forge-v0", [*LEARNING, *settings], seed=0)
        run = tiny_run(tmp_path / "run", config)
        engine = LocalEngine(config, run)
        engine.start()
        assert judged(config, run, "random") < 0.5
        engine.advance(240.0)
        engine.stop()
        assert judged(config, run, "random") > 0.6
        assert judged(config, run, "first") > 0.6
