"""What may be done differs from step to step: PPO and V-trace learn it, and nothing forbidden is ever done."""

from pathlib import Path
from typing import Any

import pytest

from cluster.bench.rollout import rollout_config
from cluster.training.local_engine import LocalEngine
from tests.cluster.tiny import tiny_run

SMALL = (
    "rollout.envs_per_group=16",
    "rollout.unroll_steps=16",
    "rollout.discount=0.5",
    "actors.chunk_rows=16",
    "learner.batch_rows=32",
    "learner.learning_rate=0.003",
    "replay.samples_per_insert_slack_rows=32",
)
WAYS = {
    "ppo": ("policy_gradient.epochs=6", "policy_gradient.minibatch_steps=128"),
    "vtrace": (
        "policy_gradient.algorithm=vtrace",
        "replay.sampler=uniform",
        "replay.capacity_rows=256",
        "replay.min_rows=64",
        "replay.samples_per_insert=2",
        "learner.publish_every_steps=5",
        "learner.max_lag_versions=1000",
    ),
}
BY_CHANCE = 8 * (1 / 2 + 1 / 3) / 2
"""Of eight steps, where two or three keys are at hand, one of which pays."""


def run(folder: Path, *settings: str) -> dict[str, Any]:
    game = "tests.actors.masked_environments:TamenKeys-v0"
    config = rollout_config(game, [*SMALL, *settings], seed=0)
    engine = LocalEngine(config, tiny_run(folder, config))
    engine.start()
    engine.advance(120.0)
    stats = engine.stats()
    engine.stop()
    return stats


@pytest.mark.parametrize("algorithm", WAYS)
def test_keys_are_learnt(algorithm: str, tmp_path: Path) -> None:
    early = run(tmp_path / "early", *WAYS[algorithm], "stop.learner_steps=6")
    late = run(tmp_path / "late", *WAYS[algorithm], "stop.learner_steps=300")
    assert early["replay"]["mean_return"] < BY_CHANCE + 1
    assert late["replay"]["mean_return"] > 6.5
    assert late["actor-0"]["set_aside"] == 0
    assert late["actor-0"]["moves"] > 1000
