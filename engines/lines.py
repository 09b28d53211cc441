"""Lines of text to and from an engine, over a socket or a pipe: bounded in length, strict UTF-8, with a deadline.

`LineReader` and `LineWriter` take a file descriptor and make it non-blocking; they do not own it. Deadlines are
points of `time.monotonic()`. A line ends with LF; a CR before it is dropped.
"""

import os
import select
import time

from core.errors import UsageError
from engines.errors import EngineFault, shown

MAX_LINE_BYTES = 1 << 16
"""The longest line, without its end, that is read or written unless told otherwise."""
_READ_BYTES = 1 << 16


class LineReader:
    """What an engine sends, line by line.

    Args:
        descriptor: of a socket or the reading end of a pipe.
        engine: its name in errors.
        max_bytes: of a line, without its end.
    """

    def __init__(self, descriptor: int, engine: str, *, max_bytes: int = MAX_LINE_BYTES) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._engine = engine
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._ended = False

    def read_line(self, deadline: float) -> str | None:
        """Return the next line without its end, or None when the engine closed after a whole line.

        What has come already is returned even after the deadline.

        Raises:
            EngineFault: `timeout` (the reader may be used on: nothing is lost), `closed` inside a line or by a
                reset, `garbled`, `too long`.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > self._max_bytes:
                break
            if self._ended or not self._receive(deadline):
                return self._at_the_end()
        if end < 0 or end > self._max_bytes:
            why = f"more than {self._max_bytes} bytes without an end, from {shown(bytes(self._buffer[:200]))}"
            raise EngineFault("too long", self._engine, why=why)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return self._decoded(line)

    def has_more(self) -> bool:
        """Whether something has come, or the end, that was not read as a line yet."""
        return (
            bool(self._buffer) or self._ended or _is_ready(self._descriptor, select.POLLIN, time.monotonic())
        )

    def _receive(self, deadline: float) -> bool:
        """Take more bytes, as soon as some have come; return False at the end of the stream."""
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                if _is_ready(self._descriptor, select.POLLIN, deadline):
                    continue
                so_far = f", only {shown(bytes(self._buffer))}" if self._buffer else ""
                raise EngineFault(
                    "timeout", self._engine, why=f"no whole line came until its deadline{so_far}"
                ) from None
            except OSError as error:
                raise EngineFault("closed", self._engine, why=f"reading failed: {error}") from error
            self._buffer += data
            self._ended = not data
            return bool(data)

    def _at_the_end(self) -> None:
        if self._buffer:
            why = f"it ended inside a line, after {shown(bytes(self._buffer))}"
            raise EngineFault("closed", self._engine, why=why)

    def _decoded(self, line: bytes) -> str:
        try:
            return line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            why = f"byte {error.start} of the line {shown(line)} is none of UTF-8"
            raise EngineFault("garbled", self._engine, why=why) from error


class LineWriter:
    """What is sent to an engine, line by line.

    Args:
        descriptor: of a socket or the writing end of a pipe.
        engine: its name in errors.
    """

    def __init__(self, descriptor: int, engine: str) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._engine = engine

    def write_line(self, line: str, deadline: float) -> None:
        """Send `line` and its end.

        Raises:
            EngineFault: `timeout` when the engine does not read (part of the line may be sent), `closed`.
            UsageError: when `line` is no single line, or too long; nothing is sent.
        """
        self.write_lines([line], deadline)

    def write_lines(self, lines: list[str], deadline: float) -> None:
        """Send several lines in as few writes as they fit; errors as in `write_line`."""
        left = memoryview(b"".join(_encoded(line) for line in lines))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                if not _is_ready(self._descriptor, select.POLLOUT, deadline):
                    why = "it does not read what is sent to it"
                    raise EngineFault("timeout", self._engine, why=why) from None
            except OSError as error:
                raise EngineFault("closed", self._engine, why=f"writing failed: {error}") from error


def _encoded(line: str) -> bytes:
    data = line.encode("utf-8", errors="replace")
    if "\n" in line or "\r" in line or len(data) > MAX_LINE_BYTES or data.decode() != line:
        raise UsageError(
            f"{shown(line)} cannot be sent to an engine",
            why=f"a command is one line of text, of at most {MAX_LINE_BYTES} bytes",
            fix="take out the line breaks, or shorten it",
        )
    return data + b"\n"


def _is_ready(descriptor: int, event: int, deadline: float) -> bool:
    """Wait until `descriptor` can be read or written, or is closed; False when the deadline comes first."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
