"""What a run gains by machines, and how soon it follows them: Ray's own machines, each bound to a core of this one.

    python benchmarks/several_machines.py pairs [--pairs 3] [--seconds 20]      two of one core against one of two
    python benchmarks/several_machines.py events [--rounds 3] [--kills 3]       a machine that joins, kills
    python benchmarks/several_machines.py alone [--kills 3]                     kills on one machine that learns
        --spares 0                                                              without an actor that waits

`pairs` plays hex5 with untrained weights and no learner, the sides in turn; moves a second are the actors' own count.
`events` notes the seconds from a machine's beginning until its actors move, and to its first finished game, from an
actor's death to its next move, and from a machine's death until its parts are dropped and others have finished games
again. Health checks are as `HEALTH` says. `alone` is `tamen train hex5` as it comes, on all cores. An actor is killed
when its spare is ready, unless there is to be none. Prints one JSON object.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.bench.recovery_rig import HEALTH, NO_WORKERS_AHEAD

environment.prepare()
environment.prepare_ray(None)  # Ray reads what these set when it is imported
os.environ.update({**HEALTH, **NO_WORKERS_AHEAD})

from ray.cluster_utils import Cluster  # noqa: E402

from cluster.bench.rig import untrained_weights  # noqa: E402
from cluster.run.parts import make_store  # noqa: E402
from cluster.run.run_folder import RunFolder, open_run  # noqa: E402
from cluster.training.ray_engine import RayEngine  # noqa: E402
from configs.loading import load  # noqa: E402
from core.restarts import RestartPolicy  # noqa: E402

OBJECT_STORE_BYTES = 150_000_000
WARM_SECONDS = 6.0
SETTLE_SECONDS = 6.0
BETWEEN_KILLS_SECONDS = RestartPolicy().steady_seconds + 1.0
"""An actor that has died just before waits longer each time."""
PATIENCE_SECONDS = 90.0


class Rig:
    """A run of hex5: without a learner on machines that are bound to cores, or on this machine as it comes.

    Args:
        cores: of each machine, home first; None for the machine that this is.
        spares: actors that wait on each.
    """

    def __init__(self, folder: Path, cores: list[set[int]] | None, *, spares: int = 1) -> None:
        self.spares = spares
        self.cluster: Any = None
        settings = ["stop.minutes=null", f"actors.spares={spares}"]
        if cores is not None:
            settings += ["evaluation.games=0", "actors.flush_seconds=0.5"]
            os.sched_setaffinity(0, cores[0])
            self.cluster = Cluster(
                initialize_head=True, head_node_args={**self._machine(cores[0]), "include_dashboard": False}
            )
            for more in cores[1:]:
                self.add(more)
            os.sched_setaffinity(0, cores[0])
        config = load("hex5", settings)
        run = RunFolder(folder)
        open_run(run, config).release()
        if cores is not None:
            make_store(run).publish(untrained_weights(config))
        self.said: list[str] = []
        self.stats: dict[str, dict[str, Any]] = {}
        address = None if cores is None else self.cluster.address
        self.engine = RayEngine(config, run, address=address, report=self.said.append, learn=cores is None)
        self.engine.start()

    def add(self, cores: set[int]) -> Any:
        """Begin a machine; what it starts inherits the cores."""
        here = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        node = self.cluster.add_node(**self._machine(cores))
        os.sched_setaffinity(0, here)
        return node

    def go_on(self, seconds: float) -> None:
        self.engine.advance(seconds)
        self.stats = self.engine.stats()

    def until(self, reached: Callable[[], bool]) -> float:
        """Go on until something has come to pass; return the seconds."""
        began = time.monotonic()
        while not reached():
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise TimeoutError(f"{self.said} {self.stats}")
            self.go_on(0.05)
        return time.monotonic() - began

    def moves(self) -> float:
        return sum(part.get("moves", 0) for name, part in self.stats.items() if name.startswith("actor"))

    def parts(self, role: str, *, far: bool) -> list[str]:
        return [
            part.name
            for part in self.engine.program.parts.values()
            if part.role == role and bool(part.node) == far
        ]

    def all_move(self, parts: list[str]) -> bool:
        return bool(parts) and all(self.stats.get(name, {}).get("moves", 0) > 0 for name in parts)

    def games(self, parts: list[str]) -> int:
        return sum(self.stats.get(name, {}).get("games", 0) for name in parts)

    def kill_actor(self, *, far: bool) -> float:
        """Kill an actor that plays; return the seconds until the next one's moves are counted."""
        victim = self.parts("actor", far=far)[0]
        node = self.engine.program.parts[victim].node
        self.go_on(BETWEEN_KILLS_SECONDS)
        self.until(lambda: self.engine.program.spares_ready(node) >= self.spares)
        pid = self.stats[victim]["pid"]
        os.kill(pid, signal.SIGKILL)
        return self.until(
            lambda: self.stats[victim].get("pid") != pid and self.stats[victim].get("moves", 0) > 0
        )

    def close(self) -> None:
        self.engine.stop()
        if self.cluster is not None:
            self.cluster.shutdown()

    @staticmethod
    def _machine(cores: set[int]) -> dict[str, Any]:
        return {"num_cpus": len(cores), "object_store_memory": OBJECT_STORE_BYTES}


