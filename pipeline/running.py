"""How a step has its tasks run: what was done before is left alone, progress is told, a stop is heard."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.contract import Context, Stopped

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_left(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    left: Sequence[Task],
    context: Context,
    *,
    unit: str,
    later: Sequence[Task] = (),
    size: Callable[[Task], float] = lambda task: 1,
    told: Callable[[Result], None] = lambda result: None,
) -> None:
    """Run those of `tasks` that are `left`, and tell how many of all are done, counted in `unit`.

    Args:
        later: others of `tasks` that are left, for another call.
        size: of a task, in `unit`.
        told: hears each result.

    Raises:
        Stopped: when the step was asked to stop and tasks are left; those that ran came to their end.
        TamenError: what a task raised.
    """
    total = sum(map(size, tasks))
    done, ended = total - sum(map(size, [*left, *later])), 0
    context.progress(done, total, unit)
    if not left:
        return
    if context.should_stop():
        raise Stopped
    results = context.executor.run(function, left)
    for number, result in results:
        ended, done = ended + 1, done + size(left[number])
        told(result)
        context.progress(done, total, unit)
        if ended < len(left) and context.should_stop():
            if isinstance(results, Generator):
                results.close()
            raise Stopped


def remove_torn(folder: Path) -> None:
    """Remove what a killed task leaves under its temporary name."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
