"""What the steps of a pipeline are given and what they give back.

A step turns the folders of the steps before it into a folder of its own. It cuts its work into tasks: functions of
this package's top level on small arguments (paths, numbers, strings), each of which writes its files atomically and
returns a few numbers. What a task's result is depends on its arguments and on the files that they name, never on who
runs it or on what ran before: so any number of workers, and any number of kills, make the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Executor(Protocol):
    """Who runs tasks: this process, processes beside it, or a Ray cluster.

    Attributes:
        workers: how many tasks run at the same time.
    """

    @property
    def workers(self) -> int: ...

    def run(
        self, function: Callable[[Argument], Result], arguments: Sequence[Argument]
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of the argument, result) as tasks finish, a bounded number of them in flight.

        Closing the iterator lets the tasks that run come to their end and begins no more.

        Raises:
            TamenError: what a task raised, or that its worker died more often than once.
        """
        ...


class Stopped(Exception):  # noqa: N818 - it is no error
    """A step was asked to stop and did, between two tasks; run again it goes on where it was."""


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds a step.

    Attributes:
        executor: who runs its tasks.
        progress: told (done, total, unit) as work is done; shown with a rate and the time left.
        should_stop: whether to leave off between two tasks, by raising `Stopped`.
        log: takes a line for the run's log file.
    """

    executor: Executor
    progress: Callable[[float, float, str], None]
    should_stop: Callable[[], bool]
    log: Callable[[str], None]


class Step(Protocol):
    """One step of a pipeline.

    Attributes:
        name: as `--from`, `--to` and `--skip` take it.
        needs: names of the steps whose folders it reads.
        settings: all that its result depends on beside those folders, as plain JSON.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Do what is left to be done in `folder` and return the step's counts, as plain JSON.

        A folder that an interrupted run of the same settings left behind is gone on with; of other settings there is
        none, the orchestrator sees to that.

        Args:
            inputs: the finished folder of each step in `needs`.
            folder: its own; exists.
            context: what surrounds it.

        Raises:
            Stopped: when it was asked to.
            TamenError: when it cannot be done; what could be done is kept.
        """
        ...
