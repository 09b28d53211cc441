"""Where a mirror lies: a folder, or a URL that fsspec understands. Every operation ends in time, and is tried again.

Keys, endpoint and region come from where AWS's tools take them, see `pipeline.storage`.
"""

import contextlib
import errno
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
SLOWEST_BYTES_A_SECOND = 32 << 10
"""At which an operation still counts as going on: four at a time need a line of 1 Mbit/s."""
FINAL = (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
"""What another attempt would not mend."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """Runs operations that may hang, a few at a time.

    Threads of it never keep the process from ending; one that hangs is left behind.

    Args:
        workers: operations at a time.
        timeout_seconds: of one attempt, beside what its bytes may take.
        attempts: of one operation, with growing pauses; what is no OSError is not tried again.
    """

    def __init__(self, workers: int, *, timeout_seconds: float, attempts: int = ATTEMPTS) -> None:
        self._workers = workers
        self._timeout_seconds = timeout_seconds
        self._attempts = attempts
        self._hanging: list[threading.Thread] = []
        self.cancelled = threading.Event()

    def call(self, work: Callable[[], Result], *, size: int = 0) -> Result:
        """Return what `work` returns, which moves at most `size` bytes. Raises like `map`."""
        return self.map(lambda _: work(), [None], size=lambda _: size)[0]

    def map(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        size: Callable[[Item], int] = lambda _: 0,
    ) -> list[Result]:
        """Return `work` of each item, in their order.

        Args:
            work: is done by several threads.
            items: of which each is an operation.
            size: bytes that an item's operation moves, at most.

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

        def seconds(item: Item) -> float:
            return self._timeout_seconds + size(item) / SLOWEST_BYTES_A_SECOND

        job = _Job(work, items, seconds=seconds, attempts=self._attempts, cancelled=self.cancelled)
        threads = [
            threading.Thread(target=job.work_off, name="mirror-crew", daemon=True)
            for _ in range(min(self._workers, len(items)))
        ]
        for thread in threads:
            thread.start()
        while (left := [thread for thread in threads if thread.is_alive()]) and job.error is None:
            if (limit := job.exceeded_seconds()) is not None:
                job.error = TimeoutError(f"no answer within {limit:g} s (mirror.timeout_seconds)")
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
        seconds: Callable[[Item], float],
        attempts: int,
        cancelled: threading.Event,
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._waiting = iter(enumerate(items))
        self._attempts = attempts
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._under_way: dict[int, tuple[float, float]] = {}
        """By item: when its attempt began, and the seconds that it may take."""
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

    def exceeded_seconds(self) -> float | None:
        """Return the seconds that an attempt under way was given and has exceeded; None when there is none such."""
        now = time.monotonic()
        with self._lock:
            return next((limit for began, limit in self._under_way.values() if now - began > limit), None)

    def _tried(self, index: int, item: Item) -> Result:
        for attempt in range(1, self._attempts + 1):
            with self._lock:
                self._under_way[index] = time.monotonic(), self._seconds(item)
            try:
                return self._work(item)
            except OSError as error:
                if attempt == self._attempts or isinstance(error, FINAL) or self.error is not None:
                    raise
            finally:
                with self._lock:
                    del self._under_way[index]
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
            # One of its own: fsspec would give one that others had opened, with the keys of then.
            self._options: dict[str, Any] = {"skip_instance_cache": True}
            if location.startswith("s3://"):
                self._options["config_kwargs"] = config
            self._system, self._root = file_system(self.location, **self._options)
            self._opening = threading.Lock()

    def read(self, name: str, most: int) -> bytes:
        """Return the first `most` bytes of a file: who knows how long it is asks for one more."""
        if self.folder is not None:
            with (self.folder / name).open("rb") as file:
                return file.read(most)
        with self._reached() as system:
            path = f"{self._root}/{name}"
            # S3 calls it an error to be asked for a part of what is empty.
            return system.cat_file(path, start=0, end=most) if system.info(path)["size"] else b""

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one step."""
        if self.folder is not None:
            write_atomic(self.folder / name, data)
            return
        with self._reached() as system:
            system.pipe_file(f"{self._root}/{name}", data)

    def create(self, name: str, data: bytes) -> None:
        """Write a file in one step that must not be there yet. Raises FileExistsError when it is."""
        if self.folder is not None:
            _create(self.folder / name, data)
            return
        with self._reached() as system:
            system.pipe_file(f"{self._root}/{name}", data, mode="create")

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
            with self._reached() as system:
                listed = system.ls(f"{self._root}/{folder}", detail=True)
                return {
                    entry["name"].rpartition("/")[2]: entry["size"]
                    for entry in listed
                    if entry["type"] == "file"
                }
        except FileNotFoundError:
            return {}

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone is no error.

        Each by a request of its own: fsspec takes what it is to delete together for patterns, in which a "*" of the URL
        means other mirrors, and S3 answers with success where keys may not delete.
        """
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError), self._reached() as system:
            system.rm_file(f"{self._root}/{name}")

    @contextlib.contextmanager
    def _reached(self) -> Iterator[Any]:
        """Give what reaches the URL. Once it is refused, it is made anew: keys that expire are read only then.

        An expired key is also told as EINVAL, by "400 Bad Request" where an answer has no body.
        """
        system = self._system
        try:
            with as_oserrors(self.location):
                yield system
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno == errno.EINVAL:
                with self._opening:
                    if self._system is system:
                        self._system, self._root = file_system(self.location, **self._options)
            raise


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
