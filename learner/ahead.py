"""Batches that are made on a thread while the learner works on those before them."""

import queue
import threading
from collections.abc import Iterator

from core.errors import DataError
from learner.objective import Columns

PREFETCHED_BATCHES = 4
LONGEST_WAIT_SECONDS = 300


class Ahead:
    """Items of an iterator, some of them ahead of who takes them."""

    def __init__(self, items: Iterator[Columns]) -> None:
        self._items = items
        self._made: queue.Queue[Columns | BaseException] = queue.Queue(PREFETCHED_BATCHES)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rows", daemon=True)
        self._thread.start()

    def next(self) -> Columns:
        """Return the next item. Raises what making it raised, and DataError when none is made for a long time."""
        try:
            made = self._made.get(timeout=LONGEST_WAIT_SECONDS)
        except queue.Empty as error:
            raise DataError(
                f"no rows were read for {LONGEST_WAIT_SECONDS} s",
                why="what lies under their folders does not answer",
                fix="look at the disk or network that they are on; the same command goes on from the last checkpoint",
            ) from error
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        self._closed.set()
        while not self._made.empty():
            self._made.get_nowait()
        self._thread.join(LONGEST_WAIT_SECONDS)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # the thread has nobody to tell but the next caller
            self._put(error)

    def _put(self, item: Columns | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
