"""Several computations that ask, side by side: each step carries the requests of all of them."""

from typing import Generic, TypeVar

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps

T = TypeVar("T")


def together(*steps: Steps[T]) -> Steps[list[T | EvaluationError]]:
    """Run `steps` side by side and return what each returned, in their order.

    A step of the whole yields the requests of every computation that still runs, in order, and hands each
    its replies. When that step fails, the error is thrown into every one of them, and what they ask next
    (`search.contract.ask` asks again) is yielded computation by computation: a model that cannot answer
    fails only its own.

    A computation that raises EvaluationError has that error as its result, and the others go on. Any other
    exception ends them all.
    """
    runs = [_Run(one) for one in steps]
    try:
        for run in runs:
            run.advance()
        failed = False
        while waiting := [run for run in runs if run.result is None]:
            parties = [[run] for run in waiting] if failed else [waiting]
            failed = False
            for party in parties:
                answered = yield from _step(party)
                failed = failed or not answered
    finally:
        for run in runs:
            run.steps.close()
    return [run.result[0] for run in runs if run.result is not None]


class _Run(Generic[T]):
    """One computation: what it asks now, or (in a 1-tuple, for T may be None) what came of it."""

    def __init__(self, steps: Steps[T]) -> None:
        self.steps = steps
        self.requests: tuple[Request, ...] = ()
        self.result: tuple[T | EvaluationError] | None = None

    def advance(self, message: tuple[Reply, ...] | EvaluationError | None = None) -> None:
        """Start the computation (None), send it its replies, or throw an error into it."""
        try:
            if message is None:
                self.requests = next(self.steps)
            elif isinstance(message, EvaluationError):
                self.requests = self.steps.throw(message)
            else:
                self.requests = self.steps.send(message)
        except StopIteration as stop:
            self.result = (stop.value,)
        except EvaluationError as error:
            self.result = (error,)


def _step(party: list[_Run[T]]) -> Steps[bool]:
    """Yield the requests of a party as one and pass on what comes; return whether it was answered."""
    try:
        replies = yield tuple(request for run in party for request in run.requests)
    except EvaluationError as error:
        for run in party:
            run.advance(error)
        return False
    for run in party:
        count = len(run.requests)
        run.advance(replies[:count])
        replies = replies[count:]
    return True
