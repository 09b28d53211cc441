"""A daemon that says what a test lets it say: one function for each connection, in a thread of its own."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

from engines.forge_client import Endpoint

PATIENCE_SECONDS = 20


class Talk:
    """The daemon's side of one connection."""

    def __init__(self, connection: socket.socket, ended: threading.Event) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(OSError):  # the client may have closed already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._came = b""
        self._ended = ended

    def hear(self) -> str | None:
        """Return the next line, or None when the client has closed."""
        while b"\n" not in self._came:
            data = self._connection.recv(1 << 16)
            if not data:
                return None
            self._came += data
        line, _, self._came = self._came.partition(b"\n")
        return line.decode()

    def heard_all(self) -> bool:
        """Whether nothing more has come."""
        return not self._came and not select.select([self._connection], [], [], 0)[0]

    def say(self, *lines: str) -> None:
        self.say_bytes("".join(f"{line}\n" for line in lines).encode())

    def say_bytes(self, data: bytes) -> None:
        self._connection.sendall(data)

    def be_silent(self) -> None:
        """Keep the connection open until the test ends."""
        assert self._ended.wait(PATIENCE_SECONDS)


Script: TypeAlias = Callable[[Talk], None]


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Endpoint]:
    """Serve every connection by `script`; it is closed when the script returns."""
    ended = threading.Event()
    threads: list[threading.Thread] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            script(Talk(connection, ended))
            connection.shutdown(socket.SHUT_WR)
            # What the client has sent meanwhile must not turn the end into a reset.
            while connection.recv(1 << 16):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Endpoint(server.getsockname()[1])
    finally:
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in [accepting, *threads]:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
