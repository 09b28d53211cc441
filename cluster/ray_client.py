"""The ways between Ray actors: plain protocols of the floors below, fulfilled by remote calls.

Every wait has a timeout. What was not answered because the other side died is asked again, of its successor or
of a sister, until `PATIENCE_SECONDS` have passed; inference and deliveries may be repeated without harm.
"""

import time
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RaySystemError,
    WorkerCrashedError,
)

from core.errors import ClusterError, DataError, EvaluationError, TamenError
from core.messages import Reply, Request
from replay.records import Ack
from replay.sampling import Sample, Wait

PATIENCE_SECONDS = 120.0
RETRY_SECONDS = 0.25
LOST = (RayActorError, ObjectLostError, WorkerCrashedError, RaySystemError, GetTimeoutError)
"""What Ray raises when the other side, or what it had made, is gone: counted and tried again, never fatal at once."""

Handle = Any
"""A Ray actor handle; Ray gives them no usable type."""


def call(method: Any, *arguments: object, timeout_seconds: float = 30.0) -> Any:
    """Call a remote method and wait for its result, trying again while the other side restarts.

    Raises:
        ClusterError: when it has not answered within `PATIENCE_SECONDS`.
        TamenError: what the method itself raised.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ray.get(method.remote(*arguments), timeout=timeout_seconds)
        except LOST as error:
            if time.monotonic() > deadline:
                raise _gone(error) from error
            time.sleep(RETRY_SECONDS)


@dataclass(slots=True)
class _Asked:
    """Requests that belong together, each with the reference of its current attempt, or its reply."""

    requests: tuple[Request, ...]
    deadline: float
    replies: dict[int, Reply] = field(default_factory=dict)


class RayClient:
    """Sends requests to inference actors; each goes to the server with the fewest rows of ours outstanding.

    Args:
        servers: handles of the inference actors; a restarted actor keeps its handle.
    """

    def __init__(self, servers: list[Handle]) -> None:
        self._servers = servers
        self._outstanding_rows = [0] * len(servers)
        self._asked: dict[int, _Asked] = {}
        self._in_flight: dict[ray.ObjectRef, tuple[int, int, int, int]] = {}
        self._next_handle = 0
        self.resent_requests = 0

    def submit(self, requests: tuple[Request, ...]) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._asked[handle] = _Asked(requests, time.monotonic() + PATIENCE_SECONDS)
        for position in range(len(requests)):
            self._send(handle, position)
        return handle

    def wait_any(
        self, handles: Collection[Hashable], *, timeout_seconds: float
    ) -> tuple[Hashable, tuple[Reply, ...] | EvaluationError] | None:
        """Wait until all requests of one handle are answered; every handle in flight counts, as a caller has all."""
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _ = ray.wait(list(self._in_flight), num_returns=1, timeout=left)
            for reference in ready:
                finished = self._collect(reference)
                if finished is not None:
                    return finished
        return self._give_up_one()

    def _give_up_one(self) -> tuple[int, EvaluationError] | None:
        """Fail a handle that a server has left without any answer for too long, if there is one."""
        handle = next((h for h, asked in self._asked.items() if time.monotonic() > asked.deadline), None)
        if handle is None:
            return None
        del self._asked[handle]
        return handle, _no_answer(f"it has been silent for {PATIENCE_SECONDS:.0f} s")

    def _send(self, handle: int, position: int) -> None:
        request = self._asked[handle].requests[position]
        server = min(range(len(self._servers)), key=self._outstanding_rows.__getitem__)
        reference = self._servers[server].infer.remote(request.model, dict(request.arrays))
        self._in_flight[reference] = (handle, position, server, request.num_rows)
        self._outstanding_rows[server] += request.num_rows

    def _collect(self, reference: ray.ObjectRef) -> tuple[int, tuple[Reply, ...] | EvaluationError] | None:
        handle, position, server, rows = self._in_flight.pop(reference)
        self._outstanding_rows[server] -= rows
        asked = self._asked.get(handle)
        if asked is None:  # a sister request of this handle has failed for good
            return None
        try:
            asked.replies[position] = Reply(*ray.get(reference, timeout=PATIENCE_SECONDS))
        except EvaluationError as error:
            del self._asked[handle]
            return handle, error
        except LOST as error:
            if time.monotonic() > asked.deadline:
                del self._asked[handle]
                return handle, _no_answer(_first_line(error))
            self.resent_requests += 1
            time.sleep(RETRY_SECONDS)
            self._send(handle, position)
        if len(asked.replies) < len(asked.requests):
            return None
        del self._asked[handle]
        return handle, tuple(asked.replies[i] for i in range(len(asked.requests)))


class RayDelivery:
    """Carries chunks to the replay actor, one at a time, until each is acknowledged."""

    def __init__(self, replay: Handle) -> None:
        self._replay = replay
        self._chunk: bytes | None = None
        self._reference: ray.ObjectRef | None = None
        self.refused_chunks = 0
        self.last_trouble = ""

    @property
    def busy(self) -> bool:
        return self._reference is not None

    def send(self, chunk: bytes | None) -> None:
        self._chunk = chunk
        self._reference = self._replay.admission.remote() if chunk is None else self._replay.add.remote(chunk)

    def poll(self, timeout_seconds: float) -> Ack | None:
        ready, _ = ray.wait([self._reference], timeout=timeout_seconds)
        if not ready:
            return None
        try:
            acknowledged: Ack = ray.get(ready[0], timeout=PATIENCE_SECONDS)
        except DataError as error:  # the chunk itself is bad: the same bytes would be refused for ever
            self.refused_chunks += 1
            self.last_trouble = str(error)
            acknowledged = Ack.nothing()
        except (
            Exception
        ) as error:  # a restarting replay, a full disk: what was not acknowledged is sent again
            self.last_trouble = str(error)
            time.sleep(RETRY_SECONDS)
            self.send(self._chunk)
            return None
        self._chunk = self._reference = None
        return acknowledged


class RayObjects:
    """Keeps chunks in Ray's object store, owned by the process that made this object: the replay actor."""

    def put(self, data: bytes) -> list[ray.ObjectRef]:
        try:
            # Wrapped, so that passing the handle along does not fetch what it points to.
            return [ray.put(data)]
        except (ObjectStoreFullError, OutOfDiskError) as error:
            raise TamenError(
                "Ray's object store has no room for a chunk",
                why=_first_line(error),
                fix="lower replay.capacity_rows, or give Ray more shared memory",
            ) from error


