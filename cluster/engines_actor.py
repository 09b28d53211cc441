"""Engines on the machines of a Ray cluster: on each a supervisor as a named actor, which Ray starts again when it dies.

A new life of it takes over the daemons that the last one has left. They end by themselves when there is none for long.
"""

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.addresses import cluster_to_join
from cluster.engines import engines_folder, show_standing, standing
from cluster.metrics_sinks import RayMetrics
from cluster.terminal import console
from configs.engines import EnginesConfig
from core.errors import ClusterError, TamenError, UsageError
from core.names import checked_name
from engines.service import STEP_SECONDS
from engines.supervised import end_everything, read_state
from engines.supervisor import Supervisor

NAMESPACE = "tamen"
PREFIX = "engines "
ANSWER_SECONDS = 30.0
STOP_SECONDS = 60.0
"""For an actor to end its daemons, besides their grace."""
POLL_SECONDS = 0.5
SETTLE_SECONDS = 90.0
"""Within which daemons that fail at once are set aside."""


class EngineHost:
    """`engines.supervisor.Supervisor` on this machine, in a thread of its own."""

    def __init__(self, config: EnginesConfig, runs: str) -> None:
        self._name = config.engine.name
        self._folder = engines_folder(Path(runs), self._name)
        self._stopping = threading.Event()
        self._problem: TamenError | None = None
        self._thread = threading.Thread(target=self._supervise, args=(config,), name="supervise", daemon=True)
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Return what `cluster.engines.standing` does, the node's name, and pid.

        Raises:
            TamenError: why the daemons are not supervised.
        """
        if self._problem is not None:
            raise self._problem
        found = standing(self._name, self._folder, read_state(self._folder))
        return found | {"host": os.uname().nodename, "pid": os.getpid()}

    def stop(self) -> dict[str, Any]:
        """End the daemons and all that they have started; return the engines' name, the host, and how many `ended`."""
        before = standing(self._name, self._folder, read_state(self._folder))["daemons"]
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        end_everything(self._folder)
        running = sum(daemon["pid"] is not None for daemon in before)
        return {"engines": self._name, "host": os.uname().nodename, "ended": running}

    def _supervise(self, config: EnginesConfig) -> None:
        try:
            with Supervisor(
                config, self._folder, kind="actor", metrics=RayMetrics({"role": "engines"})
            ) as supervisor:
                while not self._stopping.is_set():
                    supervisor.step()
                    self._stopping.wait(STEP_SECONDS)
                supervisor.stop()
        except TamenError as error:  # told to whoever asks; to begin again would mend nothing
            self._problem = error
        except Exception:
            traceback.print_exc()
            os._exit(1)  # Ray starts this process again, and what is in its memory is on disk


def start_hosts(config: EnginesConfig, runs: Path, *, detached: bool) -> dict[str, Any]:
    """Start a supervisor of the engines of `config` on each machine of the cluster that this process has joined.

    Args:
        runs: the folder of runs, at the same path on each machine.
        detached: whether they outlive this process; otherwise their daemons end some time after it.

    Returns:
        actors by the names of their nodes. There is one for each name of engines and machine; who finds it, takes it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from cluster.ray_program import dressed

    hosts = {}
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        hosts[node["NodeManagerHostname"]] = (
            dressed(EngineHost, num_cpus=0, max_restarts=-1)
            .options(
                name=f"{PREFIX}{config.engine.name} {node['NodeID']}",
                namespace=NAMESPACE,
                get_if_exists=True,
                lifetime="detached" if detached else None,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(config, str(runs.resolve()))
        )
    return hosts


def wait_until_settled(hosts: dict[str, Any], timeout_seconds: float) -> list[dict[str, Any]]:
    """Return what each of `hosts` says once its daemons are ready, or set aside, or when the time is over.

    Raises:
        TamenError: why daemons cannot be started on one of them.
    """
    from cluster.ray_client import call

    deadline = time.monotonic() + timeout_seconds
    while True:
        found = [call(actor.stats, timeout_seconds=ANSWER_SECONDS) for actor in hosts.values()]
        settled = all(
            each["supervised"]
            and each["daemons"]
            and all(daemon["state"] in ("ready", "aside") for daemon in each["daemons"])
            for each in found
        )
        if settled or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


def bring_up_on_ray(config: EnginesConfig, runs: Path, address: str, *, quiet: bool) -> list[dict[str, Any]]:
    """Start engines on each machine of the cluster at `address`; see `cluster.engines.bring_up`.

    Raises:
        TamenError: why one of the machines cannot; then nothing is left running on any.
    """
    with _joined(address):
        let_go(config.engine.name)
        hosts = start_hosts(config, runs, detached=True)
        try:
            found = wait_until_settled(hosts, SETTLE_SECONDS + config.upkeep.start_seconds)
        except TamenError:
            end_hosts(hosts.values())
            raise
        return _told(found, quiet=quiet)


def show_engines_on_ray(name: str | None, address: str, *, quiet: bool) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, how engines on the cluster at `address` stand."""
    from cluster.ray_client import call

    with _joined(address):
        found = [call(actor.stats, timeout_seconds=ANSWER_SECONDS) for actor in find_hosts(name)]
        return _told(found, quiet=quiet)


