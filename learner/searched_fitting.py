"""Fits a board network to positions that self-play searched, from a parent's weights or untrained.

What the search thought of the moves is the policy; who won, mixed with what the search took the position to be worth,
is the value. What is published at the end are the weights that were best on the games kept apart, of all mini-epochs;
where none is kept apart, the last ones.

Shapes: `R` rows, `n` rows of a batch, `C` cells, `A` actions, `S` symmetries.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.schema import NetworkConfig, StepConfig
from configs.searched import SearchedFitSettings
from core.errors import UsageError
from core.seeds import derive_rng, derive_seed
from games.game import Game
from learner.board_objective import BoardObjective
from learner.objective import Columns
from learner.offline import Around, OfflineLearner, Plan, dotted
from learner.step import Trainer
from networks.build import Net, load_into, new_net
from networks.precision import Precision, resolve
from networks.weights import Weights
from networks.winograd import fastest_forward
from networks.winograd_training import fastest_trainable
from replay.searched_shards import (
    SEARCHED_COLUMNS,
    SearchedAbout,
    SearchedSet,
    Side,
    read_searched_file,
    read_searched_set,
)

EVALUATED_TOGETHER = 512
_NETWORK_SETTINGS = {"blocks", "channels", "soft_policy", "precision"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedFitting:
    """What is fitted to what.

    Attributes:
        game: its rules.
        folder: data set, see `replay.searched_shards`.
        settings: how.
        network: shape and precision; those of `parent` where there is one.
        learner: what a step is.
        parent: weights to begin from; None: untrained ones, by the seed.
        seed: of untrained weights, of the order of rows and of their symmetries.
        model: name to publish under.
    """

    game: Game
    folder: Path
    settings: SearchedFitSettings
    network: NetworkConfig
    learner: StepConfig
    parent: Weights | None = None
    seed: int = 0
    model: str = "main"


def fit_searched(fitting: SearchedFitting, folder: Path, around: Around) -> dict[str, Any]:
    """Fit until the end or until asked to stop; what an interrupted call left in `folder` is gone on with.

    Returns:
        What `OfflineLearner.run` does, and "best": the line of `fitting.jsonl` whose weights are published; None where
        they are the last ones, or before the first.

    Raises:
        UsageError: when the folder was begun with other settings, or data set or parent cannot be used.
        DataError: when a file is damaged, or batch after batch cannot be learnt from.
        TamenError: when weights or a checkpoint cannot be written.
    """
    learner = OfflineLearner(SearchedTask(fitting), folder, around)
    learner.resume()
    counts = learner.run()
    return {**counts, "best": learner.best_entry()}


class SearchedTask:
    """See `learner.offline.Task`; all rows lie in memory, as many bytes as their files have.

    Args:
        fitting: what is fitted.

    Raises:
        UsageError: when data set or parent cannot be used.
        DataError: when a file of the data set is damaged.
    """

    def __init__(self, fitting: SearchedFitting) -> None:
        self._fitting = fitting
        settings = self._settings = fitting.settings
        data_set = _usable_set(fitting)
        _refuse_other_parent(fitting)
        train = load_searched_rows(fitting.folder, data_set, "train")
        self._kept_apart = load_searched_rows(
            fitting.folder, data_set, "validation", most=settings.validation_rows
        )
        symmetries = Symmetries.of(fitting.game) if settings.symmetries else None
        self._rows = SearchedBatches(train, symmetries, seed=fitting.seed)
        self._objective = BoardObjective(fitting.learner, value_mix=settings.value_mix)
        self.plan = Plan(
            model=fitting.model,
            game=fitting.game.name,
            learner=fitting.learner,
            total_rows=max(1, round(data_set.train_rows * settings.epochs)),
            mini_epoch_rows=settings.mini_epoch_rows or data_set.train_rows,
            best_by="loss" if len(self._kept_apart["game"]) else None,
            compared=_compared(fitting, data_set),
            origin="games",
        )

    def new_trainer(self, device: str, schedule: Callable[[int], float]) -> Trainer:
        network, learner, parent = self._fitting.network, self._fitting.learner, self._fitting.parent
        precision = resolve(network.precision, device)
        net = new_net(self._fitting.game.board, network, seed=derive_seed(self._fitting.seed, "network"))
        if parent is not None:
            load_into(net, parent)
        net = precision.place(net)
        return Trainer(
            net,
            self._objective,
            learner,
            precision,
            schedule=schedule,
            forward=fastest_trainable(net) if precision.name == "fp32" else None,
        )

    def rate(self, steps: int, share: float) -> float:
        """See `Task.rate`: it rises over `warmup_share`, and falls along half a cosine to `final_rate_share`."""
        settings = self._settings
        return self.plan.rate(share, warmup=settings.warmup_share, final=settings.final_rate_share)

    def batch(self, drawn: int, rows: int) -> Columns:
        return self._rows.batch(drawn, rows)

    def judge(self, net: Net, precision: Precision) -> dict[str, Any] | None:
        if not len(self._kept_apart["game"]):
            return None
        return judge_searched(net, self._kept_apart, self._objective, precision)

    def in_words(self, entry: Mapping[str, Any]) -> str:
        losses, report = entry["losses"], entry["validation"]
        text = f"{entry['rows']:,} rows in {entry['seconds']:.0f} s"
        if losses:
            text += f", policy loss {losses['policy_loss']:.3f}, value loss {losses['value_loss']:.3f}"
        if report is None:
            return text
        text += f"; games kept apart: policy loss {report['policy_loss']:.3f}"
        if report["policy_top1"] is not None:
            text += f", best moves found {100 * report['policy_top1']:.1f} %"
        text += f", values {report['value_mse']:.3f} off squared"
        return f"{text}; the best so far" if entry["best"] else text

    def remedy(self, changes: Mapping[str, tuple[Any, Any]]) -> str:
        return "set them as they were, or give another name"


@dataclass(frozen=True, slots=True, eq=False)
class Symmetries:
    """What boards look like turned and mirrored, with the side to move left what it is.

    Attributes:
        cells: int64 [S, C], the cell that is seen at each place.
        actions: int64 [S, A], the action that is then in each place of the policy.
    """

    cells: np.ndarray
    actions: np.ndarray

    @staticmethod
    def of(game: Game) -> "Symmetries":
        """Return those of a game. Of a view, too, they are symmetries: a view of a view is a view."""
        board = game.board
        actions = game.views[: game.num_symmetries].astype(np.int64)
        if board.policy == "cells":
            return Symmetries(actions[:, : board.height * board.width], actions)
        rows = board.width * np.arange(board.height)
        cells = rows[:, None] + actions[:, None, : board.width]
        return Symmetries(cells.reshape(len(actions), -1), actions)

    def shown(self, rows: Columns, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return rows with "cells" [n, C] and "policy" [n, A] under the symmetries `chosen`, int [n]."""
        return {
            **rows,
            "cells": np.take_along_axis(rows["cells"], self.cells[chosen], axis=1),
            "policy": np.take_along_axis(rows["policy"], self.actions[chosen], axis=1),
        }


