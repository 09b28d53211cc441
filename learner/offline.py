"""Fits a network to rows at rest: from first weights to last, in one order, resumable to the batch.

Which rows, what they teach and how that is judged is a `Task`; `learner.board_fitting` and `learner.hand_values` have
one each.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.schema import StepConfig
from core.errors import TamenError, UsageError
from core.files import write_atomic
from learner.ahead import Ahead
from learner.checkpoint import CheckpointStore
from learner.loop import Publisher
from learner.objective import Columns, StepReport
from learner.schedule import rate_by_share
from learner.step import Trainer
from networks.build import Net, to_weights
from networks.precision import Precision
from networks.weights import Weights

METRICS_FILE = "fitting.jsonl"
_OF_CHECKPOINTS = {"checkpoint_every_seconds", "checkpoints_kept"}


@dataclass(frozen=True, slots=True)
class Around:
    """What surrounds a fitting.

    Attributes:
        publisher: where the finished weights go.
        progress: told (done, total, unit).
        should_stop: whether to save and leave off.
        log: takes a line for people.
        device: torch device name.
        clock: monotonic seconds.
    """

    publisher: Publisher
    progress: Callable[[float, float, str], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]
    device: str = "cpu"
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a network is fitted, what is published of it, and how it is spoken of.

    Attributes:
        model: name to publish under.
        game: name that the weights carry.
        learner: what a step is, and how often a checkpoint is written.
        total_rows: rows to be learnt from.
        minutes: after which it ends even if rows are left; None: never.
        mini_epoch_rows: it is judged after each so many rows; no batch goes beyond them.
        best_by: figure of a report; the weights of the mini-epoch where it was lowest are published. None: the last.
        compared: all that the result depends on beside `learner`, by the names of settings, as plain JSON.
        unit: what rows are called.
        origin: what rows were cut from, also for people; None: each stands for itself.
    """

    model: str
    game: str
    learner: StepConfig
    total_rows: int
    minutes: float | None = None
    mini_epoch_rows: int
    best_by: str | None = None
    compared: Mapping[str, Any]
    unit: str = "rows"
    origin: str | None = None

    def rate(self, share: float, *, warmup: float, final: float) -> float:
        """Return the learning rate when a `share` in [0, 1] of rows or time is used up; see `rate_by_share`."""
        return rate_by_share(
            self.learner.learning_rate,
            share,
            warmup=warmup,
            final=final,
            steps_in_all=max(1.0, self.total_rows / self.learner.batch_rows),
        )


class Task(Protocol):
    """What a network is to learn from rows at rest.

    Attributes:
        plan: see there.
    """

    @property
    def plan(self) -> Plan: ...

    def new_trainer(self, device: str, schedule: Callable[[int], float]) -> Trainer:
        """Return the trainer of an untrained net.

        Args:
            device: torch device name.
            schedule: the learning rate after so many steps.
        """
        ...

    def rate(self, steps: int, share: float) -> float:
        """Return the learning rate after so many steps, when a `share` in [0, 1] of rows or time is used up."""
        ...

    def batch(self, drawn: int, rows: int) -> Columns:
        """Return the `rows` rows that follow the first `drawn`; they depend on nothing else. Called on a thread."""
        ...

    def judge(self, net: Net, precision: Precision) -> dict[str, Any] | None:
        """Return a report on rows kept apart, as plain JSON; None where there are none. The net is not changed."""
        ...

    def in_words(self, entry: Mapping[str, Any]) -> str:
        """Return a line of `fitting.jsonl` for people."""
        ...

    def remedy(self, changes: Mapping[str, tuple[Any, Any]]) -> str | None:
        """Return what a person can do about changed settings, (before, now) by name; None: it can go on with these."""
        ...


