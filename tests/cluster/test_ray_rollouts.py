"""Rollouts on Ray with a team of learners: they learn, and go on whichever of them is killed."""

from pathlib import Path

import pytest

from cluster.bench_rollout import rollout_config
from tests.cluster.circle import Circle

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.system]

SMALL = (
    "rollout.envs_per_group=16",
    "rollout.unroll_steps=16",
    "actors.chunk_rows=16",
    "replay.min_rows=32",
    "replay.samples_per_insert_slack_rows=32",
    "learner.batch_rows=32",
    "learner.num_learners=2",
    "learner.checkpoint_every_seconds=1",
    "policy_gradient.epochs=2",
    "policy_gradient.minibatch_steps=128",
)


def test_a_team_steps_together_and_goes_on_whoever_is_killed(tmp_path: Path) -> None:
    circle = Circle(tmp_path / "run", rollout_config("CartPole-v1", SMALL, seed=0))

    def turn() -> None:
        steps, version = circle.steps, circle.version
        circle.until(lambda: circle.steps > steps + 16 and circle.version > version + 2, "a turn")

    try:
        turn()
        assert circle.stats["colearner"]["steps"] > 0
        for part in ("colearner", "learner", "actor", "replay"):
            circle.kill(part)
            turn()
            assert circle.stats["colearner"]["steps"] > 16, part
        assert circle.stats["learner"]["rows_set_aside"] == 0
    finally:
        circle.program.stop()
