"""What may not be done is told in the observation's row, and is never drawn."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from actors.action_masks import MaskInRow
from actors.action_sampling import likeliest, log_prob, sample
from actors.environments import action_writer, environment_spec, open_environments
from actors.faults import FAULT
from actors.rollout import EnvironmentGroup
from actors.unrolls import Unrolls
from configs.schema import NetworkConfig, RolloutConfig
from core.environments import ActionSpec
from core.errors import UsageError
from core.messages import Reply, Request
from networks.actor_critic import NEVER
from networks.build import new_net
from tests.actors.masked_environments import Keys
from tests.actors.small_environments import Driver, of_spaces

ways = pytest.mark.parametrize("vectorization", ["sync", "async"])


def open_keys(vectorization: str = "sync", **options: Any) -> gymnasium.vector.VectorEnv:
    config = RolloutConfig.model_validate({"vectorization": vectorization, "env_options": options})
    return open_environments("tests.actors.masked_environments:TamenKeys-v0", config, num_envs=3)


@ways
def test_a_row_is_what_is_seen_and_then_the_mask(vectorization: str) -> None:
    env, single = open_keys(vectorization), Keys()
    spec = environment_spec(env)
    assert (spec.observation_shape, spec.seen_shape, spec.masked) == ((8,), (2,), True)
    assert spec.actions == ActionSpec("categorical", (6,), scalar=True)
    rows, _ = env.reset(seed=5)
    shown, _ = single.reset(seed=5)
    for _ in range(Keys.STEPS):
        assert rows.dtype == np.float32
        assert rows[0].tolist() == [*shown["observation"].ravel(), *shown["action_mask"]]
        choices = rows[:, 2:].argmax(axis=1)
        rows, reward, terminated, _, infos = env.step(action_writer(env)(choices[:, None]))
        shown, alone, over, _, _ = single.step(int(choices[0]) + 10)
        assert FAULT not in infos
        assert (reward[0], terminated[0]) == (alone, over)
    assert over
    assert not rows[:, 2:].any()
    env.close()


@ways
def test_what_is_forbidden_is_a_fault_and_the_environment_begins_anew(vectorization: str) -> None:
    env = open_keys(vectorization)
    rows, _ = env.reset(seed=1)
    wrong = rows[:, 2:].argmax(axis=1)
    wrong[1] = rows[1, 2:].argmin()
    rows, _, _, truncated, infos = env.step(wrong + 10)
    assert truncated.tolist() == [False, True, False]
    assert "is not at hand" in infos[FAULT][1]
    rows, _, _, truncated, _ = env.step(rows[:, 2:].argmax(axis=1) + 10)
    assert not truncated.any()
    assert (rows[:, 2:].sum(axis=1) >= 2).all()
    env.close()


def test_an_episode_that_goes_on_with_nothing_to_do_is_a_fault() -> None:
    env = open_keys(empty_at=1)
    rows, _ = env.reset(seed=1)
    _, _, _, truncated, infos = env.step(rows[:, 2:].argmax(axis=1) + 10)
    assert truncated.all()
    assert "forbids everything" in infos[FAULT][0]


def test_each_choice_of_an_action_has_its_part_of_the_mask() -> None:
    config = RolloutConfig(vectorization="sync")
    env = open_environments("tests.actors.masked_environments:TamenTwoLocks-v0", config, num_envs=2)
    spec = environment_spec(env)
    assert (spec.actions.sizes, spec.observation_shape) == ((2, 3), (6,))
    rows, _ = env.reset()
    policy = np.where(rows[:, 1:] > 0, 0.0, NEVER).astype(np.float32)
    action, told = sample(policy, spec.actions, np.random.default_rng(0))
    assert told.tolist() == [0.0, 0.0]
    assert env.step(action_writer(env)(action))[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("shown", "done"),
    [
        ({"observation": spaces.Box(0, 1, (2,)), "action_mask": spaces.MultiBinary(3)}, spaces.Discrete(4)),
        ({"observation": spaces.Discrete(2), "action_mask": spaces.MultiBinary(4)}, spaces.Discrete(4)),
        (
            {
                "observation": spaces.Box(0, 1, (2,)),
                "action_mask": spaces.MultiBinary(4),
                "x": spaces.Discrete(2),
            },
            spaces.Discrete(4),
        ),
        (
            {"observation": spaces.Box(0, 1, (2,)), "action_mask": spaces.MultiBinary(4)},
            spaces.Box(0, 1, (4,)),
        ),
    ],
)
def test_a_mask_that_cannot_be_of_these_actions_is_refused(
    shown: dict[str, spaces.Space], done: spaces.Space
) -> None:
    with pytest.raises(UsageError, match=r"observations are of the space|cannot be of the actions"):
        MaskInRow(of_spaces(spaces.Dict(shown), done).envs[0])  # pyright: ignore[reportAttributeAccessIssue]


class Scripted:
    """A generator that gives one number, from 0 to the last below 1."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self, size: int) -> np.ndarray:
        return np.full(size, self._number)


@given(
    logits=arrays(np.float32, (4, 6), elements=st.floats(-1e6, 1e6, width=32)),
    allowed=arrays(bool, (4, 6)),
    number=st.one_of(st.just(0.0), st.just(1 - 2.0**-53), st.floats(0, 1, exclude_max=True)),
)
def test_what_is_forbidden_is_never_drawn(logits: np.ndarray, allowed: np.ndarray, number: float) -> None:
    allowed[~allowed.any(axis=1), 2] = True
    actions = ActionSpec("categorical", (6,), scalar=True)
    policy = np.where(allowed, logits, np.float32(NEVER))
    rows = np.arange(4)
    for action in (sample(policy, actions, Scripted(number))[0], likeliest(policy, actions)):  # pyright: ignore
        assert allowed[rows, action[:, 0]].all()
    for choice in range(6):
        chance = np.exp(log_prob(policy, np.full((4, 1), choice), actions))
        assert (chance[~allowed[:, choice]] == 0).all()


def test_a_rollout_keeps_probabilities_among_what_was_allowed_and_never_fails() -> None:
    env, finished = open_keys(), list[Unrolls]()
    spec = environment_spec(env)
    net = new_net(spec, NetworkConfig(layers=(8,)), seed=0)

    def evaluate(request: Request) -> Reply:
        with torch.inference_mode():
            outputs = net({"observation": torch.from_numpy(request.arrays["observation"])})
        return Reply({name: output.numpy() for name, output in outputs.items()}, 3)

    config = RolloutConfig(unroll_steps=16)
    group = EnvironmentGroup(env, spec, config, model="main", seed=0, finish=finished.append)
    Driver(group.play(), evaluate).step(65)
    assert group.faults.total == 0
    assert len(finished) == 4
    for unrolls in finished:
        columns = unrolls.columns
        mask, valid = columns["observation"][:, :-1, 2:], columns["valid"]
        chosen = np.take_along_axis(mask, columns["action"], axis=2)[..., 0]
        assert chosen[valid].all()
        # An untrained net does one thing as readily as another: among what is allowed, and nothing else.
        assert np.exp(columns["log_prob"][valid]) == pytest.approx(1 / mask.sum(axis=2)[valid], rel=0.1)
        assert (columns["weights_version"] == 3).all()
