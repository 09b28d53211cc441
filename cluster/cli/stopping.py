"""Ctrl-C and SIGTERM as a run takes them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_SECONDS = 0.5
"""After which a wait that swallowed its interruption is interrupted again, and again."""


class StopRequest:
    """The first Ctrl-C (or SIGTERM) is a request to stop, the second ends the process at once.

    Even then nothing acknowledged is lost: it was on disk before it was acknowledged, and Ray's processes on this
    machine end with the driver.
    """

    def __init__(self, also: Callable[[int], None] | None = None) -> None:
        self.requested = False
        self._also = also
        self._at_once = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take the signal `number`."""
        if self._also is not None:
            self._also(number)
        if self.requested:
            os._exit(130)
        self.requested = True
        if self._at_once:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Break off what happens inside as soon as it is requested.

        The exception comes wherever the interpreter is just then. In a callback out of a library's compiled code it is
        printed and forgotten, so it comes again until it gets through.
        """
        before = signal.signal(signal.SIGALRM, _interrupt)
        self._at_once = True
        try:
            yield
        except KeyboardInterrupt:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            self._at_once = False
            signal.signal(signal.SIGALRM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


_requests: list[StopRequest] = []
"""Those that last, the innermost last."""


def is_stop_requested() -> bool:
    """Whether this process was asked to stop; for who looks from another thread."""
    return any(each.requested for each in _requests)


def request_stop() -> None:
    """Ask this process to stop, as the first Ctrl-C does, of its own accord; a Ctrl-C after it ends it at once."""
    for each in _requests:
        each.requested = True


@contextmanager
def stop_request(also: Callable[[int], None] | None = None) -> Iterator[StopRequest]:
    """Let signals be requests while the context lasts. `also` gets each signal's number before anything else."""
    stop = StopRequest(also)
    _requests.append(stop)
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requests.remove(stop)
