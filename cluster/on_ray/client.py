"""The ways between Ray actors: plain protocols of the floors below, fulfilled by remote calls.

Every wait has a timeout. What was not answered because the other side died is asked again, of its successor or
of a sister, until `PATIENCE_SECONDS` have passed; inference and deliveries may be repeated without harm.
"""

import contextlib
import math
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import ray
from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from cluster.on_ray.routing import Located, Router, Server
from core.errors import ClusterError, DataError, EvaluationError, TamenError
from core.messages import Reply, Request
from replay.drawing import Drawn
from replay.records import Ack

PATIENCE_SECONDS = 120.0
RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 5.0
"""Between two attempts at a delivery, which begin at `RETRY_SECONDS`: many actors want the one replay."""
LOST = (
    RayActorError,
    ActorUnschedulableError,  # its machine has left the cluster
    NodeDiedError,
    ObjectLostError,
    WorkerCrashedError,
    RaySystemError,
    GetTimeoutError,
)
"""What Ray raises when the other side, or what it had made, is gone: counted and tried again, never fatal at once."""
NO_ROOM = (ObjectStoreFullError, OutOfDiskError)
"""What a call itself raises, before it is on its way: arguments above 100 kB travel by this machine's object store."""

Handle = Any
"""A Ray actor handle; Ray gives them no usable type."""


class NamedServer(NamedTuple):
    """An inference server as one process tells another of it: its Ray name, and the id of its node."""

    name: str
    node: str


Servers = tuple[NamedServer, ...]


def get(reference: Any, *, timeout_seconds: float) -> Any:
    """Return what a remote call gave.

    Raises:
        TamenError: what the call itself raised, as it raised it. (Ray raises a class made of it and `RayTaskError`,
            which cannot be built anew and whose text is the traceback; that one is its `__cause__`.)
        Exception: what else it raised, or any of `LOST`, as Ray gives them.
    """
    try:
        return ray.get(reference, timeout=timeout_seconds)
    except RayTaskError as error:
        raised = origin(error)
        if isinstance(raised, TamenError):
            raise raised from error
        raise