def take_down_on_ray(name: str | None, address: str, *, quiet: bool) -> list[dict[str, Any]]:
    """End engines on each machine of the cluster at `address`; return how many of each."""
    with _joined(address):
        ended = end_hosts(find_hosts(name))
    for each in ended if not quiet else ():
        console().print(f"{each['engines']} on {each['host']}: {each['ended']} daemons ended", markup=False)
    return ended


def find_hosts(name: str | None) -> list[Any]:
    """Return the actors of engines `name`, or of all. Raises UsageError when there are none of that name."""
    actors = _actors(name)
    if name is not None and not actors:
        known = _names(None)
        raise UsageError(
            f"there are no engines {name!r} on this cluster",
            why=f"its engines are {', '.join(known)}" if known else "it has none",
            fix=f"bring them up with: tamen engines up --address auto, and engine.name={name}",
        )
    return actors


def let_go(name: str) -> None:
    """End the actors of engines `name`, if there are any, but not their daemons: the next ones take them over.

    Raises:
        ClusterError: when Ray does not let go of their names.
    """
    import ray

    deadline = time.monotonic() + STOP_SECONDS
    for actor in _actors(name):
        ray.kill(actor)
    while _names(name):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the supervisors of engines {name!r} do not end",
                why=f"Ray still knows them {STOP_SECONDS:.0f} s after they were killed",
                fix="see to the cluster with `ray status`, and run the same command again",
            )
        time.sleep(POLL_SECONDS)


def end_hosts(actors: Iterable[Any]) -> list[dict[str, Any]]:
    """End actors with their daemons; return the engines' name, the host, and how many `ended`, of each."""
    import ray

    from cluster.ray_client import LOST, get, in_one_line

    ended = []
    for actor in actors:
        try:
            ended.append(get(actor.stop.remote(), timeout_seconds=2 * STOP_SECONDS))
        except (*LOST, TamenError) as error:  # what it had ends by itself before long
            ended.append({"engines": "?", "host": "?", "ended": 0, "trouble": in_one_line(error)})
        ray.kill(actor)
    return ended


@contextmanager
def _joined(address: str) -> Iterator[None]:
    joined = cluster_to_join(address)
    if joined is None:
        raise UsageError(
            f"engines cannot be left running on a cluster of their own, as with --address {address}",
            why="that cluster ends with this command",
            fix="leave --address away for engines on this machine, or name a cluster that runs: --address auto",
        )
    environment.prepare_ray(joined)
    import ray

    from cluster.ray_program import connect

    connect(joined, cpus=1)
    try:
        yield
    finally:
        ray.shutdown()


def _names(name: str | None) -> list[str]:
    """Return the names of actors of engines `name`, or of all."""
    import ray

    prefix = PREFIX if name is None else f"{PREFIX}{checked_name(name, what='engines')} "
    known: Any = ray.util.list_named_actors(all_namespaces=True)
    return sorted(
        each["name"] for each in known if each["namespace"] == NAMESPACE and each["name"].startswith(prefix)
    )


def _actors(name: str | None) -> list[Any]:
    import ray

    found = []
    for each in _names(name):
        with contextlib.suppress(ValueError):  # it is on its way out
            found.append(ray.get_actor(each, namespace=NAMESPACE))
    return found


def _told(found: list[dict[str, Any]], *, quiet: bool) -> list[dict[str, Any]]:
    for each in found if not quiet else ():
        show_standing(each | {"engines": f"{each['engines']} on {each['host']}"})
    return found
