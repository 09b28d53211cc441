"""RLlib's APPO on an environment of classic control, until its last 100 episodes reach a mean return.

    ~/peers/rllib/bin/python benchmarks/peers/rllib_appo.py [--env CartPole-v1] [--envs 32] [--seconds 120]

Needs ray[rllib] and torch, not tamen. Prints one JSON object. The clock starts with the first training step, when all
of its processes are there.
"""

import argparse
import json
import time

import gymnasium
import ray
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

EPISODES = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--runners", type=int, default=1)
    parser.add_argument("--envs", type=int, default=32, help="of each runner")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    config = (
        APPOConfig()
        .environment(given.env)
        .env_runners(num_env_runners=given.runners, num_envs_per_env_runner=given.envs)
        .learners(num_learners=0)  # as its guide to scaling says for one learner
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .training(lr=0.0005, train_batch_size_per_learner=500, entropy_coeff=0.0, vf_loss_coeff=0.5)
        .reporting(metrics_num_episodes_for_smoothing=EPISODES, min_time_s_per_iteration=0)
        .debugging(seed=given.seed)
    )
    algorithm = config.build_algo()
    threshold = gymnasium.spec(given.env).reward_threshold
    began, solved, steps = time.monotonic(), False, 0
    while not solved and time.monotonic() - began < given.seconds:
        result = algorithm.train()
        steps = result.get("num_env_steps_sampled_lifetime", 0)
        returned = result["env_runners"].get("episode_return_mean", float("nan"))
        episodes = result["env_runners"].get("num_episodes_lifetime", 0)
        solved = episodes >= EPISODES and returned >= threshold
    elapsed = time.monotonic() - began
    algorithm.stop()
    ray.shutdown()
    print(
        json.dumps(
            {
                "peer": f"RLlib {ray.__version__} APPO, {given.runners} × {given.envs} environments",
                "env_steps_per_s": steps / elapsed,
                "solved_s": elapsed if solved else None,
                "solved_env_steps": steps if solved else None,
                "threshold": threshold,
            }
        )
    )


if __name__ == "__main__":
    main()
