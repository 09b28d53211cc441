"""Environments in which not everything can be done at every step: what can be travels as the end of the observation.

Such an environment shows a `Dict` of "observation" and "action_mask", as PettingZoo's do. `MaskInRow` makes one row of
the two. The network writes into its policy what the mask forbids (see `networks.actor_critic`); between the two a row
is stored, sent and learnt from as any other.

Shapes: `F` numbers to see, `P` numbers of a policy.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from core.errors import UsageError

SEEN, MASK = "observation", "action_mask"


class MaskedRow(spaces.Box):
    """Rows of float32 [F+P]: what there is to see, then the mask, 1 for what may be chosen and 0 for what may not.

    Attributes:
        num_choices: P.
    """

    def __init__(self, seen: int, num_choices: int) -> None:
        low = np.concatenate([np.full(seen, -np.inf), np.zeros(num_choices)]).astype(np.float32)
        high = np.concatenate([np.full(seen, np.inf), np.ones(num_choices)]).astype(np.float32)
        super().__init__(low, high, dtype=np.float32)
        self.num_choices = num_choices


class MaskInRow(gymnasium.Wrapper, RecordConstructorArgs):
    """Shows one row instead of an observation and its mask; of an observation of any shape the numbers in order.

    Args:
        env: shows a `Dict` of "observation", a Box, and "action_mask", zeros and ones [P].

    Raises:
        UsageError: when it does not; also from `step` and `reset`, when nothing may be done though the episode goes on.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        RecordConstructorArgs.__init__(self)  # so that one made anew is wrapped like the first
        super().__init__(env)
        space, actions = env.observation_space, env.action_space
        assert isinstance(space, spaces.Dict)
        seen, mask = space[SEEN], space[MASK]
        choices = num_choices(actions)
        if set(space) != {SEEN, MASK} or not isinstance(seen, spaces.Box) or mask.shape != (choices,):
            raise UsageError(
                f"the environment's observations are of the space {space}"[:500],
                why=f"beside a mask only 'observation', a Box, is understood, and the mask of {actions} would have"
                f" {choices} numbers",
                fix="register the environment with a wrapper that shows these two",
            )
        self.observation_space = MaskedRow(int(np.prod(seen.shape)), choices)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, infos = self.env.reset(seed=seed, options=options)
        return self._row(observation, over=False), infos

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, infos = self.env.step(action)
        row = self._row(observation, over=bool(terminated or truncated))
        return row, reward, bool(terminated), bool(truncated), infos

    def _row(self, observation: Any, *, over: bool) -> np.ndarray:
        mask = np.asarray(observation[MASK]) != 0
        if not over and not _may_act(mask, self.action_space):
            raise UsageError(
                "an action mask forbids everything",
                why="the episode goes on, and there is nothing that may be done",
                fix="let the environment end the episode, or allow it to do nothing",
            )
        return np.concatenate([np.ravel(observation[SEEN]), mask], dtype=np.float32)


def with_mask_in_row(env: gymnasium.Env) -> gymnasium.Env:
    """Return the environment with its mask at the end of its observations, or as it is where it has none."""
    space = env.observation_space
    if isinstance(space, spaces.Dict) and {SEEN, MASK} <= set(space):
        return MaskInRow(env)
    return env


def num_choices(actions: spaces.Space) -> int:
    """Return P, over all the choices that an action is made of.

    Raises:
        UsageError: when actions are no choices.
    """
    if isinstance(actions, spaces.Discrete):
        return int(actions.n)
    if isinstance(actions, spaces.MultiDiscrete) and actions.nvec.ndim == 1:
        return int(actions.nvec.sum())
    raise UsageError(
        f"an action mask cannot be of the actions {actions}"[:500],
        why="only choices can be forbidden, of Discrete or MultiDiscrete",
        fix="register the environment with a wrapper that shows no mask",
    )


def _may_act(mask: np.ndarray, actions: spaces.Space) -> bool:
    """Whether each choice of an action has something that may be chosen."""
    sizes = actions.nvec if isinstance(actions, spaces.MultiDiscrete) else [num_choices(actions)]
    return all(part.any() for part in np.split(mask, np.cumsum(sizes)[:-1]))
