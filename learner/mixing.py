"""Rows from data sets at rest as batches, in an order that a seed and the number of rows drawn determine.

A data set is a folder with `manifest.json` and the shards that it names, in `train/` and in `validation/`, as the
pipeline's shuffle writes them. What is drawn next is a function of how many rows were drawn before, so that number is
all that a checkpoint has to remember.

Shapes: `n` rows of a batch, `C` cells, `A` actions.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.errors import DataError, UsageError
from core.seeds import derive_rng
from games.game import Game
from learner.objective import Columns
from replay.shards import load_info, read_shard, unpack_cells
from replay.splitting import is_validation

SHARDS_TOGETHER = 4
"""Shards of one data set in memory, whose rows are drawn in one random order."""

ROUND_ROWS = 4096
"""After so many rows the order in which streams take turns begins anew."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder of shuffled rows, and how they are used.

    Attributes:
        folder: with its `manifest.json`.
        weight: how often its rows are drawn beside those of other sets.
        skip: first and last training file that are not used, from 0, both included; None: all are.
    """

    folder: Path
    weight: float = 1.0
    skip: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that a data set names."""

    path: Path
    rows: int
    digest: str

    def read(self) -> dict[str, np.ndarray]:
        """Return its columns. Raises DataError when it is damaged, or another than the data set names."""
        if load_info(self.path).digest != self.digest:
            raise DataError(
                f"{self.path} is not of this data set",
                why=f"its digest is {load_info(self.path).digest}, the manifest says {self.digest}",
                fix="copy the whole folder again, or run the pipeline again with --from shuffle",
            )
        return read_shard(self.path)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a data set says of itself.

    Attributes:
        game: name of the game.
        files: its shards, by side.
        validation_share: of games that are kept apart, see `replay.splitting`.
        identity: of its rows, one text: equal for equal data sets wherever they lie.
    """

    game: str
    files: dict[Literal["train", "validation"], tuple[ShardFile, ...]]
    validation_share: float
    identity: str


def read_manifest(folder: Path) -> Manifest:
    """Return what the data set in `folder` says of itself.

    Raises:
        UsageError: when there is none.
        DataError: when its manifest is none.
    """
    path = folder / "manifest.json"
    try:
        said = json.loads(path.read_bytes())
        sides: dict[Literal["train", "validation"], list[ShardFile]] = {"train": [], "validation": []}
        for file in said["files"]:
            side = "train" if file["name"].startswith("train/") else "validation"
            sides[side].append(ShardFile(folder / file["name"], int(file["rows"]), str(file["digest"])))
        identity = " ".join([said["game"], *(str(file["digest"]) for file in said["files"])])
        return Manifest(
            said["game"],
            {side: tuple(files) for side, files in sides.items()},
            float(said["validation_share"]),
            identity,
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} is no folder of shuffled rows",
            why="it has no manifest.json",
            fix="name a folder that `tamen pipeline --to shuffle` made, such as runs/NAME/pipeline/shuffle",
        ) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be used",
            why=f"{type(error).__name__}: {error}",
            fix="restore it from a copy, or run the pipeline again with --from shuffle",
        ) from error


@dataclass(frozen=True, slots=True)
class Targets:
    """How rows become what a board network is fitted to.

    Attributes:
        half_turns: whether every second row, at random, is shown turned by 180°.
        label_smoothing: share of the policy's target that is spread over all actions.
    """

    half_turns: bool = True
    label_smoothing: float = 0.0


class MixedRows:
    """Training rows of several data sets.

    Each set is a stream without end: pass after pass over its rows, each in another order. A batch takes from all
    streams, by their weights times their rows.

    Args:
        sets: of one game.
        game: its rules.
        seed: of the order.
        max_rows: of all rows that are used; of each set it leaves out the same share.
        targets: see `Targets`.

    Attributes:
        rows_per_epoch: rows drawn until each row of weight 1 was drawn once.

    Raises:
        UsageError: when a set is of another game, or nothing is left of all of them.
        DataError: when a manifest is damaged.
    """

    def __init__(
        self,
        sets: Sequence[DataSet],
        game: Game,
        *,
        seed: int,
        max_rows: int | None = None,
        targets: Targets = Targets(),
    ) -> None:
        manifests = [read_manifest(one.folder) for one in sets]
        for one, manifest in zip(sets, manifests, strict=True):
            if manifest.game != game.name:
                raise UsageError(
                    f"{one.folder} cannot be mixed in",
                    why=f"its rows are of {manifest.game}, the others of {game.name}",
                    fix="leave it out, or fit a network of its own to it",
                )
        files = [_used_files(one, manifest) for one, manifest in zip(sets, manifests, strict=True)]
        total = sum(file.rows for each in files for file in each)
        share = 1.0 if max_rows is None else min(1.0, max_rows / max(1, total))
        streams = [_Stream(_first_rows(each, share), number, seed) for number, each in enumerate(files)]
        weights = np.array([one.weight * stream.rows for one, stream in zip(sets, streams, strict=True)])
        self._streams = [stream for stream in streams if stream.rows]
        if not self._streams:
            raise UsageError(
                "there are no rows to learn from",
                why=f"{', '.join(str(one.folder) for one in sets)} hold none that are not left out",
                fix="skip fewer files, or make more rows",
            )
        self.rows_per_epoch = round(float(weights.sum()))
        self.identity = [manifest.identity for manifest in manifests]
        self._round = _round(weights[weights > 0] / weights.sum())
        self._game = game
        self._seed = seed
        self._targets = targets

    def batch(self, drawn: int, rows: int) -> Columns:
        """Return the `rows` rows that follow the first `drawn`: what `learner.board_objective` reads, and `ROW_ID`.

        Raises:
            DataError: when a shard is damaged.
        """
        before, after = self._split(drawn), self._split(drawn + rows)
        spans = zip(self._streams, before, after, strict=True)
        parts = [stream.take(start, stop) for stream, start, stop in spans if start < stop]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        turned = np.zeros(rows, bool)
        if self._targets.half_turns:
            turned = derive_rng(self._seed, "half turns", drawn).random(rows) < 0.5
        return learning_columns(columns, self._game, turned, self._targets.label_smoothing)

    def _split(self, drawn: int) -> list[int]:
        """Return how many of the first `drawn` rows come from each stream."""
        rounds, rest = divmod(drawn, ROUND_ROWS)
        return (rounds * self._round[-1] + self._round[rest]).tolist()


def validation_rows(sets: Sequence[DataSet], *, most: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield rows of the games kept apart, shards of all sets in turn, until `most` rows are there.

    A set of which a smaller share of games is kept apart teaches some that others keep: those do not count.
    """
    manifests = [read_manifest(one.folder) for one in sets]
    share = min(manifest.validation_share for manifest in manifests)
    queues = [list(manifest.files["validation"]) for manifest in manifests]
    left = most
    while left > 0 and any(queues):
        for queue, manifest in zip(queues, manifests, strict=True):
            if not queue or left <= 0:
                continue
            rows = queue.pop(0).read()
            if manifest.validation_share > share:
                kept = is_validation(rows["game"], share)
                rows = {name: column[kept] for name, column in rows.items()}
            if len(rows["game"]):
                yield {name: column[:left] for name, column in rows.items()}
                left -= len(rows["game"])


