"""Rollouts on Ray with a team of learners: they begin as told, learn, and go on whichever of them is killed."""

from pathlib import Path

import numpy as np
import pytest

from cluster.bench.rollout import rollout_config
from cluster.run.first_weights import keep_first_weights
from cluster.run.parts import MODEL, make_store
from cluster.run.run_folder import RunFolder
from cluster.run.workloads import workload_of
from networks.build import new_net, to_weights
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
    config, run = rollout_config("CartPole-v1", SMALL, seed=0), RunFolder(tmp_path / "run")
    net = new_net(workload_of(config).spec, config.network, seed=99)
    spec = workload_of(config).spec
    net.set_observation_moments(np.zeros(spec.observation_shape), np.ones(spec.observation_shape))
    first = to_weights(net, model="another", version=7, game=config.game)
    keep_first_weights(run, first)
    circle = Circle(run.root, config)

    def turn() -> None:
        steps, version = circle.steps, circle.version
        circle.until(lambda: circle.steps > steps + 16 and circle.version > version + 2, "a turn")

    try:
        turn()
        assert make_store(run).get(MODEL, 0).digest == first.digest
        assert circle.stats["colearner"]["steps"] > 0
        for part in ("colearner", "learner", "actor", "replay"):
            circle.kill(part)
            turn()
            assert circle.stats["colearner"]["steps"] > 16, part
        assert circle.stats["learner"]["rows_set_aside"] == 0
    finally:
        circle.program.stop()
