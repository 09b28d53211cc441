"""Engines on the machines of a Ray cluster: on each a supervisor as a named actor, which Ray starts again when it dies.

A new life of it takes over the daemons that the last one has left. They end by themselves when there is none for long.
Engines that are brought up for good have a keeper besides, one for the cluster, that starts supervisors on machines
which join.
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
from cluster.cli.addresses import cluster_to_join
from cluster.cli.terminal import console
from cluster.external.engines import (
    check_usable,
    engines_folder,
    machine_name,
    show_standing,
    standing,
    told_when_interrupted,
)
from cluster.monitoring.sinks import RayMetrics
from configs.engines import EnginesConfig
from core.errors import ClusterError, TamenError, UsageError, of_the_system
from core.names import checked_name
from engines.service import STEP_SECONDS
from engines.supervised import SupervisedError, end_everything, read_state
from engines.supervisor import Supervisor

NAMESPACE = "tamen"
PREFIX, KEEPER_PREFIX = "engines ", "keeper of engines "
FOLLOW_SECONDS = 2.0
"""Between two looks at which machines there are."""
LET_GO_SECONDS = 30.0
"""For the last supervisor of a machine to be gone, when its node was started anew."""
ANSWER_SECONDS = 30.0
STOP_SECONDS = 60.0
"""For an actor to end its daemons, besides their grace."""
POLL_SECONDS = 0.5
SETTLE_SECONDS = 90.0
"""Within which daemons that fail at once are set aside."""


class EngineHost:
    """`engines.supervisor.Supervisor` on this machine, in a thread of its own.

    Where `tamen engines up` has brought up the same engines without Ray, they stay with the supervisor of that.
    """

    def __init__(self, config: EnginesConfig, runs: str) -> None:
        self._name = config.engine.name
        self._folder = engines_folder(Path(runs), self._name)
        self._stopping = threading.Event()
        self._is_in_charge = self._is_guest = False
        self._problem: TamenError | None = None
        self._thread = threading.Thread(target=self._supervise, args=(config,), name="supervise", daemon=True)
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Return what `cluster.external.engines.standing` does, the machine's name as `host`, and pid.

        Raises:
            TamenError: why the daemons are not supervised.
        """
        if self._problem is not None:
            raise self._problem
        found = standing(self._name, self._folder, read_state(self._folder))
        found["supervised"] = found["supervised"] and (self._is_in_charge or self._is_guest)
        return found | {"host": machine_name(), "pid": os.getpid()}

    def stop(self) -> dict[str, Any]:
        """End the daemons and all that they have started; return the engines' name, the host, and how many `ended`."""
        before = standing(self._name, self._folder, read_state(self._folder))["daemons"]
        told = {"engines": self._name, "host": machine_name(), "ended": 0}
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        if not self._is_in_charge:  # they are another's
            return told
        end_everything(self._folder)
        return told | {"ended": sum(daemon["pid"] is not None for daemon in before)}

    def _supervise(self, config: EnginesConfig) -> None:
        try:
            found = self._supervisor(config)
            if found is None:
                self._is_guest = True
                return
            with found as supervisor:
                self._is_in_charge = True
                while not self._stopping.is_set():
                    supervisor.step()
                    self._stopping.wait(STEP_SECONDS)
                supervisor.stop()
        except TamenError as error:  # told to whoever asks; to begin again would mend nothing
            self._problem = error
        except Exception:
            traceback.print_exc()
            os._exit(1)  # Ray starts this process again, and what is in its memory is on disk

    def _supervisor(self, config: EnginesConfig) -> Supervisor | None:
        """Return a supervisor, once an actor is gone that has been one here; None for a guest. Raises TamenError."""
        deadline = time.monotonic() + LET_GO_SECONDS
        while True:
            try:
                return Supervisor(config, self._folder, kind="actor", metrics=RayMetrics({"role": "engines"}))
            except SupervisedError:
                state = read_state(self._folder)
                if state is not None and state.kind != "actor" and state.is_supervised():
                    check_usable(config, state)
                    return None
                if time.monotonic() > deadline and state is not None and state.is_supervised():
                    raise _of_another_cluster(self._name, state.supervisor.pid) from None
                if time.monotonic() > deadline or self._stopping.wait(POLL_SECONDS):
                    raise
            except OSError as error:
                raise of_the_system(error) from error


