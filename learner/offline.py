"""Fits a board network to rows at rest: from first weights to last, in one order, resumable to the batch."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.fitting import FitSettings
from configs.schema import NetworkConfig, StepConfig
from core.errors import TamenError, UsageError
from core.files import digest, write_atomic
from core.seeds import derive_seed
from games.game import Game
from learner.accuracy import Accuracy
from learner.adam import Adam
from learner.ahead import Ahead
from learner.board_objective import BoardObjective
from learner.checkpoint import Checkpoint, CheckpointStore
from learner.flat_parameters import FlatParameters
from learner.half_turn import TiedToTwins
from learner.loop import Publisher
from learner.mixing import DataSet, MixedRows, Targets, learning_columns, validation_rows
from learner.muon import Muon
from learner.objective import Columns, StepReport
from learner.step import Optimizer, Trainer
from networks.build import Net, new_net, to_weights
from networks.precision import Precision, resolve
from networks.tower import BoardNet
from networks.weights import Weights
from networks.winograd import fastest_forward
from networks.winograd_training import fastest_trainable

METRICS_FILE = "fitting.jsonl"
EVALUATED_TOGETHER = 512
_UNCOMPARED = ("sources", "sweep", "sweep_method", "sweep_trials", "accept_changes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """What is fitted to what.

    Attributes:
        game: its rules.
        sets: data sets.
        settings: how, but for its `sources`, which are among `sets`.
        network: shape and precision.
        learner: what a step is.
        seed: of the first weights and of the order of rows.
        model: name to publish under.
    """

    game: Game
    sets: Sequence[DataSet]
    settings: FitSettings
    network: NetworkConfig
    learner: StepConfig
    seed: int
    model: str


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


def fit(fitting: Fitting, folder: Path, around: Around) -> dict[str, Any]:
    """Fit until the end or until asked to stop; what an interrupted call left in `folder` is gone on with.

    Returns:
        {"rows", "steps", "seconds", "version", "rows_set_aside", "finished", "validation"}, plain JSON; the last is the
        report of `learner.accuracy` without its parts by ply, None where no game is kept apart.

    Raises:
        UsageError: when the folder was begun with other settings, or the data sets cannot be used.
        DataError: when a file is damaged, or batch after batch cannot be learnt from.
        TamenError: when weights or a checkpoint cannot be written.
    """
    learner = OfflineLearner(fitting, folder, around)
    learner.resume()
    return learner.run()


class OfflineLearner:
    """Takes steps on batches of `learner.mixing` until the rows, or the time, are used up.

    On the CPU in fp32 the result depends on the fitting and the number of torch's threads alone, bit for bit, unless
    its time is bounded.

    Args:
        fitting: what is fitted.
        folder: for checkpoints and `fitting.jsonl`, a line for each mini-epoch.
        around: what surrounds it.
    """

    def __init__(self, fitting: Fitting, folder: Path, around: Around) -> None:
        self._fitting = fitting
        self._settings = fitting.settings
        self._around = around
        self._folder = folder
        self._checkpoints = CheckpointStore(folder / "checkpoints", keep=fitting.learner.checkpoints_kept)
        self._rows = MixedRows(
            fitting.sets,
            fitting.game,
            seed=fitting.seed,
            max_rows=self._settings.max_rows,
            targets=Targets(self._settings.half_turns == "shown", self._settings.label_smoothing),
        )
        self._total_rows = max(1, round(self._rows.rows_per_epoch * self._settings.epochs))
        self._trainer = _new_trainer(fitting, around.device, schedule=lambda steps: self._rate())
        self._drawn = 0
        self._history: list[dict[str, Any]] = []
        self._losses: list[Mapping[str, float]] = []
        self._version = (around.publisher.newest_version() or 0) + 1
        self._seconds_before = 0.0
        self._began = self._saved_at = around.clock()

    def resume(self) -> None:
        """Go on from the newest sound checkpoint, if there is one.

        Raises:
            UsageError: when it was made with other settings, and `accept_changes` is not set, or of another network.
            DataError: when every checkpoint is damaged.
        """
        checkpoint = self._checkpoints.load_newest()
        if checkpoint is None:
            return
        changed = self._refuse_changes(checkpoint)
        state = checkpoint.state
        self._trainer.load_state_dict(checkpoint.trainer_state)
        self._drawn, self._history = state["drawn"], state["history"]
        self._seconds_before = state["seconds"]
        if not changed:  # else what it was to be may have been published already
            self._version = state["version"]
        self._losses = list(state["losses"])
        for sentence in checkpoint.skipped:
            self._around.log(sentence)
        self._around.log(f"goes on after {self._drawn:,} rows, from checkpoint {checkpoint.number}")

    def run(self) -> dict[str, Any]:
        """Fit, save, and at the end publish; return what `fit` does."""
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
        return self._counts(finished=finished)

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
        weights, trainer_state = self._weights(), self._trainer.state_dict()
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
        """Yield the batches that are left, whatever time is left."""
        drawn = self._drawn
        while drawn < self._total_rows:
            rows = self._rows_until(drawn)
            yield self._rows.batch(drawn, rows)
            drawn += rows

    def _rows_until(self, drawn: int) -> int:
        """Return the size of the batch behind `drawn` rows; none goes beyond a mini-epoch, or the end."""
        mini_epoch = self._settings.mini_epoch_rows
        ends = (drawn // mini_epoch + 1) * mini_epoch, self._total_rows
        return min(self._fitting.learner.batch_rows, *(end - drawn for end in ends))

    def _step(self, batch: Columns) -> None:
        report = self._trainer.step(batch)
        self._drawn += report.rows
        self._account(report)
        if self._drawn % self._settings.mini_epoch_rows == 0:
            self._end_mini_epoch()
            self._try_to_save()
        elif self._around.clock() - self._saved_at >= self._fitting.learner.checkpoint_every_seconds:
            self._try_to_save()
        share = min(1.0, self._share())
        self._around.progress(self._drawn, self._drawn / share if share else self._total_rows, "rows")

    def _account(self, report: StepReport) -> None:
        if report.applied:
            self._losses.append(report.losses)
        else:
            games = "" if report.set_aside is None else f" ({len(np.unique(report.set_aside[:, 2]))} games)"
            self._around.log(f"a batch of {report.rows} rows is set aside: {report.reason}{games}")

    def _share(self) -> float:
        """Return how much of the rows, or of the time, is used up; 1 or more at the end."""
        share = self._drawn / self._total_rows
        minutes = self._settings.minutes
        return share if minutes is None else max(share, self._seconds() / (60 * minutes))

    def _rate(self) -> float:
        share, warmup = min(1.0, self._share()), self._settings.warmup_share
        # Half a step in, lest the first be none.
        rising = 1.0 if share >= warmup else (share + 0.5 / self._steps_in_all()) / warmup
        return self._fitting.learner.learning_rate * min(1.0, rising) * (1 + math.cos(math.pi * share)) / 2

    def _steps_in_all(self) -> float:
        return max(1.0, self._total_rows / self._fitting.learner.batch_rows)

    def _seconds(self) -> float:
        return self._seconds_before + self._around.clock() - self._began

    def _judged_rows(self) -> int:
        return self._history[-1]["rows"] if self._history else 0

    def _end_mini_epoch(self) -> None:
        """Judge the averaged weights by games kept apart, and write that down."""
        losses, self._losses = self._losses, []
        means = {
            name: float(np.mean([each[name] for each in losses])) for name in (losses[-1] if losses else ())
        }
        report = self._validation()
        entry = {
            "mini_epoch": len(self._history) + 1,
            "rows": self._drawn,
            "steps": self._trainer.steps,
            "seconds": round(self._seconds(), 3),
            "learning_rate": self._rate(),
            "rows_set_aside": self._trainer.rows_set_aside,
            "losses": means,
            "validation": report,
        }
        self._history = [*self._history, entry]
        lines = "".join(json.dumps(each) + "\n" for each in self._history)
        write_atomic(self._folder / METRICS_FILE, lines.encode())
        self._around.log(_in_words(entry))

    def _validation(self) -> dict[str, Any] | None:
        most = self._settings.validation_rows
        net = self._trainer.published_net()
        report = judge(
            net, validation_rows(self._fitting.sets, most=most), self._fitting.game, self._trainer.precision
        )
        return report if report["positions"] else None

    def _weights(self) -> Weights:
        net = self._trainer.published_net()
        return to_weights(net, model=self._fitting.model, version=self._version, game=self._fitting.game.name)

    def _compared(self) -> dict[str, Any]:
        """Return all that the result depends on, by the names of settings."""
        fitting = self._fitting
        settings = self._settings.model_dump(mode="json", exclude=set(_UNCOMPARED))
        learner = fitting.learner.model_dump(mode="json", exclude=set(_OF_CHECKPOINTS))
        network = fitting.network.model_dump(mode="json", include=set(_NETWORK_SETTINGS))
        data = {
            f"data.{number}": {
                "rows": digest(identity.encode()),
                "weight": one.weight,
                "skip": list(one.skip or ()),
            }
            for number, (one, identity) in enumerate(zip(fitting.sets, self._rows.identity, strict=True))
        }
        return {
            "game": fitting.game.name,
            "seed": fitting.seed,
            **{f"fit.{key}": value for key, value in settings.items()},
            **{f"learner.{key}": value for key, value in learner.items()},
            **{f"network.{key}": value for key, value in network.items()},
            **data,
        }

    def _refuse_changes(self, checkpoint: Checkpoint) -> bool:
        """Return whether settings have changed, as a person accepts. Raises UsageError when nobody does."""
        before, now = checkpoint.state["settings"], self._compared()
        names = [name for name in (before | now) if before.get(name) != now.get(name)]
        changes = [f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in names]
        fatal = [name for name in names if name in _OF_THE_STATE]
        if not (before.get(_AVERAGE) and now[_AVERAGE]):  # with an average there is one more net
            fatal += [name for name in names if name == _AVERAGE]
        if not names or (self._settings.accept_changes and not fatal):
            for change in changes:
                self._around.log(f"goes on with a changed setting, {change}")
            return bool(changes)
        raise UsageError(
            f"{self._folder} cannot be gone on with",
            why=f"it was begun with other settings: {', '.join(changes)}",
            fix=f"fit another network under another name: with another {', '.join(fatal)} this one cannot go on"
            if fatal
            else "set them as they were, set fit.accept_changes=true to go on with these, or give another name",
        )

    def _counts(self, *, finished: bool) -> dict[str, Any]:
        last = self._history[-1]["validation"] if self._history else None
        if last is not None:
            last = {name: value for name, value in last.items() if name != "by_ply"}
        return {
            "rows": self._drawn,
            "steps": self._trainer.steps,
            "seconds": round(self._seconds(), 3),
            "version": self._version if finished else None,
            "rows_set_aside": self._trainer.rows_set_aside,
            "finished": finished,
            "validation": last,
        }


_OF_CHECKPOINTS = ("checkpoint_every_seconds", "checkpoints_kept")
_NETWORK_SETTINGS = ("blocks", "channels", "soft_policy", "precision")
_AVERAGE = "learner.ema_decay"
_OF_THE_STATE = {
    "game",
    "network.blocks",
    "network.channels",
    "network.soft_policy",
    "fit.optimizer",
    "fit.half_turns",
}
"""With other ones what a checkpoint holds has other parts, or means something else."""


def judge(
    net: Net, shards: Iterator[Mapping[str, np.ndarray]], game: Game, precision: Precision
) -> dict[str, Any]:
    """Return the report of `learner.accuracy` on rows of `replay.shards`.

    Args:
        net: on its device, in float32; it is not changed.
        shards: rows, a part at a time.
        game: their rules.
        precision: arithmetic of the forward.
    """
    assert isinstance(net, BoardNet)
    threads = torch.get_num_threads() if precision.device.type == "cpu" else 1
    ready = precision.prepare(copy.deepcopy(net))
    forwards = [fastest_forward(ready) for _ in range(threads)]  # each has scratch memory of its own
    accuracy = Accuracy()

    def evaluate(forward: Callable[..., Any], cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(cells), EVALUATED_TOGETHER):
                given = torch.from_numpy(cells[start : start + EVALUATED_TOGETHER]).to(precision.device)
                outputs = forward({"cells": given})
                parts.append([outputs[name].float().cpu().numpy() for name in ("policy", "value")])
        policy, value = (np.concatenate(each) for each in zip(*parts, strict=True))
        return policy, value

    with ThreadPoolExecutor(threads) as pool:
        for rows in shards:
            cells = learning_columns(rows, game, np.zeros(len(rows["game"]), bool))["cells"]
            parts = [part for part in np.array_split(np.arange(len(cells)), threads) if len(part)]
            given = [cells[part] for part in parts]
            said = list(pool.map(evaluate, forwards[: len(parts)], given))
            for part, own, (policy, value) in zip(parts, given, said, strict=True):
                accuracy.add({name: column[part] for name, column in rows.items()}, own, policy, value)
    return accuracy.report()


def _new_trainer(fitting: Fitting, device: str, *, schedule: Callable[[int], float]) -> Trainer:
    precision = resolve(fitting.network.precision, device)
    seed = derive_seed(fitting.seed, "network")
    net = precision.place(new_net(fitting.game.board, fitting.network, seed=seed))
    settings = fitting.settings

    tied = settings.half_turns == "tied"
    if tied and fitting.network.channels % 2:
        raise UsageError(
            f"half of {fitting.network.channels} channels cannot be twins of the other half",
            why="fit.half_turns=tied takes an even number of them",
            fix="set network.channels to an even number, or fit.half_turns=shown",
        )

    def optimizer(net: Net, parameters: FlatParameters) -> Optimizer:
        assert isinstance(net, BoardNet)
        filters = [parameter for parameter in net.blocks.parameters() if parameter.ndim == 4]
        made = (
            Muon(parameters.all, filters, rate_ratio=settings.filter_rate_ratio)
            if settings.optimizer == "muon"
            else Adam(parameters.all)
        )
        return TiedToTwins(made, net, parameters) if tied else made

    return Trainer(
        net,
        BoardObjective(fitting.learner, some_unknown=True),
        fitting.learner,
        precision,
        schedule=schedule,
        optimizer=optimizer,
        forward=fastest_trainable(net) if precision.name == "fp32" else None,
    )


def _in_words(entry: Mapping[str, Any]) -> str:
    report = entry["validation"]
    text = f"{entry['rows']:,} rows in {entry['seconds']:.0f} s"
    if entry["losses"]:
        text += f", policy loss {entry['losses']['policy_loss']:.3f}, value loss {entry['losses']['value_loss']:.3f}"
    if report is None:
        return text
    shares = {
        "moves found": report["policy_top1"],
        "among three": report["policy_top3"],
        "winners": report["value_accuracy"],
        "in second halves": report["value_accuracy_second_half"],
    }
    told = ", ".join(f"{name} {100 * value:.1f} %" for name, value in shares.items() if value is not None)
    return f"{text}; games kept apart: {told}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
