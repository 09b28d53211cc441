"""A process that listens in place of a daemon is found, and no daemon's own is taken for one."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.listeners import stranger_at
from engines.ports import free_port, is_free
from engines.process import Program, kill_marked, start_alone
from tests.engines.supervising import FAKE, PATIENCE_SECONDS

MARK = "TAMEN_TEST_LISTENERS"
NO_SESSION = -1


@pytest.fixture
def mark() -> Iterator[tuple[str, str]]:
    mark = MARK, secrets.token_hex(8)
    yield mark
    kill_marked(*mark)


def listening(command: list[str], port: int, room: Path, mark: tuple[str, str]) -> Program:
    """Start a fake daemon behind `command`, and wait until it listens."""
    whole = [*command, sys.executable, "-I", "-S", str(FAKE), "-p", str(port)]
    program = start_alone(whole, engine="fake", room=room, environment=dict([mark]))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_free(port):
        assert time.monotonic() < deadline, program.last_words()
        time.sleep(0.02)
    return program


@pytest.mark.parametrize("command", [[], ["sh", "-c", '"$@" & wait', "sh"], ["setsid", "--wait"]])
def test_whoever_has_the_mark_is_ones_own(command: list[str], tmp_path: Path, mark: tuple[str, str]) -> None:
    port = free_port(30_400)
    listening(command, port, tmp_path, mark)
    assert stranger_at(port, mark=mark, session=NO_SESSION) is None
    assert stranger_at(port, mark=(MARK, "another"), session=NO_SESSION) is not None


def test_who_has_lost_the_mark_is_known_by_the_session(tmp_path: Path, mark: tuple[str, str]) -> None:
    port = free_port(30_450)
    program = listening(["env", "-i"], port, tmp_path, mark)
    assert stranger_at(port, mark=mark, session=NO_SESSION) is not None
    assert stranger_at(port, mark=mark, session=program.process.pid) is None


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, ""),
        (socket.AF_INET6, "::"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
    ],
)
def test_a_stranger_is_found_at_each_address_that_takes_what_is_sent_here(
    family: socket.AddressFamily, address: str, mark: tuple[str, str]
) -> None:
    port = free_port(30_500)
    assert stranger_at(port, mark=mark, session=NO_SESSION) is None
    try:
        server = socket.create_server((address, port), family=family, dualstack_ipv6=False)
    except OSError:
        assert family == socket.AF_INET6  # which a machine need not have
        return
    with server:
        assert stranger_at(port, mark=mark, session=NO_SESSION) == os.getpid()
    assert stranger_at(port, mark=mark, session=NO_SESSION) is None