def call(method: Any, *arguments: object, timeout_seconds: float = 30.0) -> Any:
    """Call a remote method and wait for its result, trying again while the other side restarts.

    Raises:
        ClusterError: when it has not answered within `PATIENCE_SECONDS`.
        TamenError: what the method itself raised.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return get(method.remote(*arguments), timeout_seconds=timeout_seconds)
        except LOST as error:
            if time.monotonic() > deadline:
                raise _gone(error) from error
            time.sleep(RETRY_SECONDS)


@dataclass(slots=True)
class _Asked:
    """Requests that belong together, and the replies that have come, by position.

    Attributes:
        stream: number of the games that ask, among the caller's.
        deadline: from when on the handle is given up.
        trouble: what was lost last, in words.
    """

    requests: tuple[Request, ...]
    stream: int
    deadline: float
    trouble: str = f"it has been silent for {PATIENCE_SECONDS:.0f} s"
    replies: dict[int, Reply] = field(default_factory=dict)


class _Sent(NamedTuple):
    """An attempt at one request: the `position`-th of its handle."""

    handle: int
    position: int
    server: Server
    rows: int


class _Resend(NamedTuple):
    """A request whose answer was lost, and when it is to be sent again."""

    due: float
    handle: int
    position: int


class RayClient:
    """Sends each request to the server where its games are at home, if that will do (`cluster.on_ray.routing`).

    A request whose answer is lost is sent again; one that the server says it cannot answer has failed. One for which
    Ray has no room, or for which no server is known, is sent as soon as there is.

    Args:
        servers: the inference actors and where they are; a restarted actor keeps its handle and its place.
        first_home: number of this client's first stream among those of all clients here, by which homes are shared out.
        clock: monotonic seconds.
        sleep: waits for some seconds, while there is nothing on its way.
    """

    def __init__(
        self,
        servers: Sequence[Located],
        *,
        first_home: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        here = ray.get_runtime_context().get_node_id()
        self._router = Router(servers, node=here, first_home=first_home)
        self._clock = clock
        self._sleep = sleep
        self._asked: dict[int, _Asked] = {}
        self._in_flight: dict[ray.ObjectRef, _Sent] = {}
        self._resends: deque[_Resend] = deque()
        self._next_handle = 0
        self._to_meet: deque[Sequence[Located]] = deque(maxlen=1)
        self.resent_requests = 0

    def meet(self, servers: Sequence[Located]) -> None:
        """Ask these servers from now on; may be called by any thread.

        What is on its way to another one is sent again: that one has left, and nobody may ever say so.
        """
        self._to_meet.append(servers)

    @property
    def spilled_requests(self) -> int:
        """How many were sent to another server than their home."""
        return self._router.spilled_requests

    def submit(self, requests: tuple[Request, ...], *, stream: int = 0) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._asked[handle] = _Asked(requests, stream, self._clock() + PATIENCE_SECONDS)
        for position in range(len(requests)):
            self._send(handle, position)
        return handle

    def wait_any(
        self, handles: Collection[Hashable], *, timeout_seconds: float
    ) -> tuple[Hashable, tuple[Reply, ...] | EvaluationError] | None:
        """Wait until all requests of one handle are answered; every handle in flight counts, as a caller has all."""
        deadline = self._clock() + timeout_seconds
        while True:
            self._meet_new_servers()
            ended = self._end_one_late()
            left = deadline - self._clock()
            if ended is not None or left <= 0:
                return ended
            for reference in self._wait(min(left, self._send_again())):
                finished = self._collect(reference)
                if finished is not None:
                    return finished

    def _meet_new_servers(self) -> None:
        if not self._to_meet:
            return
        self._router.meet(self._to_meet.pop())
        left = [ref for ref, sent in self._in_flight.items() if sent.server not in self._router.servers]
        for reference in left:
            handle, position, *_ = self._in_flight.pop(reference)
            self._resends.appendleft(_Resend(self._clock(), handle, position))

    def _end_one_late(self) -> tuple[int, tuple[Reply, ...] | EvaluationError] | None:
        """End a handle whose time is over, if there is one: with the answers that are there, else as given up."""
        now = self._clock()
        late = next((handle for handle, asked in self._asked.items() if now > asked.deadline), None)
        if late is None:
            return None
        # Whoever was held back for longer than the patience has not looked: the answers may have come in time.
        unseen = [reference for reference, sent in self._in_flight.items() if sent.handle == late]
        for reference in ray.wait(unseen, num_returns=len(unseen), timeout=0)[0] if unseen else ():
            finished = self._collect(reference)
            if finished is not None:
                return finished
        return late, _no_answer(self._asked.pop(late).trouble)

    def _send_again(self) -> float:
        """Send what is due to be sent again; return the seconds until something else is."""
        now = self._clock()
        while self._resends and self._resends[0].due <= now:
            _, handle, position = self._resends.popleft()
            if handle in self._asked:
                self.resent_requests += self._send(handle, position)
        return self._resends[0].due - now if self._resends else math.inf

    def _send(self, handle: int, position: int) -> bool:
        """Put a request on its way and return True, or have it sent later."""
        asked = self._asked[handle]
        request = asked.requests[position]
        # Each model has a cache of its own: the sides of a match are streams of their own.
        games = (asked.stream, request.model)
        server = self._router.choose(games, request.num_rows, now=self._clock())
        if server is None:
            self._send_later(handle, position, "no inference server is known")
            return False
        try:
            # In its parts: a Request of 512 boards of 13×13 takes 50 µs to be packed and unpacked, its parts 37.
            reference = server.handle.infer.remote(request.model, dict(request.arrays))
        except NO_ROOM as error:
            self._send_later(handle, position, in_one_line(error))
            return False
        self._in_flight[reference] = _Sent(handle, position, server, request.num_rows)
        server.outstanding_rows += request.num_rows
        return True

    def _send_later(self, handle: int, position: int, trouble: str) -> None:
        self._asked[handle].trouble = trouble
        self._resends.append(_Resend(self._clock() + RETRY_SECONDS, handle, position))

    def _wait(self, seconds: float) -> list[ray.ObjectRef]:
        """Return what has come within the time: an answer, or word of its loss."""
        if not self._in_flight:
            self._sleep(seconds)
            return []
        return ray.wait(list(self._in_flight), num_returns=1, timeout=seconds)[0]

    def _collect(self, reference: ray.ObjectRef) -> tuple[int, tuple[Reply, ...] | EvaluationError] | None:
        handle, position, server, rows = self._in_flight.pop(reference)
        server.outstanding_rows -= rows
        asked = self._asked.get(handle)
        try:
            arrays, version = get(reference, timeout_seconds=PATIENCE_SECONDS)
        except EvaluationError as error:
            server.failed(self._clock())
            return (handle, error) if self._asked.pop(handle, None) else None
        except LOST as error:
            server.failed(self._clock())
            if asked is not None:
                self._send_later(handle, position, in_one_line(error))
            return None
        server.answered()
        if asked is None:  # a sister request of this handle has failed for good
            return None
        asked.replies[position] = Reply(arrays, version)
        if len(asked.replies) < len(asked.requests):
            return None
        del self._asked[handle]
        return handle, tuple(asked.replies[i] for i in range(len(asked.requests)))


def located(servers: Servers) -> list[Located]:
    """Return those that Ray knows still: servers come and go, and who asks is told of it."""
    found: list[Located] = []
    for name, node in servers:
        with contextlib.suppress(ValueError):  # Ray's own, of what has left
            found.append(Located(ray.get_actor(name), node))
    return found


def in_one_place(handles: Iterable[Handle]) -> list[Located]:
    """Return servers of which none is nearer than another, as a `RayClient` is told of them."""
    return [Located(handle, "") for handle in handles]


class RayDelivery:
    """Carries chunks to the replay actor, one at a time, until each is acknowledged.

    One that was not acknowledged is sent again once the replay answers the question whether to go on, which costs it
    next to nothing. Between attempts pass up to 5 s, of each actor others.

    Args:
        replay: handle of the replay actor.
        clock: monotonic seconds.
        sleep: waits for some seconds, while there is nothing on its way.
        chance: numbers from 0 to 1, by which the pauses of actors differ.

    Attributes:
        last_trouble: why the last attempt failed; "" once one has not.
    """

    def __init__(
        self,
        replay: Handle,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._replay = replay
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._chunk: bytes | None = None
        self._reference: ray.ObjectRef | None = None
        self._only_asks = False
        self._resend_due: float | None = None
        self._pause_seconds = 0.0
        self.last_trouble = ""

    @property
    def busy(self) -> bool:
        return self._reference is not None or self._resend_due is not None

    def send(self, chunk: bytes | None) -> None:
        self._chunk, self._pause_seconds = chunk, 0.0
        self._attempt(chunk)

    def poll(self, timeout_seconds: float) -> Ack | None:
        if self._resend_due is not None:
            left = self._resend_due - self._clock()
            self._sleep(min(timeout_seconds, max(0.0, left)))
            if left <= timeout_seconds:
                self._attempt(None)
            return None
        ready, _ = ray.wait([self._reference], timeout=timeout_seconds)
        if not ready:
            return None
        self._reference = None
        try:
            acknowledged = get(ready[0], timeout_seconds=PATIENCE_SECONDS)
        except DataError as error:  # the chunk itself is bad: the same bytes would be refused for ever
            self.last_trouble = in_one_line(error)
            return Ack.nothing()
        # A restarting replay, a full disk: it was not acknowledged, and goes again.
        except Exception as error:
            self._put_off(error)
            return None
        if self._only_asks and self._chunk is not None:
            self._attempt(self._chunk)
            return None
        self.last_trouble = ""
        return acknowledged

    def _attempt(self, chunk: bytes | None) -> None:
        self._resend_due, self._only_asks = None, chunk is None
        try:
            self._reference = (
                self._replay.admission.remote() if chunk is None else self._replay.add.remote(chunk)
            )
        except NO_ROOM as error:
            self._put_off(error)

    def _put_off(self, error: Exception) -> None:
        self.last_trouble = in_one_line(error)
        self._pause_seconds = min(max(2 * self._pause_seconds, RETRY_SECONDS), LONGEST_RETRY_SECONDS)
        self._resend_due = self._clock() + self._pause_seconds * (1 - self._chance() / 2)


class RayObjects:
    """Keeps chunks in Ray's object store, owned by the process that made this object: the replay actor."""

    def put(self, data: bytes) -> list[ray.ObjectRef]:
        try:
            # Wrapped, so that passing the handle along does not fetch what it points to.
            return [ray.put(data)]
        except NO_ROOM as error:
            raise TamenError(
                "Ray's object store has no room for a chunk",
                why=in_one_line(error),
                fix="lower replay.capacity_rows, or give Ray more shared memory",
            ) from error


