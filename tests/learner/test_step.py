"""One optimiser step: what it adds up, what it refuses, and what it remembers."""

import functools
import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from configs.schema import LearnerConfig, NetworkConfig
from core.errors import DataError
from core.messages import BoardSpec
from learner.board_objective import BoardObjective
from learner.objective import Columns
from learner.schedule import learning_rate
from learner.step import MAX_FAULTS_IN_A_ROW, Trainer
from networks.build import new_net
from networks.precision import resolve
from networks.tower import BoardNet

MakeBatch = Callable[..., Columns]
SPEC = BoardSpec(4, 4)
CONFIG = LearnerConfig(batch_rows=32, microbatch_rows=32, warmup_steps=5, learning_rate=5e-3, ema_decay=0.9)


def make_trainer(precision: str = "fp32", **changes: object) -> tuple[Trainer, BoardNet]:
    arithmetic = resolve(precision, "cpu")
    net = arithmetic.place(new_net(SPEC, NetworkConfig(blocks=2, channels=8), seed=1))
    config = CONFIG.model_copy(update=changes)
    schedule = functools.partial(learning_rate, config)
    return Trainer(net, BoardObjective(config), config, arithmetic, schedule=schedule), net


def gradient(net: BoardNet) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def bits(trainer: Trainer) -> bytes:
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    return buffer.getvalue()


