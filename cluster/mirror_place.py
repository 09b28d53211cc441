"""Where a mirror lies: a folder, or a URL that fsspec understands. Every operation ends in time, and is tried again.

Keys, endpoint and region come from where AWS's tools take them, see `pipeline.storage`.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from core.files import sync_folder, write_atomic
from pipeline.storage import as_oserrors, file_system, is_url

ATTEMPTS = 4
FIRST_DELAY_SECONDS = 0.5
"""Before the second attempt; doubles with each further one."""
POLL_SECONDS = 0.2
MOST_HANGING = 16
"""Operations that were given up and have not come back; no more is begun while there are so many."""
DELETED_TOGETHER = 500
FINAL = (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
"""What another attempt would not mend."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """Runs operations that may hang, a few at a time.

    Threads of it never keep the process from ending; one that hangs is left behind.

    Args:
        workers: operations at a time.
        timeout_seconds: of one attempt.
        attempts: of one operation, with growing pauses; what is no OSError is not tried again.
    """

    def __init__(self, workers: int, *, timeout_seconds: float, attempts: int = ATTEMPTS) -> None:
        self._workers = workers
        self._timeout_seconds = timeout_seconds
        self._attempts = attempts
        self._hanging: list[threading.Thread] = []
        self.cancelled = threading.Event()

    def call(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns. Raises like `map`."""
        return self.map(lambda _: work(), [None])[0]

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `work` of each item, in their order.

        Raises:
            TimeoutError: when an attempt takes too long, or too many hang from before.
            InterruptedError: when `cancelled` was set.
            Exception: what `work` raised last for an item; no further item is begun then.
        """
        if not items:
            return []
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise TimeoutError(f"{len(self._hanging)} operations have not come back")
        job = _Job(work, items, attempts=self._attempts, cancelled=self.cancelled)
        threads = [
            threading.Thread(target=job.work_off, name="mirror-crew", daemon=True)
            for _ in range(min(self._workers, len(items)))
        ]
        for thread in threads:
            thread.start()
        while (left := [thread for thread in threads if thread.is_alive()]) and job.error is None:
            if job.slowest_seconds() > self._timeout_seconds:
                job.error = TimeoutError(f"no answer within {self._timeout_seconds:g} s")
            elif self.cancelled.is_set():
                job.error = InterruptedError("there was no time left")
            else:
                left[0].join(POLL_SECONDS)
        if job.error is not None:
            self._hanging += threads
            raise job.error
        return [job.results[index] for index in range(len(items))]


class _Job(Generic[Item, Result]):
    """The items of one `Crew.map`, shared by its threads."""

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        attempts: int,
        cancelled: threading.Event,
    ) -> None:
        self._work = work
        self._waiting = iter(enumerate(items))
        self._attempts = attempts
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._began: dict[int, float] = {}
        self.results: dict[int, Result] = {}
        self.error: Exception | None = None

    def work_off(self) -> None:
        """Take items until there is none, or one has failed."""
        while self.error is None:
            with self._lock:
                index, item = next(self._waiting, (None, None))
            if index is None:
                return
            try:
                self.results[index] = self._tried(index, item)  # pyright: ignore[reportArgumentType]
            except Exception as error:
                self.error = self.error or error

    def slowest_seconds(self) -> float:
        """Return how long the longest attempt under way has taken."""
        now = time.monotonic()
        with self._lock:
            return max((now - began for began in self._began.values()), default=0.0)

    def _tried(self, index: int, item: Item) -> Result:
        for attempt in range(1, self._attempts + 1):
            with self._lock:
                self._began[index] = time.monotonic()
            try:
                return self._work(item)
            except OSError as error:
                if attempt == self._attempts or isinstance(error, FINAL) or self.error is not None:
                    raise
            finally:
                with self._lock:
                    del self._began[index]
            if self._cancelled.wait(FIRST_DELAY_SECONDS * 2 ** (attempt - 1)):
                break
        raise InterruptedError("there was no time left")


class Place:
    """The files of one mirror; whoever waits for an answer lets a `Crew` call.

    Every method raises OSError when something cannot be read or written.

    Args:
        location: a path, or a URL.
        timeout_seconds: that a library which knows of them is told to wait for an answer.

    Raises:
        UsageError: when nothing here opens such a URL.
    """

    def __init__(self, location: str, *, timeout_seconds: float) -> None:
        self.location = location.rstrip("/")
        plain = location.removeprefix("file://")
        self.folder = None if is_url(plain) else Path(plain).resolve()
        if self.folder is None:
            # One attempt a call: the crew makes further ones, and knows when there is no time left for them.
            waits = {"connect_timeout": timeout_seconds, "read_timeout": timeout_seconds}
            config = {**waits, "retries": {"total_max_attempts": 1}}
            options: dict[str, Any] = {"config_kwargs": config} if location.startswith("s3://") else {}
            self._system, self._root = file_system(self.location, **options)

    def read(self, name: str) -> bytes:
        if self.folder is not None:
            return (self.folder / name).read_bytes()
        with as_oserrors(self.location):
            return self._system.cat_file(f"{self._root}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one step."""
        if self.folder is not None:
            write_atomic(self.folder / name, data)
            return
        with as_oserrors(self.location):
            self._system.pipe_file(f"{self._root}/{name}", data)

    def create(self, name: str, data: bytes) -> None:
        """Write a file in one step that must not be there yet. Raises FileExistsError when it is."""
        if self.folder is not None:
            _create(self.folder / name, data)
            return
        with as_oserrors(self.location):
            self._system.pipe_file(f"{self._root}/{name}", data, mode="create")

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of each file in a folder by name; none when there is no such folder."""
        try:
            if self.folder is not None:
                with os.scandir(self.folder / folder) as entries:
                    return {
                        entry.name: entry.stat().st_size
                        for entry in entries
                        if not entry.name.startswith(".")
                    }
            with as_oserrors(self.location):
                listed = self._system.ls(f"{self._root}/{folder}", detail=True)
                return {
                    entry["name"].rpartition("/")[2]: entry["size"]
                    for entry in listed
                    if entry["type"] == "file"
                }
        except FileNotFoundError:
            return {}

    def delete(self, names: Sequence[str]) -> None:
        """Delete files; those that are gone are no error."""
        if self.folder is not None:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            return
        with as_oserrors(self.location):
            try:
                self._system.rm([f"{self._root}/{name}" for name in names])
            except FileNotFoundError:
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        self._system.rm_file(f"{self._root}/{name}")


def in_batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield names, so many together as are deleted by one request."""
    for start in range(0, len(names), DELETED_TOGETHER):
        yield names[start : start + DELETED_TOGETHER]


def _create(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        Path(temporary).unlink()
    sync_folder(path.parent)
