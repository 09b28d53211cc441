"""What can be opened, and how its observations and actions are told to a network."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from actors.environments import (
    action_writer,
    environment_id,
    environment_spec,
    observation_reader,
    open_environments,
)
from configs.schema import RolloutConfig
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import UsageError
from tests.actors.small_environments import of_spaces

SYNC = RolloutConfig(vectorization="sync")
VECTOR = spaces.Box(-1, 1, (3,), np.float32)
TWO = spaces.Discrete(2)
CARTPOLE = EnvironmentSpec((4,), "float32", ActionSpec("categorical", (2,), scalar=True))


def test_a_game_names_an_environment_by_its_prefix() -> None:
    assert environment_id("gym:CartPole-v1") == "CartPole-v1"
    assert environment_id("gym:module:Env-v0") == "module:Env-v0"
    assert environment_id("hex5") is None


def kind(env: VectorEnv) -> type:
    return type(env.unwrapped)


def test_an_environment_with_a_vector_form_of_its_own_is_opened_in_it_unless_told_otherwise() -> None:
    own = open_environments("CartPole-v1", RolloutConfig(), num_envs=3)
    sync = open_environments("CartPole-v1", SYNC, num_envs=3)

    assert (kind(own), kind(sync)) == (CartPoleVectorEnv, SyncVectorEnv)
    assert own.num_envs == sync.num_envs == 3
    assert environment_spec(own) == environment_spec(sync) == CARTPOLE


def test_an_environment_without_one_is_stepped_in_this_process() -> None:
    assert kind(open_environments("Acrobot-v1", RolloutConfig(), num_envs=2)) is SyncVectorEnv


def test_environments_can_be_stepped_in_processes_of_their_own() -> None:
    env = open_environments("CartPole-v1", RolloutConfig(vectorization="async"), num_envs=2)
    try:
        assert kind(env) is AsyncVectorEnv
        assert env.reset(seed=1)[0].shape == (2, 4)
        assert env.step(np.array([0, 1]))[0].shape == (2, 4)
    finally:
        env.close()


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_options_reach_the_environment(vectorization: str) -> None:
    config = RolloutConfig.model_validate(
        {"vectorization": vectorization, "env_options": {"max_episode_steps": 2}}
    )
    env = open_environments("CartPole-v1", config, num_envs=1)
    env.reset(seed=0)

    assert [bool(env.step(np.array([0]))[3][0]) for _ in range(3)] == [False, True, False]


def test_a_module_that_registers_an_environment_is_imported() -> None:
    env = open_environments("tests.actors.small_environments:TamenCounting-v0", SYNC, num_envs=2)
    assert environment_spec(env).observation_shape == (2,)


def refusal(name: str, config: RolloutConfig = SYNC) -> UsageError:
    with pytest.raises(UsageError) as refused:
        open_environments(name, config, num_envs=2)
    return refused.value


def test_an_unknown_environment_is_refused_with_what_may_have_been_meant() -> None:
    assert "did you mean CartPole-v1" in refusal("Cartpol-v1").fix
    assert "CartPole-v1" in refusal("CartPole").fix
    assert "gym:ale_py:ALE/Pong-v5" in refusal("ALE/Pong-v5").fix
    assert "'no_such_module' cannot be imported" in refusal("no_such_module:Env-v0").why


def test_an_option_that_the_environment_does_not_take_is_refused() -> None:
    error = refusal("CartPole-v1", RolloutConfig(env_options={"gravitas": 2}))
    assert "gravitas" in error.why


def test_environments_that_reset_themselves_at_another_time_are_refused() -> None:
    name = "tests.actors.small_environments:TamenSameStep-v0"
    error = refusal(name, RolloutConfig())

    assert "SAME_STEP" in error.why
    assert "sync" in error.fix
    assert open_environments(name, SYNC, num_envs=2).num_envs == 2


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (VECTOR, (3,), "float32"),
        (spaces.Box(-1, 1, (3,), np.float64), (3,), "float32"),
        (spaces.Box(0, 255, (128,), np.uint8), (128,), "float32"),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), (4, 84, 84), "uint8"),
        (spaces.Box(0, 255, (64, 48, 3), np.uint8), (3, 64, 48), "uint8"),
        (spaces.Box(0, 255, (64, 48), np.uint8), (1, 64, 48), "uint8"),
        (spaces.Box(0, 1, (16, 8, 1), np.float32), (1, 16, 8), "float32"),
    ],
)
def test_an_observation_is_a_vector_or_an_image_with_its_channels_first(
    space: spaces.Box, shape: tuple[int, ...], dtype: str
) -> None:
    env = of_spaces(space, TWO, num_envs=2)
    spec = environment_spec(env)
    given = np.stack([space.sample(), space.sample()])
    stored = observation_reader(env)(given)

    assert (spec.observation_shape, spec.observation_dtype) == (shape, dtype)
    assert stored.shape == (2, *shape)
    if space.shape[-1] == 3 and len(space.shape) == 3:
        assert np.array_equal(stored[1, 2], given[1, :, :, 2])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5),
        spaces.Dict({"a": VECTOR}),
        spaces.Tuple([VECTOR]),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (), np.float32),
        spaces.Box(-1, 1, (2, 3, 4, 5), np.float32),
    ],
)
def test_observations_of_other_kinds_are_refused(space: spaces.Space) -> None:
    with pytest.raises(UsageError, match="observations") as refused:
        environment_spec(of_spaces(space, TWO))
    assert refused.value.fix.startswith("register the environment with a wrapper")


def written(space: spaces.Space, action: list) -> np.ndarray:
    env = of_spaces(VECTOR, space, num_envs=len(action))
    stored = environment_spec(env).actions.array
    return action_writer(env)(np.array(action, stored.dtype))


def test_a_choice_counts_from_where_the_environment_does() -> None:
    space = spaces.Discrete(3, start=-1)

    assert environment_spec(of_spaces(VECTOR, space)).actions == ActionSpec("categorical", (3,), scalar=True)
    assert written(space, [[0], [2]]).tolist() == [-1, 1]
    assert written(spaces.Discrete(3), [[0], [2]]).tolist() == [0, 2]


def test_several_choices_stand_side_by_side() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])

    assert environment_spec(of_spaces(VECTOR, space)).actions == ActionSpec("categorical", (2, 3))
    actions = written(space, [[1, 0], [0, 2]])
    assert actions.tolist() == [[1, 5], [0, 7]]
    assert all(space.contains(action) for action in actions)


def test_a_bounded_action_counts_in_half_ranges_from_the_middle_and_is_clipped() -> None:
    space = spaces.Box(np.array([-2, 0, -np.inf], np.float32), np.array([2, 10, 5], np.float32))
    spec = environment_spec(of_spaces(VECTOR, space)).actions
    actions = written(space, [[0, 0, 0], [0.5, -0.5, 3], [-7, 7, 7]])

    assert spec == ActionSpec("gaussian", (3,), low=(-2, 0, -np.inf), high=(2, 10, 5))
    assert actions.dtype == np.float32
    assert actions.tolist() == [[0, 5, 0], [1, 2.5, 3], [-2, 10, 5]]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 9, (2,), np.int64),
        spaces.Box(-1, 1, (2, 2), np.float32),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.Dict({"a": TWO}),
    ],
)
def test_actions_of_other_kinds_are_refused(space: spaces.Space) -> None:
    with pytest.raises(UsageError, match="actions"):
        environment_spec(of_spaces(VECTOR, space))