class SearchedBatches:
    """Rows in memory as batches, in an order that a seed and the number of rows drawn determine.

    Args:
        rows: the columns of `replay.searched_shards`.
        symmetries: under which rows are shown at random; None: as they are.
        seed: of the order, and of that.
    """

    def __init__(self, rows: Columns, symmetries: Symmetries | None, *, seed: int) -> None:
        self._rows = rows
        self._symmetries = symmetries
        self._seed = seed
        self._pass = -1
        self._order = np.zeros(0, np.int64)

    def batch(self, drawn: int, rows: int) -> Columns:
        """Return the `rows` rows that follow the first `drawn`, with the columns of `ROW_ID`: pass after pass."""
        picked = []
        for start, stop in _within_passes(drawn, drawn + rows, len(self._rows["game"])):
            number, place = divmod(start, len(self._rows["game"]))
            picked.append(self._order_of(number)[place : place + stop - start])
        places = np.concatenate(picked)
        columns = {name: column[places] for name, column in self._rows.items()}
        if self._symmetries is not None:
            rng = derive_rng(self._seed, "symmetries", drawn)
            columns = self._symmetries.shown(columns, rng.integers(len(self._symmetries.cells), size=rows))
        zeros = np.zeros(rows, np.int64)
        origin = {
            "actor": zeros,
            "epoch": zeros,
            "seq": columns["game"].view(np.int64),
            "step": columns["ply"],
        }
        return columns | origin

    def _order_of(self, number: int) -> np.ndarray:
        if number != self._pass:
            rng = derive_rng(self._seed, "searched rows", number)
            self._pass, self._order = number, rng.permutation(len(self._rows["game"]))
        return self._order


