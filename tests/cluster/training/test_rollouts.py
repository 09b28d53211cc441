"""Rollouts in one process: CartPole is learnt, the same each time, and a run that was stopped goes on."""

from pathlib import Path
from typing import Any

import pytest

from cluster.bench.rollout import rollout_config, solved_at
from cluster.monitoring.observer import Observer
from cluster.run.program import Machine, plan
from cluster.run.run_folder import RunFolder
from cluster.training.local_engine import LocalEngine
from configs.loading import load
from configs.schema import RunConfig
from core.errors import UsageError
from learner.feed import Waited
from tests.cluster.tiny import newest_digest, tiny_run

LONG_SECONDS = 120.0
"""Far more than a run of these tests takes; the stop bound ends it."""
SMALL = (
    "rollout.envs_per_group=16",
    "rollout.unroll_steps=16",
    "actors.chunk_rows=16",
    "learner.batch_rows=32",
    "replay.samples_per_insert_slack_rows=32",
    "policy_gradient.epochs=6",
    "policy_gradient.minibatch_steps=128",
    "learner.learning_rate=0.002",
)


def small(*settings: str, seed: int = 0) -> RunConfig:
    return rollout_config("CartPole-v1", [*SMALL, *settings], seed=seed)


def run_until(folder: Path, config: RunConfig) -> tuple[RunFolder, dict[str, Any]]:
    """Run in `folder` until a stop bound; return it and the counters of all parts at that moment."""
    run = tiny_run(folder, config)
    engine = LocalEngine(config, run)
    engine.start()
    engine.advance(LONG_SECONDS)
    stats = engine.stats()
    engine.stop()
    return run, stats


def test_cartpole_is_learnt(tmp_path: Path) -> None:
    """Whoever acts by chance keeps the pole up for some 22 steps."""
    _, early = run_until(tmp_path / "early", small("stop.learner_steps=8"))
    _, late = run_until(tmp_path / "late", small("stop.learner_steps=900"))
    assert early["replay"]["mean_return"] < 40
    assert late["replay"]["returns_counted"] == 100
    assert late["replay"]["mean_return"] > 60


def test_one_seed_makes_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    digests = [
        newest_digest(run_until(tmp_path / str(k) / "run", small("stop.learner_steps=48", seed=seed))[0])
        for k, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    _, first = run_until(tmp_path / "run", small("stop.learner_steps=24"))
    _, second = run_until(tmp_path / "run", small("stop.learner_steps=48"))
    assert second["learner"]["learner_steps"] == 48
    assert second["learner"]["version"] > first["learner"]["version"]
    assert second["learner"]["reward_scale"] > 1.0


def test_while_the_learner_stands_still_actors_wait_and_nothing_grows(tmp_path: Path) -> None:
    config = small("replay.capacity_rows=100000")
    engine = LocalEngine(config, tiny_run(tmp_path / "run", config))
    engine.start()
    engine._learner.step_once = lambda: Waited(0.0, "it stands still")  # pyright: ignore[reportAttributeAccessIssue]
    rows, moves = [], []
    for _ in range(20):
        for _ in range(10):
            engine.turn()
        rows.append(engine.stats()["replay"]["rows"])
        moves.append(engine.stats()["actor-0"]["moves"])
    # The limiter lets in min_rows, or the slack above them, and then one chunk of what is under way.
    assert rows[-1] <= config.replay.min_rows + config.replay.samples_per_insert_slack_rows + 2 * 16
    assert rows[-1] == rows[9]
    assert 0 < moves[9] == moves[-1]


def test_vtrace_learns_from_rows_of_any_age(tmp_path: Path) -> None:
    settings = (
        "policy_gradient.algorithm=vtrace",
        "replay.sampler=uniform",
        "replay.capacity_rows=256",
        "replay.min_rows=64",
        "replay.samples_per_insert=2",
        "learner.publish_every_steps=5",
        "learner.max_lag_versions=1000",
        "policy_gradient.entropy_weight=0.003",
    )
    _, early = run_until(tmp_path / "early", small(*settings, "stop.learner_steps=8"))
    _, late = run_until(tmp_path / "late", small(*settings, "stop.learner_steps=150"))
    assert early["replay"]["mean_return"] < 40
    assert late["replay"]["mean_return"] > 60
    assert late["learner"]["policy_lag_versions"] > 1


def test_a_picture_of_the_run_has_returns_instead_of_strength(tmp_path: Path) -> None:
    config = small("stop.learner_steps=8")
    _, stats = run_until(tmp_path / "run", config)
    snapshot = Observer("run", config).take(stats, elapsed_seconds=1.0)
    assert snapshot.rollout is not None
    assert snapshot.rollout.training_return == stats["replay"]["mean_return"]
    assert snapshot.flat()["rollout/training_return"] == stats["replay"]["mean_return"]
    assert snapshot.rollout.ratio_error == stats["learner"]["ratio_error"] > 0, "rows are a version old"
    assert snapshot.flat()["rollout/kl"] == stats["learner"]["kl"] > 0


def test_the_evaluator_takes_part_where_episodes_are_asked_for() -> None:
    machine = Machine(cpus=2, gpus=0)
    assert plan(load("cartpole"), machine).count("evaluator") == 1
    assert plan(load("cartpole", ["evaluation.episodes=0"]), machine).count("evaluator") == 0
    assert plan(load("cartpole", ["learner.num_learners=3"]), machine).count("colearner") == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["replay.sampler=uniform"], "PPO cannot learn from rows that are drawn by replay.sampler=uniform"),
        (
            ["policy_gradient.algorithm=vtrace", "replay.sampler=prioritised"],
            "replay.sampler=prioritised is for board games and one learner",
        ),
    ],
)
def test_rows_that_the_algorithm_cannot_use_are_refused_when_read(settings: list[str], why: str) -> None:
    with pytest.raises(UsageError, match="do not go together") as refusal:
        load("cartpole", settings)
    assert why in refusal.value.why


def test_the_threshold_is_the_authors(tmp_path: Path) -> None:
    assert solved_at("CartPole-v1") == 475.0
    assert solved_at("Pendulum-v1") is None
    with pytest.raises(UsageError, match=r"there is no environment .Carpole-v9."):
        solved_at("Carpole-v9")
