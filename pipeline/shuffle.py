"""The step `shuffle`: rows of all games in one random order, in memory that one bucket bounds.

All rows of a game have the same outcome. Near each other they teach a network to know the game instead of the position
(Snowflake2025 calls it fingerprinting), so they are spread over all files, and every file is shuffled:

    1. distribute    Each shard of `positions`, a block at a time: rows of games kept for validation go to other buckets
                     than those for training. The rows of a game go to bucket after bucket, in an order of its own, so
                     that no bucket has two more than another. Each shard becomes one piece, its rows sorted by bucket.
    2. consolidate   Each bucket: its rows of all pieces, in the order of pieces, then in a random order.

What is made depends on the shards and the settings, not on who makes it: buckets draw from generators of their own.

    plan.json                        what is shuffled, and how
    pieces/hex10_000.piece           records sorted by bucket in each block; deleted when all buckets are done
    train/shuffled_0000.npz …        shards, see `replay.shards`; those of `validation` beside them
    manifest.json                    written last: schema, game, rows, games, seed, files

Where the result goes to a URL, pieces and a copy of the manifest lie here.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, gcd
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.errors import DataError
from core.files import write_atomic
from core.seeds import derive_rng, derive_seed, mix_keys
from pipeline.contract import Context
from pipeline.pieces import read_bucket, read_index, sure_index, write_blocks, write_index
from pipeline.running import remove_torn, run_left
from pipeline.storage import is_url, join, read_bytes, size_of, write_atomic_at
from replay.shards import (
    ShardAbout,
    ShardInfo,
    encode_shard,
    info_from_json,
    load_info,
    read_blocks,
    write_shard,
)
from replay.splitting import is_validation

MANIFEST_SCHEMA = 1
PLAN, MANIFEST, PIECES = "plan.json", "manifest.json", "pieces"
SIDES: tuple["Side", "Side"] = ("train", "validation")
BLOCK_ROWS = 1 << 15
"""Rows that distributing holds at a time: 1.3 MB of 10×10."""

Side = Literal["train", "validation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffling:
    """How rows are shuffled.

    Attributes:
        buckets: files of rows for training; memory holds a few times one of them.
        validation_share: of the games, which are kept apart, in more buckets of about the same size.
        seed: of the order.
    """

    buckets: int = 100
    validation_share: float = 0.05
    seed: int = 0

    @property
    def buckets_of(self) -> dict[Side, int]:
        share = self.validation_share
        return {"train": self.buckets, "validation": ceil(self.buckets * share)}


@dataclass(frozen=True, slots=True)
class DistributeTask:
    """A shard of rows, and the piece that is to be made of it."""

    shard: Path
    piece: Path
    shuffling: Shuffling


@dataclass(frozen=True, slots=True)
class ConsolidateTask:
    """Bucket `number` of a side, the pieces that hold its rows, and the location of the shard to be made."""

    pieces: tuple[Path, ...]
    side: Side
    number: int
    location: str
    about: ShardAbout
    shuffling: Shuffling


class ShuffleStep:
    """Shuffles the rows of `positions`; see `pipeline.contract.Step`.

    The folder becomes a data set for the learner. Where there are rows of several games, each has a data set of its own
    in a folder below that is called as the game is; see `data_sets`.

    Args:
        shuffling: how.
        target: location of the data set, such as s3://bucket/rows; None is the step's folder.
        keep_pieces: whether what lies between the two phases is left where it is.
    """

    name = "shuffle"
    needs = ("positions",)

    def __init__(self, shuffling: Shuffling, *, target: str | None = None, keep_pieces: bool = False) -> None:
        self._shuffling = shuffling
        self._target = target
        self._keep_pieces = keep_pieces

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self._shuffling) | {"target": self._target}

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return {"rows", "games", "files", "train_rows", "validation_rows"}. Raises what the contract says."""
        shards_of = _shards_of(inputs["positions"])
        target = self._target or str(folder)
        counts: dict[str, Any] = dict.fromkeys(("rows", "games", "files", "train_rows", "validation_rows"), 0)
        for game, shards in shards_of.items():
            alone = len(shards_of) == 1
            manifest = shuffle_rows(
                shards,
                self._shuffling,
                work=folder if alone else folder / game,
                target=target if alone else join(target, game),
                context=context,
                keep_pieces=self._keep_pieces,
            )
            counts["files"] += len(manifest["files"])
            for name in counts.keys() - {"files"}:
                counts[name] += manifest[name]
        return counts


def data_sets(folder: Path) -> dict[str, Path]:
    """Return the data sets that `ShuffleStep` made in a folder of this machine, by the names of their games.

    Of those that it made at a URL, the step's own folder has the manifests.
    """
    return {
        json.loads(manifest.read_bytes())["game"]: manifest.parent
        for manifest in sorted([*folder.glob(MANIFEST), *folder.glob(f"*/{MANIFEST}")])
    }


