"""How an actor reaches the brain. No torch: a game actor's process stays small and starts fast."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import Protocol, TypeVar

from core.errors import EvaluationError
from core.messages import Reply, Request, Steps

T = TypeVar("T")
Replies = tuple[Reply, ...]


class Client(Protocol):
    """Sends requests and hands back replies in the order in which they become ready."""

    def submit(self, requests: tuple[Request, ...], *, stream: int = 0) -> Hashable:
        """Send requests that belong together; return the handle under which their replies will come.

        Args:
            stream: number of the games that ask, among the caller's. The positions of a game come again, so requests of
                one stream to one model go to one server, if there are several: its cache knows them.
        """
        ...

    def wait_any(
        self, handles: Collection[Hashable], *, timeout_seconds: float
    ) -> tuple[Hashable, Replies | EvaluationError] | None:
        """Wait until a handle is answered or has failed for good, and return it; None when the time is up first.

        `handles` have to be all that the caller still wants. Others that are in flight, which a computation left
        behind when it was stopped, may be returned as well: a caller drops those it does not know.
        """
        ...


class InlineClient:
    """Answers in the caller's own thread, oldest handle first: deterministic, for one process and for tests."""

    def __init__(self, evaluate: Callable[[Request], Reply]) -> None:
        self._evaluate = evaluate
        self._waiting: dict[int, tuple[Request, ...]] = {}
        self._next_handle = 0

    def submit(self, requests: tuple[Request, ...], *, stream: int = 0) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._waiting[handle] = requests
        return handle

    def wait_any(
        self, handles: Collection[Hashable], *, timeout_seconds: float
    ) -> tuple[Hashable, Replies | EvaluationError] | None:
        handle = next((h for h in self._waiting if h in handles), None)
        if handle is None:
            return None
        try:
            return handle, tuple(self._evaluate(request) for request in self._waiting.pop(handle))
        except EvaluationError as error:
            return handle, error


def drive(steps: Steps[T], client: Client, *, should_stop: Callable[[], bool]) -> T | None:
    """Run one computation to its end through a client; None when told to stop before.

    Raises:
        EvaluationError: when the computation gives up on one.
    """
    try:
        requests = next(steps)
        while True:
            handle = client.submit(requests)
            answer = None
            while answer is None or answer[0] != handle:
                if should_stop():
                    return None
                answer = client.wait_any([handle], timeout_seconds=0.2)
            replies = answer[1]
            requests = steps.throw(replies) if isinstance(replies, EvaluationError) else steps.send(replies)
    except StopIteration as stop:
        return stop.value


def drive_all(computations: Iterable[Steps[T]], client: Client, *, together: int) -> Iterator[T]:
    """Run computations through a client, so many at a time, and yield what each returns as it ends.

    What fails is asked once more before a computation hears of it.

    Raises:
        EvaluationError: when a computation gives up on one.
    """
    waiting = iter(computations)
    pending: dict[Hashable, tuple[Steps[T], tuple[Request, ...], bool]] = {}
    going: tuple[Steps[T], Replies | EvaluationError | None] | None = None
    while True:
        if going is None and len(pending) < together and (fresh := next(waiting, None)) is not None:
            going = fresh, None
        if going is not None:
            (steps, replies), going = going, None
            try:
                failed = isinstance(replies, EvaluationError)
                requests = steps.throw(replies) if failed else steps.send(replies)  # pyright: ignore
            except StopIteration as stop:
                yield stop.value
            else:
                pending[client.submit(requests)] = steps, requests, False
        elif not pending:
            return
        elif (answer := client.wait_any(pending, timeout_seconds=1.0)) is not None and answer[0] in pending:
            handle, replies = answer
            steps, requests, again = pending.pop(handle)
            if isinstance(replies, EvaluationError) and not again:
                pending[client.submit(requests)] = steps, requests, True
            else:
                going = steps, replies
