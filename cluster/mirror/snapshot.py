"""Which files a run consists of at one moment, so looked at that a run restored from them goes on.

A run is not halted for it. What makes that safe is the order (docs/architecture.md, "What is durable when"):

1. texts and logs, which only grow: what a text lacks of its chunks is written again from these.
2. checkpoints: the rows that they were trained on are on disk by now, or were deleted with the window.
3. the ledger, and the chunks as long as the ledger stays the same: it never marks a game as seen that is not among them
   or was deleted, and a chunk is deleted only after the ledger covers it.
4. weights, and last the mark: it is above all versions that any row in 3 was made with.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.mirror.plan import Span, Stat
from core.errors import TamenError

RECORD_FILE = "mirror.json"
"""Which mirror the folder belongs to; see `cluster.mirror.thread`."""
OF_THIS_MACHINE = (RECORD_FILE, "machines.json", "scale.json")
REPLACED = ("config.yaml", "name.txt", "ledger.sealed", "given_out")
"""Small files that are replaced while a run goes on: they are read at once, or would seldom be there still."""
LEDGER = "replay/ledger.sealed"
TRIES = 50


class FileChangedError(FileNotFoundError):
    """A file is not any more what it was when it was looked at."""


@dataclass(frozen=True, slots=True)
class Look:
    """A run's folder at one moment.

    Attributes:
        taken_at: seconds since 1970; what was on disk then is in it.
        stats: by path relative to the folder, with "/".
        contents: of the files that are replaced.
    """

    root: Path
    taken_at: float
    stats: dict[str, Stat]
    contents: dict[str, bytes]

    def read(self, span: Span) -> bytes:
        """Return the bytes of a span.

        Raises:
            FileChangedError: when its file is gone, or another.
            OSError: when it cannot be read.
        """
        if span.path in self.contents:
            return self.contents[span.path][span.offset : span.offset + span.size]
        try:
            with (self.root / span.path).open("rb") as file:
                if not _is_same(_stat(os.fstat(file.fileno()), span.path), self.stats[span.path]):
                    raise FileChangedError(f"{span.path} was replaced")
                data = os.pread(file.fileno(), span.size, span.offset)
        except FileNotFoundError as error:
            raise FileChangedError(f"{span.path} was deleted") from error
        if len(data) != span.size:
            raise FileChangedError(f"{span.path} was cut")
        return data


def look(root: Path) -> Look:
    """Return which files are in the folder of a run.

    Raises:
        OSError: when one cannot be looked at.
        TamenError: when the ledger changes faster than the chunks can be listed.
    """
    for _ in range(TRIES):
        found = Look(root, time.time(), {}, {})
        for path in _files(root, leave_out=("replay", "models")):
            _add(found, path)
        ledger = _key(root / LEDGER)
        for path in _files(root / "replay"):
            _add(found, path)
        if _key(root / LEDGER) != ledger:
            continue
        for path in sorted(_files(root / "models"), key=lambda path: path.name == "given_out"):
            _add(found, path)
        return found
    raise TamenError(
        f"{root / LEDGER} cannot be mirrored",
        why=f"it changed during each of {TRIES} looks at the chunks",
        fix="raise actors.chunk_rows, so that chunks come more seldom",
    )


def _files(folder: Path, *, leave_out: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files below a folder; hidden ones are unfinished or of this machine."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in (*leave_out, *OF_THIS_MACHINE):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _add(found: Look, path: Path) -> None:
    """Note a file, unless it has been deleted since it was listed."""
    name = path.relative_to(found.root).as_posix()
    try:
        if path.name in REPLACED:
            with path.open("rb") as file:
                found.contents[name] = file.read()
                found.stats[name] = _stat(os.fstat(file.fileno()), name)
        else:
            found.stats[name] = _stat(path.stat(), name)
    except FileNotFoundError:
        pass


def _key(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _stat(found: os.stat_result, path: str) -> Stat:
    return Stat(found.st_size, found.st_ino, found.st_mtime_ns, grows=_grows(path))


def _grows(path: str) -> bool:
    return path.startswith(("games/", "tb/")) or path.endswith(".jsonl") or path == "log.txt"


def _is_same(now: Stat, then: Stat) -> bool:
    """Whether a file still begins with what it was."""
    if then.grows:
        return now.inode == then.inode and now.size >= then.size
    return now == then
