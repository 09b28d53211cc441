"""STATUS is asked without waiting, and whatever comes back is either a status or a fault with its kind."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from engines.errors import EngineFault
from engines.forge_protocol import Status
from engines.ports import free_port
from engines.probe import MAX_ANSWER_BYTES, Probe

GOOD = b"DAEMON STATUS\nActive games: 2\nTotal games played: 31\nMemory: 10MB / 20MB\nMax concurrent: 10\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def asked(listener: socket.socket, *, deadline: float = 30.0) -> Probe:
    return Probe(
        "127.0.0.1", listener.getsockname()[1], engine="daemon", deadline=time.monotonic() + deadline
    )


def outcome(probe: Probe) -> Status:
    while (status := probe.poll(time.monotonic())) is None:
        time.sleep(0.002)
    return status


def served(listener: socket.socket, *pieces: bytes, close: bool = True) -> Status:
    """Ask a server that answers in `pieces`, and closes or holds the connection."""
    probe = asked(listener, deadline=0.5 if not close else 30.0)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.makefile().readline() == "STATUS\n"
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)
            if not close:
                done.wait(30)

    done = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return outcome(probe)
    finally:
        done.set()
        thread.join()


def test_an_answer_in_pieces_is_a_status(listener: socket.socket) -> None:
    assert served(listener, GOOD[:10], GOOD[10:57], GOOD[57:]) == Status(2, 31, 10, 20, 10)


def test_one_that_keeps_the_connection_open_is_understood(listener: socket.socket) -> None:
    assert served(listener, GOOD, close=False).games_played == 31


@pytest.mark.parametrize(
    ("pieces", "close", "kind"),
    [
        ((), True, "protocol"),
        ((b"hello\n",), True, "protocol"),
        ((b"\xff" * 20 + b"\n",), True, "garbled"),
        ((b"x" * (MAX_ANSWER_BYTES + 1),), True, "too long"),
        ((), False, "timeout"),
        ((GOOD[:30],), False, "timeout"),
    ],
)
def test_what_is_no_status_is_a_fault(
    listener: socket.socket, pieces: tuple[bytes, ...], close: bool, kind: str
) -> None:
    with pytest.raises(EngineFault) as caught:
        served(listener, *pieces, close=close)
    assert caught.value.kind == kind


def test_nobody_there_is_a_fault() -> None:
    probe = Probe("127.0.0.1", free_port(23_000), engine="daemon", deadline=time.monotonic() + 30.0)
    with pytest.raises(EngineFault) as caught:
        outcome(probe)
    assert caught.value.kind == "closed"
    assert "refused" in caught.value.why
