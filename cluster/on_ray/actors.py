"""Plain parts as Ray actors: each class below builds one and forwards its methods.

What is added concerns Ray alone: how a server warms up, holds callers back, and follows the weights.

Long loops run as one remote call, `run`, beside a small concurrency group "control" that always answers, so no
health call ever waits behind a forward, an optimiser step or a game.
"""

import asyncio
import contextlib
import dataclasses
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from cluster.monitoring.sinks import RayMetrics
from cluster.on_ray.checkout import Code, changed_since
from cluster.on_ray.client import (
    Handle,
    NoObjects,
    RayClient,
    RayDelivery,
    RayObjects,
    RayReplaySource,
    Servers,
    call,
    in_one_line,
    located,
)
from cluster.on_ray.news import News
from cluster.on_ray.weights import StoreActor, WeightsPublisher, fetch, pull, wait_newer
from cluster.run import parts
from cluster.run.parts import MODEL
from cluster.run.run_folder import RunFolder
from configs.schema import RunConfig
from core.errors import ClusterError, TamenError
from core.messages import Arrays, Request
from core.processes import give_way
from networks.weights import Weights
from replay.drawing import draw

if TYPE_CHECKING:
    from learner.step import Trainer


@dataclass(frozen=True, slots=True)
class Assignment:
    """What every actor is told when it is made, and again when it is restarted.

    Attributes:
        index: its number among those of its role.
        asks: the Ray names of those it asks, by role. (Not their handles: Ray keeps a handle among the arguments in
            the object store, from where a restart might no longer get it.)
        learns: whether the program has a learner.
        servers: that it asks until it is told of others.
        called: the part's name.
        code: that the run began with, and each of its processes has to run; None: whichever is there.
        life: of the program, in a name that no other has; "": games need not outlive their process.
    """

    config: RunConfig
    folder: RunFolder
    index: int
    asks: Mapping[str, list[str]]
    learns: bool
    servers: Servers = ()
    called: str = ""
    code: Code | None = None
    life: str = ""

    def check_code(self) -> None:
        """Refuse to begin in a process that would run other code than the run.

        To be called when `_title` is set: Ray asks for it to tell of the refusal, and where that fails the process dies
        without a word, and another begins, without end.

        Raises:
            ClusterError: when the checkout was changed since the run began.
        """
        if self.code is not None and (changed := changed_since(self.code)) is not None:
            raise changed

    @property
    def title(self) -> str:
        """What Ray's pages and logs call the actor of this process: its part, its run and its machine."""
        return f"{self.called} of {self.folder.name} on {socket.gethostname()}"

    def handles(self, role: str) -> list[Handle]:
        """Return the handles of all that play `role`."""
        return [ray.get_actor(name) for name in self.asks[role]]


LIFE_SECONDS = 2.0
"""Between two tries of an actor to begin its life, while the replay's disk is full."""
ROOM_SECONDS = 1.0
"""After which who waits for room in a server's queue looks without having been told of any."""
REST_SECONDS = 0.1
"""Of a server before it asks for new weights again, when there were none or they could not be had."""
PREFETCHED_BATCHES = 2
DRAWS_AT_ONCE = 16
"""A call of the replay takes the time of three batches of 4,096 boards."""
WARM_UP_SECONDS = 1.0
"""After which a server tries no larger batches."""


class InferenceActor:
    """`inference_server.server.InferenceServer` behind async methods that only enqueue."""

    def __init__(self, given: Assignment) -> None:
        self._title = given.title
        given.check_code()
        (self._store,) = given.handles("store")
        self._config = given.config
        self._metrics = RayMetrics({"role": "inference", "run": given.folder.name})
        self._host = parts.make_host(given.config, fetch=self._fetch)
        self._server = parts.make_server(given.config, self._host, self._metrics, on_taken=self._tell_of_room)
        self._news = News(
            wait_newer=lambda version: wait_newer(self._store, version, self._host.wire_form),
            held_version=lambda: self._host.version(MODEL),
            fetch=lambda announced: pull(self._store, announced),
            offer=lambda weights, published_at: self._server.offer(weights, published_at=published_at),
        )
        # Who asks goes through here as it came. Of those who find the queue full the first alone looks for room: when
        # each looked every millisecond, 250 took 0.95 of a core beside the thread that serves them.
        self._entrance, self._room = asyncio.Lock(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble = ""
        self._server.start()
        threading.Thread(target=self._follow, name="follow-weights", daemon=True).start()

    def __repr__(self) -> str:
        return self._title

    async def infer(self, model: str, arrays: Arrays) -> tuple[dict[str, Any], int]:
        """Return the arrays of the reply, and the version that made them."""
        async with self._entrance:
            await self._wait_for_room()
            answer = self._server.submit(Request(model, arrays))
        reply = await asyncio.wrap_future(answer)
        return dict(reply.arrays), reply.weights_version

    async def _wait_for_room(self) -> None:
        self._loop = asyncio.get_running_loop()
        while self._server.full:
            self._room.clear()
            if self._server.full:  # still: what is taken from now on is told
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._room.wait(), ROOM_SECONDS)

    def _tell_of_room(self) -> None:
        """Wake who waits for room, from the serving thread."""
        if self._loop is not None and self._entrance.locked():
            self._loop.call_soon_threadsafe(self._room.set)

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
        return (
            dataclasses.asdict(self._server.stats)
            | {
                "forward_seconds": self._host.forward_seconds,
                "forward_cpu_seconds": self._host.forward_cpu_seconds,
                "forward_rows": self._host.forward_rows,
                "cached_rows": self._host.cached_rows,
                "version": self._host.version(MODEL),
                "trouble": self._trouble,
            }
            | _of_this_process()
        )

    def _fetch(self, model: str) -> Weights:
        """Return the weights of "name" (newest) or "name@version" under the name that was asked for."""
        return dataclasses.replace(fetch(self._store, model), model=model)

    def _follow(self) -> None:
        """Offer every new version to the server as soon as it is announced; what fails is tried again."""
        while self._server.alive:
            try:
                passed_on = self._news.pass_on()
                self._trouble = ""
            except (
                Exception
            ) as error:  # the store is away for long, memory is short: the versions held answer on
                passed_on, self._trouble = False, in_one_line(error)
            if not passed_on:
                time.sleep(REST_SECONDS)