def same_state(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    return a == b


@pytest.mark.parametrize("microbatch_rows", [3, 16, 31])
def test_microbatches_of_any_size_give_the_gradient_of_the_whole_batch(
    microbatch_rows: int, toy_batch: MakeBatch
) -> None:
    batch = dict(toy_batch(32))
    batch["policy_weight"] = np.where(np.arange(32) < 9, 0.0, 1.5).astype(np.float32)
    whole, whole_net = make_trainer(clip_norm=1e9)
    parts, parts_net = make_trainer(clip_norm=1e9, microbatch_rows=microbatch_rows)
    for _ in range(2):
        expected, found = whole.step(batch), parts.step(batch)
        difference = (gradient(whole_net) - gradient(parts_net)).norm() / gradient(whole_net).norm()
        assert float(difference) < 1e-5
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
        assert found.losses["loss"] == pytest.approx(expected.losses["loss"], rel=1e-5)


def test_a_batch_without_any_policy_still_teaches_the_value(toy_batch: MakeBatch) -> None:
    batch = {**toy_batch(8), "policy_weight": np.zeros(8, np.float32)}
    trainer, _ = make_trainer()
    report = trainer.step(batch)
    assert report.applied
    assert report.losses["policy_loss"] == 0.0
    assert report.losses["value_loss"] > 0.0


def test_the_gradient_is_clipped_to_its_norm(toy_batch: MakeBatch) -> None:
    trainer, net = make_trainer(clip_norm=0.01)
    report = trainer.step(toy_batch(32))
    assert report.grad_norm > 0.01
    assert float(gradient(net).norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_rate_follows_the_schedule_of_applied_steps(toy_batch: MakeBatch) -> None:
    trainer, _ = make_trainer()
    poisoned = {**toy_batch(8), "outcome": np.full(8, np.nan, np.float32)}
    rates = [
        trainer.step(batch).learning_rate for batch in (toy_batch(8), poisoned, toy_batch(8), toy_batch(8))
    ]
    assert rates == [learning_rate(CONFIG, step) for step in (0, 1, 1, 2)]


def test_weights_decay_and_biases_do_not(toy_batch: MakeBatch) -> None:
    changes = {"policy_weight": 0.0, "value_weight": 0.0, "weight_decay": 0.5, "learning_rate": 0.1}
    trainer, net = make_trainer(warmup_steps=0, **changes)
    with torch.no_grad():
        net.stem.bias.fill_(1.0)
    before = net.stem.weight.detach().clone()
    trainer.step(toy_batch(8))
    torch.testing.assert_close(net.stem.weight.detach(), before * 0.95)
    assert bool((net.stem.bias == 1.0).all())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_never_applied_and_its_rows_are_named(
    bad: float, toy_batch: MakeBatch
) -> None:
    trainer, _ = make_trainer()
    untouched, _ = make_trainer()
    for each in (trainer, untouched):
        each.step(toy_batch(8))
    outcome = toy_batch(4)["outcome"].copy()
    outcome[2] = bad
    report = trainer.step({**toy_batch(4), "outcome": outcome})
    assert not report.applied
    assert report.reason == "the loss is not finite"
    assert report.set_aside is not None
    assert report.set_aside.tolist() == [[3, 1, 0, 0], [3, 1, 1, 1], [3, 1, 2, 2], [3, 1, 3, 3]]
    assert (trainer.batches_set_aside, trainer.rows_set_aside, trainer.steps) == (1, 4, 1)
    assert (
        trainer.step(toy_batch(8, seed=5)).losses["loss"]
        == untouched.step(toy_batch(8, seed=5)).losses["loss"]
    )
    assert same_state(trainer.state_dict()["net"], untouched.state_dict()["net"])
    assert same_state(trainer.state_dict()["optimizer"], untouched.state_dict()["optimizer"])
    assert same_state(trainer.state_dict()["average"], untouched.state_dict()["average"])


def test_a_gradient_that_is_not_finite_is_never_applied(toy_batch: MakeBatch) -> None:
    trainer, net = make_trainer()
    before = bits(trainer)
    hook = net.stem.bias.register_hook(lambda gradient: gradient * math.nan)
    report = trainer.step(toy_batch(8))
    hook.remove()
    assert report.reason == "the gradient is not finite"
    assert math.isfinite(report.losses["loss"])
    assert report.set_aside is not None
    trainer.batches_set_aside = trainer.rows_set_aside = 0
    assert trainer.step(toy_batch(8)).applied
    other, _ = make_trainer()
    assert bits(other) == before


def test_many_faults_in_a_row_end_the_run_and_one_good_batch_forgives(toy_batch: MakeBatch) -> None:
    trainer, _ = make_trainer()
    poisoned = {**toy_batch(2), "outcome": np.full(2, np.nan, np.float32)}
    for _ in range(2):
        for _ in range(MAX_FAULTS_IN_A_ROW - 1):
            trainer.step(poisoned)
        assert trainer.step(toy_batch(2)).applied
    for _ in range(MAX_FAULTS_IN_A_ROW - 1):
        trainer.step(poisoned)
    with pytest.raises(DataError, match="10 batches in a row"):
        trainer.step(poisoned)


def test_an_overflow_of_fp16_halves_the_scale_and_blames_no_row(toy_batch: MakeBatch) -> None:
    trainer, net = make_trainer("fp16")
    while not trainer.step(toy_batch(8)).applied:
        pass
    scale = trainer.state_dict()["scaler"]["scale"]
    steps = trainer.steps
    hook = net.stem.bias.register_hook(lambda gradient: gradient * math.inf)
    report = trainer.step(toy_batch(8))
    hook.remove()
    assert not report.applied
    assert "overflowed fp16" in report.reason
    assert report.set_aside is None
    assert (trainer.batches_set_aside, trainer.steps) == (0, steps)
    assert trainer.state_dict()["scaler"]["scale"] == scale / 2


def test_a_gradient_that_overflows_at_every_scale_is_the_fault_of_its_rows(toy_batch: MakeBatch) -> None:
    trainer, net = make_trainer("fp16")
    net.stem.bias.register_hook(lambda gradient: gradient * math.inf)
    for _ in range(16):
        assert trainer.step(toy_batch(2)).set_aside is None
    assert trainer.step(toy_batch(2)).set_aside is not None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_trainer_goes_on_bit_for_bit_from_its_saved_state(precision: str, toy_batch: MakeBatch) -> None:
    straight, _ = make_trainer(precision)
    for seed in range(4):
        straight.step(toy_batch(8, seed=seed))
    stored = io.BytesIO(bits(straight))
    resumed, _ = make_trainer(precision)
    resumed.step(toy_batch(8, seed=99))
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    for seed in range(4, 8):
        expected, found = straight.step(toy_batch(8, seed=seed)), resumed.step(toy_batch(8, seed=seed))
        assert (found.losses["loss"], found.grad_norm) == (expected.losses["loss"], expected.grad_norm)
    assert same_state(straight.state_dict(), resumed.state_dict())


def test_a_resumed_trainer_obeys_the_configuration_it_is_given(toy_batch: MakeBatch) -> None:
    first, _ = make_trainer(weight_decay=0.0)
    first.step(toy_batch(8))
    resumed, net = make_trainer(weight_decay=0.5, learning_rate=0.1, policy_weight=0.0, value_weight=0.0)
    resumed.load_state_dict(first.state_dict())
    before = net.policy_head.hidden.weight.detach().abs().sum()
    for _ in range(20):
        resumed.step(toy_batch(8))
    assert float(net.policy_head.hidden.weight.detach().abs().sum()) < 0.9 * float(before)


def test_the_average_is_of_the_weights_after_each_step_without_the_random_start(toy_batch: MakeBatch) -> None:
    trainer, net = make_trainer()
    seen: list[torch.Tensor] = []
    for seed in range(5):
        trainer.step(toy_batch(8, seed=seed))
        seen.append(net.stem.weight.detach().double().clone())
    shares = torch.tensor([0.9 ** (4 - k) for k in range(5)], dtype=torch.float64)
    expected = sum(share * weight for share, weight in zip(shares / shares.sum(), seen, strict=True))
    torch.testing.assert_close(trainer.average.net.stem.weight.double(), expected, rtol=1e-5, atol=1e-7)


def test_without_decay_the_average_is_the_newest_weights(toy_batch: MakeBatch) -> None:
    trainer, net = make_trainer(ema_decay=0.0)
    for seed in range(3):
        trainer.step(toy_batch(8, seed=seed))
    assert torch.equal(trainer.average.net.stem.weight, net.stem.weight)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns_the_toy_that_an_untrained_net_fails(
    precision: str, toy_batch: MakeBatch
) -> None:
    trainer, _ = make_trainer(precision, learning_rate=0.01)
    reports = [trainer.step(toy_batch(32, seed=seed)) for seed in range(90)]

    def knows_the_toy(part: slice) -> bool:
        excess = np.mean(
            [report.losses["policy_loss"] - report.losses["target_entropy"] for report in reports[part]]
        )
        return bool(
            excess < 0.15 and np.mean([report.losses["value_error"] for report in reports[part]]) < 0.4
        )

    assert not knows_the_toy(slice(0, 1))
    assert knows_the_toy(slice(-10, None))
