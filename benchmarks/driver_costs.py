"""What many machines cost a run's driver: processor time of a second of watching, by machines and parts.

    python benchmarks/driver_costs.py [--machines 10,100,1000] [--parts 16]

The driver's own code watches parts that stand in lists as if they were on so many machines: their loops and answers are
those of one process of Ray, for the driver's work is the same whoever answers. A machine has half as many servers as
parts and half as many actors. What Ray's own processes do for real machines is not in it, and neither are asking Ray
who is there and watching for notices. Prints one JSON object, which `tamen plan cluster --measured` takes: seconds of a
processor that a second of watching takes, fitted as questions · ask_seconds + parts · part_seconds, where a second has
as many questions as parts, up to a number. Each of its points is the number of machines, those seconds, and how they
are shared among `SHARES`.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cluster import environment

environment.prepare()
environment.prepare_ray(None)  # Ray reads what this sets when it is imported

import ray  # noqa: E402

from cluster.machines.following import Following  # noqa: E402
from cluster.machines.spot_watches import Watches  # noqa: E402
from cluster.on_ray.address import connect  # noqa: E402
from cluster.on_ray.part import AT_HOME, Part  # noqa: E402
from cluster.on_ray.program import RayProgram, dressed  # noqa: E402
from cluster.on_ray.spares import Spare, Spares  # noqa: E402
from cluster.on_ray.supervision import MOST_QUESTIONS  # noqa: E402
from cluster.run.placement import Node, shares  # noqa: E402
from cluster.run.program import Machine, plan  # noqa: E402
from cluster.run.run_folder import RunFolder  # noqa: E402
from cluster.training.ray_engine import SUPERVISE_SECONDS  # noqa: E402
from configs.loading import load  # noqa: E402
from configs.scale import Scale  # noqa: E402

ROUNDS = 3
PATIENCE_SECONDS = 60.0
SHARES = ("following", "asking", "standings", "supervising")
ANSWER = {f"counter_{number}": float(number) for number in range(30)}
"""As large as an actor's."""


class Everybody:
    """Answers for all parts: their loops never end."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stats(self) -> dict[str, Any]:
        return ANSWER | {"pid": os.getpid()}


class Machines:
    """Machines that have greeted and stay."""

    leaving: frozenset[str] = frozenset()

    def __init__(self, count: int, cores: int) -> None:
        home = Node(id="home", host="home", cpus=cores, is_home=True)
        self._nodes = [home, *(Node(id=f"{k:056x}", host=f"host{k}", cpus=cores) for k in range(1, count))]

    def look(self, now: float) -> list[Node]:
        return self._nodes

    def of_no_use(self) -> list[Any]:
        return []

    def is_there(self, id: str) -> bool:
        return True


def measure(machines: int, parts: int, everybody: Any, folder: Path) -> list[float]:
    """Return the processor seconds that a second of watching takes, by `SHARES`."""
    config = load("hex13", [])
    program = RayProgram(config, RunFolder(folder), plan(config, Machine(2, 0)), report=lambda text: None)
    program._playing = True
    program._spares = Spares(
        config.actors.spares, lambda part: Spare(part.handle, "", ready=True), report=lambda text: None
    )
    there: Any = Machines(machines, parts)
    clock = SimpleNamespace(now=0.0)
    nodes = there.look(0.0)
    wanted = shares(nodes, actors="auto", servers="auto")
    given = program._assignment(0, {}, ())
    for node in nodes:
        where = AT_HOME if node.is_home else node.id
        for role, count in (("inference", wanted[node.id].servers), ("actor", wanted[node.id].actors)):
            for _ in range(count):
                name = f"{role}-{len(program.parts)}"
                part = Part(name, role, everybody, role == "actor", node=where, ray_name=name, servers=())
                part.given = given
                part.handle = SimpleNamespace(
                    run=everybody.run,
                    stats=everybody.stats,
                    meet=SimpleNamespace(remote=lambda told: None),
                )
                program.parts[name] = part
                if part.loops:
                    part.run()
    following = Following(
        program,
        there,
        Scale(),
        watches=Watches(report=lambda text: None, drain=lambda *notice: None),
        report=lambda text: None,
        stop=lambda: None,
        clock=lambda: clock.now,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(part.heard_at is None for part in program.parts.values()) and time.monotonic() < deadline:
        program.collect_stats(timeout_seconds=1.0)
        time.sleep(0.2)
    following.step()  # tells everybody of their servers, once
    taken = []
    for _ in range(ROUNDS):
        clock.now += 1.1
        moments = [time.process_time()]
        following.step()
        moments.append(time.process_time())
        stats = program.collect_stats(timeout_seconds=PATIENCE_SECONDS)
        moments.append(time.process_time())
        following.standings(stats)
        moments.append(time.process_time())
        program.supervise()
        moments.append(time.process_time())
        taken.append(np.diff(moments) * [1, 1, 1, 1 / SUPERVISE_SECONDS])
        assert all(part.asked is None for part in program.parts.values()), "some did not answer"
    return np.median(taken, axis=0).tolist()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--machines", default="10,100,1000")
    options.add_argument("--parts", type=int, default=16, help="of a machine")
    given = options.parse_args()
    counts = [int(word) for word in given.machines.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        connect(None, cpus=1)
        try:
            points = []
            for count in counts:
                everybody = dressed(Everybody, num_cpus=0, max_concurrency=100_000).remote()
                shares_of_it = measure(count, given.parts, everybody, Path(temporary) / "run")
                points.append([count, sum(shares_of_it), dict(zip(SHARES, shares_of_it, strict=True))])
                ray.kill(everybody)
        finally:
            ray.shutdown()
    parts = np.array([count for count, *_ in points], float) * given.parts
    asking = np.array([told["asking"] for *_, told in points])
    others = np.array([taken for _, taken, _ in points]) - asking
    fitted = {
        "part_seconds": _fit(others, parts),
        "ask_seconds": _fit(asking, np.minimum(parts, MOST_QUESTIONS)),
    }
    print(json.dumps(fitted | {"parts": given.parts, "points": points}))


def _fit(seconds: np.ndarray, numbers: np.ndarray) -> float:
    """Return the seconds of one, by least squares of relative errors: small fleets count as much as large ones."""
    design = numbers / seconds
    return float(design.sum() / (design @ design))


if __name__ == "__main__":
    main()
