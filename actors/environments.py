"""Environments of gymnasium: opened many at a time, and told in the terms of a network.

Shapes: `G` environments that are stepped together, `K` choices, `D` dimensions of an action.
"""

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from actors.action_masks import MaskedRow, with_mask_in_row
from actors.faults import Guard, VectorGuard
from actors.two_seats import SeatRows, SeatsApart, SeatsInRows, has_two_seats
from configs.schema import RolloutConfig
from configs.words import nearest
from core.environments import ActionSpec, EnvironmentSpec
from core.errors import UsageError

PREFIX = "gym:"
_CHANNELS = (1, 3, 4)

Adapter = Callable[[np.ndarray], np.ndarray]


def environment_id(game: str) -> str | None:
    """Return the environment that a configuration's `game` names, "gym:ID"; None if it names none."""
    return game.removeprefix(PREFIX) if game.startswith(PREFIX) else None


def open_environments(name: str, config: RolloutConfig, *, num_envs: int) -> VectorEnv:
    """Open G environments, guarded against their faults (see `actors.faults`).

    Of games whose seats are both played there are G, and each is two environments (see `actors.two_seats`).

    The observations that a step returns may be overwritten by the next.

    Args:
        name: as `gymnasium.make_vec` takes it, with its version; "module:ID" imports the module that registers it.

    Raises:
        UsageError: when there is no such environment, it cannot be opened, or it resets itself at another time than
            the step after an episode's last.
    """
    known = registered(name)

    def reopen() -> VectorEnv:
        return _opened(known, config, num_envs)

    env = reopen()
    mode = env.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP:
        env.close()
        raise UsageError(
            f"environments of {name} cannot be stepped together",
            why=f"their autoreset_mode is {getattr(mode, 'name', mode)}, and only NEXT_STEP shows the observation"
            " that an episode ends with, whose value is needed where a time limit cuts it",
            fix="set rollout.vectorization to sync, or rollout.env_options so that the mode is NEXT_STEP",
        )
    # Of environments in this process each has a guard of its own, and nothing is left that could fail.
    if not isinstance(env, SyncVectorEnv):
        env = VectorGuard(env, reopen, timeout_seconds=config.step_timeout_seconds)
    return SeatsApart(env) if isinstance(env.single_observation_space, SeatRows) else env


def environment_spec(env: VectorEnv) -> EnvironmentSpec:
    """Return what a network needs to know of one of these environments.

    Raises:
        UsageError: when its observations or actions are of a kind that is not supported.
    """
    seen = env.single_observation_space
    return EnvironmentSpec(
        *_observation_form(seen),
        actions=_action_spec(env.single_action_space),
        masked=isinstance(seen, MaskedRow),
    )


def observation_reader(env: VectorEnv) -> Adapter:
    """Return what turns observations of these environments [G, …] into a network's: images have channels first.

    The result may be a view of what it is given, and of another dtype than the specification's.
    """
    shape = env.single_observation_space.shape or ()
    if _channels_last(shape):
        return lambda observation: np.moveaxis(observation, -1, 1)
    if len(shape) == 2:
        return lambda observation: observation[:, None]
    return lambda observation: observation


def action_writer(env: VectorEnv) -> Adapter:
    """Return what turns stored actions, `ActionSpec.array` with G in front, into those of these environments.

    An action of a gaussian counts in half-ranges from the middle of its bounds, or as it is where one is infinite; it
    is clipped to the bounds.
    """
    space = env.single_action_space
    if isinstance(space, spaces.Box):
        return _box_writer(space)
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    start, dtype = space.start, space.dtype
    if isinstance(space, spaces.Discrete):
        return lambda action: (action[:, 0] + start).astype(dtype, copy=False)
    return lambda action: (action + start).astype(dtype, copy=False)


