"""Who runs a pipeline's tasks on Ray: each is a Ray task with a core of its own, wherever there is one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError, WorkerCrashedError

from core.errors import ClusterError, TamenError
from pipeline.contract import Argument, Result
from pipeline.executors import MOST_TRIES, died

WAIT_SECONDS = 5.0
"""Of one look at what has finished; between two a Ctrl-C gets through."""
GET_SECONDS = 60.0
"""For a result of a few numbers to travel."""
FINISH_SECONDS = 60.0
"""What tasks that run get to come to their end when no more is wanted of them."""


class RayTasks:
    """Runs tasks on the Ray cluster that this process is connected to; see `pipeline.contract.Executor`.

    Files that tasks read and write must be at the same paths on every machine of the cluster.

    Args:
        workers: how many tasks are in flight at the same time; None: as many as the cluster has cores.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(
        self, function: Callable[[Argument], Result], arguments: Sequence[Argument]
    ) -> Iterator[tuple[int, Result]]:
        task = ray.remote(num_cpus=1, max_retries=MOST_TRIES - 1)(function)
        waiting = iter(range(len(arguments)))
        running: dict[ray.ObjectRef, int] = {}
        try:
            while True:
                while len(running) < self.workers and (number := next(waiting, None)) is not None:
                    running[task.remote(arguments[number])] = number
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=WAIT_SECONDS)
                for reference in done:
                    number = running.pop(reference)
                    yield number, _result(reference, arguments[number])
        finally:
            _finish(list(running))


def _result(reference: "ray.ObjectRef[Result]", argument: object) -> Result:
    try:
        return ray.get(reference, timeout=GET_SECONDS)
    except RayTaskError as error:
        if isinstance(error.cause, TamenError | OSError):
            raise error.cause from error
        raise
    except WorkerCrashedError as error:
        raise died(argument) from error
    except (RayError, GetTimeoutError) as error:
        raise ClusterError(
            "the result of a task was lost",
            why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'Ray says no more'}",
            fix="see to the cluster with `ray status`; the same command goes on from here",
        ) from error


def _finish(references: list[ray.ObjectRef]) -> None:
    """Let what runs come to its end, and call off what does not within `FINISH_SECONDS`."""
    if not references:
        return
    _, late = ray.wait(references, num_returns=len(references), timeout=FINISH_SECONDS)
    for reference in late:
        ray.cancel(reference)
    for reference in late:
        with contextlib.suppress(RayError, GetTimeoutError):
            ray.get(reference, timeout=GET_SECONDS)
