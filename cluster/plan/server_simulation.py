"""How many actors one server can feed: a discrete-event simulation of groups of games that wait for one queue.

An actor thinks about one group of games at a time and has a few of them. A group thinks, asks about all its positions
at once, and waits. The server takes all that waits, up to a bound, whenever it is free, as
`inference_server.batcher` does while it is busy. All have processors of their own, or share those of one machine.
What is simulated has no randomness: batches form because the server is slower than a message.
"""

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a server needs for a batch of n rows: fixed_seconds + n · row_seconds.

    Attributes:
        max_batch_rows: it takes no more at once.
    """

    fixed_seconds: float
    row_seconds: float
    max_batch_rows: int

    def seconds(self, rows: int) -> float:
        return self.fixed_seconds + rows * self.row_seconds

    @property
    def most_rows_per_second(self) -> float:
        """Rows a second when every batch is full."""
        return self.max_batch_rows / self.seconds(self.max_batch_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Who asks.

    Attributes:
        actors: each thinks about one group at a time.
        groups: of each actor.
        rows: positions of a group, all asked about at once.
        think_seconds: of an actor, from a group's replies to its next request.
        message_seconds: on the way, there or back.
        processors: that actors and server share, each piece of work to its end, the server's first; infinitely many
            where every one has its own.
    """

    actors: int
    groups: int
    rows: int
    think_seconds: float
    message_seconds: float
    processors: float = math.inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, after the first tenth of the time.

    Attributes:
        rows_per_second: answered.
        mean_batch_rows: rows a batch.
        wait_seconds: of a request, from its arrival to the beginning of its batch; mean.
        server_busy, actors_busy: shares of the time.
    """

    rows_per_second: float
    mean_batch_rows: float
    wait_seconds: float
    server_busy: float
    actors_busy: float


def simulate(load: Load, service: Service, *, seconds: float) -> Outcome:
    """Simulate `seconds` of one server and its actors; groups begin spread over a step's thinking.

    Raises:
        ValueError: when a request is larger than a batch may be.
    """
    if load.rows > service.max_batch_rows:
        raise ValueError(f"requests of {load.rows} rows for batches of {service.max_batch_rows}")
    run = _Run(load, service, counted_from=seconds / 10)
    run.go_on(until=seconds)
    return run.outcome(seconds)


class _Run:
    """The state of a simulation. Events are (time, order, what happens, its argument)."""

    def __init__(self, load: Load, service: Service, *, counted_from: float) -> None:
        self._load, self._service, self._counted_from = load, service, counted_from
        self._order = itertools.count()
        self._events: list[tuple] = []
        self._answered: list[deque[None]] = [deque() for _ in range(load.actors)]
        self._thinking = [False] * load.actors
        self._ready: deque[int] = deque()
        self._free_processors = load.processors
        self._queue: deque[tuple[float, int]] = deque()
        self._serving = False
        self._rows = self._batches = self._requests = 0
        self._waited = self._served_seconds = self._thought_seconds = 0.0
        for actor in range(load.actors):
            for _ in range(load.groups):
                self._at(load.think_seconds * actor / load.actors, self._reply_arrives, actor)

    def go_on(self, *, until: float) -> None:
        while self._events and self._events[0][0] < until:
            now, _, happens, argument = heapq.heappop(self._events)
            happens(now, argument)

    def outcome(self, end: float) -> Outcome:
        span = end - self._counted_from
        return Outcome(
            rows_per_second=self._rows / span,
            mean_batch_rows=self._rows / max(1, self._batches),
            wait_seconds=self._waited / max(1, self._requests),
            server_busy=self._served_seconds / span,
            actors_busy=self._thought_seconds / span / self._load.actors,
        )

    def _at(self, time: float, happens, argument) -> None:
        heapq.heappush(self._events, (time, next(self._order), happens, argument))

    def _reply_arrives(self, now: float, actor: int) -> None:
        self._answered[actor].append(None)
        self._want_to_think(actor)
        self._share_out(now)

    def _want_to_think(self, actor: int) -> None:
        """Let an actor that has something to think about stand in line for a processor, once."""
        if not self._thinking[actor] and self._answered[actor]:
            self._answered[actor].popleft()
            self._thinking[actor] = True
            self._ready.append(actor)

    def _share_out(self, now: float) -> None:
        """Give free processors to those who have work."""
        while self._free_processors >= 1:
            if self._queue and not self._serving:
                self._serve(now)
            elif self._ready:
                self._think(now, self._ready.popleft())
            else:
                return
            self._free_processors -= 1

    def _think(self, now: float, actor: int) -> None:
        self._at(now + self._load.think_seconds, self._thought_ends, (now, actor))

    def _thought_ends(self, now: float, thought: tuple[float, int]) -> None:
        began, actor = thought
        self._thought_seconds += max(0.0, now - max(began, self._counted_from))
        self._thinking[actor] = False
        self._free_processors += 1
        self._at(now + self._load.message_seconds, self._request_arrives, actor)
        self._want_to_think(actor)
        self._share_out(now)

    def _request_arrives(self, now: float, actor: int) -> None:
        self._queue.append((now, actor))
        self._share_out(now)

    def _serve(self, now: float) -> None:
        count = min(len(self._queue), self._service.max_batch_rows // self._load.rows)
        batch = [self._queue.popleft() for _ in range(count)]
        self._serving = True
        self._at(now + self._service.seconds(count * self._load.rows), self._batch_ends, (now, batch))

    def _batch_ends(self, now: float, served: tuple[float, list[tuple[float, int]]]) -> None:
        began, batch = served
        if now >= self._counted_from:
            self._batches += 1
            self._requests += len(batch)
            self._rows += len(batch) * self._load.rows
            self._waited += sum(began - arrived for arrived, _ in batch)
            self._served_seconds += now - max(began, self._counted_from)
        self._serving = False
        self._free_processors += 1
        for _, actor in batch:
            self._at(now + self._load.message_seconds, self._reply_arrives, actor)
        self._share_out(now)


def fit_service(rates: dict[int, float], *, max_batch_rows: int) -> Service:
    """Return the service that measured forwards come closest to; `rates` are rows a second by rows of a batch.

    The line through the times that the batches took, by least squares of relative errors.
    """
    import numpy as np

    rows = np.array(sorted(rates), float)
    seconds = np.array([n / rates[n] for n in sorted(rates)])
    design = np.stack([np.ones_like(rows), rows], axis=1) / seconds[:, None]
    fixed, per_row = np.linalg.lstsq(design, np.ones_like(rows), rcond=None)[0]
    return Service(
        fixed_seconds=max(0.0, float(fixed)), row_seconds=float(per_row), max_batch_rows=max_batch_rows
    )
