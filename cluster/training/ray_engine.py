"""The engine of `tamen train` on Ray: a connection, a program, and their end."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from cluster.cli.stopping import request_stop
from cluster.machines.following import Following
from cluster.machines.roster import Machines, check_gpus_of_home, labels_of_home
from cluster.machines.scaling import ScaleWatch
from cluster.machines.spot import METADATA
from cluster.machines.spot_watches import ENDPOINT_VARIABLE, Watches, ask_ray_to_drain
from cluster.monitoring.sinks import RayMetrics
from cluster.on_ray.address import connect
from cluster.on_ray.checkout import code_here
from cluster.on_ray.program import RayProgram
from cluster.run.machine_table import StandingWriter
from cluster.run.placement import Node
from cluster.run.program import Machine, check_settings_of_kinds, plan
from cluster.run.run_folder import RunFolder
from configs.scale import Scale
from configs.schema import RunConfig
from core.errors import UsageError

SUPERVISE_SECONDS = 0.1


class RayEngine:
    """Runs a configuration on a Ray cluster; see `cluster.training.train.Engine`.

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
        self._code = code_here()  # now: it is what this process has loaded
        self._learn = learn
        self._folder = folder
        self.program = self._planned({})
        self._following: Following | None = None
        self._scale_watch = ScaleWatch(folder, report=report)
        self._standing = StandingWriter(folder)
        self._watches = Watches(
            report=report, drain=ask_ray_to_drain, base=os.environ.get(ENDPOINT_VARIABLE, METADATA)
        )
        self._connected = False

    def start(self) -> None:
        if not ray.is_initialized():
            self._connected = True  # before it is: an interrupted start has to be cleared away too
            connect(self._address, cpus=self._machine.cpus)
        self.program = self._planned(labels_of_home())
        check_gpus_of_home(self.program.gpus, self._machine.gpus)
        self.program.start()
        config = self._config
        machines = Machines(config, self._machine, code=self.program.code, report=self._report)
        self._tell_of_kinds(machines.all_there())
        self._following = Following(
            self.program,
            machines,
            Scale(
                actors_per_machine=config.actors.count,
                servers_per_machine=config.inference.servers,
            ),
            watches=self._watches,
            report=self._report,
            stop=request_stop,
        )

    def _tell_of_kinds(self, nodes: Sequence[Node]) -> None:
        """Say which machines settings mean that are not there: they may come yet, or the kind is misspelt."""
        try:
            check_settings_of_kinds(self._config, nodes)
        except UsageError as error:
            self._report(f"{error.what} (yet): {error.why}\n{error}")

    def _planned(self, labels: Mapping[str, str]) -> RayProgram:
        """Return what is at home, where the machine has these labels of Ray's: known once the cluster is joined."""
        program = plan(self._config, self._machine, learn=self._learn, labels=labels)
        spares = self._config.actors.spares
        return RayProgram(
            self._config, self._folder, program, report=self._report, spares=spares, code=self._code
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
        following = self._following
        machines = following.standings(stats)
        self._standing.write(
            following.scale,
            self.program.games_lost,
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
