"""The inference server: callers enqueue from any thread, one thread runs the model, futures carry replies back.

Counters of `stats` only ever grow, so a reader takes differences between two moments.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic, time

import numpy as np

from configs.schema import InferenceConfig
from core.errors import EvaluationError, TamenError
from core.messages import Arrays, Reply, Request
from core.metrics import Metrics
from core.processes import give_way
from inference_server.batcher import Batcher, Ticket
from inference_server.model_host import ModelHost, ReadyModel
from inference_server.waits import NUM_BUCKETS, bucket
from networks.weights import Weights


@dataclass(slots=True)
class ServerStats:
    """What the serving thread did since it started: counts, and seconds of its own clock."""

    batches: int = 0
    requests: int = 0
    rows: int = 0
    failed_requests: int = 0
    weights_swaps: int = 0
    weights_refused: int = 0
    last_refusal: str = ""
    synced_version: int = -1
    """Of the weights that answered first most recently, and how long after their publication began that was."""
    sync_seconds: float = 0.0
    busy_seconds: float = 0.0
    wait_seconds: float = 0.0
    batch_rows: list[int] = field(default_factory=lambda: [0] * 18)
    """Histogram: batch_rows[k] batches had 2^k ≤ rows < 2^(k+1)."""
    waits: list[int] = field(default_factory=lambda: [0] * NUM_BUCKETS)
    """Histogram of how long each request waited for its batch to begin; see inference_server.waits."""


PREPARATION_SECONDS = 0.25
"""How long batches on a CPU wait for new weights that are being made ready. Both at once would take as long together,
but the weights twice as long: with all cores serving, 10 MB of them answered after 0.3 s."""
_ABSENCE_SECONDS = 1.0
"""For how long a model that could not be fetched is not fetched again."""


@dataclass(frozen=True, slots=True)
class _Absence:
    """Why a model could not be fetched, and until when nobody tries again."""

    error: Exception
    until: float


@dataclass(frozen=True, slots=True)
class _Offer:
    """A model that is to answer from the next batch on, and when its weights were published, if that is measured."""

    ready: ReadyModel
    published_at: float | None


class InferenceServer:
    """Batches requests across everyone who asks.

    Args:
        host: the models; owned by the serving thread once started.
        config: batch limits.
        metrics: where counts go.
        clock: monotonic seconds.
        wall_clock: seconds since 1970, as those who publish count them.
        on_taken: called by the serving thread when it has taken a batch from the queue: there may be room in it.
    """

    def __init__(
        self,
        host: ModelHost,
        config: InferenceConfig,
        *,
        metrics: Metrics,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_taken = on_taken
        self._batcher = Batcher(config.max_batch_rows, config.idle_wait_ms / 1000)
        self._changed = threading.Condition()
        self._offered: dict[str, _Offer] = {}
        self._ready_by: float | None = None
        self._unanswered: dict[str, tuple[int, float]] = {}
        self._absent: dict[str, _Absence] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self.stats = ServerStats()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Answer what is queued, then end the serving thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def full(self) -> bool:
        """Whether callers should hold back: the queue holds its bound of rows."""
        return self._batcher.queued_rows >= self._config.max_queued_rows

    def submit(self, request: Request) -> Future[Reply]:
        """Queue a request and return at once; the future gives the reply or raises EvaluationError."""
        ticket = Ticket(request, self._clock())
        if not _has_rows(request):  # it would fail in the queue, on the thread that serves everyone
            self._fail([ticket], _no_rows(request))
            return ticket.future
        with self._changed:
            if not self._stopping:
                self._batcher.add(ticket)
                self._changed.notify()
                return ticket.future
        self._fail([ticket], _stopped())
        return ticket.future

    def offer(self, weights: Weights, *, published_at: float | None = None) -> None:
        """Make new weights ready, on the thread of the caller, and hand them over: they answer from the next batch on.

        Of several offers the last counts. Weights that are damaged, or for which there is no memory, are refused and
        counted; the old ones answer on. One thread at a time may offer.

        Args:
            published_at: seconds since 1970, from which the time until their first answer is measured.
        """
        self._ready_by = self._clock() + PREPARATION_SECONDS
        offer = None
        try:
            offer = _Offer(self._host.prepare(weights), published_at)
        except Exception as error:
            self._refuse(error)
        with self._changed:
            self._ready_by = None
            if offer is not None:
                self._offered[weights.model] = offer
            self._changed.notify()

    def _serve(self) -> None:
        give_way()
        while (batch := self._next_batch()) is not None:
            self._on_taken()
            self._swap_weights()
            if batch:
                self._run(batch)

    def _next_batch(self) -> list[Ticket] | None:
        """Wait for a batch that is due; an empty one when weights were offered, None when the server stops.

        From `stop` on nothing more is queued, so an empty queue stays empty: both are looked at under the lock.
        """
        idle = False
        with self._changed:
            while True:
                wait = self._batcher.wait_seconds(self._clock(), idle=idle)
                if wait == 0.0 and (wait := self._hold_seconds()) == 0.0:
                    return self._batcher.take()
                if wait is None:
                    if self._offered:
                        return []
                    if self._stopping:
                        return None
                    idle = True
                self._changed.wait(wait)

    def _hold_seconds(self) -> float:
        """Return how long batches should wait for weights that are being made ready."""
        if self._ready_by is None or not self._host.on_cpu:
            return 0.0
        return max(0.0, self._ready_by - self._clock())

    def _swap_weights(self) -> None:
        with self._changed:
            offered, self._offered = self._offered, {}
        for model, offer in offered.items():
            try:
                self._host.install(offer.ready)
            except Exception as error:  # no memory for its cache, say
                self._refuse(error)
                continue
            self._absent.pop(model, None)
            self.stats.weights_swaps += 1
            if offer.published_at is not None:
                self._unanswered[model] = (offer.ready.version, offer.published_at)

    def _refuse(self, error: Exception) -> None:
        """Count weights that cannot be taken; the old ones answer on."""
        with self._changed:
            self.stats.weights_refused += 1
            self.stats.last_refusal = str(error)

    def _run(self, batch: list[Ticket]) -> None:
        """Answer a batch, which is of one model."""
        began = self._clock()
        model = batch[0].request.model
        absence = self._bring(model)
        if absence is not None:
            self._fail(batch, absence)
            return
        fitting = [ticket for ticket in batch if self._fits(ticket)]
        if not fitting:
            return
        try:
            reply = self._host.evaluate(model, _joined([ticket.request.arrays for ticket in fitting]))
            self._account_sync(model, reply.weights_version)
            _scatter(reply, fitting)
            self._account(fitting, began)
        except Exception as error:  # whatever it is, every caller hears of it and the server goes on
            self._fail([ticket for ticket in fitting if not ticket.future.done()], error)

    def _bring(self, model: str) -> Exception | None:
        """Have a model in memory; return why it cannot be had.

        A model that is asked for the first time is fetched and built here, while everyone waits: 13 ms for 3 blocks
        of 32 channels, 0.16 s for 16 of 128, once a model. That is less than a thread of its own would cost to read.
        While the store is away it takes as long as `fetch` is patient, which can be minutes. Hence one try answers
        all who ask for that model, and those who ask within `_ABSENCE_SECONDS` after it.
        """
        absence = self._absent.get(model)
        if absence is not None and self._clock() < absence.until:
            return absence.error
        try:
            self._host.bring(model)
        except Exception as error:
            now = self._clock()
            self._absent = {name: other for name, other in self._absent.items() if now < other.until}
            self._absent[model] = _Absence(error, now + _ABSENCE_SECONDS)
            return error
        return None

    def _fits(self, ticket: Ticket) -> bool:
        """Answer a ticket that does not fit its model; return whether it does."""
        try:
            self._host.check(ticket.request.model, ticket.request.arrays)
        except Exception as error:
            self._fail([ticket], error)
            return False
        return True

    def _fail(self, tickets: list[Ticket], error: Exception) -> None:
        told = error if isinstance(error, EvaluationError) else _as_evaluation_error(error)
        self.stats.failed_requests += len(tickets)
        for ticket in tickets:
            if ticket.future.set_running_or_notify_cancel():
                ticket.future.set_exception(told)

    def _account(self, batch: list[Ticket], began: float) -> None:
        rows = sum(ticket.request.num_rows for ticket in batch)
        waits = [began - ticket.arrived for ticket in batch]
        waited = sum(waits)
        stats = self.stats
        stats.batches += 1
        stats.requests += len(batch)
        stats.rows += rows
        stats.wait_seconds += waited
        for wait in waits:
            stats.waits[bucket(wait)] += 1
        stats.busy_seconds += self._clock() - began
        stats.batch_rows[min(rows.bit_length() - 1, len(stats.batch_rows) - 1)] += 1
        self._metrics.observe("tamen_inference_batch_size", rows)
        self._metrics.observe("tamen_inference_wait_seconds", waited / len(batch))

    def _account_sync(self, model: str, version: int) -> None:
        """Note the first answer of new weights, before it is handed out."""
        offered, published_at = self._unanswered.pop(model, (-1, 0.0))
        if offered != version:
            return
        seconds = max(
            0.0, self._wall_clock() - published_at
        )  # machines do not agree on the time to the last bit
        self.stats.synced_version, self.stats.sync_seconds = version, seconds
        self._metrics.observe("tamen_weights_sync_seconds", seconds)


def _has_rows(request: Request) -> bool:
    arrays = request.arrays.values()
    return bool(arrays) and all(isinstance(array, np.ndarray) and array.ndim > 0 for array in arrays)


def _no_rows(request: Request) -> EvaluationError:
    return EvaluationError(
        f"a request to model {request.model!r} has no rows",
        why="it holds no array, or something that is no array with an axis of rows",
        fix="send named arrays [B, ...]",
    )


def _stopped() -> EvaluationError:
    return EvaluationError(
        "the brain is stopped", why="a request came after its last batch", fix="send it to another server"
    )


def _joined(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _scatter(reply: Reply, tickets: list[Ticket]) -> None:
    start = 0
    for ticket in tickets:
        stop = start + ticket.request.num_rows
        rows = {name: array[start:stop] for name, array in reply.arrays.items()}
        # A caller may have cancelled or died meanwhile; its neighbours' replies go out all the same.
        if ticket.future.set_running_or_notify_cancel():
            ticket.future.set_result(Reply(rows, reply.weights_version))
        start = stop


def _as_evaluation_error(error: Exception) -> EvaluationError:
    if isinstance(error, TamenError):
        return EvaluationError(error.what, why=error.why, fix=error.fix)
    logging.getLogger(__name__).error("a batch failed", exc_info=error)
    return EvaluationError(
        "the brain failed on a batch",
        why=f"{type(error).__name__}: {error}",
        fix="see the server's log for the traceback",
    )
