"""How many cores and how much memory a container, or a slice of systemd, leaves to this process: its control groups."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where Ray keeps objects
MOUNTED, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use at most; infinite where nothing is said.

    Attributes:
        cpus: cores' worth of time, which may be a fraction.
        memory_bytes: of its group as a whole.
    """

    cpus: float = math.inf
    memory_bytes: float = math.inf


def limits_here(mounted: Path = MOUNTED, own: Path = OWN) -> Limits:
    """Return the tightest limits among this process's control groups and those around them, of both versions.

    Version 2 says them in `cpu.max` and `memory.max`, version 1 in `cpu.cfs_quota_us`, `cpu.cfs_period_us` and
    `memory.limit_in_bytes` (https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/memory.html). What cannot be
    read says nothing.

    Args:
        mounted: where the groups are.
        own: the file that names this process's groups, "number:controllers:/path" a line. In a container the path may
            be that of the machine outside, of which only the groups around are seen here.
    """
    cpus, memory = [math.inf], [math.inf]
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for group in _around(mounted / controllers, path):
            cpus += [_ratio(_read(group / "cpu.max"))]
            cpus += [_ratio(f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}")]
            memory += [_amount(_read(group / name)) for name in ("memory.max", "memory.limit_in_bytes")]
    return Limits(min(cpus), min(memory))


def _around(controller: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and of those that it is in, up to that of its controllers."""
    group = controller / path.strip("/")
    yield group
    while group != controller:
        group = group.parent
        yield group


def _ratio(text: str) -> float:
    """Return quota / period of "quota period"; infinite for "max 100000" and "-1 100000"."""
    words = text.split()
    if len(words) != 2 or (period := _amount(words[1])) in (0.0, math.inf):
        return math.inf
    return _amount(words[0]) / period


def _amount(text: str) -> float:
    """Return a number, infinite where it is none: "max", or -1."""
    return float(text) if text.strip().isdigit() else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
