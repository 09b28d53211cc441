"""Learners that step together take the very step that one would take alone."""

import multiprocessing
import pickle
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import LearnerConfig, NetworkConfig
from core.messages import BoardSpec
from learner.board_objective import BoardObjective
from learner.objective import Columns
from learner.step import Trainer, new_trainer
from learner.team import ALONE, Leader, Member, Team, join, part_of
from tests.learner.conftest import toy_columns

SPEC = BoardSpec(4, 4)
NETWORK = NetworkConfig(blocks=2, channels=8, precision="fp32")
CONFIG = LearnerConfig(batch_rows=32, microbatch_rows=7, warmup_steps=0, clip_norm=1e9, ema_decay=0.9)
STEPS = 3
ANSWER_SECONDS = 60.0


def trainer_in(team: Team) -> Trainer:
    objective = BoardObjective(CONFIG)
    return new_trainer(SPEC, NETWORK, CONFIG, objective, seed=1, device="cpu", team=team)


def batch(seed: int) -> dict[str, np.ndarray]:
    columns = toy_columns(33, seed=seed)
    columns["policy_weight"] = np.where(np.arange(33) < 20, 1.5, 0.0).astype(np.float32)
    return columns | {name: np.zeros(33, np.int32) for name in ("actor", "epoch")}


def gradient(trainer: Trainer) -> torch.Tensor:
    # With decay the published net is another; the one that is trained has the gradients.
    return torch.cat([p.grad.flatten() for p in trainer._net.parameters() if p.grad is not None])


class QueuePeer:
    """The way to a member in another process, by two queues."""

    def __init__(self, commands: "Queue[Any]", answers: "Queue[Any]") -> None:
        self._commands = commands
        self._answers = answers

    def begin_step(self, part: Columns, totals: Mapping[str, float]) -> None:
        self._commands.put(("step", dict(part), dict(totals)))

    def end_step(self) -> None:
        assert self._answers.get(timeout=ANSWER_SECONDS) in ("stepped", "followed")

    def follow(self, state: Mapping[str, Any]) -> None:
        numbers = {name: tensor.numpy() for name, tensor in state["net"].items()}
        self._commands.put(("follow", numbers, None))


def member(rendezvous: Path, commands: "Queue[Any]", answers: "Queue[Any]") -> None:
    """Be the second of two until told to end."""
    torch.set_num_threads(1)
    join(rendezvous, rank=1, size=2, device=torch.device("cpu"))
    trainer = trainer_in(Member(2))
    while True:
        command, data, totals = commands.get(timeout=ANSWER_SECONDS)
        if command == "end":
            return
        if command == "step":
            trainer.step_on_part(data, totals)
            answers.put("stepped")
        else:
            net = {name: torch.from_numpy(array) for name, array in data.items()}
            trainer.load_state_dict(trainer.state_dict() | {"net": net})
            answers.put("followed")


@pytest.fixture
def leader(tmp_path: Path) -> Any:
    context = multiprocessing.get_context("spawn")
    commands, answers = context.Queue(), context.Queue()
    process = context.Process(target=member, args=(tmp_path / "meeting", commands, answers), daemon=True)
    process.start()
    join(tmp_path / "meeting", rank=0, size=2, device=torch.device("cpu"))
    yield Leader([QueuePeer(commands, answers)])
    commands.put(("end", None, None))
    process.join(10.0)
    torch.distributed.destroy_process_group()
    if process.is_alive():
        process.kill()


def test_two_learners_take_the_step_of_one(leader: Leader) -> None:
    alone, together = trainer_in(ALONE), trainer_in(leader)
    together.lead()
    for seed in range(STEPS):
        expected, found = alone.step(batch(seed)), together.step(batch(seed))
        assert found.losses == pytest.approx(expected.losses, rel=1e-4)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
        assert found.rows == 33
        difference = (gradient(alone) - gradient(together)).norm() / gradient(alone).norm()
        # Adam makes something of gradients that are rounding alone, so that later steps differ a little more.
        assert float(difference) < (1e-5 if seed == 0 else 1e-3)


def test_a_batch_of_fewer_rows_than_learners_is_a_step_as_well(leader: Leader) -> None:
    alone, together = trainer_in(ALONE), trainer_in(leader)
    together.lead()
    row = {name: column[:1] for name, column in batch(0).items()}
    expected, found = alone.step(row), together.step(row)
    assert found.applied
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert float((gradient(alone) - gradient(together)).norm() / gradient(alone).norm()) < 1e-5


def test_a_batch_that_is_not_finite_is_refused_by_all(leader: Leader) -> None:
    together = trainer_in(leader)
    before = {name: tensor.clone() for name, tensor in together.published_net().state_dict().items()}
    broken = batch(0)
    broken["outcome"][-1] = np.nan  # in the other's part
    report = together.step(broken)
    assert not report.applied
    assert report.set_aside is not None
    assert len(report.set_aside) == 33
    assert all(torch.equal(t, before[name]) for name, t in together.published_net().state_dict().items())
    assert together.step(batch(1)).applied


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_make_up_the_batch(size: int) -> None:
    whole = batch(0)
    parts = [part_of(whole, rank=rank, size=size) for rank in range(size)]
    assert max(len(p["cells"]) for p in parts) - min(len(p["cells"]) for p in parts) <= 1
    for name, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), column)


def test_what_members_are_sent_is_no_larger_than_it_has_to_be() -> None:
    class Listener(Member):
        sent: Mapping[str, Any] = {}

        def joined(self, net: Any) -> Any:
            return net

        def follow(self, state: Mapping[str, Any]) -> None:
            self.sent = state

    team = Listener(2)
    trainer_in(team).lead()
    for name, tensor in team.sent["net"].items():  # each is pickled with all of its storage
        assert len(pickle.dumps(tensor)) < tensor.nbytes + 2000, name
