"""Where Python's time goes: cProfile over all threads that a process starts meanwhile.

cProfile by itself sees one thread. Here each has a profile of its own; in the end they are added up in one file, which
`pstats` reads. Its clock goes on while a thread waits. One that does not, `time.thread_time`, makes calls six times as
dear as cProfile does by itself; so waiting is left out where the costliest functions are told.
"""

import cProfile
import os
import pstats
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from core.errors import UsageError

SHOWN = 10
_SHOWN_PARTS = 2
"""Of a file's path."""
_WAITS = re.compile(r"\b_thread\.|\bselect\.|\btime\.sleep\b")
"""In the names of functions, not written in Python, that do next to nothing but wait."""


@contextmanager
def profiled(path: Path | None) -> Iterator[None]:
    """Profile this thread, and those that begin inside the block, into the file `path`; None does nothing.

    All that matters should have ended with the block: of a thread that goes on, what it did so far is told. A file that
    was there is replaced.
    """
    if path is None:
        yield
        return
    profiles: list[cProfile.Profile] = []

    def begin(frame: FrameType | None = None, event: str = "", value: Any = None) -> None:
        profile = cProfile.Profile()
        profiles.append(profile)
        profile.enable()  # takes the place of this function in its thread

    threading.setprofile(begin)
    begin()
    try:
        yield
    finally:
        threading.setprofile(None)  # pyright: ignore[reportArgumentType] (what takes it away)
        profiles[0].disable()
        _write(profiles, path)


def profile_of(path: Path | None, process: str) -> Path | None:
    """Return where one of several processes writes, `path` being what was named for all."""
    return None if path is None else path.with_suffix(f".{process}{path.suffix}")


def profiles_since(path: Path | None, since: float) -> list[Path]:
    """Return what is on this machine, and was written since then: `path`, or what processes have written beside it."""
    pattern = profile_of(path, "*")
    if path is None or pattern is None:
        return []
    found = [path, *sorted(pattern.parent.glob(pattern.name))]
    return [one for one in found if one.is_file() and one.stat().st_mtime >= since]


def check_profile(path: Path | None) -> None:
    """Raise UsageError when no profile can be written at `path`."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UsageError(
            f"no profile can be written to {path}",
            why="it is a folder" if path.is_dir() else f"there is no folder {path.parent}",
            fix="name a file, as in --profile play.prof",
        )


def costliest(paths: Sequence[Path], count: int = SHOWN) -> list[str]:
    """Return lines that tell which functions took most time by themselves, in all these files, waiting left out.

    Raises:
        OSError: when one of them is not there.
    """
    stats: dict[Any, Any] = pstats.Stats(*map(str, paths)).stats  # pyright: ignore[reportAttributeAccessIssue]
    known = {where: told for where, told in stats.items() if not (where[1] == 0 and _WAITS.search(where[2]))}
    whole = sum(own for _, _, own, _, _ in known.values()) or 1.0
    costly = sorted(known.items(), key=lambda item: item[1][2], reverse=True)[:count]
    return [f"{'seconds':>8} {'share':>6} {'calls':>10}  function"] + [
        f"{own:8.2f} {own / whole:6.1%} {calls:10,}  {_place(*where)}"
        for where, (_, calls, own, _, _) in costly
    ]


def _place(file: str, line: int, function: str) -> str:
    if line == 0:  # not written in Python
        return function.strip("<>")
    return f"{'/'.join(Path(file).parts[-_SHOWN_PARTS:])}:{line} {function}"


def _write(profiles: list[cProfile.Profile], path: Path) -> None:
    stats = pstats.Stats(profiles[0])
    for profile in profiles[1:]:
        profile.create_stats()
        if profile.stats:  # pyright: ignore[reportAttributeAccessIssue]
            stats.add(profile)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    stats.dump_stats(temporary)
    temporary.replace(path)
