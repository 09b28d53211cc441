"""How weights travel on Ray: a version is one object, put once by the learner and pulled by each host that serves it.

The store keeps a view of the object as long as it may hand it on, and keeps the file.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from cluster.on_ray.client import LOST, NO_ROOM, Handle, call, get, in_one_line
from cluster.run import parts
from cluster.run.parts import MODEL
from core.errors import TamenError
from inference_server.broadcast import Announcement, Broadcast
from networks.weights import Weights
from networks.wire import Content, WireForm, checksum_of, from_wire

if TYPE_CHECKING:
    from cluster.on_ray.actors import Assignment

PULL_SECONDS = 30.0
POLL_SECONDS = 10.0
"""For how long a server waits at the store before it asks again: an announcement that was lost is heard of by then."""


class StoreActor:
    """`inference_server.broadcast.Broadcast`; every method is async, so that one that waits holds nobody up."""

    def __init__(self, given: "Assignment") -> None:
        self._title = given.title
        given.check_code()
        self._files = parts.make_store(given.folder)
        self._broadcast = Broadcast(self._files, put)

    def __repr__(self) -> str:
        return self._title

    async def publish(self, handle: list[Any], checksum: int, published_at: float) -> None:
        (reference,) = handle
        content = await asyncio.wait_for(reference, PULL_SECONDS)
        await self._broadcast.publish(content, handle, checksum=checksum, published_at=published_at)

    async def newest_version(self, model: str) -> int | None:
        return await self._broadcast.newest_version(model)

    async def highest_version(self, model: str) -> int | None:
        return await self._broadcast.highest_version(model)

    async def wait_newer(
        self, model: str, version: int, form: WireForm, timeout_seconds: float
    ) -> Announcement | None:
        return await self._broadcast.wait_newer(model, version, form, timeout_seconds=timeout_seconds)

    async def get(self, model: str, version: int | None = None) -> Content:
        return await self._broadcast.get(model, version)

    async def settle(self) -> None:
        await self._broadcast.settle()

    async def stats(self) -> dict[str, Any]:
        return {
            "damaged": "; ".join(self._files.skipped[-1:]),
            "last_refusal": self._broadcast.refused,
            "trouble": self._broadcast.trouble,
            "process_seconds": time.process_time(),
            "pid": os.getpid(),
        }


class WeightsPublisher:
    """The learner's way to the store; see `learner.loop.Publisher`.

    Args:
        store: handle of the store's actor.
        clock: seconds since 1970.
    """

    def __init__(self, store: Handle, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def publish(self, weights: Weights) -> None:
        published_at, content = self._clock(), weights.to_bytes()
        call(self._store.publish, put(content), checksum_of(content), published_at)

    def newest_version(self) -> int | None:
        """Return a number above which none was ever given out; that of the newest version, unless a process died."""
        return call(self._store.highest_version, MODEL)

    def settle(self) -> None:
        """Return when what was published is on disk. Raises TamenError when it cannot be written."""
        call(self._store.settle, timeout_seconds=PULL_SECONDS)


def put(content: Content) -> list[ray.ObjectRef]:
    """Make an object of a version, owned by this process; return a handle that can be passed along unopened."""
    try:
        # As an array, which is mapped where it lies; bytes would be copied by each who gets them.
        return [ray.put(np.frombuffer(content, np.uint8))]
    except NO_ROOM as error:
        raise TamenError(
            "Ray's object store has no room for a version of the weights",
            why=in_one_line(error),
            fix="give Ray more shared memory, or make the network smaller",
        ) from error


def wait_newer(store: Handle, version: int, form: WireForm) -> Announcement | None:
    """Wait at the store until there is a version above `version`; None when there is none within `POLL_SECONDS`."""
    return call(store.wait_newer, MODEL, version, form, POLL_SECONDS)


def pull(store: Handle, announced: Announcement) -> Weights:
    """Return the weights of an announcement, where they lie in this machine's shared memory."""
    (reference,) = announced.handle
    source = f"version {announced.version} of the weights"
    try:
        content = get(reference, timeout_seconds=PULL_SECONDS)
    except LOST:  # its owner has died, the learner as a rule; the store's view of it lives on
        content = call(store.get, MODEL, announced.version)
        return from_wire(content, source=source)  # as a file, which may be another form of it
    return from_wire(content, source=source, checksum=announced.checksum)


def fetch(store: Handle, model: str) -> Weights:
    """Return the weights of "name" (newest) or "name@version", as the store has them."""
    name, _, version = model.partition("@")
    return from_wire(call(store.get, name, int(version) if version else None), source=model)
