"""Plain parts as Ray actors: each class below builds one and forwards its methods.

What is added concerns Ray alone: how a server warms up, holds callers back, and follows the weights.

Long loops run as one remote call, `run`, beside a small concurrency group "control" that always answers, so no
health call ever waits behind a forward, an optimiser step or a game.
"""

import asyncio
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from cluster import parts
from cluster.metrics_sinks import RayMetrics
from cluster.parts import MODEL
from cluster.ray_client import (
    Handle,
    NoObjects,
    RayClient,
    RayDelivery,
    RayObjects,
    RayReplaySource,
    call,
    in_one_line,
)
from cluster.run_folder import RunFolder
from configs.schema import RunConfig
from core.errors import ClusterError
from core.messages import Arrays, Request
from networks.weights import Weights


@dataclass(frozen=True, slots=True)
class Assignment:
    """What every actor is told when it is made, and again when it is restarted.

    Attributes:
        index: its number among those of its role.
        asks: the Ray names of those it asks, by role. (Not their handles: Ray keeps a handle among the arguments in
            the object store, from where a restart might no longer get it.)
        learns: whether the program has a learner.
    """

    config: RunConfig
    folder: RunFolder
    index: int
    asks: Mapping[str, list[str]]
    learns: bool

    def handles(self, role: str) -> list[Handle]:
        """Return the handles of all that play `role`."""
        return [ray.get_actor(name) for name in self.asks[role]]


FOLLOW_SECONDS = 0.5
"""How often a server asks for new weights; each question costs a millisecond on both sides."""
PREFETCHED_BATCHES = 2
WARM_UP_SECONDS = 1.0
"""After which a server tries no larger batches."""


class StoreActor:
    """`inference_server.weights_store.WeightsStore`; weights travel as the bytes of their file."""

    def __init__(self, given: Assignment) -> None:
        self._store = parts.make_store(given.folder)

    def publish(self, data: bytes) -> None:
        self._store.publish(Weights.from_bytes(data, source="published weights"))

    def newest_version(self, model: str) -> int | None:
        return self._store.newest_version(model)

    def get(self, model: str, version: int | None = None) -> bytes:
        return self._store.get(model, version).to_bytes()

    def stats(self) -> dict[str, Any]:
        return {"damaged": "; ".join(self._store.skipped[-1:]), "pid": os.getpid()}


class InferenceActor:
    """`inference_server.server.InferenceServer` behind async methods that only enqueue."""

    def __init__(self, given: Assignment) -> None:
        (self._store,) = given.handles("store")
        self._config = given.config
        self._metrics = RayMetrics({"role": "inference"})
        self._host = parts.make_host(given.config, fetch=self._fetch)
        self._server = parts.make_server(given.config, self._host, self._metrics)
        self._news = News(
            newest_version=lambda: call(self._store.newest_version, MODEL),
            held_version=lambda: self._host.version(MODEL),
            fetch=lambda: self._fetch(MODEL),
            offer=self._server.offer,
        )
        self._sync_seconds = 0.0
        self._trouble = ""
        self._server.start()
        threading.Thread(target=self._follow, name="follow-weights", daemon=True).start()

    async def infer(self, model: str, arrays: Arrays) -> tuple[dict[str, Any], int, str]:
        """Return the arrays of the reply, the version that made them, and the node on which that was."""
        while self._server.full:
            await asyncio.sleep(0.001)
        reply = await asyncio.wrap_future(self._server.submit(Request(model, arrays)))
        return dict(reply.arrays), reply.weights_version, ray.get_runtime_context().get_node_id()

    async def warm_up(self) -> None:
        """Answer batches of a few sizes, so that nothing is left to compile or allocate when a client asks."""
        loaded = None  # the first, of one row, also fetches the model and loads or compiles its kernels
        for request in parts.first_requests(self._config):
            await asyncio.wrap_future(self._server.submit(request))
            loaded = loaded or time.monotonic()
            if time.monotonic() - loaded > WARM_UP_SECONDS:
                return

    async def stats(self) -> dict[str, Any]:
        """Return the server's counters, the host's, and which versions answer.

        Raises:
            ClusterError: when the serving thread has died, so that this process is replaced.
        """
        if not self._server.alive:
            raise ClusterError(
                "the serving thread has died",
                why="its traceback is in Ray's logs",
                fix="the run goes on with a new process",
            )
        return dataclasses.asdict(self._server.stats) | {
            "forward_seconds": self._host.forward_seconds,
            "forward_cpu_seconds": self._host.forward_cpu_seconds,
            "forward_rows": self._host.forward_rows,
            "cached_rows": self._host.cached_rows,
            "version": self._host.version(MODEL),
            "sync_seconds": self._sync_seconds,
            "trouble": self._trouble,
            "process_seconds": time.process_time(),
            "pid": os.getpid(),
        }

    def _fetch(self, model: str) -> Weights:
        """Return the weights of "name" (newest) or "name@version" under the name that was asked for."""
        name, _, version = model.partition("@")
        data = call(self._store.get, name, int(version) if version else None)
        return dataclasses.replace(Weights.from_bytes(data, source=model), model=model)

    def _follow(self) -> None:
        """Offer every new version to the server. Polling finds them even when an announcement was lost."""
        while True:
            time.sleep(FOLLOW_SECONDS)
            if not self._server.alive:
                return
            began = time.monotonic()
            try:
                if self._news.pass_on():
                    self._sync_seconds = time.monotonic() - began
                    self._metrics.observe("tamen_weights_sync_seconds", self._sync_seconds)
                self._trouble = ""
            except Exception as error:  # the store restarts, a disk fails: the versions held go on answering
                self._trouble = in_one_line(error)


