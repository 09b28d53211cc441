"""A configuration's game decides who plays, what is kept and what is learnt."""

import numpy as np
import pytest

from cluster.run.workloads import BoardWorkload, EnvironmentWorkload, workload_of
from configs.loading import load
from core.errors import UsageError
from core.metrics import NoMetrics

CARTPOLE = load("cartpole", ["rollout.envs_per_group=3"])
HEX = load("hex4", ["actors.games_per_group=2", "actors.groups_per_actor=1"])


def test_the_name_of_the_game_tells_the_workload() -> None:
    assert isinstance(workload_of(HEX), BoardWorkload)
    assert isinstance(workload_of(CARTPOLE), EnvironmentWorkload)
    for game, what in (("hexx", "no game called 'hexx'"), ("gym:CartPole-v99", "environment")):
        with pytest.raises(UsageError, match=what):
            workload_of(load("cartpole", [f"game={game}"])).experience()


@pytest.mark.parametrize("config", [HEX, CARTPOLE])
def test_the_parts_of_a_workload_fit_each_other(config: object) -> None:
    workload = workload_of(config)  # pyright: ignore[reportArgumentType]
    columns = {spec.name for spec in workload.experience().columns}
    inputs = workload.any_inputs(5, np.random.default_rng(0))
    assert [spec.mismatch(inputs[spec.name]) for spec in workload.spec.inputs] == [None]
    assert {spec.name for spec in workload.spec.inputs} <= columns
    cast = workload.cast(run="r", actor=0, epoch=0, metrics=NoMetrics())
    assert (cast.harvest.rows_waiting, cast.harvest.games_waiting, cast.harvest.take_chunk()) == (0, 0, None)
    for group in cast.groups:
        (request,) = next(group.play())
        assert [spec.mismatch(request.arrays[spec.name]) for spec in workload.spec.inputs] == [None]


def test_an_environment_is_opened_once_to_be_looked_at() -> None:
    workload = workload_of(CARTPOLE)
    assert workload.spec is workload.spec
    assert workload.spec.inputs[0].shape == (4,)
