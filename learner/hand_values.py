"""Fits a network of counterfactual values to solved situations of hold'em, resumable to the batch.

What is published at the end are the weights that were best on the samples kept apart, of all mini-epochs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.fitting import HandFitSettings
from configs.hand_values import HAND_NETWORK, HAND_STEP
from configs.schema import LearnerConfig, NetworkConfig, StepConfig
from core.errors import UsageError
from core.files import digest
from core.hands import HandValueSpec
from core.seeds import derive_seed
from learner.hand_objective import HandObjective, judge_hands
from learner.hand_rows import HandRows, load_hand_rows
from learner.objective import Columns
from learner.offline import Around, OfflineLearner, Plan, dotted
from learner.schedule import learning_rate
from learner.step import Trainer
from networks.build import Net, new_net
from networks.precision import Precision, resolve
from replay.hand_shards import load_hand_info

JUDGED_TOGETHER = 1000
_UNCOMPARED = {"label_error"}
_NETWORK_SETTINGS = {"layers", "precision"}


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
    network: NetworkConfig = HAND_NETWORK
    learner: StepConfig = HAND_STEP
    seed: int = 0
    model: str = "main"
    game: str = "holdem"


def fit_hand_values(fitting: HandFitting, folder: Path, around: Around) -> dict[str, Any]:
    """Fit until the end or until asked to stop; what an interrupted call left in `folder` is gone on with.

    Returns:
        What `OfflineLearner.run` does, and "best": the line of `fitting.jsonl` whose weights are published, None before
        the first.

    Raises:
        UsageError: when the folder was begun with other settings, or the shards cannot be used.
        DataError: when a file is damaged, or batch after batch cannot be learnt from.
        TamenError: when weights or a checkpoint cannot be written.
    """
    learner = OfflineLearner(HandTask(fitting, around.progress), folder, around)
    learner.resume()
    counts = learner.run()
    return {**counts, "best": learner.best_entry()}


class HandTask:
    """See `learner.offline.Task`; batches are those of `learner.hand_rows`.

    Args:
        fitting: what is fitted.
        progress: told (done, total, unit) of samples that are read.

    Raises:
        UsageError: when the shards cannot be used.
        DataError: when one is damaged.
    """

    def __init__(
        self,
        fitting: HandFitting,
        progress: Callable[[float, float, str], None] = lambda done, total, unit: None,
    ) -> None:
        self._fitting = fitting
        settings = self._settings = fitting.settings
        self._spec = _spec_of(fitting)
        self._rows, self._kept_apart = _load(fitting, self._spec, progress)
        self._objective = HandObjective(self._spec, delta=settings.huber_delta)
        total_rows = max(1, round(len(self._rows) * settings.epochs))
        self._schedule = _schedule(fitting, total_rows)
        self.plan = Plan(
            model=fitting.model,
            game=fitting.game,
            learner=fitting.learner,
            total_rows=total_rows,
            mini_epoch_rows=settings.mini_epoch_rows,
            best_by="huber",
            compared=_compared(fitting, self._rows, self._kept_apart),
            unit="samples",
        )

    def new_trainer(self, device: str, schedule: Callable[[int], float]) -> Trainer:
        network, learner = self._fitting.network, self._fitting.learner
        precision = resolve(network.precision, device)
        net = new_net(self._spec, network, seed=derive_seed(self._fitting.seed, "network"))
        return Trainer(precision.place(net), self._objective, learner, precision, schedule=schedule)

    def rate(self, steps: int, share: float) -> float:
        return learning_rate(self._schedule, steps)

    def batch(self, drawn: int, rows: int) -> Columns:
        return self._rows.batch(drawn, rows, seed=self._fitting.seed)

    def judge(self, net: Net, precision: Precision) -> dict[str, Any]:
        delta, parts = self._settings.huber_delta, self._kept_apart.parts(JUDGED_TOGETHER)
        report = judge_hands(net, parts, self._objective, precision, delta=delta)
        return {**report, "label_error": self._settings.label_error}

    def in_words(self, entry: Mapping[str, Any]) -> str:
        losses, report = entry["losses"], entry["validation"]
        text = f"{entry['rows']:,} samples in {entry['seconds']:.0f} s"
        if losses:
            text += f", Huber loss {losses['loss']:.4f}"
        error = f"{report['error']:.4f} off"
        if report["label_error"] is not None:
            error += f" (labels {report['label_error']:.4f})"
        correlations = [each["correlation"] for each in report["by_player"]]
        correlation = " and ".join("none" if each is None else f"{each:.4f}" for each in correlations)
        text += f"; samples kept apart: Huber loss {report['huber']:.4f}, {error}, correlation {correlation}"
        if report["exploitability"] is not None:
            text += f", labels exploitable by {report['exploitability']:.4f}"
        return f"{text}; the best so far" if entry["best"] else text

    def remedy(self, changes: Mapping[str, tuple[Any, Any]]) -> str:
        return "set them as they were, or give another name"


def _spec_of(fitting: HandFitting) -> HandValueSpec:
    if not fitting.train:
        raise UsageError(
            "there is nothing to learn from",
            why="no shards are named",
            fix="name shards that `tamen datagen` made",
        )
    return HandValueSpec(load_hand_info(fitting.train[0]).street)


def _load(
    fitting: HandFitting, spec: HandValueSpec, progress: Callable[[float, float, str], None]
) -> tuple[HandRows, HandRows]:
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
    if not fitting.validation:
        raise UsageError(
            "there is nothing to judge by",
            why="no samples were kept apart",
            fix="make some: tamen datagen generate --name RUN --validation-samples 1000",
        )
    settings = fitting.settings
    return (
        load_hand_rows(fitting.train, spec, most=settings.max_rows, progress=progress),
        load_hand_rows(fitting.validation, spec, most=settings.validation_rows, progress=progress),
    )


def _schedule(fitting: HandFitting, total_rows: int) -> LearnerConfig:
    """Return what `learner.schedule` reads."""
    batch, mini_epoch = fitting.learner.batch_rows, fitting.settings.mini_epoch_rows
    whole, rest = divmod(total_rows, mini_epoch)  # no batch goes beyond a mini-epoch
    steps = whole * math.ceil(mini_epoch / batch) + math.ceil(rest / batch)
    return LearnerConfig(
        **fitting.learner.model_dump(),
        schedule="cosine",
        warmup_steps=min(fitting.settings.warmup_steps, steps // 2),
        schedule_steps=steps,
        final_learning_rate_share=fitting.settings.final_rate_share,
    )


def _compared(fitting: HandFitting, rows: HandRows, kept_apart: HandRows) -> dict[str, Any]:
    data = {
        "train": digest(" ".join(rows.digests).encode()),
        "validation": digest(" ".join(kept_apart.digests).encode()),
    }
    return {
        "game": fitting.game,
        "model": fitting.model,
        "seed": fitting.seed,
        **dotted("fit", fitting.settings.model_dump(mode="json", exclude=_UNCOMPARED)),
        **dotted("network", fitting.network.model_dump(mode="json", include=_NETWORK_SETTINGS)),
        **dotted("data", data),
    }
