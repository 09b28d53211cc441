"""A request to stop is heard, also by a wait that swallows it."""

import contextlib
import signal
import time

import pytest

from cluster.cli.stopping import request_stop, stop_request


def test_an_interruption_that_is_swallowed_comes_again() -> None:
    with stop_request() as stop, stop.at_once():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(30)
        pytest.fail("it was not interrupted")
    assert stop.requested
    time.sleep(0.6)  # nothing comes any more


def test_outside_of_it_a_request_only_is_noted() -> None:
    with stop_request() as stop:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.6)
        assert stop.requested


def test_a_process_may_stop_of_its_own_accord() -> None:
    request_stop()  # nothing goes on that could stop
    with stop_request() as outer, stop_request() as inner:
        assert not outer.requested
        assert not inner.requested
        request_stop()
        assert outer.requested
        assert inner.requested
