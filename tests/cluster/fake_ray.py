"""Ray without any Ray: time, references whose answers are known, and errors made as Ray makes them."""

from types import SimpleNamespace
from typing import Any

from ray.exceptions import ObjectStoreFullError, RayTaskError


class FakeRay:
    """Time, and references that are answered as soon as somebody waits; None is an answer that never comes.

    Whoever asks is on the node "here".

    Attributes:
        now: seconds; only waiting and sleeping let them pass.
        slept: seconds that were slept with nothing on its way.
        killed: handles, in the order in which they were killed.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0.0
        self.killed: list[Any] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds < float("inf")
        self.now += seconds
        self.slept += seconds

    def wait(
        self, references: list[Any], *, num_returns: int = 1, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        ready = [one for one in references if one.answer is not None][:num_returns]
        if not ready:
            self.now += timeout
        return ready, [one for one in references if one not in ready]

    def get(self, reference: Any, *, timeout: float) -> Any:
        if isinstance(reference, list):
            return [self.get(one, timeout=timeout) for one in reference]
        if isinstance(reference.answer, Exception):
            raise reference.answer
        return reference.answer

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def kill(self, handle: Any, *, no_restart: bool = True) -> None:
        self.killed.append(handle)


class Reference:
    """What a remote call returns."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class FakeMethod:
    """A remote method that answers as it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0

    def remote(self, *arguments: Any) -> Reference:
        self.calls += 1
        return Reference(self.answer)


class NoRoom:
    """A remote method whose arguments have no room in this machine's object store, for as often as is said.

    Attributes:
        calls: that had room.
    """

    def __init__(self, answer: Any, *, times: int, error: type[Exception] = ObjectStoreFullError) -> None:
        self._answer = answer
        self._left = times
        self._error = error
        self.calls = 0

    def remote(self, *arguments: Any) -> Reference:
        if self._left:
            self._left -= 1
            raise self._error("Local disk is full\nand much more")
        self.calls += 1
        return Reference(self._answer)


def remote_error(cause: Exception) -> Exception:
    """Return what Ray raises here when a remote call raised `cause`: of its class, with a traceback for its text."""
    traceback = f'Traceback (most recent call last):\n  File "part.py", line 1, in run\n{cause}'
    error = RayTaskError("run", traceback, cause, proctitle="ray::Part", pid=1, ip="127.0.0.1")
    return error.as_instanceof_cause()
