"""Unrolls of a toy environment, made without it: what is right can be seen in the observation."""

import numpy as np

from configs.schema import RolloutConfig
from core.environments import ActionSpec, EnvironmentSpec

SPEC = EnvironmentSpec((3,), "float32", ActionSpec("categorical", (2,), scalar=True))
ROLLOUT = RolloutConfig(unroll_steps=8)


def unrolls(rows: int, *, seed: int, version: int = 0, steps: int = 8) -> dict[str, np.ndarray]:
    """Return rows in which action 1 is rewarded where the first number of an observation is positive, 0 elsewhere.

    The policy that acted chose by a coin; its values were zero. Every fourth step ends an episode, alternating between
    its end and a time limit, and the step after it only resets.
    """
    rng = np.random.default_rng(seed)
    observation = rng.normal(2.0, 5.0, (rows, steps + 1, 3)).astype(np.float32)
    action = rng.integers(0, 2, (rows, steps, 1))
    right = action[..., 0] == (observation[:, :-1, 0] > 2.0)
    valid = np.ones((rows, steps), bool)
    terminated, truncated = np.zeros((rows, steps), bool), np.zeros((rows, steps), bool)
    terminated[:, 2::8], truncated[:, 6::8] = True, True
    valid[:, 3::4] = False
    reward = np.where(valid, right, False).astype(np.float32) * 10
    return {
        "observation": observation,
        "action": action,
        "log_prob": np.full((rows, steps), np.log(0.5), np.float32),
        "value": np.zeros((rows, steps + 1), np.float32),
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
        "valid": valid,
        "discounted_return": np.cumsum(reward, axis=1).astype(np.float32),
        "seq": np.arange(rows, dtype=np.int64),
        "step": np.zeros(rows, np.int32),
        "weights_version": np.full(rows, version, np.int32),
        "actor": np.zeros(rows, np.int32),
        "epoch": np.zeros(rows, np.int32),
    }
