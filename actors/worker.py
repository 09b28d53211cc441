"""The inner loop of every actor: one group of games thinks while the others wait for the brain."""

import logging
import math
import time
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from core.errors import EvaluationError
from core.messages import Reply, Request
from inference_server.client import Client, Replies
from replay.records import Ack, Chunk

Group = Generator[tuple[Request, ...], tuple[Reply, ...], None]
"""Games in play. No requests at all mean that they had to be given up: it rests, then is sent no replies. It ends when
it has been wound up and has no more games."""

FIRST_REST_SECONDS = 0.1
LONGEST_REST_SECONDS = 5.0
FLUSH_PATIENCE_SECONDS = 10.0
"""How long an actor that stops waits for the acknowledgement of what it has finished."""


class Harvest(Protocol):
    """Where groups put what they finish, until it leaves as a chunk."""

    @property
    def rows_waiting(self) -> int:
        """Rows of the next chunk."""
        ...

    @property
    def games_waiting(self) -> int:
        """Finished games, or unrolls where there are no games, of the next chunk."""
        ...

    def take_chunk(self) -> Chunk | None:
        """Return everything that waits as one chunk; None when nothing does."""
        ...


class Delivery(Protocol):
    """Carries encoded chunks to the replay, one at a time, and sends again what was not acknowledged."""

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        ...

    def send(self, chunk: bytes | None) -> None:
        """Put a chunk on its way, or only the question whether to go on; call when not `busy`."""
        ...

    def poll(self, timeout_seconds: float) -> Ack | None:
        """Return the acknowledgement of what is on its way; None if it has not come within the time."""
        ...


class _Resting(NamedTuple):
    """A group whose evaluation failed, what it asks next if it has said so, and when it may."""

    due: float
    group: Group
    requests: tuple[Request, ...]


@dataclass(slots=True)
class TimeSpent:
    """Where an actor's time went, in seconds since it began.

    Attributes:
        search: playing and searching.
        wait: waiting for the brain with nothing else to do, or resting because it failed.
        deliver: encoding chunks, and waiting for the replay to take them.
        held_back: waiting for the learner, which the rate limiter keeps in step with the actors.
        search_cpu: processor time within `search`; on a crowded machine it is less.
    """

    search: float = 0.0
    wait: float = 0.0
    deliver: float = 0.0
    held_back: float = 0.0
    search_cpu: float = 0.0