def learning_columns(
    rows: Columns, game: Game, turned: np.ndarray, label_smoothing: float = 0.0
) -> dict[str, np.ndarray]:
    """Return rows of a shard as a network is fitted to them.

    Args:
        rows: columns of `replay.shards`.
        game: their rules.
        turned: bool [n], which are shown turned by 180°; none may be in a game that has no such symmetry.
        label_smoothing: see `Targets`.
    """
    count, actions = len(rows["game"]), game.num_actions
    cells = unpack_cells(rows["stones"], game.board.height * game.board.width)
    action = rows["action"].astype(np.int64)
    if turned.any():
        # Of the views that show a board as it lies to player 0, number 1 is the half turn, which undoes itself.
        half_turn = game.views[1].astype(np.int64)
        cells[turned] = cells[turned][:, half_turn[: cells.shape[1]]]
        moved = turned & (action >= 0)
        action[moved] = half_turn[action[moved]]
    known_move = action >= 0
    policy = np.full((count, actions), label_smoothing / actions, np.float32)
    policy[known_move, action[known_move]] += 1 - label_smoothing
    outcome = rows["outcome"].astype(np.float32)
    zeros = np.zeros(count, np.int64)
    return {
        "cells": cells,
        "policy": policy,
        "policy_weight": known_move.astype(np.float32),
        "outcome": outcome,
        "value_weight": (outcome != 0).astype(np.float32),
        "actor": zeros,
        "epoch": zeros,
        "seq": rows["game"].view(np.int64),
        "step": rows["ply"].astype(np.int64),
    }


