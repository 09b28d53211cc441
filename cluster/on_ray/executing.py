"""Who does the tasks of a command: this process, processes beside it, or a Ray cluster."""

import contextlib
from collections.abc import Iterator
from typing import Literal

from cluster import environment
from cluster.run.program import Machine
from pipeline.contract import Executor
from pipeline.executors import Inline, Processes


@contextlib.contextmanager
def executor_for(
    workers: int | Literal["auto"], engine: str | None, address: str | None, *, idle: bool = False
) -> Iterator[Executor]:
    """Give who runs tasks; Ray is only joined or started, and processes begun, when there is something to do.

    Args:
        workers: how many tasks at a time; "auto": as many as there are cores.
        engine: "ray", or else processes of this machine.
        address: of a Ray cluster to join.
        idle: whether there is nothing to do.
    """
    number = None if workers == "auto" else workers
    if engine == "ray" and not idle:
        environment.prepare_ray(address)
        import ray

        from cluster.on_ray.address import connect
        from cluster.on_ray.tasks import RayTasks

        mine = not ray.is_initialized()
        if mine:
            connect(address, cpus=Machine.here().cpus)
        try:
            yield RayTasks(number)
        finally:
            if mine:
                ray.shutdown()
        return
    number = number or Machine.here().cpus
    with Inline() if number == 1 or idle else Processes(number) as executor:
        yield executor
