"""Batches for the learner: rows drawn by the replay, gathered from decoded chunks, ready when wanted.

Shapes: `n` rows of a batch.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from core.errors import ClusterError, DataError
from learner.row_arena import RowArena
from replay.drawing import Drawn
from replay.records import decode_columns
from replay.sampling import Sample, Wait

_MAX_LOST_DRAWS = 8
_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.01
_PAUSE_GROWTH = 2.0
"""By which the pause before asking again grows, until the source tells that it need not be so long."""
_CLOSE_SECONDS = 10.0
"""How long `close` waits for the background thread, which may be inside a call of the source that takes minutes."""
_TURN_SECONDS = 600.0
"""How long `restore` waits for it: longer than a source may take for a fetch and what follows it."""


class Source(Protocol):
    """Where rows come from. There is one caller at a time."""

    def draw(self, num_rows: int, *, most: int, newest_held: int) -> Drawn:
        """Draw up to `most` samples for a learner that holds the chunks up to number `newest_held`, -1 for none.

        The handle of each chunk in the answer is its encoded bytes, which nobody else needs.

        Raises:
            DataError: when chunks were lost on their way. What was drawn is lost too; draw anew.
        """
        ...

    def update_priorities(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Tell how much there is to learn from rows that were drawn. May be called while another call goes on."""
        ...

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        """Go on as after the sample that had these counters."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows to train on.

    Attributes:
        columns: arrays [n, ...], see learner.objective.Columns.
        sample: where they are in the replay, in the same order.
    """

    columns: dict[str, np.ndarray]
    sample: Sample

    @property
    def draws(self) -> int:
        """The source's counter after this batch, for its `restore_counters`."""
        return self.sample.draws

    @property
    def sampled_rows(self) -> int:
        """The source's counter after this batch, for its `restore_counters`."""
        return self.sample.sampled_rows


@dataclass(frozen=True, slots=True)
class Waited:
    """There is no batch yet: nothing to do for `seconds`, and why."""

    seconds: float
    reason: str


class Feed:
    """Draws batches and keeps the decoded chunks of the window at hand.

    When there is nothing to draw, it asks again soon at first and then more seldom: rows that are used up as they come
    are there in some milliseconds, while an empty replay fills for minutes.

    Args:
        source: the replay.
        batch_rows: n.
        prefetch: batches made ahead on a background thread that the first `next` starts; 0 makes each when
            it is asked for, in the caller's thread, so that a run is deterministic.
        draws_at_once: how many are drawn by one call of the source, which takes longer than a batch does; 1 where rows
            grow old between the draw and the step.
        clock: monotonic seconds.

    Attributes:
        waited_seconds: time that callers of `next` spent in it.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_rows: int,
        prefetch: int = 0,
        draws_at_once: int = 1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._source = source
        self._batch_rows = batch_rows
        self._prefetch = prefetch
        self._at_once = draws_at_once
        self._clock = clock
        self._arena = RowArena()
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._turn = threading.Lock()
        self._producer: _Producer | None = None
        self.waited_seconds = 0.0

    def next(self, timeout_seconds: float) -> Batch | Waited:
        """Return a batch, waiting for the background thread at most `timeout_seconds`.

        Raises:
            TamenError: what the source raised, or what made a chunk unusable; the feed starts again with the next call.
        """
        began = self._clock()
        try:
            if not self._prefetch:
                made = self._draw(1, lambda: False)
                return made if isinstance(made, Waited) else next(made)
            if self._producer is None:
                self._producer = _Producer(
                    self._draw, prefetch=self._prefetch, draws_at_once=self._at_once, turn=self._turn
                )
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

    def update_priorities(self, chunk_ids: np.ndarray, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Tell the source how much there is to learn from rows of a batch."""
        self._source.update_priorities(chunk_ids, rows, priorities)

    def _draw(self, most: int, stopped: Callable[[], bool]) -> Iterator[Batch] | Waited:
        """Draw up to `most` batches, at least one unless there is something to wait for."""
        lost, reason = 0, ""
        while lost < _MAX_LOST_DRAWS and not stopped():
            try:
                drawn = self._source.draw(self._batch_rows, most=most, newest_held=self._arena.newest)
            except DataError as error:  # the replay that held the chunks has died
                lost, reason = lost + 1, error.what
                continue
            if stopped():
                break
            self._bring(drawn)
            if drawn.wait is not None:
                return self._waited(drawn.wait)
            places = self._places(drawn.samples)
            if places is None:  # a replay that forgot what it once gave
                self._arena = RowArena()
                lost, reason = lost + 1, "rows were drawn whose chunks had not come"
            elif places:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
                return self._batches(drawn.samples, places)
        return Waited(_POLL_SECONDS, reason)

    def _bring(self, drawn: Drawn) -> None:
        """Forget the chunks that left the window, and take in those that came."""
        self._arena.drop_before(drawn.oldest)
        for number, data in drawn.chunks:
            if number > self._arena.newest:
                self._arena.add(number, decode_columns(data, source=f"chunk {number}"))

    def _places(self, samples: Sequence[Sample]) -> list[np.ndarray] | None:
        """Return where the rows of each sample are at hand; None when some are not."""
        found = [self._arena.find(sample.chunk_ids, sample.rows) for sample in samples]
        places = [one for one in found if one is not None]
        return places if len(places) == len(samples) else None

    def _batches(self, samples: Sequence[Sample], places: Sequence[np.ndarray]) -> Iterator[Batch]:
        for sample, found in zip(samples, places, strict=True):
            yield Batch(self._arena.take(found), sample)

    def _waited(self, wait: Wait) -> Waited:
        seconds = min(self._pause_seconds, wait.seconds)
        self._pause_seconds = seconds * _PAUSE_GROWTH
        return Waited(seconds, wait.reason)


class _Producer:
    """One thread that makes batches ahead, as many as there are places for, and draws none before there is one.

    Args:
        draw: makes up to so many batches; gives up between two calls of the source when what it is given says so.
        prefetch: places for batches.
        draws_at_once: how many are drawn by a call of the source; they are made as there are places.
        turn: held while the thread draws, so that it begins when a predecessor has ended.
    """

    def __init__(
        self,
        draw: Callable[[int, Callable[[], bool]], Iterator[Batch] | Waited],
        *,
        prefetch: int,
        draws_at_once: int,
        turn: threading.Lock,
    ) -> None:
        self._draw = draw
        self._turn = turn
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._places = threading.Semaphore(prefetch)
        self._at_once = draws_at_once
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
                batch = self._batches.get(timeout=wait)
            except queue.Empty:
                if self._failure is not None:
                    raise self._failure from None
            else:
                self._places.release()
                return batch
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
        while self._take_place():
            made = self._draw(self._at_once, self._stopping.is_set)
            if isinstance(made, Waited):
                self._reason = made.reason
                self._places.release()
                self._stopping.wait(made.seconds)
                continue
            self._batches.put(next(made))
            for batch in made:
                if not self._take_place():
                    return
                self._batches.put(batch)

    def _take_place(self) -> bool:
        """Wait for a place; return whether there is one, False when it is time to stop."""
        while not self._stopping.is_set():
            if self._places.acquire(timeout=_POLL_SECONDS):
                return True
        return False
