"""Which files a run consists of at one moment, so looked at that a run restored from them goes on.

A run is not halted for it. What makes that safe is the order (docs/architecture.md, "What is durable when"):

1. texts and logs, which only grow: what a text lacks of its chunks is written again from these.
2. checkpoints: the rows that they were trained on are on disk by now, or were deleted with the window.
3. the ledger, and the chunks as long as the ledger stays the same: it never marks a game as seen that is not among them
   or was deleted, and a chunk is deleted only after the ledger covers it.
4. weights, and last the mark: it is above all versions that any row in 3 was made with.

Uploading takes longer than looking, and the run deletes meanwhile. So each file that has to be read gets a hard link in
a hidden folder of the run's at the look, and is read by that. Links are not limited in number as open files are, and
cost no room until the run deletes the file.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.mirror.plan import Known, Span, Stat
from core.errors import TamenError

RECORD_FILE = "mirror.json"
"""Which mirror the folder belongs to; see `cluster.mirror.thread`."""
OF_THIS_MACHINE = (RECORD_FILE, "machines.json", "scale.json")
REPLACED = ("config.yaml", "name.txt", "ledger.sealed", "given_out")
"""Small files that are replaced while a run goes on: they are read at once, or would seldom be there still."""
LEDGER = "replay/ledger.sealed"
LINKS = ".mirror"
SPARE_BYTES = 256 << 20
"""With less room on the disk no deleted file is kept: the run, which may need it, comes before its mirror."""
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
        links: by which files are read that the run may delete meanwhile; all others are read where they are.
    """

    root: Path
    taken_at: float
    stats: dict[str, Stat] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, Path] = field(default_factory=dict)

    def read(self, span: Span) -> bytes:
        """Return the bytes of a span.

        Raises:
            FileChangedError: when its file is gone, or another.
            OSError: when it cannot be read.
        """
        if span.path in self.contents:
            return self.contents[span.path][span.offset : span.offset + span.size]
        if not _has_room(self.root):
            drop_links(self.root)
        path = self.links.get(span.path)
        try:
            with (path if path and path.exists() else self.root / span.path).open("rb") as file:
                if not _is_same(_stat(os.fstat(file.fileno()), span.path), self.stats[span.path]):
                    raise FileChangedError(f"{span.path} was replaced")
                data = os.pread(file.fileno(), span.size, span.offset)
        except FileNotFoundError as error:
            raise FileChangedError(f"{span.path} was deleted") from error
        if len(data) != span.size:
            raise FileChangedError(f"{span.path} was cut")
        return data


@contextlib.contextmanager
def looked(root: Path, known: Mapping[str, Known]) -> Iterator[Look]:
    """Give which files are in the folder of a run; what is not known of them can be read while the context lasts.

    Args:
        root: the run's folder, looked at by nobody else.
        known: what need not be read, by path.

    Raises:
        OSError: when one cannot be looked at.
        TamenError: when the ledger changes, or checkpoints are deleted, faster than files can be listed.
    """
    drop_links(root)
    if _has_room(root):
        with contextlib.suppress(OSError):  # then files are read where they are
            (root / LINKS).mkdir()
    try:
        yield _look(root, known)
    finally:
        drop_links(root)


def drop_links(root: Path) -> None:
    """Remove what a look holds in a run's folder, or has left there when its process was killed."""
    shutil.rmtree(root / LINKS, ignore_errors=True)


def _has_room(root: Path) -> bool:
    return shutil.disk_usage(root).free >= SPARE_BYTES


def _look(root: Path, known: Mapping[str, Known]) -> Look:
    links: dict[str, Path] = {}  # of the tries before too: to make them again takes as long
    for _ in range(TRIES):
        found = Look(root, time.time(), links=links)
        # All of a checkpoint or nothing: it is deleted as a whole, which may be just now.
        if not all(_add(found, path, known) for path in _files(root, leave_out=("replay", "models"))):
            continue
        ledger = _key(root / LEDGER)
        for path in _files(root / "replay"):
            _add(found, path, known)
        if _key(root / LEDGER) != ledger:
            continue
        for path in sorted(_files(root / "models"), key=lambda path: path.name == "given_out"):
            _add(found, path, known)
        return found
    raise TamenError(
        f"{root} cannot be mirrored",
        why=f"{LEDGER} changed, or checkpoints were deleted, during each of {TRIES} looks",
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


def _add(found: Look, path: Path, known: Mapping[str, Known]) -> bool:
    """Note a file; return whether it is there still."""
    name = path.relative_to(found.root).as_posix()
    try:
        if path.name in REPLACED:
            with path.open("rb") as file:
                found.contents[name] = file.read()
                found.stats[name] = _stat(os.fstat(file.fileno()), name)
            return True
        stat = _stat(path.stat(), name)
        if not stat.grows and (name not in known or known[name].stat != stat):
            _link(found, path, stat)
    except FileNotFoundError:
        return False
    found.stats[name] = stat
    return True


def _link(found: Look, path: Path, stat: Stat) -> None:
    """Make a link to a file, where that can be done. Raises FileNotFoundError when it is gone."""
    name, link = path.relative_to(found.root).as_posix(), found.root / LINKS / str(stat.inode)
    if found.links.get(name) == link:
        return
    try:
        with contextlib.suppress(FileExistsError):  # since the try before
            os.link(path, link)
    except OSError:
        path.stat()  # else this file system has no links, or no room for one
    else:
        found.links[name] = link


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
