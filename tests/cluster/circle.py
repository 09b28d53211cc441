"""A program on Ray as its driver sees it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.monitoring.observer import Observer
from cluster.on_ray.program import RayProgram
from cluster.run.program import Machine, plan
from configs.schema import RunConfig
from tests.cluster.tiny import tiny_run

PATIENCE_SECONDS = 90.0
"""Of every wait; reached only when something is broken."""
Stats = dict[str, dict[str, Any]]


class Circle:
    """A program of a run, in a folder that is made or gone on with.

    Attributes:
        stats: the newest of all parts.
        said: what the driver was told.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = tiny_run(folder, config)
        self.stats: Stats = {}
        self.said: list[str] = []
        self._observer = Observer(folder.name, config)
        self._observer.log_to(self.said.append)
        machine = Machine(cpus=2, gpus=0)
        self.program = RayProgram(config, self.folder, plan(config, machine), report=self._observer.note)
        self.program.start()

    @property
    def games(self) -> int:
        return self.stats.get("replay", {}).get("games", 0)

    @property
    def steps(self) -> int:
        return self.stats.get("learner", {}).get("learner_steps", 0)

    @property
    def version(self) -> int:
        """The newest weights that anybody plays with."""
        return self.stats.get("inference", {}).get("version") or 0

    def look(self) -> None:
        self.program.supervise()
        self.stats = self.program.collect_stats(timeout_seconds=1.0)
        self._observer.take(self.stats, elapsed_seconds=0.0)

    def until(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            assert time.monotonic() < deadline, f"{what} did not come to pass: {self.stats} {self.said}"
            version = self.version
            self.look()
            assert self.version >= version or self.version == 0, "older weights play again"
            time.sleep(0.05)

    def turn(self, games: int = 40) -> None:
        """Wait until `games` more games are acknowledged, and new weights play."""
        until_games, before = self.games + games, self.version
        self.until(lambda: self.games >= until_games and self.version > before, f"{games} more games")

    def kill(self, part: str) -> None:
        """Kill a part as the kernel does when memory is short, and wait until another process answers for it."""
        pid = self.stats[part]["pid"]
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.stats[part].get("pid") not in (pid, None), f"{part}'s return")