def shuffle_rows(
    shards: Sequence[Path],
    shuffling: Shuffling,
    *,
    work: Path,
    target: str,
    context: Context,
    keep_pieces: bool = False,
) -> dict[str, Any]:
    """Make a data set of shards of one game and return its manifest; what is there of it already is left alone.

    Args:
        shards: in the order that the result depends on.
        shuffling: how.
        work: folder for the pieces.
        target: location of the data set.
        context: see `pipeline.contract.Context`; its seed is not used, the one of `shuffling` is.
        keep_pieces: whether the pieces are left.

    Raises:
        DataError: when there are no rows, a shard is damaged, or `target` holds another data set.
        Stopped: when it was asked to stop.
    """
    infos = [load_info(shard) for shard in shards]
    about = ShardAbout(infos[0].game, infos[0].cells, tuple(shard.name for shard in shards))
    _begin(target, about, shuffling, [(i.rows, i.digest) for i in infos])
    for folder in (work / PIECES, *(Path(target, side) for side in SIDES if not is_url(target))):
        remove_torn(folder)
    pieces = tuple(work / PIECES / f"{shard.stem}.piece" for shard in shards)
    buckets = [
        ConsolidateTask(pieces, side, number, _location(target, side, number), about, shuffling)
        for side in SIDES
        for number in range(shuffling.buckets_of[side])
    ]
    left = [task for task in buckets if _info_at(task.location) is None]
    manifest = _read_json(join(target, MANIFEST))
    if left or manifest is None:
        spread = [DistributeTask(*pair, shuffling) for pair in zip(shards, pieces, strict=True)]
        undone = [task for task in spread if read_index(task.piece) is None]
        run_left(distribute, spread, undone, context, unit="files")
        run_left(consolidate, buckets, left, context, unit="buckets")
        manifest = _manifest(buckets, pieces, about, shuffling)
        write_atomic_at(join(target, MANIFEST), _to_json(manifest))
    if is_url(target):  # whoever goes on from here sees what there is without asking far away
        write_atomic(work / MANIFEST, _to_json(manifest))
    if not keep_pieces:
        shutil.rmtree(work / PIECES, ignore_errors=True)
    return manifest


def distribute(task: DistributeTask) -> int:
    """Write the rows of a shard as a piece, block by block, and return how many.

    Raises:
        DataError: when the shard is damaged.
        OSError: when the piece cannot be written.
    """
    games: dict[Side, np.ndarray] = {side: np.zeros(0, np.uint64) for side in SIDES}

    def blocks() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for block, second in _with_seconds(read_blocks(task.shard, BLOCK_ROWS)):
            runs, buckets = _buckets(block, second, task.shuffling)
            apart = is_validation(runs, task.shuffling.validation_share)
            games["train"] = np.union1d(games["train"], runs[~apart])
            games["validation"] = np.union1d(games["validation"], runs[apart])
            yield block, buckets

    cells, num_buckets = load_info(task.shard).cells, sum(task.shuffling.buckets_of.values())
    index = write_blocks(task.piece, blocks(), cells=cells, num_buckets=num_buckets)
    write_index(task.piece, index, games=[len(games[side]) for side in SIDES])
    return int(index.counts.sum())


def consolidate(task: ConsolidateTask) -> int:
    """Write the rows of a bucket in random order as a shard, and return how many.

    Raises:
        DataError: when a piece is damaged.
        OSError: when the shard cannot be written.
    """
    bucket = task.number + (0 if task.side == "train" else task.shuffling.buckets)
    rng = derive_rng(task.shuffling.seed, "shuffle", task.side, task.number)
    rows = read_bucket(task.pieces, bucket, cells=task.about.cells, rng=rng)
    if not is_url(task.location):
        return write_shard(Path(task.location), rows, task.about, known_sound=True).rows
    data, info = encode_shard(rows, task.about, known_sound=True)
    write_atomic_at(task.location, data)
    write_atomic_at(f"{task.location}.json", info.to_json())
    return info.rows


def _shards_of(folder: Path) -> dict[str, list[Path]]:
    """Return the shards with rows in a folder, by the names of their games. Raises DataError when there is none."""
    found: dict[str, list[Path]] = {}
    for shard in sorted(folder.glob("*.npz")):
        info = load_info(shard)
        if info.rows:
            found.setdefault(info.game, []).append(shard)
    if not found:
        raise DataError(
            f"{folder} holds no rows to shuffle",
            why="there is no .npz shard in it, or none with rows",
            fix="run the pipeline with --from positions, on files that hold games",
        )
    return found


