"""A run at home on a cluster whose machines come and go, without any Ray."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from cluster.machines.following import (
    Following,
)
from cluster.machines.roster import (
    Greeting,
    Machines,
    greet,
)
from cluster.machines.spot import Told
from cluster.machines.spot_watches import Watches
from cluster.on_ray.actors import Assignment
from cluster.on_ray.checkout import code_here
from cluster.on_ray.client import Servers
from cluster.on_ray.part import Part
from cluster.on_ray.program import RayProgram
from cluster.run.program import Machine, plan
from configs.scale import Scale
from tests.cluster.fake_ray import FakeMethod, FakeRay, Reference
from tests.cluster.tiny import tiny_config, tiny_run

OURS = Greeting(code_here(), 512, gpus=8)
CONFIG = tiny_config(evaluation__games=2)
HERE, FAR, GPU = "0a" * 28, "fa" * 28, "9b" * 28
"""Of nodes, as Ray takes them."""


class FakeHandle:
    """An actor whose loop goes on until it is told to stop."""

    def __init__(self, given: Assignment) -> None:
        self.given = given
        self.run = FakeMethod(None)
        plays = given.asks.keys() == {"replay"}
        self.stats = FakeMethod({"pid": 1} | ({"games_at_stake": 16} if plays else {}))
        self.newest_version = FakeMethod(0)
        self.warm_up = FakeMethod(True)
        self.told: list[Servers] = []
        self.meet = SimpleNamespace(remote=self.told.append)
        self.stop = FakeMethod(None)
        self.leave = FakeMethod(None)


class FakeCluster(FakeRay):
    """A cluster whose machines greet as they are told to.

    Attributes:
        machines: as `ray.nodes` tells of them, by id.
        greetings: by id; `OURS` where there is none, None where it never comes.
        watchers: by id, of the machines on which one was begun.
        told: by watchers that begin.
    """

    def __init__(self) -> None:
        super().__init__()
        self.machines: dict[str, dict[str, Any]] = {}
        self.greetings: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.watchers: dict[str, Any] = {}
        self.told = Told("aws")
        self.join(HERE, cpus=2)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: HERE)

    def join(self, id: str, cpus: int = 4, gpus: int = 0, **labels: str) -> None:
        resources = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
        self.machines[id] = {
            "NodeID": id,
            "NodeManagerHostname": "host",
            "Alive": True,
            "Resources": resources,
            "Labels": labels,
        }

    def nodes(self) -> list[dict[str, Any]]:
        return list(self.machines.values())

    def remote(self, **options: Any) -> Any:
        def dressed(what: Any) -> Any:
            if what is greet:
                return SimpleNamespace(options=self._to)
            watcher = SimpleNamespace(look=FakeMethod(self.told))
            self.watchers[options["scheduling_strategy"].node_id] = watcher
            return SimpleNamespace(remote=lambda clouds: watcher)

        return dressed

    def _to(self, scheduling_strategy: Any) -> Any:
        id = scheduling_strategy.node_id

        def ask(config: Any) -> Reference:
            self.asked[id] += 1
            return Reference(self.greetings.get(id, OURS))

        return SimpleNamespace(remote=ask)

    def get(self, reference: Any, *, timeout: float) -> Any:
        if reference.answer is None:
            raise GetTimeoutError
        return super().get(reference, timeout=timeout)


class Run:
    """A run at home, on a cluster that changes.

    Attributes:
        said: what the driver was told, in its first lines.
        stops: how often it was asked to save and stop.
        left_games: that an actor tells of when it has left.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, **scale: Any) -> None:
        self.ray = FakeCluster()
        self.said: list[str] = []
        self.stops = 0
        for module in (
            "on_ray.client",
            "on_ray.program",
            "machines.roster",
            "machines.spot_watches",
            "machines.warming",
        ):
            monkeypatch.setattr(f"cluster.{module}.ray", self.ray)
        monkeypatch.setattr(
            "cluster.on_ray.program.dressed", lambda kind, **options: SimpleNamespace(remote=FakeHandle)
        )
        monkeypatch.setattr("cluster.machines.roster.draining", lambda: frozenset(self.draining))
        monkeypatch.setattr("cluster.machines.following.free_resources", lambda id: "CPU 4")
        # Whoever edits a source while these tests run would make other code of ours.
        monkeypatch.setattr("cluster.on_ray.program.code_here", lambda: OURS.code)
        # Nothing here takes time, however busy the machine is that tests it.
        time = SimpleNamespace(monotonic=self.ray.clock, sleep=self.ray.sleep)
        monkeypatch.setattr("cluster.on_ray.program.time", time)
        self.draining: set[str] = set()
        self.drained: list[tuple[str, float, str]] = []
        machine = Machine(2, gpus)
        self.program = RayProgram(CONFIG, tiny_run(folder, CONFIG), plan(CONFIG, machine), report=self._hear)
        self.program.start()
        self.program.collect_stats(timeout_seconds=0.0)
        self.following = Following(
            self.program,
            Machines(CONFIG, machine, code=self.program.code, report=self._hear),
            Scale(**scale),
            watches=Watches(report=self._hear, drain=lambda *told: self.drained.append(told)),
            report=self._hear,
            stop=self._stop,
            clock=self.ray.clock,
        )
        self.left_games = 0

    def _stop(self) -> None:
        self.stops += 1

    def _hear(self, text: str) -> None:
        self.said.append(text.partition("\n")[0])

    def steps(self, number: int = 2, *, seconds: float = 1.1) -> None:
        """Let some looks pass, at the end of which all who have a process tell how they are.

        A machine that joined is asked at the first, and gets its parts at the second; its servers may be asked from the
        third on.
        """
        for _ in range(number):
            self.ray.now += seconds
            self.following.step()
            self.program.collect_stats(timeout_seconds=0.0)

    def let_stop(self) -> None:
        """Let the loops of all end that were told to leave."""
        for part in self.program.parts.values():
            if part.leaves_by is not None:
                part.running = Reference({"pid": 1, "games_at_stake": self.left_games})
        self.program.supervise()

    def on(self, id: str) -> dict[str, int]:
        """Return how many parts of each role stay on a machine."""
        parts = [part for part in self.program.parts.values() if part.leaves_by is None]
        return Counter(part.role for part in parts if part.node == id)

    def asked_by(self, part: Part) -> list[str]:
        """Return the names of the servers that a part was told of last, or else begins with."""
        servers = part.handle.told[-1] if part.handle.told else part.handle.given.servers
        return [name.rpartition("/")[2] for name, _ in servers]

    def some(self, role: str, id: str) -> Part:
        return next(part for part in self.program.parts.values() if (part.role, part.node) == (role, id))
