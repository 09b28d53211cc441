"""Runs a search in this process: every request is answered at once."""

from collections.abc import Callable
from typing import TypeVar

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps

T = TypeVar("T")


def run(steps: Steps[T], evaluate: Callable[[Request], Reply]) -> T:
    """Answer all that `steps` asks by `evaluate`, and return what it returns.

    An EvaluationError of `evaluate` is thrown into `steps`, which may ask again or give up.
    """
    try:
        requests = next(steps)
        while True:
            try:
                replies = tuple(evaluate(request) for request in requests)
            except EvaluationError as error:
                requests = steps.throw(error)
            else:
                requests = steps.send(replies)
    except StopIteration as stop:
        return stop.value
