"""A file that only grows, of JSON lines of which each carries its own seal: what was appended is there for good.

`append` returns when the lines are on the disk. A line that was torn by a crash, or damaged, is told from a sound one
by its seal and passed over; what is torn at the end is cut off before more is appended.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from core.errors import DataError, UsageError
from core.files import digest, sync_folder

Entry = dict[str, Any]
_SEAL_DIGITS = 16
_SEAL = b',"seal":"'
_END = b'"}\n'
MOST_LINE_BYTES = 1 << 16


class Journal:
    """The journal at `path`, which is made if it is not there; one process at a time may have it open.

    Attributes:
        end: its length in bytes, as far as it is sound.
        damaged: lines that were passed over.

    Raises:
        UsageError: when another process has it open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self.damaged = 0
        self.end = 0
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(
                f"{path} is in use",
                why="another process writes it",
                fix="wait for it, or end it; two cannot play the same games",
            ) from error
        sync_folder(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Yield what was appended from byte `start` on, which is where a line begins; then cut off a torn end.

        To be read to the end before anything is appended.
        """
        position = self.end = start
        with self._path.open("rb") as lines:
            lines.seek(start)
            while line := lines.readline(MOST_LINE_BYTES):
                position += len(line)
                entry = _opened(line)
                if entry is None:
                    self.damaged += 1
                    continue
                self.end = position
                yield entry
        if self.size > self.end:
            self._file.truncate(self.end)
            os.fsync(self._file.fileno())

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, all or none, and wait until they are on the disk.

        Raises:
            OSError: a full disk, say; nothing is appended then.
            DataError: when one is too long for a line.
        """
        data = b"".join(_sealed(entry) for entry in entries)
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self.end)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self.end += len(data)

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the sound lines of a journal, also of one that is being written."""
    with path.open("rb") as lines:
        while line := lines.readline(MOST_LINE_BYTES):
            if (entry := _opened(line)) is not None:
                yield entry


def _sealed(entry: Entry) -> bytes:
    body = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode()
    line = body[:-1] + _SEAL + digest(body)[:_SEAL_DIGITS].encode() + _END
    if len(line) > MOST_LINE_BYTES:
        raise DataError(
            f"an entry of {len(line)} bytes is not written",
            why=f"a line of a journal has at most {MOST_LINE_BYTES} bytes",
            fix="shorten what it says",
        )
    return line


def _opened(line: bytes) -> Entry | None:
    """Return what was sealed in a line, or None when it is torn or damaged."""
    length = len(_SEAL) + _SEAL_DIGITS + len(_END)
    body, tail = line[:-length] + b"}", line[-length:]
    seal = tail[len(_SEAL) : -len(_END)]
    if not (tail.startswith(_SEAL) and tail.endswith(_END) and digest(body)[:_SEAL_DIGITS].encode() == seal):
        return None
    return json.loads(body)