class RayReplaySource:
    """Draws samples from the replay actor for the learner."""

    def __init__(self, replay: Handle) -> None:
        self._replay = replay

    def sample(self, num_rows: int) -> Sample | Wait:
        return call(self._replay.sample, num_rows)

    def live_chunks(self) -> np.ndarray:
        return call(self._replay.live_chunks)

    def restore_counters(self, draws: int, sampled_rows: int) -> None:
        call(self._replay.restore_counters, draws, sampled_rows)

    def fetch(self, chunk_ids: list[int]) -> list[bytes]:
        """Return the encoded chunks.

        Raises:
            DataError: when one cannot be had: the replay that held it died, or it left the window. Draw anew.
        """
        wrapped = call(self._replay.handles, chunk_ids)
        try:
            return ray.get([reference for (reference,) in wrapped], timeout=PATIENCE_SECONDS)
        except LOST as error:
            raise DataError(
                "chunks of the replay cannot be had",
                why=f"{type(error).__name__}: the replay that held them is gone",
                fix="draw a new sample; a restarted replay holds them again",
            ) from error


def _gone(error: Exception) -> ClusterError:
    return ClusterError(
        "a part of the run does not answer",
        why=_first_line(error),
        fix="look at the run's log.txt; the same command resumes the run",
    )


def _no_answer(why: str) -> EvaluationError:
    return EvaluationError("the brain does not answer", why=why, fix="look at the run's log.txt")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no more is known').splitlines()[0]}"
