"""What rollouts teach: PPO on steps whose advantages the critic estimated, V-trace on whole unrolls.

Shapes: `R` unrolls of a draw, `T` steps of an unroll, `n` valid steps of a draw.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from configs.schema import PolicyGradientConfig, RolloutConfig
from core.environments import EnvironmentSpec
from core.seeds import derive_rng
from learner.advantages import gae
from learner.moments import Moments
from learner.objective import ROW_ID, Columns, Lesson
from learner.policy_losses import ppo_losses, vtrace_losses
from learner.ppo_kernel import fits, fused_ppo_losses
from networks.actor_critic import ActorCritic
from networks.build import Net

BROUGHT_STEPS = 100_000
"""Of which scales are taken to be that come with weights, which do not say."""


class Scales:
    """How large observations and rewards are: learnt from rows, given to the net with each publication.

    Within a version they stand still, so that the net that learns is the one that acted.
    """

    def __init__(self, spec: EnvironmentSpec, rollout: RolloutConfig) -> None:
        is_image = spec.observation_dtype == "uint8"
        self._observations = Moments(spec.observation_shape) if not is_image else None
        if not rollout.normalise_observations:
            self._observations = None
        self._returns = Moments() if rollout.normalise_rewards else None

    @property
    def known(self) -> bool:
        """Whether any row has been seen, or none is needed."""
        return all(moments.count for moments in self._kept().values())

    @property
    def reward(self) -> float:
        """The standard deviation of the discounted sum of rewards."""
        return float(self._returns.deviation) if self._returns is not None else 1.0

    def learn(self, drawn: Columns) -> None:
        valid = drawn["valid"]
        if self._observations is not None:
            self._observations.add(drawn["observation"][:, :-1][valid])
        if self._returns is not None:
            self._returns.add(drawn["discounted_return"][valid])

    def begin_with(self, net: Net) -> None:
        """Take the observations' from a net that came with them, as if they were of `BROUGHT_STEPS` steps.

        So they move no faster than what the net has learnt on them. The reward's are those of the run alone: the net
        is rescaled to them without a change of what it says.
        """
        assert isinstance(net, ActorCritic)
        if self._observations is not None:
            mean, deviation = net.observation_moments()
            self._observations.set(BROUGHT_STEPS, mean, deviation**2)

    def give(self, net: Net) -> bool:
        """Set them in a net; return whether there are any."""
        assert isinstance(net, ActorCritic)
        if self._observations is not None:
            net.set_observation_moments(self._observations.mean, self._observations.deviation)
        if self._returns is not None:
            net.rescale_rewards(self.reward)
        return bool(self._kept())

    def state_dict(self) -> dict[str, Any]:
        return {name: moments.state_dict() for name, moments in self._kept().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, moments in self._kept().items():
            moments.load_state_dict(state[name])

    def _kept(self) -> dict[str, Moments]:
        kept = {"observations": self._observations, "returns": self._returns}
        return {name: moments for name, moments in kept.items() if moments is not None}


class PPO:
    """Several epochs over one draw, in minibatches of steps; see `learner.objective.Objective`.

    The scale of the reward at the beginning of a lesson is that of the version which plays, so it is what values are
    measured by; the first draw of a run teaches nothing but the scales.

    Args:
        spec: of the environment.
        config: of the algorithm.
        rollout: its discount, and what is normalised.
        seed: of the order of minibatches.
    """

    columns = ("observation", "action", "log_prob", "advantage", "value_target", "value")

    def __init__(
        self, spec: EnvironmentSpec, config: PolicyGradientConfig, rollout: RolloutConfig, *, seed: int
    ) -> None:
        self._actions = spec.actions
        self._config = config
        self._discount = rollout.discount
        self._seed = seed
        self._scales = Scales(spec, rollout)
        self._reward_scale = 1.0
        self._lessons = 0
        self._facts: dict[str, float] = {}

    def lesson(self, drawn: Columns) -> Lesson:
        """Yield minibatches; the lesson ends early once the policy has moved by `target_kl`."""
        if not self._scales.known:
            self._scales.learn(drawn)
            return True
        steps = self._steps(drawn)
        if not len(steps["log_prob"]):
            return False
        rng = derive_rng(self._seed, "minibatches", self._lessons)
        self._lessons += 1
        yield from self._epochs(steps, rng)
        self._scales.learn(drawn)
        return True

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"observation": part["observation"]}

    def totals(self, batch: Columns) -> dict[str, float]:
        return {"steps": len(batch["log_prob"])}

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        compute = fused_ppo_losses if fits(outputs, self._actions) else ppo_losses
        return compute(
            outputs,
            part,
            actions=self._actions,
            config=self._config,
            reward_scale=self._reward_scale,
            batch_steps=int(totals["steps"]),
        )

    def begin_with(self, net: Net) -> None:
        self._scales.begin_with(net)

    def before_publishing(self, net: Net) -> bool:
        self._reward_scale = self._scales.reward
        return self._scales.give(net)

    def facts(self) -> dict[str, float]:
        return self._facts | {"reward_scale": self._scales.reward}

    def state_dict(self) -> dict[str, Any]:
        return {
            "scales": self._scales.state_dict(),
            "reward_scale": self._reward_scale,
            "lessons": self._lessons,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._scales.load_state_dict(state["scales"])
        self._reward_scale = state["reward_scale"]
        self._lessons = state["lessons"]

    def _epochs(self, steps: Columns, rng: np.random.Generator) -> Lesson:
        config, num_steps = self._config, len(steps["log_prob"])
        minibatches = max(1, round(num_steps / config.minibatch_steps))
        bounds = [num_steps * k // minibatches for k in range(minibatches + 1)]
        first = True
        for _ in range(config.epochs):
            order = rng.permutation(num_steps)
            shuffled = {name: column[order] for name, column in steps.items()}
            for start, stop in pairwise(bounds):
                report = yield {name: column[start:stop] for name, column in shuffled.items()}
                if first:
                    # Before the first step the ratio is 1, but for rounding and the age of the rows.
                    self._facts = {"ratio_error": report.losses["ratio_error"]}
                    first = False
                if config.target_kl is not None and report.losses["kl"] > config.target_kl:
                    return True
        return True

    def _steps(self, drawn: Columns) -> Columns:
        """Return the valid steps [n, …] of a draw [R, T, …], with what PPO fits them to."""
        advantage, value_target = gae(
            drawn["reward"],
            drawn["value"],
            drawn["terminated"],
            drawn["truncated"],
            drawn["valid"],
            discount=self._discount,
            gae_lambda=self._config.gae_lambda,
        )
        valid = drawn["valid"]
        steps = {
            "observation": drawn["observation"][:, :-1][valid],
            "action": drawn["action"][valid],
            "log_prob": drawn["log_prob"][valid],
            "advantage": advantage[valid],
            "value_target": value_target[valid],
            "value": drawn["value"][:, :-1][valid],
        }
        if self._config.normalise_advantages:
            advantage = steps["advantage"]
            steps["advantage"] = (advantage - advantage.mean()) / (advantage.std() + np.float32(1e-8))
        else:
            steps["advantage"] = steps["advantage"] / np.float32(self._reward_scale)
        lengths = valid.sum(axis=1)
        return steps | {name: np.repeat(drawn[name], lengths) for name in ROW_ID}


class VTrace:
    """One step for each draw, on whole unrolls, corrected for the age of the policy that acted.

    Args:
        spec: of the environment.
        config: of the algorithm.
        rollout: its discount, and what is normalised.
    """

    columns = ("observation", "action", "log_prob", "reward", "terminated", "truncated", "valid")

    def __init__(self, spec: EnvironmentSpec, config: PolicyGradientConfig, rollout: RolloutConfig) -> None:
        self._actions = spec.actions
        self._config = config
        self._discount = rollout.discount
        self._scales = Scales(spec, rollout)
        self._reward_scale = 1.0

    def lesson(self, drawn: Columns) -> Lesson:
        known = self._scales.known
        self._scales.learn(drawn)
        if known:
            yield drawn
        return not known

    def network_inputs(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"observation": part["observation"].flatten(0, 1)}

    def totals(self, batch: Columns) -> dict[str, float]:
        return {"steps": max(1, int(batch["valid"].sum()))}

    def losses(
        self, outputs: Mapping[str, Tensor], part: Mapping[str, Tensor], totals: Mapping[str, float]
    ) -> dict[str, Tensor]:
        return vtrace_losses(
            outputs,
            part,
            actions=self._actions,
            config=self._config,
            discount=self._discount,
            reward_scale=self._reward_scale,
            batch_steps=int(totals["steps"]),
        )

    def begin_with(self, net: Net) -> None:
        self._scales.begin_with(net)

    def before_publishing(self, net: Net) -> bool:
        self._reward_scale = self._scales.reward
        return self._scales.give(net)

    def facts(self) -> dict[str, float]:
        return {"reward_scale": self._scales.reward}

    def state_dict(self) -> dict[str, Any]:
        return {"scales": self._scales.state_dict(), "reward_scale": self._reward_scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._scales.load_state_dict(state["scales"])
        self._reward_scale = state["reward_scale"]