class ReplayActor:
    """`replay.buffer.ReplayBuffer` with its chunks in Ray's object store, from where the learner fetches them."""

    def __init__(self, given: Assignment) -> None:
        self._title = given.title
        given.check_code()
        objects = RayObjects() if given.learns else NoObjects()
        self._buffer = parts.make_replay(given.config, given.folder, objects, limited=given.learns)

    def __repr__(self) -> str:
        return self._title

    def open_epoch(self, actor: int) -> int:
        return self._buffer.open_epoch(actor)

    def add(self, chunk: bytes) -> Any:
        return self._buffer.add(chunk)

    def admission(self) -> Any:
        return self._buffer.admission()

    def draw(self, num_rows: int, most: int, newest_held: int) -> Any:
        return draw(self._buffer, num_rows, most=most, newest_held=newest_held)

    def update_priorities(self, *told: Any) -> None:
        self._buffer.update_priorities(*told)

    def restore_counters(self, *counters: int) -> None:
        self._buffer.restore_counters(*counters)

    def stats(self) -> dict[str, Any]:
        return parts.replay_stats(self._buffer) | _of_this_process()


class LearnerActor:
    """`learner.loop.Learner` over the replay and the store."""

    def __init__(self, given: Assignment) -> None:
        self._title = given.title
        given.check_code()
        self._stopping = threading.Event()
        (replay,), (store,) = given.handles("replay"), given.handles("store")
        source, self._publisher = RayReplaySource(replay), WeightsPublisher(store)
        used_up = given.config.replay.sampler == "fifo"
        self._learner = parts.make_learner(
            given.config,
            given.folder,
            source,
            self._publisher,
            # Where rows are used up as they come, what is drawn ahead only grows old.
            prefetch=1 if used_up else PREFETCHED_BATCHES,
            draws_at_once=1 if used_up else DRAWS_AT_ONCE,
            **self._team(given),
        )

    def __repr__(self) -> str:
        return self._title

    def run(self) -> None:
        give_way()
        self._learner.resume()
        self._learner.run(self._stopping.is_set)
        self._publisher.settle()

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        return self._learner.stats() | _of_this_process()

    @staticmethod
    def _team(given: Assignment) -> dict[str, Any]:
        if "colearner" not in given.asks:
            return {}
        from cluster.on_ray.team import lead  # torch, which games should not load

        return {"team": lead(given.handles("colearner"), parts.device())}


class ColearnerActor:
    """A `learner.step.Trainer` that works on its part of each batch of the learner's."""

    def __init__(self, given: Assignment) -> None:
        self._title = given.title
        given.check_code()
        self._config = given.config
        self._trainer: Trainer | None = None

    def __repr__(self) -> str:
        return self._title

    def meet(self, rendezvous: str, rank: int, size: int) -> None:
        """Join a team that gathers now; whichever this one was in before is over."""
        self._trainer = parts.make_colearner(self._config, Path(rendezvous), rank=rank, size=size)

    def step(self, part: Arrays, totals: Mapping[str, float]) -> None:
        assert self._trainer is not None
        self._trainer.step_on_part(part, totals)

    def follow(self, state: Mapping[str, Any]) -> None:
        assert self._trainer is not None
        self._trainer.load_state_dict(state)

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        steps = self._trainer.steps if self._trainer is not None else 0
        return {"steps": steps} | _of_this_process()


