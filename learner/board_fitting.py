"""Fits a board network to games at rest: the move that was played is the policy, who won is the value."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.fitting import FitSettings
from configs.schema import NetworkConfig, StepConfig
from core.errors import UsageError
from core.files import digest
from core.seeds import derive_seed
from games.game import Game
from learner.accuracy import Accuracy
from learner.adam import Adam
from learner.board_objective import BoardObjective
from learner.flat_parameters import FlatParameters
from learner.half_turn import TiedToTwins
from learner.mixing import DataSet, MixedRows, Targets, learning_columns, validation_rows
from learner.muon import Muon
from learner.objective import Columns
from learner.offline import Around, OfflineLearner, Plan, dotted
from learner.step import Optimizer, Trainer
from networks.build import Net, new_net
from networks.precision import Precision, resolve
from networks.tower import BoardNet
from networks.winograd import fastest_forward
from networks.winograd_training import fastest_trainable

EVALUATED_TOGETHER = 512
_UNCOMPARED = {"sources", "sweep", "sweep_method", "sweep_trials", "accept_changes"}
_NETWORK_SETTINGS = {"blocks", "channels", "soft_policy", "precision"}
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


def fit(fitting: Fitting, folder: Path, around: Around) -> dict[str, Any]:
    """Fit until the end or until asked to stop; what an interrupted call left in `folder` is gone on with.

    Returns:
        What `OfflineLearner.run` does, and "validation": the last report of `learner.accuracy` without its parts by
        ply, None where no game is kept apart.

    Raises:
        UsageError: when the folder was begun with other settings, or the data sets cannot be used.
        DataError: when a file is damaged, or batch after batch cannot be learnt from.
        TamenError: when weights or a checkpoint cannot be written.
    """
    learner = OfflineLearner(BoardTask(fitting), folder, around)
    learner.resume()
    counts = learner.run()
    report = learner.history[-1]["validation"] if learner.history else None
    if report is not None:
        report = {name: value for name, value in report.items() if name != "by_ply"}
    return {**counts, "validation": report}


class BoardTask:
    """See `learner.offline.Task`; batches are those of `learner.mixing`.

    Args:
        fitting: what is fitted.

    Raises:
        UsageError: when the data sets cannot be used.
        DataError: when a manifest is damaged.
    """

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        settings = self._settings = fitting.settings
        self._rows = MixedRows(
            fitting.sets,
            fitting.game,
            seed=fitting.seed,
            max_rows=settings.max_rows,
            targets=Targets(settings.half_turns == "shown", settings.label_smoothing),
        )
        self.plan = Plan(
            model=fitting.model,
            game=fitting.game.name,
            learner=fitting.learner,
            total_rows=max(1, round(self._rows.rows_per_epoch * settings.epochs)),
            minutes=settings.minutes,
            mini_epoch_rows=settings.mini_epoch_rows,
            compared=_compared(fitting, self._rows.identity),
            origin="games",
        )

    def new_trainer(self, device: str, schedule: Callable[[int], float]) -> Trainer:
        """See `Task.new_trainer`. Raises UsageError when channels of an odd number were to be tied in pairs."""
        network, learner, settings = self._fitting.network, self._fitting.learner, self._settings
        precision = resolve(network.precision, device)
        seed = derive_seed(self._fitting.seed, "network")
        net = precision.place(new_net(self._fitting.game.board, network, seed=seed))
        tied = settings.half_turns == "tied"
        if tied and network.channels % 2:
            raise UsageError(
                f"half of {network.channels} channels cannot be twins of the other half",
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
            BoardObjective(learner, some_unknown=True),
            learner,
            precision,
            schedule=schedule,
            optimizer=optimizer,
            forward=fastest_trainable(net) if precision.name == "fp32" else None,
        )

    def rate(self, steps: int, share: float) -> float:
        """See `Task.rate`: it rises over `fit.warmup_share`, and falls along half a cosine to zero."""
        return self.plan.rate(share, warmup=self._settings.warmup_share, final=0.0)

    def batch(self, drawn: int, rows: int) -> Columns:
        return self._rows.batch(drawn, rows)

    def judge(self, net: Net, precision: Precision) -> dict[str, Any] | None:
        rows = validation_rows(self._fitting.sets, most=self._settings.validation_rows)
        report = judge(net, rows, self._fitting.game, precision)
        return report if report["positions"] else None

    def in_words(self, entry: Mapping[str, Any]) -> str:
        losses, report = entry["losses"], entry["validation"]
        text = f"{entry['rows']:,} rows in {entry['seconds']:.0f} s"
        if losses:
            text += f", policy loss {losses['policy_loss']:.3f}, value loss {losses['value_loss']:.3f}"
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

    def remedy(self, changes: Mapping[str, tuple[Any, Any]]) -> str | None:
        """See `Task.remedy`: with `fit.accept_changes` it goes on with all but what a checkpoint has no state for."""
        fatal = [name for name in changes if name in _OF_THE_STATE]
        if not all(changes.get(_AVERAGE, ())):  # with an average there is one more net
            fatal.append(_AVERAGE)
        if fatal:
            return f"fit another network under another name: with another {', '.join(fatal)} this one cannot go on"
        if self._settings.accept_changes:
            return None
        return "set them as they were, set fit.accept_changes=true to go on with these, or give another name"


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


def _compared(fitting: Fitting, identities: Sequence[str]) -> dict[str, Any]:
    data = {
        str(number): {
            "rows": digest(identity.encode()),
            "weight": one.weight,
            "skip": list(one.skip or ()),
        }
        for number, (one, identity) in enumerate(zip(fitting.sets, identities, strict=True))
    }
    return {
        "game": fitting.game.name,
        "seed": fitting.seed,
        **dotted("fit", fitting.settings.model_dump(mode="json", exclude=_UNCOMPARED)),
        **dotted("network", fitting.network.model_dump(mode="json", include=_NETWORK_SETTINGS)),
        **dotted("data", data),
    }
