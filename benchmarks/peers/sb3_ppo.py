"""Stable-Baselines3's PPO on an environment of classic control, until its last 100 episodes reach a mean return.

    ~/peers/sb3/bin/python benchmarks/peers/sb3_ppo.py [--env CartPole-v1] [--envs 8] [--seconds 60] [--seed 0]

Needs stable-baselines3 alone, not tamen. Prints one JSON object. The clock starts with training, when the environments
and the network are there.
"""

import argparse
import json
import time
from importlib.metadata import version

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

EPISODES = 100


class UntilSolved(BaseCallback):
    """Ends training once the mean return of the last episodes is `threshold`, or the time is over."""

    def __init__(self, threshold: float, seconds: float) -> None:
        super().__init__()
        self._threshold = threshold
        self._seconds = seconds
        self._began = 0.0
        self.elapsed = 0.0
        self.solved = False

    def _on_training_start(self) -> None:
        self._began = time.monotonic()

    def _on_step(self) -> bool:
        episodes = self.model.ep_info_buffer
        self.elapsed = time.monotonic() - self._began
        self.solved = len(episodes) >= EPISODES and np.mean([e["r"] for e in episodes]) >= self._threshold
        return not self.solved and self.elapsed < self._seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    threshold = gymnasium.spec(given.env).reward_threshold
    until = UntilSolved(threshold, given.seconds)
    steps = max(32, 2048 // given.envs)
    environments = make_vec_env(given.env, n_envs=given.envs, seed=given.seed)
    # All else is its default: ten epochs, two nets of 64 × 64 tanh units, Adam at 3e-4.
    model = PPO("MlpPolicy", environments, n_steps=steps, batch_size=256, device="cpu", seed=given.seed)
    model.learn(10**9, callback=until)
    print(
        json.dumps(
            {
                "peer": f"stable-baselines3 {version('stable-baselines3')} PPO, {given.envs} environments",
                "env_steps_per_s": model.num_timesteps / until.elapsed,
                "solved_s": until.elapsed if until.solved else None,
                "solved_env_steps": model.num_timesteps if until.solved else None,
                "threshold": threshold,
            }
        )
    )


if __name__ == "__main__":
    main()
