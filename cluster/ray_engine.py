"""The engine of `tamen train` on Ray: a connection, a program, and their end."""

import time
from collections.abc import Callable
from typing import Any

import ray

from cluster.metrics_sinks import RayMetrics
from cluster.program import Machine, plan
from cluster.ray_program import RayProgram, connect
from cluster.run_folder import RunFolder
from configs.schema import RunConfig

SUPERVISE_SECONDS = 0.1


class RayEngine:
    """Runs a configuration on a Ray cluster; see `cluster.train.Engine`.

    Args:
        address: of a cluster to join; None starts one on this machine, and ends it at `stop`.
        report: told of what a person should know; see `RayProgram`.
        learn: False plays only, with the weights that are in the folder.

    Attributes:
        program: the parts, once started.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        *,
        address: str | None,
        report: Callable[[str], None],
        learn: bool = True,
    ) -> None:
        self._address = address
        self._machine = Machine.here()
        program = plan(config, self._machine, learn=learn)
        self.program = RayProgram(config, folder, program, report=report)
        self._connected = False

    def start(self) -> None:
        if not ray.is_initialized():
            self._connected = True  # before it is: an interrupted start has to be cleared away too
            connect(self._address, cpus=self._machine.cpus)
        self.program.start()

    def advance(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.program.supervise()
            time.sleep(SUPERVISE_SECONDS)

    def stats(self) -> dict[str, dict[str, Any]]:
        return self.program.collect_stats(timeout_seconds=1.0)

    def metrics(self) -> RayMetrics:
        return RayMetrics({"role": "driver"})

    def stop(self) -> None:
        self.program.stop()
        if self._connected:
            ray.shutdown()