def _box_writer(space: spaces.Box) -> Adapter:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    half = np.where(bounded, (high - low) / 2, 1.0)
    centre = np.where(bounded, low + half, 0.0)
    return lambda action: np.clip(centre + half * action, low, high).astype(space.dtype)


def registered(name: str) -> EnvSpec:
    """Return how gymnasium knows an environment; "module:ID" imports the module that registers it.

    Raises:
        UsageError: when there is none of that name.
    """
    module, _, known_as = name.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(known_as)
    except ImportError as error:
        raise UsageError(
            f"environment {name!r} cannot be found",
            why=f"module {module!r} cannot be imported: {error}",
            fix="install what holds it, or start where it can be imported",
        ) from error
    except gymnasium.error.Error as error:
        near = nearest(known_as, list(gymnasium.registry))
        advice = "name it with the module that registers it, as in gym:ale_py:ALE/Pong-v5"
        raise UsageError(
            f"there is no environment {name!r}",
            why=str(error),
            fix=f"did you mean {' or '.join(near)}? Otherwise {advice}" if near else advice,
        ) from error


def _opened(known: EnvSpec, config: RolloutConfig, num_envs: int) -> VectorEnv:
    options: dict[str, Any] = dict(config.env_options)
    try:
        if config.vectorization == "auto" and known.vector_entry_point is not None:
            return gymnasium.make_vec(known, num_envs, **options)
        mode = "async" if config.vectorization == "async" else "sync"
        # The guards check what gymnasium's own checker does, at every step and without ending the run.
        return gymnasium.make_vec(
            known,
            num_envs,
            mode,
            vector_kwargs={"copy": False},
            wrappers=[_guarded],
            disable_env_checker=True,
            **options,
        )
    except Exception as error:
        raise UsageError(
            f"environment {known.id!r} cannot be opened",
            why=f"{type(error).__name__}: {error}",
            fix=f"check rollout.env_options={options} and whether all that it needs is installed",
        ) from error


def _guarded(env: gymnasium.Env) -> Guard:
    return Guard(SeatsInRows(env) if has_two_seats(env) else with_mask_in_row(env))


def _observation_form(space: spaces.Space) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype of an observation as it is stored."""
    if not isinstance(space, spaces.Box):
        why = "only a Box, or a Dict of observation and action_mask, is an array of numbers that a network can see"
        raise _unsupported("observations", space, why)
    shape = space.shape
    if not 1 <= len(shape) <= 3 or 0 in shape:
        raise _unsupported("observations", space, "an observation has one axis, or two or three of an image")
    if _channels_last(shape):
        shape = (shape[2], *shape[:2])
    elif len(shape) == 2:
        shape = (1, *shape)
    is_image = len(shape) == 3 and space.dtype == np.uint8
    return shape, "uint8" if is_image else "float32"


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in _CHANNELS


def _action_spec(space: spaces.Space) -> ActionSpec:
    if isinstance(space, spaces.Discrete):
        return ActionSpec("categorical", (int(space.n),), scalar=True)
    if isinstance(space, spaces.MultiDiscrete):
        if space.nvec.ndim != 1:
            raise _unsupported("actions", space, "its choices have more than one axis")
        return ActionSpec("categorical", tuple(space.nvec.tolist()))
    if not isinstance(space, spaces.Box):
        raise _unsupported("actions", space, "only Discrete, MultiDiscrete and Box are supported")
    if len(space.shape) != 1 or 0 in space.shape or space.dtype is None or space.dtype.kind != "f":
        raise _unsupported("actions", space, "of a Box only real numbers of one axis are supported")
    return ActionSpec("gaussian", space.shape, low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))


def _unsupported(what: str, space: spaces.Space, why: str) -> UsageError:
    return UsageError(
        f"the environment's {what} are of the space {space}"[:500],
        why=why,
        fix="register the environment with a wrapper that turns them into such, as gymnasium.wrappers"
        ".FlattenObservation does of observations, and name it as gym:module:ID",
    )