def _begin(target: str, about: ShardAbout, shuffling: Shuffling, shards: list[tuple[int, str]]) -> None:
    """Write down at `target` what will be made there. Raises DataError when something else is being made there."""
    plan = {
        "schema": MANIFEST_SCHEMA,
        "game": about.game,
        "cells": about.cells,
        **asdict(shuffling),
        "shards": [
            {"name": name, "rows": rows, "digest": digest}
            for name, (rows, digest) in zip(about.sources, shards, strict=True)
        ],
    }
    there = _read_json(join(target, PLAN))
    if there is None:
        write_atomic_at(join(target, PLAN), _to_json(plan))
    elif there != plan:
        changed = [name for name in plan if there.get(name) != plan[name]]
        raise DataError(
            f"{target} holds another data set",
            why=f"its {PLAN} differs in {', '.join(changed)}",
            fix="give another place, or delete what is there",
        )


def _with_seconds(
    blocks: Iterator[dict[str, np.ndarray]],
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yield each block with a mask bool [R] of rows that are the second of their position, turned by 180°."""
    before = (None, None)
    for block in blocks:
        game, ply = block["game"], block["ply"]
        second = np.empty(len(game), bool)
        second[0] = (int(game[0]), int(ply[0])) == before
        second[1:] = (game[1:] == game[:-1]) & (ply[1:] == ply[:-1])
        before = (int(game[-1]), int(ply[-1]))
        yield block, second


def _buckets(
    block: Mapping[str, np.ndarray], second: np.ndarray, shuffling: Shuffling
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the game of each run of rows of one game, uint16 [R] the bucket of each row).

    Row k of a game goes to bucket (offset + stride·k) mod B. Its number and the seed determine the offset and a stride
    that has no divisor in common with B: so any B rows that follow each other are in B buckets. The buckets of
    validation come behind those of training.
    """
    begins = np.flatnonzero(np.diff(block["game"], prepend=~block["game"][:1]))
    games = block["game"][begins]
    apart = is_validation(games, shuffling.validation_share)
    drawn = [mix_keys(games, derive_seed(shuffling.seed, "shuffle", what)) for what in ("offset", "stride")]
    plan = np.empty((4, len(games)), np.int64)  # first bucket, B, offset, stride
    first = 0
    for count, chosen in zip(shuffling.buckets_of.values(), (~apart, apart), strict=True):
        strides = np.array([stride for stride in range(1, count + 1) if gcd(stride, count) == 1])
        if chosen.any():
            plan[0, chosen], plan[1, chosen] = first, count
            plan[2, chosen] = drawn[0][chosen] % np.uint64(count)
            plan[3, chosen] = strides[drawn[1][chosen] % np.uint64(len(strides))]
        first += count
    base, count, offset, stride = np.repeat(plan, np.diff(begins, append=len(second)), axis=1)
    place = block["ply"] + second * (block["plies"].astype(np.int64) + 1)
    return games, (base + (offset + stride * place) % count).astype(np.uint16)


def _manifest(
    buckets: Sequence[ConsolidateTask], pieces: Sequence[Path], about: ShardAbout, shuffling: Shuffling
) -> dict[str, Any]:
    """Return what is there, now that all of it is; files without rows are not named."""
    files: list[dict[str, Any]] = []
    for task in buckets:
        info = _info_at(task.location)
        assert info is not None
        if info.rows:
            files.append({"name": _name(task.side, task.number), "rows": info.rows, "digest": info.digest})
    rows = {side: sum(file["rows"] for file in files if file["name"].startswith(side)) for side in SIDES}
    per_side = [sure_index(piece).games for piece in pieces]
    games = dict(zip(SIDES, (sum(counts) for counts in zip(*per_side, strict=True)), strict=True))
    return {
        "schema": MANIFEST_SCHEMA,
        "game": about.game,
        "cells": about.cells,
        "rows": sum(rows.values()),
        "games": sum(games.values()),
        **{f"{side}_rows": rows[side] for side in SIDES},
        **{f"{side}_games": games[side] for side in SIDES},
        **asdict(shuffling),
        "files": files,
    }


def _name(side: Side, number: int) -> str:
    return f"{side}/shuffled_{number:04d}.npz"


def _location(target: str, side: Side, number: int) -> str:
    return join(target, *_name(side, number).split("/"))


def _info_at(location: str) -> ShardInfo | None:
    """Return what the sidecar of a shard says, None unless the shard is there and as long as it says."""
    try:
        info = info_from_json(read_bytes(f"{location}.json"), source=location)
    except (FileNotFoundError, DataError):
        return None
    return info if size_of(location) == info.size else None


def _read_json(location: str) -> dict[str, Any] | None:
    """Return what a file of ours holds, None if it is not there. Raises DataError when it is damaged."""
    try:
        return json.loads(read_bytes(location))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(
            f"{location} is damaged", why=str(error), fix="delete its folder and run the step again"
        ) from error


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
