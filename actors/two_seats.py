"""Games of which one network plays both seats: each game is two environments, one for each seat.

Such a game shows a `Dict` of "observation" [2, F] and "action_mask" [2, P], is given two choices [2], and pays the
first seat; what one wins the other loses. Who is not asked has but one choice. So each seat has a whole trajectory with
its own rewards: a step at which it waits has probability 1 and teaches the policy nothing, and the discount counts the
steps of both.

Shapes: `N` games, `F` numbers to see, `P` numbers of a policy; environments 2k and 2k+1 are the seats of game k.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from actors.action_masks import MASK, SEEN, MaskedRow
from actors.faults import CUT, END, FAULT, Outcome
from core.errors import UsageError


class SeatRows(spaces.Box):
    """Two rows of float32 [2, F+P], as of `MaskedRow`, one for each seat."""

    def __init__(self, row: MaskedRow) -> None:
        super().__init__(np.stack([row.low] * 2), np.stack([row.high] * 2), dtype=np.float32)
        self.row = row


def has_two_seats(env: gymnasium.Env) -> bool:
    """Whether an environment shows observations and masks of two seats, and takes a choice of each."""
    shown, actions = env.observation_space, env.action_space
    if not (isinstance(shown, spaces.Dict) and set(shown) == {SEEN, MASK}):
        return False
    if not (isinstance(actions, spaces.MultiDiscrete) and actions.nvec.shape == (2,)):
        return False
    seen, choices = shown[SEEN], int(actions.nvec[0])
    return (
        isinstance(seen, spaces.Box)
        and len(seen.shape) == 2
        and seen.shape[0] == 2
        and shown[MASK].shape == (2, choices)
        and int(actions.nvec[1]) == choices
    )


class SeatsInRows(gymnasium.Wrapper, RecordConstructorArgs):
    """Shows one row for each seat instead of observations and masks.

    Raises:
        UsageError: from `step` and `reset`, when a seat may do nothing though the episode goes on.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        RecordConstructorArgs.__init__(self)  # so that one made anew is wrapped like the first
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict)
        assert isinstance(env.action_space, spaces.MultiDiscrete)
        seen = env.observation_space[SEEN].shape
        assert seen is not None
        self.observation_space = SeatRows(MaskedRow(seen[1], int(env.action_space.nvec[0])))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, infos = self.env.reset(seed=seed, options=options)
        return _rows(observation, over=False), infos

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, infos = self.env.step(action)
        rows = _rows(observation, over=bool(terminated or truncated))
        return rows, reward, bool(terminated), bool(truncated), infos


class SeatsApart(VectorWrapper):
    """N games as 2N environments.

    A fault, and how a game ended, is told of the first seat, for both.

    Args:
        env: whose single observations are `SeatRows`.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        shown = env.single_observation_space
        assert isinstance(shown, SeatRows)
        self.single_observation_space = shown.row
        self.single_action_space = spaces.Discrete(shown.row.num_choices)

    @property
    def num_envs(self) -> int:
        return 2 * self.env.num_envs

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation.reshape(self.num_envs, -1), {}

    def step(self, actions: np.ndarray) -> Outcome:
        observation, reward, terminated, truncated, infos = self.env.step(actions.reshape(-1, 2))
        return (
            observation.reshape(self.num_envs, -1),
            np.stack([reward, -reward], axis=1).ravel(),
            np.repeat(terminated, 2),
            np.repeat(truncated, 2),
            {key: _of_first(infos[key]) for key in (FAULT, END) if key in infos},
        )


def _rows(observation: Any, *, over: bool) -> np.ndarray:
    mask = np.asarray(observation[MASK]) != 0
    if not over and not mask.any(axis=1).all():
        raise UsageError(
            "an action mask forbids everything to a seat",
            why="the game goes on, and whoever waits needs one choice as well",
            fix="let the environment allow one that does nothing",
        )
    return np.concatenate([observation[SEEN], mask], axis=1, dtype=np.float32)


def _of_first(told: np.ndarray) -> np.ndarray:
    """Return what is told of games, [N], as told of their first seats, [2N]; of the second it is then `CUT`."""
    both = np.full((len(told), 2), None, object)
    both[:, 0] = told
    both[[text is not None for text in told], 1] = CUT
    return both.ravel()