def _of_another_cluster(name: str, pid: int) -> UsageError:
    return UsageError(
        f"the engines {name} are those of another Ray cluster",
        why=f"its process {pid} supervises them here, as for games that are being played there",
        fix="wait for its end, give that cluster with --address, or choose another engine.name",
    )


class EngineKeeper:
    """Starts a supervisor on each machine that joins the cluster."""

    def __init__(self, config: EnginesConfig, runs: str) -> None:
        self._config, self._runs = config, Path(runs)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Start no more of them."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _keep(self) -> None:
        seen: set[str] = set()
        try:
            while not self._stopping.wait(FOLLOW_SECONDS):
                nodes = machines()
                for node in nodes.keys() - seen:
                    start_host(node, self._config, self._runs, detached=True)
                seen = set(nodes)
        except Exception:
            traceback.print_exc()
            os._exit(1)  # Ray starts this process again


def machines() -> dict[str, str]:
    """Return the machines of the cluster that are there: for each node's id its host name."""
    import ray

    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def start_hosts(config: EnginesConfig, runs: Path, *, detached: bool) -> dict[str, Any]:
    """Start a supervisor of the engines of `config` on each machine of the cluster that this process has joined.

    Args:
        config: the engines.
        runs: the folder of runs, at the same path on each machine.
        detached: whether they outlive this process; otherwise their daemons end some time after it.

    Returns:
        actors by the ids of their nodes.
    """
    return {node: start_host(node, config, runs, detached=detached) for node in machines()}


def start_host(node: str, config: EnginesConfig, runs: Path, *, detached: bool) -> Any:
    """Start a supervisor on one machine. There is one for each name of engines and machine; who finds it, takes it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        _named(EngineHost, f"{PREFIX}{config.engine.name} {node}", detached=detached)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(config, str(runs.resolve()))
    )


def start_keeper(config: EnginesConfig, runs: Path) -> None:
    """Let supervisors be started on machines that join, until `let_go` or `end_engines`."""
    _named(EngineKeeper, f"{KEEPER_PREFIX}{config.engine.name}", detached=True).remote(
        config, str(runs.resolve())
    )


def _named(part: type, name: str, *, detached: bool) -> Any:
    from cluster.on_ray.program import dressed

    return dressed(
        part,
        num_cpus=0,
        max_restarts=-1,
        name=name,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached" if detached else None,
    )


def wait_until_settled(hosts: dict[str, Any], timeout_seconds: float) -> list[dict[str, Any]]:
    """Return what each of `hosts` says once its daemons are ready, or set aside, or when the time is over.

    Raises:
        TamenError: why daemons cannot be started on one of them.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = _standings(hosts)
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
    """Start engines on each machine of the cluster at `address`; see `cluster.external.engines.bring_up`.

    Raises:
        TamenError: why one of the machines cannot; then nothing is left running on any.
    """
    with _joined(address):
        let_go(config.engine.name)
        hosts = start_hosts(config, runs, detached=True)
        start_keeper(config, runs)
        try:
            with told_when_interrupted(config.engine.name):
                found = wait_until_settled(hosts, SETTLE_SECONDS + config.upkeep.start_seconds)
        except TamenError:
            end_keepers(config.engine.name)
            end_hosts(hosts.values())
            raise
        return _told(found, quiet=quiet)