def throughput(cores: list[set[int]], seconds: float, folder: Path) -> dict[str, Any]:
    """Return the moves a second of a run on such machines."""
    rig = Rig(folder, cores, spares=0)
    try:
        rig.until(
            lambda: (
                rig.games(rig.parts("actor", far=False)) > 0
                and (len(cores) == 1 or rig.games(rig.parts("actor", far=True)) > 0)
            )
        )
        rig.go_on(WARM_SECONDS)
        began, before = time.monotonic(), rig.moves()
        while time.monotonic() - began < seconds:
            rig.go_on(1.0)
        took = time.monotonic() - began
        actors = len(rig.parts("actor", far=False)), len(rig.parts("actor", far=True))
        servers = len(rig.parts("inference", far=False)), len(rig.parts("inference", far=True))
        return {"moves_per_second": (rig.moves() - before) / took, "actors": actors, "servers": servers}
    finally:
        rig.close()


def events(rounds: int, kills: int, spares: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds that each event took, in each round."""
    rig = Rig(folder, [{0}], spares=spares)
    took: dict[str, list[float]] = {"starts": [], "join": [], "actor": [], "machine": []}
    try:
        rig.until(lambda: rig.games(rig.parts("actor", far=False)) > 0)
        for _ in range(rounds):
            for event, seconds in one_round(rig, kills):
                took[event].append(round(seconds, 2))
                sys.stderr.write(f"{event}: {seconds:.2f} s\n")
    finally:
        rig.close()
    return took


def alone(kills: int, spares: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds that each death of an actor took, on one machine that learns."""
    rig = Rig(folder, None, spares=spares)
    took: list[float] = []
    try:
        rig.until(lambda: rig.stats.get("learner", {}).get("learner_steps", 0) > 0)
        for _ in range(kills):
            took.append(round(rig.kill_actor(far=False), 2))
            sys.stderr.write(f"actor: {took[-1]:.2f} s\n")
    finally:
        rig.close()
    return {"actor": took}


def one_round(rig: Rig, kills: int) -> Iterator[tuple[str, float]]:
    """Let a machine join, kill its actor some times, kill the machine; yield the seconds of each."""
    began = time.monotonic()
    node = rig.add({1})
    rig.until(lambda: rig.all_move(rig.parts("actor", far=True)))
    yield "starts", time.monotonic() - began
    rig.until(lambda: rig.games(rig.parts("actor", far=True)) > 0)
    yield "join", time.monotonic() - began
    for _ in range(kills):
        yield "actor", rig.kill_actor(far=True)
    rig.go_on(SETTLE_SECONDS)

    began = time.monotonic()
    rig.cluster.remove_node(node, allow_graceful=False)
    rig.until(lambda: not rig.parts("actor", far=True))
    before = rig.games(rig.parts("actor", far=False))
    rig.until(lambda: rig.games(rig.parts("actor", far=False)) > before)
    yield "machine", time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("what", choices=("pairs", "events", "alone", "side"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--spares", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--machines", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tamen-machines-") as folder:
        if asked.what == "side":
            cores = [{0, 1}] if asked.machines == 1 else [{0}, {1}]
            result: Any = throughput(cores, asked.seconds, Path(folder) / "run")
        elif asked.what == "events":
            result = events(asked.rounds, asked.kills, asked.spares, Path(folder) / "run")
        elif asked.what == "alone":
            result = alone(asked.kills, asked.spares, Path(folder) / "run")
        else:
            result = compared(asked.pairs, asked.seconds)
    sys.stdout.write(json.dumps(result) + "\n")


def compared(pairs: int, seconds: float) -> dict[str, Any]:
    """Return the ratio of two machines of one core to one of two, of each pair."""
    readings: list[dict[int, dict[str, Any]]] = []
    for pair in range(pairs):
        order = (1, 2) if pair % 2 else (2, 1)
        readings.append({machines: _side(machines, seconds) for machines in order})
        sys.stderr.write(f"{readings[-1]}\n")
    ratios = [each[2]["moves_per_second"] / each[1]["moves_per_second"] for each in readings]
    return {"ratio": statistics.median(ratios), "ratios": ratios, "readings": readings}


def _side(machines: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "side", "--machines", str(machines), "--seconds", str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