def load_searched_rows(
    folder: Path, data_set: SearchedSet, side: Side, *, most: int | None = None
) -> dict[str, np.ndarray]:
    """Return the columns of a side of a data set, at most the first `most` rows. Raises DataError."""
    files = data_set.side(side)
    total = sum(file.rows for file in files)
    total = total if most is None else min(total, most)
    record = SearchedAbout(data_set.game, data_set.cells, data_set.actions).record()
    columns = {name: np.empty((total, *record[name].shape), record[name].base) for name in SEARCHED_COLUMNS}
    start = 0
    for file in files:
        if start == total:
            break
        rows = read_searched_file(folder, file)
        stop = min(total, start + len(rows["game"]))
        for name, column in columns.items():
            column[start:stop] = rows[name][: stop - start]
        start = stop
    return columns


def judge_searched(
    net: Net, rows: Columns, objective: BoardObjective, precision: Precision
) -> dict[str, Any]:
    """Return how well a net foretells what searches found, and who won.

    Args:
        net: on its device, in float32; it is not changed.
        rows: at least one, the columns of `replay.searched_shards`.
        objective: whose losses are told.
        precision: arithmetic of the forward.

    Returns:
        {"positions", "games"}, the losses of `objective` by name, "policy_top1": share of the positions with a policy
        whose move of the highest logit is one that the search liked best, None where there is none, and "value_mse"
        against the outcome alone.
    """
    forward = fastest_forward(precision.prepare(copy.deepcopy(net)))
    totals, count = objective.totals(rows), len(rows["game"])
    sums: dict[str, float] = {}
    found, squared_error = 0, 0.0
    with torch.inference_mode():
        for start in range(0, count, EVALUATED_TOGETHER):
            some = {name: rows[name][start : start + EVALUATED_TOGETHER] for name in SEARCHED_COLUMNS}
            part = {name: torch.from_numpy(some[name]).to(precision.device) for name in objective.columns}
            outputs = forward(objective.network_inputs(part))
            for name, share in objective.losses(outputs, part, totals).items():
                sums[name] = sums.get(name, 0.0) + float(share)
            chosen = outputs["policy"].float().argmax(1).cpu().numpy()
            liked = np.take_along_axis(some["policy"], chosen[:, None], axis=1)[:, 0]
            best = some["policy"].max(axis=1)
            found += int(((liked == best) & (some["policy_weight"] > 0)).sum())
            value = outputs["value"].double().cpu().numpy()
            squared_error += float(np.square(value - some["outcome"]).sum())
    with_policy = int((rows["policy_weight"] > 0).sum())
    return {
        "positions": count,
        "games": len(np.unique(rows["game"])),
        **sums,
        "policy_top1": found / with_policy if with_policy else None,
        "value_mse": squared_error / count,
    }


def _within_passes(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    """Return the parts of a span of rows that lie in one pass over `count` rows each."""
    parts = []
    while start < stop:
        end = min(stop, (start // count + 1) * count)
        parts.append((start, end))
        start = end
    return parts


def _usable_set(fitting: SearchedFitting) -> SearchedSet:
    """Return the data set. Raises UsageError when it is of another game or has nothing to learn from."""
    data_set, game = read_searched_set(fitting.folder), fitting.game
    if data_set.game != game.name:
        raise UsageError(
            f"{fitting.folder} cannot be fitted to",
            why=f"its rows are of {data_set.game}, the network is for {game.name}",
            fix="name a data set of that game",
        )
    if not data_set.train_rows:
        raise UsageError(
            f"{fitting.folder} has no rows to learn from",
            why=f"all {data_set.validation_rows:,} are of games kept apart",
            fix="export more games, or keep a smaller share apart",
        )
    return data_set


def _refuse_other_parent(fitting: SearchedFitting) -> None:
    if fitting.parent is None:
        return
    net = new_net(fitting.game.board, fitting.network, seed=0)
    if fitting.parent.network != net.network:
        raise UsageError(
            f"weights {fitting.parent.model!r} version {fitting.parent.version} are no parent of this network",
            why=f"they are of {dict(fitting.parent.network)}, wanted is {dict(net.network)}",
            fix="set network.blocks and network.channels as the parent has them, or begin without one",
        )


def _compared(fitting: SearchedFitting, data_set: SearchedSet) -> dict[str, Any]:
    return {
        "game": fitting.game.name,
        "seed": fitting.seed,
        "parent": None if fitting.parent is None else fitting.parent.digest,
        **dotted("fit", fitting.settings.model_dump(mode="json")),
        **dotted("network", fitting.network.model_dump(mode="json", include=_NETWORK_SETTINGS)),
        "data": data_set.digest,
    }
