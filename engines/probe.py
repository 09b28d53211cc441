"""STATUS asked of a daemon without waiting for it: many can be asked at once, and one that hangs holds up nobody."""

import contextlib
import errno
import os
import select
import socket

from engines.errors import EngineFault, shown
from engines.forge_protocol import STATUS_LINES, Status, read_status

MAX_ANSWER_BYTES = 1 << 16
_READ_BYTES = 4096
_ON_ITS_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class Probe:
    """A question on its way to the daemon at `host` and `port`, until `deadline`.

    Args:
        engine: its name in errors.
        deadline: on the clock of who calls `poll`.
    """

    def __init__(self, host: str, port: int, *, engine: str, deadline: float) -> None:
        self._engine = engine
        self._deadline = deadline
        self._answer = bytearray()
        self._asked = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._problem = self._socket.connect_ex((host, port))

    def poll(self, now: float) -> Status | None:
        """Return what the daemon has answered, None while that is on its way.

        Raises:
            EngineFault: `timeout`, `closed`, `garbled`, `too long`, `protocol`. Whatever is not None ends the probe.
        """
        try:
            status = self._advance(now)
        except BaseException:
            self.close()
            raise
        if status is not None:
            self.close()
        return status

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _advance(self, now: float) -> Status | None:
        if self._problem not in _ON_ITS_WAY:
            raise self._closed(os.strerror(self._problem))
        try:
            ended = self._exchange()
        except OSError as error:
            raise self._closed(error.strerror or str(error)) from error
        if len(self._answer) > MAX_ANSWER_BYTES:
            raise EngineFault("too long", self._engine, why=f"its status began {shown(bytes(self._answer))}")
        if ended or self._answer.count(b"\n") >= STATUS_LINES:
            return read_status(self._lines(), self._engine)
        if now >= self._deadline:
            so_far = f", only {shown(bytes(self._answer))}" if self._answer else ""
            raise EngineFault("timeout", self._engine, why=f"no whole answer to STATUS came in time{so_far}")
        return None

    def _exchange(self) -> bool:
        """Send and receive what can be at this moment; return whether the daemon has closed the connection."""
        if not self._asked:
            if not _is_ready(self._socket, select.POLLOUT):
                return False
            if problem := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            self._socket.sendall(b"STATUS\n")
            self._asked = True
        with contextlib.suppress(BlockingIOError):
            while len(self._answer) <= MAX_ANSWER_BYTES:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    return True
                self._answer += data
        return False

    def _lines(self) -> list[str]:
        try:
            return bytes(self._answer).decode("utf-8").splitlines()[:STATUS_LINES]
        except UnicodeDecodeError as error:
            raise EngineFault(
                "garbled", self._engine, why=f"its status was {shown(bytes(self._answer))}"
            ) from error

    def _closed(self, why: str) -> EngineFault:
        return EngineFault("closed", self._engine, why=why)


def _is_ready(connection: socket.socket, event: int) -> bool:
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(0))
