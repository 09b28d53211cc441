"""Who runs tasks on this machine: this process, or processes beside it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, Self

from core.errors import ClusterError
from pipeline.contract import Argument, Result

MOST_TRIES = 2
"""Of a task whose worker dies: what kills a second one as well is no accident."""


class Inline:
    """Runs tasks in this process, one after the other; see `pipeline.contract.Executor`."""

    workers = 1

    def run(
        self, function: Callable[[Argument], Result], arguments: Sequence[Argument]
    ) -> Iterator[tuple[int, Result]]:
        for number, argument in enumerate(arguments):
            yield number, function(argument)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Processes:
    """Runs tasks in `workers` processes beside this one; see `pipeline.contract.Executor`.

    Each worker has a pool of its own: so it is known which task a dead one had. A context manager: its end ends them.
    They end with this process too, however that ends.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers

    def run(
        self, function: Callable[[Argument], Result], arguments: Sequence[Argument]
    ) -> Iterator[tuple[int, Result]]:
        waiting = list(range(len(arguments)))[::-1]
        tries = [0] * len(arguments)
        idle = list(range(self.workers))
        running: dict[Future[Result], tuple[int, int]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    number, worker = waiting.pop(), idle.pop()
                    tries[number] += 1
                    running[self._submit(worker, function, arguments[number])] = number, worker
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number, worker = running.pop(future)
                    idle.append(worker)
                    try:
                        result = future.result()
                    except BrokenProcessPool as error:
                        self._pools[worker] = None
                        if tries[number] == MOST_TRIES:
                            raise died(arguments[number]) from error
                        waiting.append(number)
                        continue
                    yield number, result
        finally:
            wait(running)

    def _submit(
        self, worker: int, function: Callable[[Argument], Result], argument: Argument
    ) -> Future[Result]:
        pool = self._pools[worker]
        if pool is not None:
            try:
                return pool.submit(function, argument)
            except BrokenProcessPool:  # it died without having anything to do
                pass
        # Not forked: this process may have threads, and locks that they hold.
        context = multiprocessing.get_context("spawn")
        pool = self._pools[worker] = ProcessPoolExecutor(1, context, initializer=_begin)
        return pool.submit(function, argument)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for pool in self._pools:
            if pool is not None:
                pool.shutdown()


def died(argument: Any) -> ClusterError:
    """Return the error for a task whose worker died each time it was tried."""
    return ClusterError(
        f"a worker died {MOST_TRIES} times over the same task",
        why=f"the system ended it, for want of memory perhaps, while it worked on {argument!r:.200}",
        fix="see to the machine's memory, or ask for fewer workers; the same command goes on from here",
    )


def _begin() -> None:
    """Make this worker leave signals to its driver, and end when that does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes on it
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    # An idle worker waits for work on a pipe of which it holds the other end too, and would wait for ever.
    driver = multiprocessing.parent_process()
    assert driver is not None
    connection.wait([driver.sentinel])
    os._exit(1)
