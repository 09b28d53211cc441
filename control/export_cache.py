"""Which exports need not be made again: those whose sources, settings and output are what they were.

A look tells whether an export is needed, with the reason; when it was made, what that look saw of the sources is noted
with the output's digest. So sources that change during an export are found by the next look.

A file is told by its size and the times, in nanoseconds, of its last write and its last change of any kind: the latter
the system sets itself, so not even who puts the former back can hide that he wrote. They are compared for equality, not
for order: clocks may be wrong. An output of which they differ is read and its digest compared, so one that was copied
or restored is valid still. Sources are not read: of those that were touched the export is made again.

Two writes within a tick of the clock have the same time. So what was written just before it was looked at is told by
its digest as well (git does so with its index, see its Documentation/technical/racy-git.txt).
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from control.curriculum import checked_number
from control.database import Database, Row
from control.lineage import hash_source
from core.errors import DataError, UsageError

Cause: TypeAlias = Literal[
    "valid", "forced", "unknown", "settings", "source removed", "source added", "source changed", "games",
    "output missing", "output altered",
]  # fmt: skip

TABLES = """
CREATE TABLE IF NOT EXISTS export_cache (
    output TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    signature TEXT NOT NULL,
    settled INTEGER NOT NULL,
    digest TEXT NOT NULL,
    games INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    made REAL NOT NULL,
    used REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS export_cache_sources (
    output TEXT NOT NULL REFERENCES export_cache (output) ON DELETE CASCADE,
    path TEXT NOT NULL,
    signature TEXT NOT NULL,
    digest TEXT,
    games INTEGER,
    PRIMARY KEY (output, path)
);
"""
KEPT_DAYS = 30
TICK_NS = 50_000_000
"""Well above a tick of the system's clock, which is 10 ms at most."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a folder with all that is in it, and how many games it holds (None: they were not counted).

    Counts find what times cannot: a database in WAL mode gets rows without its own file being written.
    """

    path: Path
    games: int | None = None

    def __post_init__(self) -> None:
        if self.games is not None:
            checked_number("games", self.games, whole=True)


@dataclass(frozen=True, slots=True)
class SeenSource:
    """A source as it was when it was looked at; `digest` only if it had just been written."""

    path: Path
    games: int | None
    signature: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look saw before an export."""

    output: Path
    settings: str
    sources: tuple[SeenSource, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an export need not be made, and why.

    Attributes:
        games, samples: of the export that is there; None where none was noted.
        seen: to be given to `record` when the export was made.
    """

    valid: bool
    cause: Cause
    reason: str
    games: int | None
    samples: int | None
    seen: Seen


class ExportCache:
    """The one in a database that was opened with `TABLES`.

    Args:
        clock_ns: nanoseconds since 1970, as the system dates files.
    """

    def __init__(self, database: Database, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def look(
        self, output: Path, sources: Iterable[Source], settings: Mapping[str, Any], *, force: bool = False
    ) -> Verdict:
        """Return whether the export to `output`, a file or folder, need not be made again.

        Args:
            settings: all that determines it beside the sources, plain JSON.

        Raises:
            UsageError: when a source is not there, given twice or holds the output, there is none, or settings are no
                JSON.
        """
        place = output.resolve()
        seen = Seen(place, _canonical(settings), self._look_at(list(sources), place))
        rows = self._database.read("SELECT * FROM export_cache WHERE output = ?", (str(place),))
        if not rows:
            cause, reason = _asked_for(force) or ("unknown", f"no export to {output} was noted")
            return Verdict(False, cause, reason, None, None, seen)
        (row,) = rows
        known = self._database.read("SELECT * FROM export_cache_sources WHERE output = ?", (str(place),))
        found = (
            _asked_for(force)
            or _other_settings(row["settings"], seen.settings)
            or _other_sources({each["path"]: each for each in known}, seen)
            or self._other_output(row, place)
        )
        if found is None:
            with self._database.write() as connection:
                connection.execute(
                    "UPDATE export_cache SET used = ? WHERE output = ?", (self._now(), str(place))
                )
        looked_at = f"{len(seen.sources)} sources" if len(seen.sources) > 1 else "source"
        cause, reason = found or ("valid", f"{looked_at}, settings and output are as they were")
        return Verdict(found is None, cause, reason, row["games"], row["samples"], seen)

    def record(self, seen: Seen, *, games: int, samples: int) -> None:
        """Note that the export which a look found to be needed is at its place, whole; forget those long unused.

        Raises:
            DataError: when the output is not there, or is written while it is read.
        """
        for name, count in (("games", games), ("samples", samples)):
            checked_number(name, count, whole=True)
        if not seen.output.exists():
            raise DataError(
                f"there is no export at {seen.output}", why="it is to be noted as made", fix="make it first"
            )
        signature, settled = self._signature(seen.output)
        digest = _content(seen.output)
        if self._signature(seen.output)[0] != signature:
            raise DataError(
                f"{seen.output} changed while it was read",
                why="somebody else writes to it",
                fix="let one process at a time make an export; it holds the lock of its key",
            )
        now = self._now()
        values = (str(seen.output), seen.settings, signature, settled, digest, games, samples, now, now)
        with self._database.write() as connection:
            connection.execute("DELETE FROM export_cache WHERE output = ?", (str(seen.output),))
            connection.execute("INSERT INTO export_cache VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            connection.executemany(
                "INSERT INTO export_cache_sources (output, path, games, signature, digest) VALUES (?, ?, ?, ?, ?)",
                [
                    (str(seen.output), str(each.path), each.games, each.signature, each.digest)
                    for each in seen.sources
                ],
            )
        self.prune()

    def prune(self) -> int:
        """Forget exports that were not used for `KEPT_DAYS`; return how many. Their files are left alone."""
        oldest = self._now() - 86_400 * KEPT_DAYS
        with self._database.write() as connection:
            return connection.execute("DELETE FROM export_cache WHERE used < ?", (oldest,)).rowcount

    def _now(self) -> float:
        return self._clock_ns() / 1e9

    def _look_at(self, sources: Sequence[Source], output: Path) -> tuple[SeenSource, ...]:
        paths = [source.path.resolve() for source in sources]
        _check_paths(paths, output)
        seen = []
        for path, source in sorted(zip(paths, sources, strict=True), key=lambda each: each[0]):
            signature, settled = self._signature(path)
            seen.append(SeenSource(path, source.games, signature, None if settled else _content(path)))
        return tuple(seen)

    def _signature(self, path: Path) -> tuple[str, bool]:
        """Return what changes when a file, or one below a folder, is written; and whether it is sure to."""
        now, hashed, newest = self._clock_ns(), hashlib.blake2b(digest_size=16), 0
        for name, file in _files(path):
            try:
                stat = file.stat()
            except FileNotFoundError:  # whoever writes there has removed it since
                continue
            newest = max(newest, stat.st_ctime_ns)
            text = f"{name}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\0"
            hashed.update(text.encode(errors="surrogateescape"))
        return hashed.hexdigest(), now - newest > TICK_NS

    def _other_output(self, row: Row, output: Path) -> tuple[Cause, str] | None:
        if not output.exists():
            return "output missing", f"{output} is gone"
        signature, settled = self._signature(output)
        if signature == row["signature"] and row["settled"]:
            return None
        if _content(output) != row["digest"]:
            return "output altered", f"{output} is not what was exported"
        with self._database.write() as connection:  # so that it is not read again the next time
            connection.execute(
                "UPDATE export_cache SET signature = ?, settled = ? WHERE output = ?",
                (signature, settled, str(output)),
            )
        return None


def _asked_for(force: bool) -> tuple[Cause, str] | None:
    return ("forced", "it was asked for") if force else None


def _other_settings(then: str, now: str) -> tuple[Cause, str] | None:
    if then == now:
        return None
    before, after = json.loads(then), json.loads(now)
    told = [
        f"{name} is {json.dumps(after.get(name))}, was {json.dumps(before.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) or (name in before) != (name in after)
    ]
    return "settings", "; ".join(told) or "a setting is written otherwise"


def _other_sources(known: Mapping[str, Row], seen: Seen) -> tuple[Cause, str] | None:
    present = {str(source.path): source for source in seen.sources}
    for path in sorted(known.keys() - present.keys()):
        return "source removed", f"{path} is no longer among the sources"
    for path in sorted(present.keys() - known.keys()):
        return "source added", f"{path} is new among the sources"
    for path, source in present.items():
        then = known[path]
        if source.games != then["games"]:
            return "games", f"{path} has {_count(source.games)} games, had {_count(then['games'])}"
        same = source.signature == then["signature"]
        if not same or (then["digest"] is not None and _content(source.path) != then["digest"]):
            return "source changed", f"{path} was written since"
    return None


def _count(games: int | None) -> str:
    return "uncounted" if games is None else f"{games:,}"


def _canonical(settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(settings), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            "the settings of an export cannot be compared",
            why=f"they are no plain JSON: {error}",
            fix="give numbers, texts, lists and mappings, without NaN",
        ) from error


def _check_paths(paths: Sequence[Path], output: Path) -> None:
    if not paths or len(set(paths)) < len(paths):
        raise UsageError(
            "an export has a source twice" if paths else "an export has no sources",
            why=f"given are {', '.join(map(str, paths)) or 'none'}",
            fix="name each file or folder of games once",
        )
    for path in paths:
        if not path.exists():
            raise UsageError(
                f"there is no source {path}",
                why="an export cannot be made of it",
                fix="check the path; or leave it out, and the export is made without it",
            )
        if path == output or path in output.parents:
            raise UsageError(
                f"the export {output} lies in its own source",
                why=f"writing it would change {path}, so it would be out of date at once",
                fix="export to a folder beside it",
            )


def _files(path: Path) -> list[tuple[str, Path]]:
    """Return a file, or all files below a folder, each with its name there, in order."""
    if not path.is_dir():
        return [("", path)]
    return sorted((str(file.relative_to(path)), file) for file in path.rglob("*") if file.is_file())


def _content(path: Path) -> str:
    """Return the digest of a file, or of all files below a folder; "" when one went meanwhile, so it is another now."""
    try:
        return hash_source(path).digest
    except FileNotFoundError:
        return ""
