"""Data sets at URLs, copied to this machine for the learner, which reads rows at the speed of a disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError, UsageError
from core.files import digest, write_atomic
from pipeline.contract import Context
from pipeline.running import remove_torn, run_left
from pipeline.shuffle import MANIFEST
from pipeline.storage import join, read_bytes
from replay.shards import is_complete, load_info, sidecar_of


@dataclass(frozen=True, slots=True)
class FetchTask:
    """The shard at `source`, which is to be copied to `path`, and the digest that its manifest says it has."""

    source: str
    path: Path
    digest: str


def fetch_data_set(source: str, folder: Path, context: Context) -> Path:
    """Copy the data set at the location `source` to a folder and return that; files that are there stay.

    Raises:
        UsageError: when there is none, or its files would lie outside of it.
        DataError: when one of them is damaged.
        OSError: when it cannot be reached, or written here.
        Stopped: when it was asked to stop.
    """
    try:
        manifest = read_bytes(join(source, MANIFEST))
    except FileNotFoundError as error:
        raise no_rows_at(source) from error
    tasks = [_task(source, folder, file) for file in _files(manifest, source)]
    for place in {task.path.parent for task in tasks}:
        place.mkdir(parents=True, exist_ok=True)
        remove_torn(place)
    run_left(fetch, tasks, [task for task in tasks if not _is_there(task)], context, unit="files fetched")
    write_atomic(folder / MANIFEST, manifest)
    return folder


def no_rows_at(location: str) -> UsageError:
    return UsageError(
        f"{location} is no folder of shuffled rows",
        why=f"it has no {MANIFEST}",
        fix="name what `tamen pipeline --to shuffle` made: runs/NAME/pipeline/shuffle, or its shuffle.target",
    )


def fetch(task: FetchTask) -> int:
    """Copy a shard and its sidecar, and return its bytes.

    Raises:
        DataError: when it is not what its manifest says.
        OSError: when it cannot be reached, or written here.
    """
    data, sidecar = read_bytes(task.source), read_bytes(f"{task.source}.json")
    if digest(data) != task.digest:
        raise DataError(
            f"{task.source} is damaged",
            why=f"its digest is {digest(data)}, its manifest says {task.digest}",
            fix="restore it from a copy, or delete the whole folder and run the pipeline again with --from shuffle",
        )
    write_atomic(task.path, data)
    write_atomic(sidecar_of(task.path), sidecar)
    return len(data)


def _files(manifest: bytes, source: str) -> list[dict[str, Any]]:
    try:
        return [
            {"name": str(file["name"]), "digest": str(file["digest"])}
            for file in json.loads(manifest)["files"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{join(source, MANIFEST)} cannot be used",
            why=f"{type(error).__name__}: {error}",
            fix="restore it from a copy, or run the pipeline again with --from shuffle",
        ) from error


def _task(source: str, folder: Path, file: dict[str, Any]) -> FetchTask:
    match file["name"].split("/"):
        case [("train" | "validation") as side, name] if name not in ("", ".", ".."):
            return FetchTask(join(source, side, name), folder / side / name, file["digest"])
    raise UsageError(
        f"{source} is not copied",
        why=f"its {MANIFEST} names {file['name']!r}, which is no file in train/ or validation/",
        fix="look who wrote it",
    )


def _is_there(task: FetchTask) -> bool:
    return is_complete(task.path) and load_info(task.path).digest == task.digest
