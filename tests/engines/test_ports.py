"""A port that is given out is free, and none is given when all are in use."""

import socket
from contextlib import ExitStack

import pytest

from core.errors import ClusterError
from engines.ports import LARGEST_PORT, free_port, is_free


def test_the_first_free_one_that_is_not_taken_is_given() -> None:
    first = free_port(22_000)
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free(first)
        second = free_port(22_000)
        assert second > first
        assert free_port(22_000, taken={second}) > second
    assert is_free(first)


def test_one_in_use_at_all_addresses_is_not_free() -> None:
    port = free_port(22_100)
    with socket.create_server(("", port)):
        assert not is_free(port)


def test_none_is_told() -> None:
    with ExitStack() as held:
        ports = range(LARGEST_PORT - 2, LARGEST_PORT + 1)
        for port in ports:
            if is_free(port):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
        with pytest.raises(ClusterError, match="no free port from 65533"):
            free_port(ports[0])
