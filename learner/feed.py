"""Batches for the learner: rows drawn by the replay, gathered from decoded chunks, ready when wanted.

Shapes: `n` rows of a batch.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from core.errors import ClusterError, DataError
from replay.records import decode_columns
from replay.sampling import Sample, Wait

_MAX_DRAWS_PER_BATCH = 8
_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 10.0
"""How long `close` waits for the background thread, which may be inside a call of the source that takes minutes."""
_TURN_SECONDS = 600.0
"""How long `restore` waits for it: longer than a source may take for a fetch and what follows it."""


class Source(Protocol):
    """Where rows come from. There is one caller at a time."""

    def sample(self, num_rows: int) -> Sample | Wait:
        """Draw rows, or say when to ask again."""
        ...

    def fetch(self, chunk_ids: list[int]) -> list[bytes]:
        """Return encoded chunks. Raises DataError when one left the window since it was drawn."""
        ...

    def live_chunks(self) -> np.ndarray:
        """Return int64 [C]: the chunks in the window."""
        ...

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        """Go on as after the sample that had these counters."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows to train on.

    Attributes:
        columns: arrays [n, ...], see learner.step.Columns.
        draws, sampled_rows: the source's counters after this batch, for its `restore_counters`.
    """

    columns: dict[str, np.ndarray]
    draws: int
    sampled_rows: int


@dataclass(frozen=True, slots=True)
class Waited:
    """There is no batch yet: nothing to do for `seconds`, and why."""

    seconds: float
    reason: str


class Feed:
    """Draws batches and keeps the decoded chunks of the window at hand.

    Args:
        source: the replay.
        batch_rows: n.
        prefetch: batches made ahead on a background thread that the first `next` starts; 0 makes each when
            it is asked for, in the caller's thread, so that a run is deterministic.
        clock: monotonic seconds.

    Attributes:
        waited_seconds: time that callers of `next` spent in it.
    """

    def __init__(
        self, source: Source, *, batch_rows: int, prefetch: int = 0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._source = source
        self._batch_rows = batch_rows
        self._prefetch = prefetch
        self._clock = clock
        self._chunks: dict[int, dict[str, np.ndarray]] = {}
        self._turn = threading.Lock()
        self._producer: _Producer | None = None
        self.waited_seconds = 0.0

    def next(self, timeout_seconds: float) -> Batch | Waited:
        """Return a batch, waiting for the background thread at most `timeout_seconds`.

        Raises:
            TamenError: what the source raised; the feed starts again with the next call.
        """
        began = self._clock()
        try:
            if not self._prefetch:
                return self._draw(lambda: False)
            if self._producer is None:
                self._producer = _Producer(self._draw, self._prefetch, self._turn)
            return self._producer.next(timeout_seconds)
        except BaseException:
            self.close()
            raise
        finally:
            self.waited_seconds += self._clock() - began

    def close(self) -> None:
        """Stop the background thread and forget what it made; `next` starts a new one.

        A thread that is inside a long call of the source may outlive this. It then draws nothing more, what it made
        is dropped, and its successor begins when it has ended.
        """
        if self._producer is not None:
            self._producer.stop()
            self._producer = None

    def restore(self, draws: int, sampled_rows: int) -> None:
        """Go on as after the batch that had these counters.

        Raises:
            ClusterError: when what was drawn before has still not come to its end; it would count as drawn after.
        """
        self.close()
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise ClusterError(
                "the learner cannot draw anew",
                why=f"a call of the replay that began before has not ended within {_TURN_SECONDS:g} s",
                fix="look at the run's log.txt; the same command resumes the run",
            )
        try:
            self._source.restore_counters(draws, sampled_rows)
        finally:
            self._turn.release()

    def _draw(self, stopped: Callable[[], bool]) -> Batch | Waited:
        reason = ""
        for _ in range(_MAX_DRAWS_PER_BATCH):
            if stopped():
                break
            sample = self._source.sample(self._batch_rows)
            if isinstance(sample, Wait):
                return Waited(sample.seconds, sample.reason)
            if stopped():
                break
            try:
                self._bring(sample.chunk_ids)
            except DataError as error:  # a chunk left the window between the draw and the fetch
                reason = error.what
                continue
            return Batch(gather(self._chunks, sample), sample.draws, sample.sampled_rows)
        return Waited(_POLL_SECONDS, reason)

    def _bring(self, chunk_ids: np.ndarray) -> None:
        """Decode the chunks that are not at hand yet, and drop those that left the window meanwhile."""
        drawn = {int(number) for number in np.unique(chunk_ids)}
        missing = sorted(drawn - self._chunks.keys())
        if not missing:
            return
        for number, data in zip(missing, self._source.fetch(missing), strict=True):
            self._chunks[number] = decode_columns(data, source=f"chunk {number}")
        wanted = drawn.union(self._source.live_chunks().tolist())
        self._chunks = {number: chunk for number, chunk in self._chunks.items() if number in wanted}


def gather(chunks: dict[int, dict[str, np.ndarray]], sample: Sample) -> dict[str, np.ndarray]:
    """Return the rows of a sample as columns [n, ...], ordered by chunk, which no loss cares for."""
    order = np.argsort(sample.chunk_ids, kind="stable")
    numbers, starts = np.unique(sample.chunk_ids[order], return_index=True)
    picks = np.split(sample.rows[order], starts[1:])
    drawn = [(chunks[int(number)], rows) for number, rows in zip(numbers, picks, strict=True)]
    return {name: np.concatenate([chunk[name][rows] for chunk, rows in drawn]) for name in drawn[0][0]}


class _Producer:
    """One thread that makes batches ahead, into a queue of bounded length.

    Args:
        draw: makes a batch; gives up between two calls of the source when what it is given says so.
        prefetch: length of the queue.
        turn: held while the thread draws, so that it begins when a predecessor has ended.
    """

    def __init__(
        self, draw: Callable[[Callable[[], bool]], Batch | Waited], prefetch: int, turn: threading.Lock
    ) -> None:
        self._draw = draw
        self._turn = turn
        self._batches: queue.Queue[Batch] = queue.Queue(prefetch)
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._reason = "the first batch is being made"
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def next(self, timeout_seconds: float) -> Batch | Waited:
        """Return the next batch; raise what made the thread end."""
        while True:
            wait = min(timeout_seconds, _POLL_SECONDS)
            try:
                return self._batches.get(timeout=wait)
            except queue.Empty:
                if self._failure is not None:
                    raise self._failure from None
            timeout_seconds -= wait
            if timeout_seconds <= 0:
                return Waited(0.0, self._reason)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._turn.acquire(timeout=_POLL_SECONDS):
            self._reason = "a call of the replay that nobody waits for any more has not ended"
            if self._stopping.is_set():
                return
        try:
            self._produce()
        except BaseException as error:  # the thread has nobody to tell but the next caller
            self._failure = error
        finally:
            self._turn.release()

    def _produce(self) -> None:
        while not self._stopping.is_set():
            made = self._draw(self._stopping.is_set)
            if isinstance(made, Waited):
                self._reason = made.reason
                self._stopping.wait(made.seconds)
            else:
                self._put(made)

    def _put(self, batch: Batch) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._batches.put(batch, timeout=_POLL_SECONDS)
                return
