"""Which requests run together, and when. No threads and no clock of its own, so every decision can be tested."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from core.messages import Reply, Request


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request in the queue.

    Attributes:
        arrived: when it came, in seconds of the caller's monotonic clock.
        future: resolved with the reply by whoever runs the batch.
    """

    request: Request
    arrived: float
    future: Future[Reply] = field(default_factory=Future)


class Batcher:
    """Queues of tickets, one per model, and the rule by which they leave.

    While the device is busy requests pile up, so the forward pass itself is the batching window: the moment the
    device is free, everything that waits for one model leaves together, up to `max_rows`. Only a device that found
    the queue empty waits, and at most `idle_wait_seconds` after the first request came, for others to join it.

    Args:
        max_rows: rows of one batch; a single larger request leaves alone.
        idle_wait_seconds: the longest that a request waits beside an idle device.
    """

    def __init__(self, max_rows: int, idle_wait_seconds: float) -> None:
        self._max_rows = max_rows
        self._idle_wait_seconds = idle_wait_seconds
        self._queues: dict[str, deque[Ticket]] = {}
        self.queued_rows = 0

    def add(self, ticket: Ticket) -> None:
        self._queues.setdefault(ticket.request.model, deque()).append(ticket)
        self.queued_rows += ticket.request.num_rows

    def wait_seconds(self, now: float, *, idle: bool) -> float | None:
        """Return how long the device should still wait before `take`: 0 for not at all, None for an empty queue.

        Args:
            now: the caller's clock, in seconds.
            idle: whether the device had found the queue empty since its last batch.
        """
        if not self._queues:
            return None
        model = self._longest_waiting()
        rows = sum(ticket.request.num_rows for ticket in self._queues[model])
        if not idle or rows >= self._max_rows:
            return 0.0
        return max(0.0, self._queues[model][0].arrived + self._idle_wait_seconds - now)

    def take(self) -> list[Ticket]:
        """Remove and return the next batch: tickets of one model, the longest waiting first."""
        model = self._longest_waiting()
        queue = self._queues[model]
        batch = [queue.popleft()]
        rows = batch[0].request.num_rows
        while queue and rows + queue[0].request.num_rows <= self._max_rows:
            batch.append(queue.popleft())
            rows += batch[-1].request.num_rows
        if not queue:
            del self._queues[model]
        self.queued_rows -= rows
        return batch

    def _longest_waiting(self) -> str:
        return min(self._queues, key=lambda model: self._queues[model][0].arrived)
