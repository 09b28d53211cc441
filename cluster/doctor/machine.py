"""`tamen doctor`: is this machine fit to run, and what mends what is not?"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.text import Text

from cluster.cli.terminal import console
from cluster.environment import token_path
from cluster.run.machine_limits import SHARED_MEMORY
from cluster.run.program import Machine

GIB = 2**30
RUN_BYTES = 3 * GIB
"""Of memory, for the parts of a small run on one machine."""
SHARED_BYTES = GIB // 2
DISK_BYTES = 2 * GIB
OF_OTHERS = 0o077
"""The permissions of a file by which others than its owner reach it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: "ok"; "warn", when it works but not well; "bad", when it does not work.
        fix: what to do, empty when ok.
    """

    subject: str
    said: str
    verdict: Literal["ok", "warn", "bad"]
    fix: str = ""


def examine(runs: Path) -> Iterator[Finding]:
    """Yield what there is to say about this machine, quick checks first; `runs` is where runs are written."""
    yield _python()
    yield from _versions()
    yield _machine()
    yield _memory()
    yield _shared_memory()
    yield disk_of_runs(runs)
    yield _token(token_path())
    yield _kernels()
    yield _precision()


def show_findings(findings: Iterable[Finding], *, as_json: bool, then: str = "tamen demo") -> bool:
    """Print a line for each finding and its fix below it, and what comes `then`; or one JSON object.

    Each is printed as it comes. Returns whether none is bad.
    """
    if as_json:
        found = list(findings)
        sys.stdout.write(json.dumps([dataclasses.asdict(finding) for finding in found]) + "\n")
        return all(finding.verdict != "bad" for finding in found)
    target = console()
    styles = {"ok": "green", "warn": "yellow", "bad": "bold red"}
    fit = True
    for finding in findings:
        fit = fit and finding.verdict != "bad"
        verdict = (f"{finding.verdict:5}", styles[finding.verdict])
        target.print(Text.assemble(f"{finding.subject:14} ", verdict, finding.said), soft_wrap=True)
        if finding.fix:
            target.print(Text(f"{'':20} → {finding.fix}", style="dim"), soft_wrap=True)
    if fit:
        target.print(f"next: {then}", soft_wrap=True)
    return fit


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} at {sys.prefix}", "ok")


def _versions() -> Iterator[Finding]:
    for package in ("ray", "torch", "numpy", "numba"):
        try:
            yield Finding(package, importlib.metadata.version(package), "ok")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "not installed", "bad", "run `make setup`")


def _machine() -> Finding:
    machine = Machine.here()
    said = f"{machine.cpus} cores, {machine.gpus} GPUs"
    if machine.cpus < 2:
        return Finding(
            "machine",
            said,
            "warn",
            "with one core actors, brain and learner take turns; two or more are better",
        )
    return Finding("machine", said, "ok")


def _memory() -> Finding:
    available = available_memory()
    said = f"{available / GIB:.1f} GiB available"
    if available < RUN_BYTES:
        return Finding(
            "memory", said, "bad", "a run on Ray needs about 3 GiB; close something, or use `--engine local`"
        )
    return Finding("memory", said, "ok")


def _shared_memory() -> Finding:
    if not SHARED_MEMORY.is_dir():
        return Finding("shared memory", "no /dev/shm", "warn", "Ray will keep objects on disk, which is slow")
    free = shutil.disk_usage(SHARED_MEMORY).free
    said = f"{free / GIB:.1f} GiB free in /dev/shm"
    if free < SHARED_BYTES:
        return Finding(
            "shared memory", said, "warn", "in a container start it with --shm-size=2g; else empty /dev/shm"
        )
    return Finding("shared memory", said, "ok")


def disk_of_runs(runs: Path) -> Finding:
    """Say whether runs can be written to the folder `runs`, which need not be there yet."""
    there = next(folder for folder in (runs.resolve(), *runs.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / GIB:.0f} GiB free at {there}"
    if not os.access(there, os.W_OK):
        return Finding("disk", f"{there} cannot be written", "bad", "choose another folder with --runs")
    if free < DISK_BYTES:
        return Finding(
            "disk",
            said,
            "warn",
            "a long run writes a few GiB; make room or choose another folder with --runs",
        )
    return Finding("disk", said, "ok")


def _token(path: Path) -> Finding:
    mode = mode_of(path)
    if mode is None:
        return Finding("ray token", "none yet; made at the first run, readable by you alone", "ok")
    if mode & OF_OTHERS:
        return Finding(
            "ray token", f"{path} has mode {mode:o}", "bad", f"others can read it: chmod 600 {path}"
        )
    return Finding("ray token", f"{path}, readable by you alone", "ok")


def _kernels() -> Finding:
    compiled = compiled_kernels()
    if not compiled:
        return Finding(
            "kernels",
            "not compiled yet",
            "warn",
            "the first run compiles for a minute; `make setup` does it ahead",
        )
    return Finding("kernels", f"{compiled} compiled in {os.environ['NUMBA_CACHE_DIR']}", "ok")


def _precision() -> Finding:
    from networks.precision import resolve

    device = "cuda" if Machine.here().gpus else "cpu"
    return Finding("precision", f"{resolve('auto', device).name} on {device}", "ok")


def available_memory() -> int:
    """Return the bytes of memory that a new process could have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def compiled_kernels() -> int:
    """Return how many kernels are compiled where this process looks for them."""
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    return len(list(folder.rglob("*.nbi"))) if folder.is_dir() else 0


def mode_of(path: Path) -> int | None:
    """Return the permissions of a file, None when there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None
