"""Where a model comes from: the data that it was fitted to, and the models that it was made of."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import DataError, UsageError
from core.files import digest, file_digest


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder of data as it was when a model was fitted to it.

    Attributes:
        path: where it lay, absolute.
        bytes: of all its files.
        digest: BLAKE2b-128 of every byte of a file; of a folder, of the names and digests of all files in it.
    """

    path: str
    bytes: int
    digest: str


def hash_source(path: Path) -> Source:
    """Return what `path` holds now. All of it is read.

    Raises:
        UsageError: when nothing is there.
        OSError: when it cannot be read.
    """
    if path.is_file():
        content, size = file_digest(path)
        return Source(str(path.absolute()), size, content)
    if not path.is_dir():
        raise UsageError(
            f"there is no data at {str(path)!r}",
            why="it is neither a file nor a folder",
            fix="name the files or folders that the model was fitted to",
        )
    lines, total = [], 0
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        content, size = file_digest(file)
        lines.append(f"{content} {size} {file.relative_to(path).as_posix()}\n")
        total += size
    return Source(str(path.absolute()), total, digest("".join(lines).encode(errors="surrogateescape")))


def data_digest(sources: Iterable[Source]) -> str | None:
    """Return one digest of all that a model was fitted to, whatever the order and place; None of nothing."""
    found = sorted(f"{source.digest} {source.bytes}\n" for source in sources)
    return digest("".join(found).encode()) if found else None


def ancestors(parents: Mapping[str, str | None], model_id: str) -> list[str]:
    """Return the parent of a model, the parent of that, and so on.

    Args:
        parents: the parent of each model of a key, None of one that began anew.

    Raises:
        DataError: when it comes back to where it was, or leads to a model that is not there.
    """
    found: list[str] = []
    seen, parent = {model_id}, parents[model_id]
    while parent is not None:
        if parent in seen or parent not in parents:
            raise DataError(
                f"the lineage of {model_id} is damaged",
                why=f"{parent} " + ("is its own ancestor" if parent in seen else "is not registered"),
                fix="bring back a copy of the registry; this program writes no such parents",
            )
        found.append(parent)
        seen.add(parent)
        parent = parents[parent]
    return found


def children(parents: Mapping[str, str | None]) -> dict[str | None, list[str]]:
    """Return who was made of whom, in the order of `parents`; under None those that began anew."""
    found: dict[str | None, list[str]] = defaultdict(list)
    for model_id, parent in parents.items():
        found[parent].append(model_id)
    return dict(found)


def descendants(parents: Mapping[str, str | None], model_id: str) -> list[str]:
    """Return all models that were made of this one, a parent before its children."""
    below, found, waiting = children(parents), list[str](), deque([model_id])
    seen = {model_id}
    while waiting:
        fresh = [each for each in below.get(waiting.popleft(), []) if each not in seen]
        found += fresh
        seen.update(fresh)
        waiting.extend(fresh)
    return found