class _Stream:
    """The rows of one data set, pass after pass; `rows` of them a pass."""

    def __init__(self, files: Sequence[tuple[ShardFile, int]], number: int, seed: int) -> None:
        self._files = files  # and how many of their rows are used
        self._number = number
        self._seed = seed
        self.rows = sum(rows for _, rows in files)
        self._pass = -1
        self._groups: list[tuple[int, list[int]]] = []
        self._held: tuple[int, int] = (-1, -1)
        self._columns: dict[str, np.ndarray] = {}

    def take(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return rows number `start` to `stop` of the stream, of all passes."""
        parts = []
        while start < stop:
            columns, at = self._group_at(start)
            size = min(stop - start, len(columns["game"]) - at)
            parts.append({name: column[at : at + size] for name, column in columns.items()})
            start += size
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _group_at(self, row: int) -> tuple[dict[str, np.ndarray], int]:
        """Return the shards that are read together and hold row number `row`, and its place there."""
        number, place = divmod(row, self.rows)
        if number != self._pass:
            self._pass, self._groups = number, self._groups_of(number)
        group = max(k for k, (first, _) in enumerate(self._groups) if first <= place)
        if self._held != (number, group):
            self._columns = {}  # before the next group is read: one, and what a batch has of the last, is in memory
            self._columns = self._load(number, group)
            self._held = (number, group)
        return self._columns, place - self._groups[group][0]

    def _groups_of(self, number: int) -> list[tuple[int, list[int]]]:
        """Return (number of the first row, its files) of each group of a pass."""
        order = derive_rng(self._seed, "mixing", self._number, number).permutation(len(self._files))
        groups, first = [], 0
        for start in range(0, len(order), SHARDS_TOGETHER):
            files = order[start : start + SHARDS_TOGETHER].tolist()
            groups.append((first, files))
            first += sum(self._files[file][1] for file in files)
        return groups

    def _load(self, number: int, group: int) -> dict[str, np.ndarray]:
        shards = []
        for file in self._groups[group][1]:
            shard, rows = self._files[file]
            shards.append({name: column[:rows] for name, column in shard.read().items()})
        columns = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
        rng = derive_rng(self._seed, "mixing", self._number, number, group)
        order = rng.permutation(len(columns["game"]))
        return {name: column[order] for name, column in columns.items()}


def _round(shares: np.ndarray) -> np.ndarray:
    """Return int64 [ROUND_ROWS + 1, streams]: how many of the first rows of a round come from each, evenly spread."""
    exact = shares * ROUND_ROWS
    counts = np.maximum(np.floor(exact), 1).astype(np.int64)
    for _ in range(ROUND_ROWS - counts.sum()):
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > ROUND_ROWS:
        counts[np.argmax(counts)] -= 1
    turns = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    stream = np.repeat(np.arange(len(counts)), counts)[np.argsort(turns, kind="stable")]
    taken = np.cumsum(stream[:, None] == np.arange(len(counts)), axis=0)
    return np.concatenate([np.zeros((1, len(counts)), np.int64), taken])


def _used_files(one: DataSet, manifest: Manifest) -> list[ShardFile]:
    first, last = one.skip if one.skip is not None else (0, -1)
    files = manifest.files["train"]
    return [file for k, file in enumerate(files) if not first <= k <= last and file.rows]


def _first_rows(files: Sequence[ShardFile], share: float) -> list[tuple[ShardFile, int]]:
    """Return the first files that hold `share` of the rows, and how many of each: of the last only its first rows."""
    left, kept = int(sum(file.rows for file in files) * share + 1e-9), []
    for file in files:
        if left <= 0:
            break
        kept.append((file, min(file.rows, left)))
        left -= file.rows
    return kept
