"""A request to stop is heard, also by a wait that swallows it."""

import contextlib
import signal
import time

import pytest

from cluster.stopping import stop_request


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
