"""A supervisor of fake daemons, as tests drive it."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.engines import EngineConfig, EnginesConfig, UpkeepConfig
from engines.process import marked_processes
from engines.supervised import MARK, mark_of
from engines.supervisor import Supervisor

FAKE = Path(__file__).parent / "fake_daemon.py"
PATIENCE_SECONDS = 60.0
BASE_PORT = 27_000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Of daemons for which no other is named. Each process that shares a suite has its own: what was free for one may be
taken by the other before its daemon listens.
"""
BRISK: dict[str, Any] = {
    "start_seconds": 30.0,
    "check_seconds": 0.2,
    "answer_seconds": 2.0,
    "most_silences": 2,
    "first_delay_seconds": 0.05,
    "max_delay_seconds": 0.2,
    "grace_seconds": 1.0,
    "orphan_seconds": 60.0,
}


def fakes(
    *options: str, count: int = 1, spares: int = 0, base_port: int = BASE_PORT, **upkeep: Any
) -> EnginesConfig:
    """Return what runs fake daemons; a file `mood` in a daemon's room says how it behaves."""
    command = (sys.executable, "-I", "-S", str(FAKE), "-p", "{port}", "--room", "{room}", *options)
    return EnginesConfig(
        engine=EngineConfig(command=command, count=count, spares=spares, base_port=base_port),
        upkeep=UpkeepConfig(**BRISK | upkeep),
    )


def until(supervisor: Supervisor, reached: Callable[[], object]) -> None:
    """Let `supervisor` work until something has come to pass."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline, supervisor.report()
        supervisor.step()
        time.sleep(0.01)


def pids(supervisor: Supervisor) -> list[int]:
    """Return the numbers of the daemons' guards."""
    return [daemon.process.pid for daemon in supervisor.report() if daemon.process is not None]


def nothing_left(folder: Path) -> bool:
    """Whether no process of the engines of `folder` runs before long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while marked_processes(MARK, mark_of(folder)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