class NoObjects:
    """Keeps no chunk: where nobody learns, nobody draws."""

    def put(self, data: bytes) -> None:
        return None


class RayReplaySource:
    """Draws samples from the replay actor for the learner."""

    def __init__(self, replay: Handle) -> None:
        self._replay = replay
        self._updating: Any = None

    def draw(self, num_rows: int, *, most: int, newest_held: int) -> Drawn:
        """Draw, and fetch the chunks that come with it.

        Raises:
            DataError: when they cannot be had: the replay that held them died. Draw anew.
        """
        drawn: Drawn = call(self._replay.draw, num_rows, most, newest_held)
        if not drawn.chunks:
            return drawn
        numbers, wrapped = zip(*drawn.chunks, strict=True)
        try:
            # Ray copies bytes out of the object store: nothing there is pinned by what the learner holds.
            data = ray.get([reference for (reference,) in wrapped], timeout=PATIENCE_SECONDS)
        except LOST as error:
            raise DataError(
                "chunks of the replay cannot be had",
                why=f"{type(error).__name__}: the replay that held them is gone",
                fix="draw anew; a restarted replay holds them again",
            ) from error
        return replace(drawn, chunks=tuple(zip(numbers, data, strict=True)))

    def update_priorities(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Tell, without waiting for an answer, unless the time before has not been answered yet.

        One that is lost with the replay costs nothing: a restarted one knows no priorities.
        """
        if self._updating is not None:
            with contextlib.suppress(*LOST):
                get(self._updating, timeout_seconds=PATIENCE_SECONDS)
        self._updating = self._replay.update_priorities.remote(chunk_ids, rows, priorities)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        call(self._replay.restore_counters, draws, sampled_rows)


def _gone(error: Exception) -> ClusterError:
    return ClusterError(
        "a part of the run does not answer",
        why=in_one_line(error),
        fix="look at the run's log.txt; the same command resumes the run",
    )


def _no_answer(why: str) -> EvaluationError:
    return EvaluationError("the brain does not answer", why=why, fix="look at the run's log.txt")


def origin(error: BaseException) -> BaseException:
    """Return what a remote call raised, of which Ray made `error`; `error` itself if Ray has made nothing of it."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def in_one_line(error: Exception) -> str:
    """Return what a TamenError says and why, of any other its kind and the first line of what it says."""
    raised = origin(error)
    if isinstance(raised, TamenError):
        return " ".join(f"{raised.what}: {raised.why}".split())
    return f"{type(raised).__name__}: {(str(raised).strip() or 'no more is known').splitlines()[0]}"
