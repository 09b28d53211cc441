"""Atari in the vector form that ale-py brings: small grey frames, four at a time, and a reset a step after the end."""

import numpy as np
import pytest

from actors.environments import environment_spec, open_environments
from actors.rollout import EnvironmentGroup
from actors.unrolls import Unrolls
from configs.loading import load
from configs.schema import RolloutConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import UsageError
from tests.actors.small_environments import Driver, Network

PONG = "ale_py:ALE/Pong-v5"


def pong(**options: object) -> RolloutConfig:
    return RolloutConfig.model_validate({"unroll_steps": 32, "env_options": options})


def test_the_preset_sees_four_small_grey_frames() -> None:
    config = load("pong", [], "cpu")
    assert config.environment == PONG
    env = open_environments(PONG, config.rollout, num_envs=2)
    actions = ActionSpec("categorical", (6,), scalar=True)
    assert environment_spec(env) == EnvironmentSpec((4, 84, 84), "uint8", actions)
    env.close()


def test_a_game_that_is_cut_keeps_its_last_frame_and_the_step_after_it_only_resets() -> None:
    config, finished = pong(max_num_frames_per_episode=100), list[Unrolls]()
    env = open_environments(PONG, config, num_envs=3)
    spec = environment_spec(env)
    group = EnvironmentGroup(env, spec, config, model="main", seed=0, finish=finished.append)
    Driver(group.play(), Network(spec.actions.num_policy)).step(3 * config.unroll_steps)

    truncated, valid = (
        np.concatenate([one.columns[name] for one in finished], axis=1) for name in ("truncated", "valid")
    )
    assert (truncated.sum(axis=1) >= 2).all()
    assert valid[:, 0].all()
    assert np.array_equal(~valid[:, 1:], truncated[:, :-1]), "the step after a cut, and no other, is a reset"
    observation = finished[0].columns["observation"]
    assert observation.dtype == np.uint8
    assert observation[0, 1:].any(axis=(1, 2, 3)).all(), "no frame is black"
    env.close()


def test_whoever_does_nothing_loses_by_21() -> None:
    env = open_environments(PONG, pong(), num_envs=1)
    env.reset(seed=3)
    total, over, steps = 0.0, False, 0
    while not over:
        _, reward, terminated, truncated, _ = env.step(np.array([0]))
        total, over, steps = total + float(reward[0]), bool(terminated[0]), steps + 1
        assert not truncated[0]
    assert total == -21
    assert steps > 700
    env.close()


def test_a_vector_form_that_resets_at_once_is_refused() -> None:
    with pytest.raises(UsageError) as refusal:
        open_environments(PONG, pong(autoreset_mode="SameStep"), num_envs=2)
    assert "SAME_STEP" in refusal.value.why