class OfflineLearner:
    """Takes steps on the batches of a task until its rows, or its time, are used up.

    On the CPU in fp32 the result depends on the task and the number of torch's threads alone, bit for bit, unless its
    time is bounded.

    Args:
        task: what is learnt.
        folder: for checkpoints and `fitting.jsonl`, a line for each mini-epoch.
        around: what surrounds it.

    Attributes:
        history: the lines of `fitting.jsonl`.
    """

    def __init__(self, task: Task, folder: Path, around: Around) -> None:
        self._task = task
        self._plan = task.plan
        self._folder = folder
        self._around = around
        self._checkpoints = CheckpointStore(folder / "checkpoints", keep=self._plan.learner.checkpoints_kept)
        self._trainer = task.new_trainer(around.device, self._rate)
        self.history: list[dict[str, Any]] = []
        self._drawn = 0
        self._losses: list[Mapping[str, float]] = []
        self._best: Weights | None = None
        self._version = (around.publisher.newest_version() or 0) + 1
        self._seconds_before = 0.0
        self._began = self._saved_at = around.clock()

    def resume(self) -> None:
        """Go on from the newest sound checkpoint, if there is one.

        Raises:
            UsageError: when it was made with other settings, and the task does not go on with them.
            DataError: when every checkpoint is damaged.
        """
        checkpoint = self._checkpoints.load_newest()
        if checkpoint is None:
            return
        state = checkpoint.state
        changed = self._refuse_changes(state["settings"])
        self._trainer.load_state_dict(checkpoint.trainer_state)
        self._drawn, self.history, self._losses = state["drawn"], state["history"], list(state["losses"])
        self._seconds_before = state["seconds"]
        if not changed:  # else what it was to be may have been published already
            self._version = state["version"]
        if self.best_entry() is not None:
            self._best = checkpoint.weights
        for sentence in checkpoint.skipped:
            self._around.log(sentence)
        self._around.log(
            f"goes on after {self._drawn:,} {self._plan.unit}, from checkpoint {checkpoint.number}"
        )

    def run(self) -> dict[str, Any]:
        """Fit until the end or until asked to stop, save, and at the end publish.

        Returns:
            {"rows", "steps", "seconds", "version", "rows_set_aside", "finished"}, plain JSON; the version is None
            unless it finished.

        Raises:
            DataError: when rows are damaged, or batch after batch cannot be learnt from.
            TamenError: when weights or the last checkpoint cannot be written.
        """
        stopped = False
        batches = Ahead(self._batches())
        try:
            while self._share() < 1 and not stopped:
                self._step(batches.next())
                stopped = self._around.should_stop()
        finally:
            batches.close()
        finished = self._share() >= 1
        if finished and self._drawn > self._judged_rows():
            self._end_mini_epoch()
        self.save()
        if finished:
            self._around.publisher.publish(self._weights())
        return {
            "rows": self._drawn,
            "steps": self._trainer.steps,
            "seconds": round(self._seconds(), 3),
            "version": self._version if finished else None,
            "rows_set_aside": self._trainer.rows_set_aside,
            "finished": finished,
        }

    def save(self) -> None:
        """Write a checkpoint. Raises TamenError when it cannot be written."""
        state = {
            "settings": self._compared(),
            "drawn": self._drawn,
            "history": self.history,
            "losses": [dict(losses) for losses in self._losses],
            "seconds": self._seconds(),
            "version": self._version,
        }
        weights, trainer_state = self._weights(), self._trainer.state_dict()
        self._checkpoints.save(weights=weights, trainer_state=trainer_state, state=state)
        self._saved_at = self._around.clock()

    def best_entry(self) -> dict[str, Any] | None:
        """Return the line of `history` whose weights are published; None when they are the last ones."""
        return next((entry for entry in reversed(self.history) if entry.get("best")), None)

    def _try_to_save(self) -> None:
        """Save, or say why not and go on: the disk may have room again when it is tried the next time."""
        try:
            self.save()
        except TamenError as error:
            self._saved_at = self._around.clock()
            self._around.log(f"no checkpoint: {error.what}: {error.why}")

    def _batches(self) -> Iterator[Columns]:
        """Yield the batches that are left, whatever time is left; none goes beyond a mini-epoch, or the end."""
        drawn, mini_epoch = self._drawn, self._plan.mini_epoch_rows
        while drawn < self._plan.total_rows:
            end = min((drawn // mini_epoch + 1) * mini_epoch, self._plan.total_rows)
            rows = min(self._plan.learner.batch_rows, end - drawn)
            yield self._task.batch(drawn, rows)
            drawn += rows

    def _step(self, batch: Columns) -> None:
        report = self._trainer.step(batch)
        self._drawn += report.rows
        self._account(report)
        if self._drawn % self._plan.mini_epoch_rows == 0:
            self._end_mini_epoch()
            self._try_to_save()
        elif self._around.clock() - self._saved_at >= self._plan.learner.checkpoint_every_seconds:
            self._try_to_save()
        self._around.progress(self._drawn, self._drawn / min(1.0, self._share()), self._plan.unit)

    def _account(self, report: StepReport) -> None:
        if report.applied:
            self._losses.append(report.losses)
            return
        text = f"a batch of {report.rows} {self._plan.unit} is set aside: {report.reason}"
        if report.set_aside is not None and self._plan.origin is not None:
            text += f" ({len(np.unique(report.set_aside[:, 2]))} {self._plan.origin})"
        self._around.log(text)

    def _share(self) -> float:
        """Return how much of the rows, or of the time, is used up; 1 or more at the end."""
        share, minutes = self._drawn / self._plan.total_rows, self._plan.minutes
        return share if minutes is None else max(share, self._seconds() / (60 * minutes))

    def _rate(self, steps: int) -> float:
        return self._task.rate(steps, min(1.0, self._share()))

    def _seconds(self) -> float:
        return self._seconds_before + self._around.clock() - self._began

    def _judged_rows(self) -> int:
        return self.history[-1]["rows"] if self.history else 0

    def _end_mini_epoch(self) -> None:
        """Judge the averaged weights by rows kept apart, write that down, and keep them if they are the best."""
        losses, self._losses = self._losses, []
        means = {
            name: float(np.mean([each[name] for each in losses])) for name in (losses[-1] if losses else ())
        }
        report = self._task.judge(self._trainer.published_net(), self._trainer.precision)
        last_step = max(0, self._trainer.steps - 1)
        entry: dict[str, Any] = {
            "mini_epoch": len(self.history) + 1,
            "rows": self._drawn,
            "steps": self._trainer.steps,
            "seconds": round(self._seconds(), 3),
            "learning_rate": self._rate(last_step),
            "rows_set_aside": self._trainer.rows_set_aside,
            "losses": means,
            "validation": report,
        }
        if self._plan.best_by is not None:
            entry["best"] = self._is_best(entry, self._plan.best_by)
            if entry["best"]:
                self._best = self._last_weights()
        self.history = [*self.history, entry]
        lines = "".join(json.dumps(each) + "\n" for each in self.history)
        write_atomic(self._folder / METRICS_FILE, lines.encode())
        self._around.log(self._task.in_words(entry))

    def _is_best(self, entry: Mapping[str, Any], figure: str) -> bool:
        best = self.best_entry()
        if best is None:
            return True
        new, old = entry["validation"][figure], best["validation"][figure]
        return new < old or (math.isnan(old) and not math.isnan(new))

    def _weights(self) -> Weights:
        """Return the weights that would be published if this were the end."""
        return self._best or self._last_weights()

    def _last_weights(self) -> Weights:
        net = self._trainer.published_net()
        return to_weights(net, model=self._plan.model, version=self._version, game=self._plan.game)

    def _compared(self) -> dict[str, Any]:
        """Return all that the result depends on, by the names of settings."""
        learner = self._plan.learner.model_dump(mode="json", exclude=_OF_CHECKPOINTS)
        return {**self._plan.compared, **dotted("learner", learner)}

    def _refuse_changes(self, before: Mapping[str, Any]) -> bool:
        """Return whether settings have changed, as the task accepts. Raises UsageError when it does not."""
        now = self._compared()
        changes = {
            name: (before.get(name), now.get(name))
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        }
        if not changes:
            return False
        told = [f"{name}: {_short(old)} -> {_short(new)}" for name, (old, new) in changes.items()]
        remedy = self._task.remedy(changes)
        if remedy is not None:
            raise UsageError(
                f"{self._folder} cannot be gone on with",
                why=f"it was begun with other settings: {', '.join(told)}",
                fix=remedy,
            )
        for change in told:
            self._around.log(f"goes on with a changed setting, {change}")
        return True


def dotted(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a section by their whole names, "learner.batch_rows"."""
    return {f"{section}.{name}": value for name, value in settings.items()}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