def show_engines_on_ray(name: str | None, address: str, *, quiet: bool) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, how engines on the cluster at `address` stand."""
    with _joined(address):
        return _told(_standings(find_hosts(name)), quiet=quiet)


def take_down_on_ray(name: str | None, address: str, *, quiet: bool) -> list[dict[str, Any]]:
    """End engines on each machine of the cluster at `address`; return how many of each."""
    with _joined(address):
        hosts = find_hosts(name)
        end_keepers(name)
        ended = end_hosts(hosts.values())
    if not ended and not quiet:
        _say_none()
    for each in ended if not quiet else ():
        console().print(f"{each['engines']} on {each['host']}: {each['ended']} daemons ended", markup=False)
    return ended


def find_hosts(name: str | None) -> dict[str, Any]:
    """Return the actors of engines `name`, or of all, by their names.

    Raises:
        UsageError: when there are none of that name.
    """
    actors = _actors(name)
    if name is not None and not actors:
        known = sorted({each.removeprefix(PREFIX).rpartition(" ")[0] for each in _names(None)})
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

    end_keepers(name)
    deadline = time.monotonic() + STOP_SECONDS
    for actor in _actors(name).values():
        ray.kill(actor)
    while _names(name):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the supervisors of engines {name!r} do not end",
                why=f"Ray still knows them {STOP_SECONDS:.0f} s after they were killed",
                fix="see to the cluster with `ray status`, and run the same command again",
            )
        time.sleep(POLL_SECONDS)


def end_keepers(name: str | None) -> None:
    """Let no supervisors of engines `name`, or of any, be started any more on machines that join."""
    import ray

    from cluster.on_ray.client import LOST, get

    for each in _known(KEEPER_PREFIX):
        if name is None or each == f"{KEEPER_PREFIX}{name}":
            with contextlib.suppress(ValueError):  # it is on its way out
                keeper = ray.get_actor(each, namespace=NAMESPACE)
                with contextlib.suppress(*LOST):
                    get(keeper.stop.remote(), timeout_seconds=ANSWER_SECONDS)
                ray.kill(keeper)


def end_hosts(actors: Iterable[Any]) -> list[dict[str, Any]]:
    """End actors with their daemons; return the engines' name, the host, and how many `ended`, of each."""
    import ray

    from cluster.on_ray.client import LOST, get, in_one_line

    ended = []
    for actor, stopped in [(actor, actor.stop.remote()) for actor in actors]:
        try:
            ended.append(get(stopped, timeout_seconds=2 * STOP_SECONDS))
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

    from cluster.on_ray.address import connect

    connect(joined, cpus=1)
    try:
        yield
    finally:
        ray.shutdown()


def _names(name: str | None) -> list[str]:
    """Return the names of actors of engines `name`, or of all."""
    return _known(PREFIX if name is None else f"{PREFIX}{checked_name(name, what='engines')} ")


def _known(prefix: str) -> list[str]:
    import ray

    known: Any = ray.util.list_named_actors(all_namespaces=True)
    return sorted(
        each["name"] for each in known if each["namespace"] == NAMESPACE and each["name"].startswith(prefix)
    )


def _actors(name: str | None) -> dict[str, Any]:
    """Return the supervisors of engines `name`, or of all, on machines that are there, by their names."""
    import ray

    found, nodes = {}, machines()
    for each in _names(name):
        if _node_of(each) not in nodes:
            continue
        with contextlib.suppress(ValueError):  # it is on its way out
            found[each] = ray.get_actor(each, namespace=NAMESPACE)
    return found


def _node_of(name: str) -> str:
    """Return the id of the node of a supervisor's name, at whose end it stands; of that id itself too."""
    return name.rpartition(" ")[2]


def _standings(hosts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what supervisors say, by names or nodes; those of machines that leave meanwhile are left out.

    Raises:
        TamenError: why daemons cannot be started on one of them, or that it does not answer.
    """
    found = [_standing(_node_of(name), actor) for name, actor in hosts.items()]
    return [each for each in found if each is not None]


def _standing(node: str, actor: Any) -> dict[str, Any] | None:
    """Return what a supervisor says; None when its node is gone."""
    from cluster.on_ray.client import LOST, PATIENCE_SECONDS, get, in_one_line

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return get(actor.stats.remote(), timeout_seconds=ANSWER_SECONDS)
        except LOST as error:
            if node not in machines():
                return None
            if time.monotonic() > deadline:
                raise ClusterError(
                    "a supervisor of engines does not answer",
                    why=in_one_line(error),
                    fix="see to the cluster with `ray status`, and run the same command again",
                ) from error
        time.sleep(POLL_SECONDS)


def _told(found: list[dict[str, Any]], *, quiet: bool) -> list[dict[str, Any]]:
    if not found and not quiet:
        _say_none()
    for each in found if not quiet else ():
        show_standing(each | {"engines": f"{each['engines']} on {each['host']}"})
    return found


def _say_none() -> None:
    console().print("no engines are on this cluster; begin with: tamen engines up", markup=False)