@dataclass(slots=True)
class News:
    """Passes each new version of a model on to a server, once: it takes a batch's time to come into force, and one
    that was refused would be refused again.

    Attributes:
        newest_version: of the weights that are published.
        held_version: of those that answer; None before the first request.
        fetch: gets the newest.
        offer: hands them to the server.
        passed_on: version of those that were offered last.
    """

    newest_version: Callable[[], int | None]
    held_version: Callable[[], int | None]
    fetch: Callable[[], Weights]
    offer: Callable[[Weights], None]
    passed_on: int = -1

    def pass_on(self) -> bool:
        """Offer what is newer than all that the server holds or was offered; return whether something is."""
        newest, held = self.newest_version(), self.held_version()
        if newest is None or held is None or newest <= max(held, self.passed_on):
            return False
        weights = self.fetch()
        self.offer(weights)
        self.passed_on = weights.version
        return True


class ReplayActor:
    """`replay.buffer.ReplayBuffer` with its chunks in Ray's object store, from where the learner fetches them."""

    def __init__(self, given: Assignment) -> None:
        objects = RayObjects() if given.learns else NoObjects()
        self._buffer = parts.make_replay(given.config, given.folder, objects, limited=given.learns)

    def open_epoch(self, actor: int) -> int:
        return self._buffer.open_epoch(actor)

    def add(self, chunk: bytes) -> Any:
        return self._buffer.add(chunk)

    def admission(self) -> Any:
        return self._buffer.admission()

    def sample(self, num_rows: int) -> Any:
        return self._buffer.sample(num_rows)

    def handles(self, chunk_ids: list[int]) -> Any:
        return self._buffer.handles(chunk_ids)

    def live_chunks(self) -> Any:
        return self._buffer.live_chunks()

    def restore_counters(self, *counters: int) -> None:
        self._buffer.restore_counters(*counters)

    def stats(self) -> dict[str, Any]:
        return parts.replay_stats(self._buffer) | {"pid": os.getpid()}


class LearnerActor:
    """`learner.loop.Learner` over the replay and the store."""

    def __init__(self, given: Assignment) -> None:
        self._stopping = threading.Event()
        (replay,), (store,) = given.handles("replay"), given.handles("store")
        source, publisher = RayReplaySource(replay), _Publisher(store)
        self._learner = parts.make_learner(
            given.config, given.folder, source, publisher, prefetch=PREFETCHED_BATCHES
        )

    def run(self) -> None:
        self._learner.resume()
        self._learner.run(self._stopping.is_set)

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        return self._learner.stats() | {"pid": os.getpid(), "process_seconds": time.process_time()}


class SelfPlayActor:
    """`actors.worker.Worker` with its groups of games."""

    def __init__(self, given: Assignment) -> None:
        self._stopping = threading.Event()
        (replay,) = given.handles("replay")
        self._client = RayClient(
            given.handles("inference"), first_home=given.index * given.config.actors.groups_per_actor
        )
        self._delivery = RayDelivery(replay)
        self._player = parts.make_player(
            given.config,
            run=given.folder.name,
            actor=given.index,
            epoch=call(replay.open_epoch, given.index),
            client=self._client,
            delivery=self._delivery,
            metrics=RayMetrics({"role": "actor"}),
        )

    def run(self) -> None:
        self._player.worker.run(self._stopping.is_set)

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        return self._player.stats() | {
            "resent_requests": self._client.resent_requests,
            "spilled_requests": self._client.spilled_requests,
            "trouble": self._delivery.last_trouble,
            "process_seconds": time.process_time(),
            "pid": os.getpid(),
        }


class EvaluatorActor:
    """`actors.evaluator.Evaluator`: matches against the ladder while the run goes on."""

    def __init__(self, given: Assignment) -> None:
        self._stopping = threading.Event()
        (store,) = given.handles("store")
        self._evaluator = parts.make_evaluator(
            given.config,
            given.folder,
            RayClient(given.handles("inference")),
            lambda: call(store.newest_version, MODEL),
        )

    def run(self) -> None:
        self._evaluator.run(self._stopping.is_set)

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        return self._evaluator.stats() | {"pid": os.getpid()}


class _Publisher:
    """The learner's way to the store."""

    def __init__(self, store: Handle) -> None:
        self._store = store

    def publish(self, weights: Weights) -> None:
        call(self._store.publish, weights.to_bytes())

    def newest_version(self) -> int | None:
        return call(self._store.newest_version, MODEL)


ACTORS = {
    "store": StoreActor,
    "replay": ReplayActor,
    "learner": LearnerActor,
    "inference": InferenceActor,
    "actor": SelfPlayActor,
    "evaluator": EvaluatorActor,
}
"""The dress of each role of a program."""
LOOPS = ("learner", "actor", "evaluator")
"""Roles whose work is one long call of `run`, beside which `stats` and `stop` are answered."""
