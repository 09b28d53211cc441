"""Fits a network of counterfactual values to solved situations of hold'em, resumable to the batch.

What is published at the end are the weights that were best on the samples kept apart, of all mini-epochs.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.fitting import HandFitSettings
from configs.hand_values import DEEPSTACK_NETWORK, DEEPSTACK_STEP
from configs.schema import LearnerConfig, NetworkConfig, StepConfig
from core.errors import TamenError, UsageError
from core.files import digest, write_atomic
from core.hands import HandValueSpec
from core.seeds import derive_seed
from learner.ahead import Ahead
from learner.checkpoint import CheckpointStore
from learner.hand_objective import HandObjective, judge_hands
from learner.hand_rows import HandRows, load_hand_rows
from learner.objective import Columns, StepReport
from learner.offline import METRICS_FILE, Around
from learner.schedule import learning_rate
from learner.step import Trainer
from networks.build import new_net, to_weights
from networks.precision import resolve
from networks.weights import Weights
from replay.hand_shards import BOARD_CARDS, load_hand_info

JUDGED_TOGETHER = 1000
_UNCOMPARED = {"label_error"}
_OF_CHECKPOINTS = {"checkpoint_every_seconds", "checkpoints_kept"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandFitting:
    """What is fitted to what.

    Attributes:
        train: shards of samples to learn from, see `replay.hand_shards`.
        validation: shards to judge by.
        settings: how.
        network: layers and precision.
        learner: what a step is.
        seed: of the first weights and of the order of samples.
        model: name to publish under.
        game: name that the weights carry.
    """

    train: Sequence[Path]
    validation: Sequence[Path]
    settings: HandFitSettings
    network: NetworkConfig = DEEPSTACK_NETWORK
    learner: StepConfig = DEEPSTACK_STEP
    seed: int = 0
    model: str = "main"
    game: str = "holdem"


def fit_hand_values(fitting: HandFitting, folder: Path, around: Around) -> dict[str, Any]:
    """Fit until the end or until asked to stop; what an interrupted call left in `folder` is gone on with.

    Returns:
        {"rows", "steps", "seconds", "version", "rows_set_aside", "finished", "best"}, plain JSON; "best" is the line of
        `fitting.jsonl` whose weights were published, None before the first.

    Raises:
        UsageError: when the folder was begun with other settings, or the shards cannot be used.
        DataError: when a file is damaged, or batch after batch cannot be learnt from.
        TamenError: when weights or a checkpoint cannot be written.
    """
    learner = HandLearner(fitting, folder, around)
    learner.resume()
    return learner.run()


class HandLearner:
    """Takes steps on batches of `learner.hand_rows` until the samples are used up.

    On the CPU in fp32 the result depends on the fitting and the number of torch's threads alone, bit for bit.

    Args:
        fitting: what is fitted.
        folder: for checkpoints and `fitting.jsonl`, a line for each mini-epoch.
        around: what surrounds it.
    """

    def __init__(self, fitting: HandFitting, folder: Path, around: Around) -> None:
        self._fitting = fitting
        self._settings = fitting.settings
        self._around = around
        self._folder = folder
        self._checkpoints = CheckpointStore(folder / "checkpoints", keep=fitting.learner.checkpoints_kept)
        spec = _spec_of(fitting)
        self._rows, self._kept_apart = _load(fitting, spec)
        self._total_rows = max(1, round(len(self._rows) * self._settings.epochs))
        self._objective = HandObjective(spec, delta=self._settings.huber_delta)
        self._trainer = _new_trainer(fitting, spec, self._objective, self._total_rows, around.device)
        self._drawn = 0
        self._history: list[dict[str, Any]] = []
        self._losses: list[Mapping[str, float]] = []
        self._best: Weights | None = None
        self._version = (around.publisher.newest_version() or 0) + 1
        self._seconds_before = 0.0
        self._began = self._saved_at = around.clock()

    def resume(self) -> None:
        """Go on from the newest sound checkpoint, if there is one.

        Raises:
            UsageError: when it was made with other settings.
            DataError: when every checkpoint is damaged.
        """
        checkpoint = self._checkpoints.load_newest()
        if checkpoint is None:
            return
        state = checkpoint.state
        _refuse_changes(self._folder, state["settings"], self._compared())
        self._trainer.load_state_dict(checkpoint.trainer_state)
        self._drawn, self._history, self._losses = state["drawn"], state["history"], list(state["losses"])
        self._seconds_before, self._version = state["seconds"], state["version"]
        self._best = checkpoint.weights if self._history else None
        for sentence in checkpoint.skipped:
            self._around.log(sentence)
        self._around.log(f"goes on after {self._drawn:,} samples, from checkpoint {checkpoint.number}")

    def run(self) -> dict[str, Any]:
        """Fit, save, and at the end publish; return what `fit_hand_values` does."""
        stopped = False
        batches = Ahead(self._batches())
        try:
            while self._drawn < self._total_rows and not stopped:
                self._step(batches.next())
                stopped = self._around.should_stop()
        finally:
            batches.close()
        self.save()
        finished = self._drawn >= self._total_rows
        if finished:
            self._around.publisher.publish(self._best or self._weights())
        return {
            "rows": self._drawn,
            "steps": self._trainer.steps,
            "seconds": round(self._seconds(), 3),
            "version": self._version if finished else None,
            "rows_set_aside": self._trainer.rows_set_aside,
            "finished": finished,
            "best": self._best_entry(),
        }

    def save(self) -> None:
        """Write a checkpoint. Raises TamenError when it cannot be written."""
        state = {
            "settings": self._compared(),
            "drawn": self._drawn,
            "history": self._history,
            "losses": [dict(losses) for losses in self._losses],
            "seconds": self._seconds(),
            "version": self._version,
        }
        weights, trainer_state = self._best or self._weights(), self._trainer.state_dict()
        self._checkpoints.save(weights=weights, trainer_state=trainer_state, state=state)
        self._saved_at = self._around.clock()

    def _try_to_save(self) -> None:
        """Save, or say why not and go on: the disk may have room again when it is tried the next time."""
        try:
            self.save()
        except TamenError as error:
            self._saved_at = self._around.clock()
            self._around.log(f"no checkpoint: {error.what}: {error.why}")

    def _batches(self) -> Iterator[Columns]:
        """Yield the batches that are left; none goes beyond a mini-epoch, or the end."""
        drawn, mini_epoch = self._drawn, self._settings.mini_epoch_rows
        while drawn < self._total_rows:
            ends = (drawn // mini_epoch + 1) * mini_epoch, self._total_rows
            rows = min(self._fitting.learner.batch_rows, *(end - drawn for end in ends))
            yield self._rows.batch(drawn, rows, seed=self._fitting.seed)
            drawn += rows

    def _step(self, batch: Columns) -> None:
        report = self._trainer.step(batch)
        self._drawn += report.rows
        self._account(report)
        if self._drawn % self._settings.mini_epoch_rows == 0 or self._drawn == self._total_rows:
            self._end_mini_epoch(report.learning_rate)
            self._try_to_save()
        elif self._around.clock() - self._saved_at >= self._fitting.learner.checkpoint_every_seconds:
            self._try_to_save()
        self._around.progress(self._drawn, self._total_rows, "samples")

    def _account(self, report: StepReport) -> None:
        if report.applied:
            self._losses.append(report.losses)
        else:
            self._around.log(f"a batch of {report.rows} samples is set aside: {report.reason}")

    def _end_mini_epoch(self, rate: float) -> None:
        """Judge the averaged weights by samples kept apart, write that down, and keep them if they are the best."""
        losses, self._losses = self._losses, []
        means = {
            name: float(np.mean([each[name] for each in losses])) for name in (losses[-1] if losses else ())
        }
        report = judge_hands(
            self._trainer.published_net(),
            self._kept_apart.parts(JUDGED_TOGETHER),
            self._objective,
            self._trainer.precision,
            delta=self._settings.huber_delta,
        )
        best = self._best_entry()
        entry = {
            "mini_epoch": len(self._history) + 1,
            "rows": self._drawn,
            "steps": self._trainer.steps,
            "seconds": round(self._seconds(), 3),
            "learning_rate": rate,
            "rows_set_aside": self._trainer.rows_set_aside,
            "losses": means,
            "validation": report | {"label_error": self._settings.label_error},
            "best": best is None or not report["huber"] >= best["validation"]["huber"],
        }
        if entry["best"]:
            self._best = self._weights()
        self._history = [*self._history, entry]
        lines = "".join(json.dumps(each) + "\n" for each in self._history)
        write_atomic(self._folder / METRICS_FILE, lines.encode())
        self._around.log(_in_words(entry))

    def _best_entry(self) -> dict[str, Any] | None:
        return next((entry for entry in reversed(self._history) if entry["best"]), None)

    def _seconds(self) -> float:
        return self._seconds_before + self._around.clock() - self._began

    def _weights(self) -> Weights:
        net = self._trainer.published_net()
        return to_weights(net, model=self._fitting.model, version=self._version, game=self._fitting.game)

    def _compared(self) -> dict[str, Any]:
        """Return all that the result depends on, by the names of settings."""
        fitting = self._fitting
        parts = {
            "fit": self._settings.model_dump(mode="json", exclude=_UNCOMPARED),
            "learner": fitting.learner.model_dump(mode="json", exclude=_OF_CHECKPOINTS),
            "network": fitting.network.model_dump(mode="json", include={"layers", "precision"}),
            "data": {
                "train": digest(" ".join(self._rows.digests).encode()),
                "validation": digest(" ".join(self._kept_apart.digests).encode()),
            },
        }
        settings = {
            f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()
        }
        return {"game": fitting.game, "model": fitting.model, "seed": fitting.seed, **settings}


def _spec_of(fitting: HandFitting) -> HandValueSpec:
    if not fitting.train:
        raise UsageError(
            "there is nothing to learn from",
            why="no shards are named",
            fix="name shards that `tamen datagen` made",
        )
    street = load_hand_info(fitting.train[0]).street
    return HandValueSpec(BOARD_CARDS[street], fitting.settings.order)


def _load(fitting: HandFitting, spec: HandValueSpec) -> tuple[HandRows, HandRows]:
    """Return the samples to learn from, and those to judge by. Raises UsageError when a shard is among both."""
    learnt, kept_apart = (
        {load_hand_info(path).digest: path for path in paths} for paths in (fitting.train, fitting.validation)
    )
    if both := sorted(str(learnt[one]) for one in learnt.keys() & kept_apart.keys()):
        raise UsageError(
            f"{both[0]} cannot be both learnt from and judged by",
            why=f"{len(both)} shards are among those of training and of validation",
            fix="keep other shards apart",
        )
    settings = fitting.settings
    return (
        load_hand_rows(fitting.train, spec, most=settings.max_rows),
        load_hand_rows(fitting.validation, spec, most=settings.validation_rows),
    )


def _new_trainer(
    fitting: HandFitting, spec: HandValueSpec, objective: HandObjective, total_rows: int, device: str
) -> Trainer:
    precision = resolve(fitting.network.precision, device)
    net = precision.place(new_net(spec, fitting.network, seed=derive_seed(fitting.seed, "network")))
    batch, mini_epoch = fitting.learner.batch_rows, fitting.settings.mini_epoch_rows
    whole, rest = divmod(total_rows, mini_epoch)  # no batch goes beyond a mini-epoch
    steps = whole * math.ceil(mini_epoch / batch) + math.ceil(rest / batch)
    schedule = LearnerConfig(
        **fitting.learner.model_dump(),
        schedule="cosine",
        warmup_steps=min(fitting.settings.warmup_steps, steps // 2),
        schedule_steps=steps,
        final_learning_rate_share=fitting.settings.final_rate_share,
    )
    return Trainer(
        net, objective, fitting.learner, precision, schedule=lambda done: learning_rate(schedule, done)
    )


def _refuse_changes(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        changes = [f"{name}: {json.dumps(before.get(name))} -> {json.dumps(now.get(name))}" for name in names]
        raise UsageError(
            f"{folder} cannot be gone on with",
            why=f"it was begun with other settings: {', '.join(changes)}",
            fix="set them as they were, or give another name",
        )


def _in_words(entry: Mapping[str, Any]) -> str:
    report = entry["validation"]
    text = f"{entry['rows']:,} samples in {entry['seconds']:.0f} s"
    if entry["losses"]:
        text += f", Huber loss {entry['losses']['loss']:.4f}"
    error = f"{report['error']:.4f} off" + (
        f" (labels {report['label_error']:.4f})" if report["label_error"] is not None else ""
    )
    correlations = [each["correlation"] for each in report["by_player"]]
    correlation = " and ".join("none" if each is None else f"{each:.4f}" for each in correlations)
    return (
        f"{text}; samples kept apart: Huber loss {report['huber']:.4f}, {error}, correlation {correlation},"
        f" labels exploitable by {report['exploitability']:.4f}{'; the best so far' if entry['best'] else ''}"
    )
