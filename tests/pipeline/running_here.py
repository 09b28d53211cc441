"""Executors for tests, which run tasks in this process and may die between two of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.contract import Context


class Killed(BaseException):
    """What stands for `kill -9`: nobody catches it."""


class Here:
    """Runs tasks in an order of its own and counts them.

    Args:
        order: puts the numbers of the tasks into the order in which they run.
        lives: after so many tasks of this executor the process is killed.
    """

    workers = 1

    def __init__(
        self, *, order: Callable[[list[int]], list[int]] = list, lives: float = float("inf")
    ) -> None:
        self._order = order
        self._lives = lives
        self.ran: list[Any] = []

    def run(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for number in self._order(list(range(len(arguments)))):
            if len(self.ran) >= self._lives:
                raise Killed
            self.ran.append(arguments[number])
            yield number, function(arguments[number])


def context(executor: Here | None = None, *, should_stop: Callable[[], bool] = lambda: False) -> Context:
    return Context(
        executor=executor or Here(),
        progress=lambda done, total, unit: None,
        should_stop=should_stop,
        log=lambda line: None,
    )
