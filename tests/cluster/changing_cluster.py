"""A run at home on a cluster whose machines come and go, without any Ray."""

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from cluster.checkout import code_here
from cluster.following import (
    Following,
)
from cluster.machines import (
    Greeting,
    Machines,
    greet,
)
from cluster.program import Machine, plan
from cluster.ray_actors import Assignment
from cluster.ray_part import Part
from cluster.ray_program import RayProgram
from cluster.spot import Told
from cluster.spot_watches import Watches
from configs.scale import Scale
from tests.cluster.fake_ray import FakeMethod, FakeRay, Reference
from tests.cluster.tiny import tiny_config, tiny_run

OURS = Greeting(code_here(), 512)
CONFIG = tiny_config(evaluation__games=2)
HERE, FAR, GPU = "0a" * 28, "fa" * 28, "9b" * 28
"""Of nodes, as Ray takes them."""


class FakeHandle:
    """An actor whose loop goes on until it is told to stop."""

    def __init__(self, given: Assignment) -> None:
        self.given = given
        self.run = FakeMethod(None)
        self.stats = FakeMethod({"pid": 1})
        self.newest_version = FakeMethod(0)
        self.warm_up = FakeMethod(True)
        self.told: list[list[str]] = []
        self.meet = SimpleNamespace(remote=self.told.append)
        self.stop = FakeMethod(None)


class FakeCluster(FakeRay):
    """A cluster whose machines greet as they are told to.

    Attributes:
        machines: as `ray.nodes` tells of them, by id.
        greetings: by id; `OURS` where there is none, None where it never comes.
        watchers: by id, of the machines on which one was begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.machines: dict[str, dict[str, Any]] = {}
        self.greetings: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.watchers: dict[str, Any] = {}
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
            watcher = SimpleNamespace(look=FakeMethod(Told("aws")))
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
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **scale: Any) -> None:
        self.ray = FakeCluster()
        self.said: list[str] = []
        for module in ("ray_client", "ray_program", "machines", "spot_watches"):
            monkeypatch.setattr(f"cluster.{module}.ray", self.ray)
        monkeypatch.setattr(
            "cluster.ray_program.dressed", lambda kind, **options: SimpleNamespace(remote=FakeHandle)
        )
        monkeypatch.setattr("cluster.machines.draining", lambda: frozenset(self.draining))
        monkeypatch.setattr("cluster.following.free_resources", lambda id: "CPU 4")
        self.draining: set[str] = set()
        self.drained: list[tuple[str, float, str]] = []
        machine = Machine(2, 0)
        self.program = RayProgram(CONFIG, tiny_run(folder, CONFIG), plan(CONFIG, machine), report=self._hear)
        self.program.start()
        self.program.collect_stats(timeout_seconds=0.0)
        self.following = Following(
            self.program,
            Machines(CONFIG, machine, report=self._hear),
            Scale(**scale),
            watches=Watches(report=self._hear, drain=lambda *told: self.drained.append(told)),
            games_in_play=16,
            report=self._hear,
            clock=self.clock,
        )
        self.later = 0.0

    def _hear(self, text: str) -> None:
        self.said.append(text.partition("\n")[0])

    def clock(self) -> float:
        return time.monotonic() + self.later

    def steps(self, number: int = 2, *, seconds: float = 1.1) -> None:
        """Let some looks pass; a machine that joined is asked at the first, and gets its parts at the second."""
        for _ in range(number):
            self.later += seconds
            self.following.step()

    def let_stop(self) -> None:
        """Let the loops of all end that were told to stop."""
        for part in self.program.parts.values():
            if part.leaves_by is not None:
                part.running = Reference("ended")
        self.program.supervise()

    def on(self, id: str) -> dict[str, int]:
        """Return how many parts of each role stay on a machine."""
        parts = [part for part in self.program.parts.values() if part.leaves_by is None]
        return Counter(part.role for part in parts if part.node == id)

    def some(self, role: str, id: str) -> Part:
        return next(part for part in self.program.parts.values() if (part.role, part.node) == (role, id))
