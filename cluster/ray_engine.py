"""The engine of `tamen train` on Ray: a connection, a program, and their end."""

import os
import time
from collections.abc import Callable
from typing import Any

import ray

from cluster.following import Following
from cluster.machine_table import StandingWriter
from cluster.machines import Machines
from cluster.metrics_sinks import RayMetrics
from cluster.program import Machine, plan
from cluster.ray_program import RayProgram, connect
from cluster.run_folder import RunFolder
from cluster.scaling import ScaleWatch
from cluster.spot import METADATA
from cluster.spot_watches import ENDPOINT_VARIABLE, Watches, ask_ray_to_drain
from configs.scale import Scale
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
        self._config = config
        self._report = report
        self._run = folder.name
        self._machine = Machine.here()
        program = plan(config, self._machine, learn=learn)
        self.program = RayProgram(config, folder, program, report=report)
        self._following: Following | None = None
        self._scale_watch = ScaleWatch(folder, report=report)
        self._standing = StandingWriter(folder)
        self._connected = False

    def start(self) -> None:
        if not ray.is_initialized():
            self._connected = True  # before it is: an interrupted start has to be cleared away too
            connect(self._address, cpus=self._machine.cpus)
        self.program.start()
        config = self._config
        games = config.rollout.envs_per_group if config.environment else config.actors.games_per_group
        self._following = Following(
            self.program,
            Machines(config, self._machine, report=self._report),
            Scale(
                actors_per_machine=config.actors.count,
                servers_per_machine=config.inference.servers,
            ),
            watches=Watches(
                report=self._report,
                drain=ask_ray_to_drain,
                base=os.environ.get(ENDPOINT_VARIABLE, METADATA),
            ),
            games_in_play=games * config.actors.groups_per_actor,
            report=self._report,
        )

    def advance(self, seconds: float) -> None:
        assert self._following is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.program.supervise()
            if (scale := self._scale_watch.news()) is not None:
                self._following.scale = scale
            self._following.step()
            time.sleep(SUPERVISE_SECONDS)

    def stats(self) -> dict[str, dict[str, Any]]:
        assert self._following is not None
        stats = self.program.collect_stats(timeout_seconds=1.0)
        machines = self._following.standings(stats)
        following = self._following
        self._standing.write(
            following.scale,
            following.games_lost,
            machines,
            effective_ratio=following.effective.ratio,
        )
        return {**stats, "machines": following.stats()}

    def metrics(self) -> RayMetrics:
        return RayMetrics({"role": "driver", "run": self._run})

    def stop(self) -> None:
        self.program.stop()
        self._standing.remove()
        self._scale_watch.close()
        if self._connected:
            ray.shutdown()
