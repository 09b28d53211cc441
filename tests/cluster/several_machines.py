"""A run on a cluster of several machines, which are all this one: to be run as a process of its own, prints JSON.

    python -m tests.cluster.several_machines FOLDER [whole]

A machine joins, plays, and is killed; in the whole of it there is a learner too, and the machine is scaled and has an
actor killed. The last line tells what came of it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# How soon Ray's head notes that a machine is gone; a machine that is cut off is counted as gone after some 4 s.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "2",
}
PATIENCE_SECONDS = 60.0
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}


class Several:
    """A run whose driver is here.

    Args:
        learn: False plays only, with weights of no training.

    Attributes:
        said: what a person was told.
        seconds: that each of the events took.
    """

    def __init__(self, folder: Path, *, learn: bool) -> None:
        from ray.cluster_utils import Cluster

        from cluster.bench.rig import untrained_weights
        from cluster.run.parts import make_store
        from cluster.run.run_folder import RunFolder, open_run
        from cluster.training.ray_engine import RayEngine
        from tests.cluster.tiny import tiny_config

        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        config = tiny_config(actors__flush_seconds=0.3, actors__count=1, inference__servers=1)
        self.folder = RunFolder(folder)
        self._lock = open_run(self.folder, config)
        if not learn:
            make_store(self.folder).publish(untrained_weights(config))
        self.said: list[str] = []
        self.stats: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.engine = RayEngine(
            config, self.folder, address=self.cluster.address, report=self.said.append, learn=learn
        )
        self.engine.start()

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Let the run go on until something has come to pass; note how long that took."""
        began = time.monotonic()
        while not reached():
            assert time.monotonic() - began < PATIENCE_SECONDS, f"{what}: {self.said} {self.stats}"
            self.engine.advance(0.1)
            self.stats = self.engine.stats()
        self.seconds[what] = round(time.monotonic() - began, 2)

    def far(self, role: str) -> list[str]:
        """Return the names of the parts elsewhere."""
        parts = self.engine.program.parts.values()
        return [part.name for part in parts if part.node and part.role == role and part.leaves_by is None]

    def games(self, parts: list[str]) -> int:
        return sum(self.stats.get(part, {}).get("games", 0) for part in parts)

    def acknowledged(self) -> int:
        return self.stats.get("replay", {}).get("games", 0)

    def restarts(self) -> dict[str, int]:
        return {name: part["restarts"] for name, part in self.stats.items() if part.get("restarts")}

    def scale(self, setting: str) -> dict[str, Any]:
        """Type `tamen scale` while the run goes on."""
        from cluster.machines.scaling import scale_run

        told: list[dict[str, Any]] = []
        typed = threading.Thread(
            target=lambda: told.append(
                scale_run(self.folder.typed, [setting], runs=self.folder.root.parent, quiet=True)
            )
        )
        typed.start()
        self.until(lambda: bool(told) or not typed.is_alive(), "scale")
        typed.join()
        return told[0]

    def stop(self) -> None:
        self.engine.stop()
        self.cluster.shutdown()
        self._lock.release()


def play(folder: Path) -> dict[str, Any]:
    """Let a machine come and go; return what came of it."""
    run = Several(folder, learn=False)
    try:
        node = join(run)
        standing, idle = machines(run), idle_milliseconds(run, node)
        leave(run, node)
        acknowledged = run.acknowledged()
    finally:
        run.stop()
    return what_is_left(run, acknowledged) | {"machines": standing, "idle": idle}


def play_the_whole(folder: Path) -> dict[str, Any]:
    """Let a machine come, be scaled, lose an actor, and go; return what came of it."""
    run = Several(folder, learn=True)
    try:
        node = join(run)
        scaled = run.scale("actors_per_machine={home: 1, spot: 2}")
        run.until(
            lambda: len(run.far("actor")) == 2 and run.games(run.far("actor")[1:]) > 0, "one more plays"
        )
        (server,) = run.far("inference")
        first = run.stats[server]["version"]
        run.until(lambda: run.stats[server]["version"] > first, "its server has new weights")
        standing = machines(run)

        victim = run.far("actor")[0]
        pid = run.stats[victim]["pid"]
        os.kill(pid, signal.SIGKILL)
        run.until(
            lambda: run.stats[victim].get("pid", pid) != pid and run.games([victim]) > 0,
            "a killed actor plays",
        )
        restarts = run.restarts()
        leave(run, node)
        acknowledged = run.acknowledged()
    finally:
        run.stop()
    told = {"scaled": scaled, "machines": standing, "restarts": restarts, "victim": victim}
    return what_is_left(run, acknowledged) | told


def join(run: Several) -> Any:
    """Let a machine join, play and evaluate; return it."""
    run.until(lambda: run.acknowledged() > 20, "home plays")
    node = run.cluster.add_node(**NODE, labels={"tamen": "spot"})
    run.until(lambda: run.games(run.far("actor")) > 0, "a machine that joined plays")
    (server,) = run.far("inference")
    run.until(lambda: run.stats.get(server, {}).get("rows", 0) > 0, "its server evaluates")
    return node


def leave(run: Several, node: Any) -> None:
    """Kill a machine, and let the others play on."""
    run.cluster.remove_node(node, allow_graceful=False)
    run.until(lambda: not run.far("actor"), "a killed machine is let go")
    before = run.acknowledged()
    run.until(lambda: run.acknowledged() > before + 20, "the others play on")


def machines(run: Several) -> list[dict[str, Any]]:
    """Return what `tamen status` tells of the machines."""
    from cluster.monitoring.status import show_status

    folder = run.folder.root
    (status,) = show_status(folder.name, runs=folder.parent, quiet=True)
    return status["machines"]


def idle_milliseconds(run: Several, node: Any) -> int:
    """Return for how long a machine has been idle, as Ray's autoscalers reckon before they take it away."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(run.cluster.gcs_address)
    (found,) = [each for each in (*status.active_nodes, *status.idle_nodes) if each.node_id == node.node_id]
    return found.resource_usage.idle_time_ms


def what_is_left(run: Several, acknowledged: int) -> dict[str, Any]:
    """Return what a run that has stopped told, and left on disk."""
    from tests.cluster.tiny import games_on_disk

    games = games_on_disk(run.folder)
    return {
        "seconds": run.seconds,
        "restarts_after": run.restarts(),
        "said": run.said,
        "acknowledged": acknowledged,
        "on_disk": len(games),
        "twice": len(games) - len(set(games)),
        "actors": sorted({actor for actor, _, _ in games}),
    }


if __name__ == "__main__":
    os.environ.update(HEALTH)
    played = play_the_whole if sys.argv[2:] == ["whole"] else play
    sys.stdout.write(json.dumps(played(Path(sys.argv[1]))) + "\n")