class Worker:
    """Runs groups of games against a client and delivers what they finish.

    A group whose evaluation failed, or had to give its games up because the reply was of no use, rests before it asks
    again: a brain that fails at once would be asked as fast as it fails. Rests double while that goes on and end with
    the first reply that is of use; other groups play on meanwhile.

    Args:
        groups: generators of requests; with two or more, thinking and waiting overlap.
        client: the way to the brain.
        harvest: where the groups put what they finish.
        delivery: the way to the replay.
        chunk_rows: a chunk leaves when this many rows wait,
        flush_seconds: or when this time has passed since the last one left.

    Attributes:
        spent: where the time went.
    """

    def __init__(
        self,
        groups: list[Group],
        client: Client,
        harvest: Harvest,
        delivery: Delivery,
        *,
        chunk_rows: int,
        flush_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._unstarted = groups
        self._streams = {group: number for number, group in enumerate(groups)}
        self._pending: dict[Hashable, Group] = {}
        self._resting: list[_Resting] = []
        self._rest_seconds = 0.0
        self._client = client
        self._harvest = harvest
        self._delivery = delivery
        self._chunk_rows = chunk_rows
        self._flush_seconds = flush_seconds
        self._clock = clock
        self._sleep = sleep
        self._last_sent = clock()
        self._held_until: float | None = None
        self._leave_at: float | None = None
        self._sent_games = self._sent_rows = 0
        self.spent = TimeSpent()

    @property
    def undelivered_games(self) -> int:
        """Finished games that no acknowledgement has come for; some may be on disk, and only that was lost."""
        return self._sent_games + self._harvest.games_waiting

    def leave(self, seconds: float) -> None:
        """Let `run` stop once all groups have ended, which somebody winds up, or when `seconds` have passed.

        Nothing holds the games back any more that are in play. Any thread may call.
        """
        self._leave_at = self._clock() + seconds

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Play until told to stop or to leave, then deliver every finished game; log how many could not be."""
        while not (should_stop() or self._has_left()):
            self.step(timeout_seconds=0.1)
        if not self.flush(timeout_seconds=FLUSH_PATIENCE_SECONDS) and self.undelivered_games:
            logging.getLogger(__name__).error(
                "%d finished games with %d rows were not acknowledged within %g s",
                self.undelivered_games,
                self._sent_rows + self._harvest.rows_waiting,
                FLUSH_PATIENCE_SECONDS,
            )

    def step(self, timeout_seconds: float) -> None:
        """Let one group think on and send its next requests, unless the replay or the learner must catch up."""
        self._collect_acknowledgement(0.0)
        if self._delivery.busy and self._harvest.rows_waiting >= 2 * self._chunk_rows:
            # Playing on would pile up games that a crash could take.
            self._collect_acknowledgement(timeout_seconds)
        elif self._held_until is not None and self._leave_at is None:
            self._wait_for_learner(timeout_seconds, self._held_until)
        else:
            self._play(timeout_seconds)
            self._send_if_due()

    def flush(self, timeout_seconds: float) -> bool:
        """Deliver all finished games; return whether the replay acknowledged them within the time."""
        deadline = self._clock() + timeout_seconds
        while self._delivery.busy or self._harvest.games_waiting:
            if self._clock() > deadline:
                return False
            self._collect_acknowledgement(0.1)
            self._send()
        return True

    def _has_left(self) -> bool:
        if self._leave_at is None:
            return False
        return not (self._unstarted or self._pending or self._resting) or self._clock() >= self._leave_at

    def _play(self, timeout_seconds: float) -> None:
        while self._unstarted:
            group = self._unstarted.pop(0)
            self._ask(group, next(group))
        asked = self._clock()
        answer = self._wait_for_answer(min(timeout_seconds, self._wake_rested(asked)))
        answered = self._clock()
        self.spent.wait += answered - asked
        if answer is None:
            return
        handle, replies = answer
        began_cpu = time.thread_time()
        group = self._pending.pop(handle)
        failed = isinstance(replies, EvaluationError)
        requests = _go_on(group, replies)
        self.spent.search += self._clock() - answered
        self.spent.search_cpu += time.thread_time() - began_cpu
        if requests is None:
            return
        if failed or not requests:
            self._rest_seconds = min(max(2 * self._rest_seconds, FIRST_REST_SECONDS), LONGEST_REST_SECONDS)
            self._resting.append(_Resting(answered + self._rest_seconds, group, requests))
        else:
            self._rest_seconds = 0.0
            self._ask(group, requests)

    def _ask(self, group: Group, requests: tuple[Request, ...]) -> None:
        self._pending[self._client.submit(requests, stream=self._streams[group])] = group

    def _wake_rested(self, now: float) -> float:
        """Let the groups that have rested ask again; return the seconds until the next has."""
        rested = [one for one in self._resting if one.due <= now]
        self._resting = [one for one in self._resting if one.due > now]
        for one in rested:
            requests = one.requests or _go_on(one.group, ())
            if requests is not None:
                self._ask(one.group, requests)
        return min((one.due - now for one in self._resting), default=math.inf)

    def _wait_for_answer(self, seconds: float) -> tuple[Hashable, Replies | EvaluationError] | None:
        if self._pending:
            return self._client.wait_any(self._pending, timeout_seconds=seconds)
        self._sleep(seconds)
        return None

    def _send_if_due(self) -> None:
        overdue = self._clock() - self._last_sent >= self._flush_seconds
        if overdue or self._harvest.rows_waiting >= self._chunk_rows:
            self._send()

    def _send(self) -> None:
        if self._delivery.busy:
            return
        began = self._clock()
        chunk = self._harvest.take_chunk()
        if chunk is not None:
            self._sent_games, self._sent_rows = len(chunk.seqs), chunk.num_rows
            self._delivery.send(chunk.encode())
        self._last_sent = self._clock()
        self.spent.deliver += self._last_sent - began

    def _collect_acknowledgement(self, timeout_seconds: float) -> None:
        if not self._delivery.busy:
            return
        began = self._clock()
        self._poll(timeout_seconds)
        self.spent.deliver += self._clock() - began

    def _poll(self, timeout_seconds: float) -> None:
        acknowledged = self._delivery.poll(timeout_seconds)
        if acknowledged is None:
            return
        self._sent_games = self._sent_rows = 0
        pause = acknowledged.pause_seconds
        self._held_until = self._clock() + pause if pause > 0 else None

    def _wait_for_learner(self, timeout_seconds: float, until: float) -> None:
        """Wait out the pause that the replay named, then ask it whether to go on."""
        began, on_its_way = self._clock(), self._delivery.busy
        if on_its_way:
            self._poll(timeout_seconds)
        else:
            self._sleep(min(timeout_seconds, max(0.0, until - began)))
        self.spent.held_back += self._clock() - began
        if not on_its_way and self._clock() >= until:
            self._send()
            if not self._delivery.busy:
                self._delivery.send(None)


def _go_on(group: Group, replies: Replies | EvaluationError) -> tuple[Request, ...] | None:
    """Give a group what it asked for; return its next requests, None when it has ended."""
    try:
        return group.throw(replies) if isinstance(replies, EvaluationError) else group.send(replies)
    except StopIteration:
        return None
