"""PPO and V-trace learn from unrolls: what a lesson is made of, and that the policy gets better."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import LearnerConfig, NetworkConfig, PolicyGradientConfig
from learner.objective import Columns, Objective, StepReport
from learner.policy_objectives import BROUGHT_STEPS, PPO, VTrace
from learner.step import Trainer, new_trainer
from networks.actor_critic import ActorCritic
from networks.build import to_weights
from tests.learner.rollouts import ROLLOUT, SPEC, unrolls

CONFIG = LearnerConfig(
    microbatch_rows=4096, learning_rate=3e-3, weight_decay=0, warmup_steps=0, clip_norm=0.5, ema_decay=0
)
POLICY = PolicyGradientConfig(epochs=3, minibatch_steps=24)


def ppo(**changes: Any) -> PPO:
    return PPO(SPEC, POLICY.model_copy(update=changes), ROLLOUT, seed=7)


def vtrace() -> VTrace:
    return VTrace(SPEC, PolicyGradientConfig(algorithm="vtrace"), ROLLOUT)


def trainer_of(objective: Objective) -> Trainer:
    return new_trainer(
        SPEC, NetworkConfig(layers=(16,), precision="fp32"), CONFIG, objective, seed=1, device="cpu"
    )


def attend(objective: Objective, trainer: Trainer, drawn: Columns) -> tuple[list[StepReport], bool]:
    """Go through a lesson; return its steps, and whether it asks to be published."""
    lesson, reports = objective.lesson(drawn), []
    try:
        batch = next(lesson)
        while True:
            reports.append(trainer.step(batch))
            batch = lesson.send(reports[-1])
    except StopIteration as end:
        return reports, end.value


def chance_of_the_right_action(trainer: Trainer) -> float:
    columns = unrolls(64, seed=99)
    observation = torch.from_numpy(columns["observation"][:, :-1].reshape(-1, 3))
    with torch.no_grad():
        policy = torch.softmax(trainer.published_net()({"observation": observation})["policy"], dim=1)
    right = (observation[:, 0] > 2.0).long()
    return float(policy.gather(1, right[:, None]).mean())


@pytest.mark.parametrize("make", [ppo, vtrace])
def test_the_first_draw_only_teaches_the_scales(make: Any) -> None:
    objective = make()
    reports, publish = attend(objective, trainer_of(objective), unrolls(8, seed=0))
    assert (reports, publish) == ([], True)
    assert objective.facts()["reward_scale"] > 1.0


@pytest.mark.parametrize("make", [ppo, vtrace])
def test_weights_keep_the_scales_that_they_came_with(make: Any) -> None:
    """The first draws change what the net says by no more than its steps do, though the rows are scaled otherwise."""
    net = ActorCritic(SPEC, NetworkConfig(layers=(16,)), seed=3)
    net.set_observation_moments(np.array([3.0, -2.0, 0.5]), np.array([4.0, 2.0, 9.0]))
    first = to_weights(net, model="main", version=9, game="toy")
    objective = make()
    trainer = new_trainer(
        SPEC,
        NetworkConfig(layers=(16,), precision="fp32"),
        CONFIG.model_copy(update={"learning_rate": 1e-9}),
        objective,
        seed=1,
        device="cpu",
        first=first,
    )
    before = policy_and_value(net)
    torch.testing.assert_close(policy_and_value(trainer.published_net()), before)
    for seed in range(3):
        attend(objective, trainer, unrolls(32, seed=seed))
    after = policy_and_value(trainer.published_net())
    assert objective.facts()["reward_scale"] > 1.0
    torch.testing.assert_close(after, before, atol=0.05, rtol=0)
    moments = objective.state_dict()["scales"]["observations"]
    seen = sum(int(unrolls(32, seed=seed)["valid"].sum()) for seed in range(3))
    assert moments["count"] == BROUGHT_STEPS + seen
    np.testing.assert_allclose(moments["mean"].numpy(), [3.0, -2.0, 0.5], atol=0.1)


def policy_and_value(net: Any) -> list[torch.Tensor]:
    observation = torch.from_numpy(unrolls(16, seed=5)["observation"][:, :-1].reshape(-1, 3))
    with torch.no_grad():
        said = net({"observation": observation})
    return [said["policy"], said["value"]]


@pytest.mark.parametrize("make", [ppo, vtrace])
def test_a_policy_learns_what_is_rewarded(make: Any) -> None:
    objective = make()
    trainer = trainer_of(objective)
    attend(objective, trainer, unrolls(32, seed=0))
    trainer.published_net()
    before = chance_of_the_right_action(trainer)
    for seed in range(1, 60 if make is vtrace else 8):
        attend(objective, trainer, unrolls(32, seed=seed))
        trainer.published_net()
    assert before == pytest.approx(0.5, abs=0.05)
    # All rows are a coin's: from there PPO goes no further than its clip.
    assert chance_of_the_right_action(trainer) > (0.75 if make is vtrace else 0.62)


def test_every_valid_step_is_learnt_from_once_an_epoch() -> None:
    objective = ppo()
    objective.load_state_dict(_knowing_scales())
    drawn = unrolls(8, seed=3)
    lesson, seen = objective.lesson(drawn), []
    try:
        batch = next(lesson)
        while True:
            seen.append(batch)
            batch = lesson.send(_report())
    except StopIteration:
        pass
    steps = int(drawn["valid"].sum())
    assert sum(len(batch["log_prob"]) for batch in seen) == POLICY.epochs * steps
    assert {len(batch["log_prob"]) for batch in seen} <= {steps // 2, steps - steps // 2}
    first_epoch = np.concatenate([batch["observation"] for batch in seen[:2]])
    expected = drawn["observation"][:, :-1][drawn["valid"]]
    np.testing.assert_array_equal(np.sort(first_epoch, axis=0), np.sort(expected, axis=0))
    advantages = np.concatenate([batch["advantage"] for batch in seen[:2]])
    assert advantages.mean() == pytest.approx(0.0, abs=1e-5)
    assert advantages.std() == pytest.approx(1.0, abs=1e-4)


def test_a_lesson_ends_once_the_policy_has_moved_far_enough() -> None:
    objective = ppo(target_kl=0.01)
    objective.load_state_dict(_knowing_scales())
    lesson = objective.lesson(unrolls(8, seed=3))
    next(lesson)
    lesson.send(_report(kl=0.005))
    with pytest.raises(StopIteration) as end:
        lesson.send(_report(kl=0.02))
    assert end.value.value is True


def test_the_ratio_is_one_while_the_weights_are_those_that_acted() -> None:
    """The network acts, its own log-probabilities are stored, and the learner computes them again."""
    objective = ppo()
    trainer = trainer_of(objective)
    attend(objective, trainer, unrolls(16, seed=0))
    net = trainer.published_net()
    drawn = unrolls(16, seed=1)
    with torch.no_grad():
        observation = torch.from_numpy(drawn["observation"][:, :-1])
        log_policy = torch.log_softmax(net({"observation": observation.reshape(-1, 3)})["policy"], dim=1)
    chosen = log_policy.gather(1, torch.from_numpy(drawn["action"].reshape(-1, 1)))
    drawn["log_prob"] = chosen.numpy().reshape(drawn["log_prob"].shape)
    attend(objective, trainer, drawn)
    assert objective.facts()["ratio_error"] < 1e-5
    attend(objective, trainer, unrolls(16, seed=2))
    assert objective.facts()["ratio_error"] > 1e-3, "these were chosen by a coin"


def test_scales_stand_still_within_a_lesson_and_values_keep_their_meaning_after_it() -> None:
    objective = ppo()
    trainer = trainer_of(objective)
    attend(objective, trainer, unrolls(16, seed=0))
    net = trainer.published_net()
    observation = {"observation": torch.ones(1, 3)}
    scale = objective.facts()["reward_scale"]
    larger = unrolls(16, seed=1)
    larger["reward"] *= 100
    larger["discounted_return"] *= 100
    lesson = objective.lesson(larger)
    batch = next(lesson)
    value = float(net(observation)["value"].detach())
    assert objective.facts()["reward_scale"] == scale
    with contextlib.suppress(StopIteration):
        while True:
            batch = lesson.send(_report())
    assert len(batch)
    assert objective.facts()["reward_scale"] > 2 * scale
    # Other observations have other moments now; those of this one are left as they were to look at the reward alone.
    moments = {name: tensor.clone() for name, tensor in net.normaliser.state_dict().items()}
    trainer.published_net()
    for name in ("mean", "inverse_deviation"):
        getattr(net.normaliser, name).copy_(moments[name])
    assert float(net(observation)["value"].detach()) == pytest.approx(value, rel=1e-5)


def test_an_objective_goes_on_from_its_state() -> None:
    objective, again = ppo(), ppo()
    trainer = trainer_of(objective)
    for seed in range(3):
        attend(objective, trainer, unrolls(8, seed=seed))
    again.load_state_dict(objective.state_dict())
    drawn = unrolls(8, seed=9)
    one, other = next(objective.lesson(drawn)), next(again.lesson(drawn))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert again.facts()["reward_scale"] == objective.facts()["reward_scale"]


def _knowing_scales() -> Mapping[str, Any]:
    objective = ppo()
    attend(objective, trainer_of(objective), unrolls(8, seed=0))
    return objective.state_dict()


def _report(*, kl: float = 0.0) -> StepReport:
    return StepReport(
        rows=1,
        losses={"loss": 0.0, "kl": kl, "ratio_error": 0.0},
        grad_norm=0.0,
        learning_rate=0.0,
        applied=True,
        reason="",
        set_aside=None,
    )