class SelfPlayActor:
    """`actors.worker.Worker` with its groups of games."""

    def __init__(self, given: Assignment) -> None:
        self._title = given.title
        given.check_code()
        self._given = given
        self._stopping = threading.Event()
        (self._replay,) = given.handles("replay")
        self._client = RayClient(
            located(given.servers), first_home=given.index * given.config.actors.groups_per_actor
        )
        self._delivery = RayDelivery(self._replay)
        self._no_life = ""
        self._begun = self._ended = self._gives_way = False
        self._player = self._begin_life()

    def __repr__(self) -> str:
        return self._title

    def run(self) -> dict[str, Any]:
        """Play until told to stop or to leave; return the last counters."""
        while self._player is None and not self._stopping.wait(LIFE_SECONDS):
            self._player = self._begin_life()
        if self._player is None:
            return self._counters()
        if self._begun:
            return self._told_again()
        self._begun = True
        try:
            if self._given.life:
                self._player.carry_on(self._games_folder)
            self._player.worker.run(self._between_steps)
            self._ended = True
        finally:
            self._player.close(over=self._ended)
        return self._counters()

    def _between_steps(self) -> bool:
        """Return whether the games are to stop; once they move, let others go first.

        Not sooner: who plays in the place of a dead actor would wait behind all that compute.
        """
        if not self._gives_way and self._player is not None and self._player.has_moved:
            give_way()
            self._gives_way = True
        return self._stopping.is_set()

    def _told_again(self) -> dict[str, Any]:
        """Return what the first call did, whose answer is lost. Raises ClusterError when that failed."""
        if not self._ended:
            raise ClusterError(
                "the games of an actor have failed, and nobody was told why",
                why="Ray lost the answer of the call that played them",
                fix="its traceback is in Ray's logs; the run goes on with a new process",
            )
        return self._counters()

    def _begin_life(self) -> parts.Player | None:
        """Return who plays; None as long as the replay cannot note that a life begins (a full disk)."""
        given = self._given
        try:
            epoch = call(self._replay.open_epoch, given.index)
        except TamenError as error:
            self._no_life = in_one_line(error)
            return None
        self._no_life = ""
        return parts.make_player(
            given.config,
            run=given.folder.name,
            actor=given.index,
            epoch=epoch,
            client=self._client,
            delivery=self._delivery,
            metrics=RayMetrics({"role": "actor", "run": given.folder.name}),
        )

    def _games_folder(self) -> Path:
        from actors.game_log import folder_of, remove_stale

        remove_stale()
        return folder_of(ray.get_runtime_context().get_node_id(), self._given.life)

    @ray.method(concurrency_group="control")
    def leave(self, seconds: float) -> None:
        """Begin no more games, and play those out that are in play, for at most `seconds`."""
        if self._player is None:
            self._stopping.set()
        else:
            self._player.leave(seconds)

    @ray.method(concurrency_group="control")
    def meet(self, servers: Servers) -> None:
        """From now on ask these."""
        self._client.meet(located(servers))

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        return self._counters()

    def _counters(self) -> dict[str, Any]:
        played = {} if self._player is None else self._player.stats()
        return (
            played
            | {
                "resent_requests": self._client.resent_requests,
                "spilled_requests": self._client.spilled_requests,
                "trouble": self._no_life or self._delivery.last_trouble or played.get("trouble", ""),
            }
            | _of_this_process()
        )


class EvaluatorActor:
    """`actors.evaluator.Evaluator`: matches against the ladder while the run goes on."""

    def __init__(self, given: Assignment) -> None:
        self._title = given.title
        given.check_code()
        self._stopping = threading.Event()
        (store,) = given.handles("store")
        self._client = RayClient(located(given.servers))
        self._evaluator = parts.make_evaluator(
            given.config,
            given.folder,
            self._client,
            lambda: call(store.newest_version, MODEL),
        )

    def __repr__(self) -> str:
        return self._title

    def run(self) -> None:
        give_way()
        self._evaluator.run(self._stopping.is_set)

    @ray.method(concurrency_group="control")
    def meet(self, servers: Servers) -> None:
        """From now on ask these."""
        self._client.meet(located(servers))

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def stats(self) -> dict[str, Any]:
        return self._evaluator.stats() | _of_this_process()


def _of_this_process() -> dict[str, Any]:
    return {"process_seconds": time.process_time(), "pid": os.getpid()}


ACTORS = {
    "store": StoreActor,
    "replay": ReplayActor,
    "colearner": ColearnerActor,
    "learner": LearnerActor,
    "inference": InferenceActor,
    "actor": SelfPlayActor,
    "evaluator": EvaluatorActor,
}
"""The dress of each role of a program."""
LOOPS = ("learner", "actor", "evaluator")
"""Roles whose work is one long call of `run`, beside which `stats` and `stop` are answered."""
ANSWERING_BESIDE_WORK = (*LOOPS, "colearner")
"""Roles whose `stats` and `stop` have threads of their own."""
