"""A program on Ray: parts as actors on this or a given cluster, watched, restarted and stopped by the driver.

The driver only starts, watches and stops: no position, game or weight passes through it.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster import ray_actors
from cluster.doctor import SHARED_MEMORY
from cluster.environment import CHECKOUT
from cluster.machine_file import batches_of
from cluster.program import Program, Role
from cluster.ray_client import LOST, Handle, get, in_one_line
from cluster.ray_part import AT_HOME, Part, cannot_be_made, cause_of, keeps_dying
from cluster.refusals import what_ray_logs, why_refused
from cluster.run_folder import RunFolder
from configs.loading import override
from configs.schema import RunConfig
from core.errors import ClusterError, TamenError

KNOCK_SECONDS = 5.0
START_TIMEOUT_SECONDS = 150.0
WARM_UP_TIMEOUT_SECONDS = 60.0
RESERVE_SECONDS = 30
POLL_SECONDS = 0.1
SILENT_SECONDS = 30.0
ASK_THE_LOST_SECONDS = 0.2
"""Between two questions to a part whose loop has ended, which is to run again as soon as a process answers."""
MAX_CONCURRENT_REQUESTS = 4096
"""Requests that one server holds at a time; further ones wait in Ray without a word."""


def connect(address: str | None, *, cpus: int, dashboard: bool = False) -> None:
    """Join the Ray cluster at `address`, or start one on this machine.

    Raises:
        ClusterError: when the address does not answer, or the local cluster does not start.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    logged = [""]
    try:
        if address is None:
            ray.init(
                address="local",  # not whichever Ray happens to run on this machine
                num_cpus=cpus,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=_object_store_bytes(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        else:
            _knock(address)
            with what_ray_logs() as logged:
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": _shared_environment()},
                )
    except Exception as error:  # Ray raises a dozen kinds, all meaning the same to the user
        why, fix = why_refused(error, logged[0])
        raise ClusterError(
            f"cannot reach a Ray cluster at {address!r}" if address else "cannot start Ray on this machine",
            why=why,
            fix=fix if address else "run `tamen doctor`; `--engine local` trains without Ray",
        ) from error
    finally:
        # Ray puts in a handler that ends everything at once; ours saves first.
        signal.signal(signal.SIGTERM, on_terminate)


def dressed(part: type, **options: Any) -> Any:
    """Return a plain class as a Ray actor class; Ray's own types do not describe what comes out."""
    return ray.remote(**options)(part)


def beside_the_driver() -> NodeAffinitySchedulingStrategy:
    """Return the placement of an actor at home: on this machine, where the run's folder is."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def reserve_together(count: int, *, gpus: float) -> PlacementGroup:
    """Reserve places for actors that are of use only together, all on this machine.

    Args:
        count: of them.
        gpus: for each.

    Raises:
        ClusterError: when this machine has not that many free.
    """
    place = {_name_of_this_node(): 0.001} | ({"GPU": gpus} if gpus else {})
    group = placement_group([place] * count, strategy="STRICT_PACK")
    if group.wait(RESERVE_SECONDS):
        return group
    remove_placement_group(group)
    raise ClusterError(
        f"there are no places for {count} learners",
        why=f"{place} for each were not free within {RESERVE_SECONDS} s",
        fix="lower learner.num_learners, or stop what else Ray runs here (`ray status`)",
    )


def _name_of_this_node() -> str:
    """Return the resource that Ray gives to this machine alone."""
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return next(name for name in resources if name.startswith("node:") and not name.startswith("node:__"))


class RayProgram:
    """Starts the parts of `program`, keeps them alive and stops them.

    Those of `program` are at home, on the driver's machine. Others are added on any machine, and leave again; what goes
    wrong with one elsewhere never ends the run.

    Args:
        report: told of everything that a person should know (restarts, silence): in one line, after which the
            traceback of a failure that nobody foresaw may follow.

    Attributes:
        parts: by name; nobody gets a number that another had before it.
        given_up: what no restart would mend, by the id of a machine elsewhere; for its reader to clear.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        program: Program,
        *,
        report: Callable[[str], None],
    ) -> None:
        self._config = config
        # Elsewhere the folder is not at hand, in which the run's name stands.
        self._folder = replace(folder, called=folder.name)
        self._program = program
        self._report = report
        # Ray frees the names of a program that was stopped a moment after it is gone.
        self._life = secrets.token_hex(4)
        self._playing = False
        self._reserved: PlacementGroup | None = None
        self._next_number = {role.name: role.count for role in program.roles}
        self.parts: dict[str, Part] = {}
        self.given_up: dict[str, TamenError] = {}

    def start(self) -> None:
        """Create every actor, wait for weights to play with, warm up the servers, then set the loops going."""
        batches = batches_of(self._config)
        if batches.damaged:
            self._report(batches.why)
        self._config = override(self._config, [f"inference.max_batch_rows={batches.rows}"])
        if self._program.count("colearner"):
            learner = self._program.role("learner")
            self._reserved = reserve_together(1 + self._program.count("colearner"), gpus=learner.num_gpus)
        names: dict[str, list[str]] = {}
        for role in self._program.roles:
            asks = {name: names[name] for name in role.asks}
            names[role.name] = [
                self._create(
                    role.name if role.count == 1 else f"{role.name}-{index}",
                    self._assignment(index, asks),
                    role,
                    self._placement(role, index),
                ).ray_name
                for index in range(role.count)
            ]
        if "learner" in self.parts:
            self.parts["learner"].run()
        waiting = [part for part in self.parts.values() if part.loops and part.running is None]
        if waiting:
            self._wait_for_weights(self.parts["store"].handle)
            self._warm_up()
        for part in waiting:
            part.run()
        self._playing = True

    def add(
        self, role: Role, *, node: str, asks: Mapping[str, list[str]], batch_rows: int | None = None
    ) -> None:
        """Create one more part and set it going.

        Args:
            role: of which `count` is not looked at.
            node: id of its machine; `AT_HOME` for the driver's.
            asks: Ray names of those it asks, by role.
            batch_rows: that batches on its machine may have at most; None for as many as at home.
        """
        index = self._next_number.get(role.name, 0)
        self._next_number[role.name] = index + 1
        given = self._assignment(index, asks)
        if batch_rows is not None:
            given = replace(given, config=override(given.config, [f"inference.max_batch_rows={batch_rows}"]))
        where = NodeAffinitySchedulingStrategy(node, soft=False) if node != AT_HOME else beside_the_driver()
        part = self._create(f"{role.name}-{index}", given, role, where, node=node)
        if part.loops:
            part.run()

    def drop(self, part: Part) -> None:
        """End a part at once, for good."""
        ray.kill(part.handle)
        del self.parts[part.name]

    def role(self, name: str) -> Role:
        """Return what a part at home that plays `name` is given."""
        return self._program.role(name)

    def handles(self, role: str) -> list[Handle]:
        """Return the handles of all that play `role`."""
        return [part.handle for part in self.parts.values() if part.role == role]

    def supervise(self) -> None:
        """Notice loops that ended, and run them again once their process is back and their delay is over.

        Raises:
            TamenError: what a part at home raised that no restart would mend, or that it keeps failing.
        """
        now = time.monotonic()
        for part in self.parts.values():
            if part.lost and now - part.asked_at >= ASK_THE_LOST_SECONDS:
                part.ask(now)
        awaited = [part.running or (part.asked if part.lost else None) for part in self.parts.values()]
        awaited = [reference for reference in awaited if reference is not None]
        ready = set(ray.wait(awaited, num_returns=len(awaited), timeout=0)[0]) if awaited else set()
        for part in list(self.parts.values()):
            if part.leaves_by is not None:
                if part.running is None or part.running in ready or now >= part.leaves_by:
                    self.drop(part)
            elif part.restart_at is not None and now >= part.restart_at:
                part.run()
            elif part.running in ready:
                self._notice_end(part, now)
            elif part.lost and part.asked in ready:
                self._take_answer(part, now)
            elif part.attendance.given_up(now):
                self._give_up(part, keeps_dying(part))

    def collect_stats(self, timeout_seconds: float) -> dict[str, dict[str, Any]]:
        """Ask every part how it is; return the newest answer of each, however old.

        Args:
            timeout_seconds: to wait for the answers of those that are there. For one that starts, or was lost, nobody
                waits: meanwhile no loop could be run again.
        """
        now = time.monotonic()
        for part in self.parts.values():
            part.ask(now)
        there = [part.asked for part in self.parts.values() if part.heard_at is not None and not part.lost]
        others = [part.asked for part in self.parts.values() if part.heard_at is None or part.lost]
        ready = set(ray.wait(there, num_returns=len(there), timeout=timeout_seconds)[0]) if there else set()
        ready |= set(ray.wait(others, num_returns=len(others), timeout=0)[0]) if others else set()
        silent = []
        for part in self.parts.values():
            if part.asked in ready:
                self._take_answer(part, now)
            elif part.asked is not None and now - part.asked_at > SILENT_SECONDS:
                silent.append(part.name)
                part.asked = None
        if silent:
            have = "has" if len(silent) == 1 else "have"
            self._report(f"{', '.join(silent)} {have} not answered for {SILENT_SECONDS:.0f} s")
        return {part.name: part.stats | {"restarts": part.restarts} for part in self.parts.values()}

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Stop actors first, so that their games reach the replay, then the learner, which saves its last step.

        The evaluator is told too, but not waited for: it has nothing that would be lost. Neither has anybody before
        the games began.
        """
        if self._playing:
            self._end_loops(timeout_seconds)
        for part in self.parts.values():
            ray.kill(part.handle)
        self.parts.clear()
        if self._reserved is not None:
            remove_placement_group(self._reserved)
            self._reserved = None

    def _end_loops(self, timeout_seconds: float) -> None:
        """Give actors half of the time, so that one stuck in its environment leaves the learner some to save."""
        began = time.monotonic()
        self._stop_loops("evaluator")
        for role, until in (("actor", timeout_seconds / 2), ("learner", timeout_seconds)):
            running = self._stop_loops(role)
            left = max(1.0, began + until - time.monotonic())
            if running and ray.wait(running, num_returns=len(running), timeout=left)[1]:
                self._report(f"{role} did not stop within {left:.0f} s; what it had acknowledged is safe")

    def _stop_loops(self, role: str) -> list[Any]:
        """Tell all that play `role` to stop; return the references of their loops."""
        stopping = [part for part in self.parts.values() if part.role == role and part.running is not None]
        for part in stopping:
            part.handle.stop.remote()
        return [part.running for part in stopping]

    def _assignment(self, index: int, asks: Mapping[str, list[str]]) -> ray_actors.Assignment:
        return ray_actors.Assignment(
            self._config, self._folder, index, asks, self._program.count("learner") > 0
        )

    def _create(
        self, name: str, given: ray_actors.Assignment, role: Role, where: Any, *, node: str = AT_HOME
    ) -> Part:
        """Create one actor at `where`, on the machine `node`."""
        options: dict[str, Any] = {
            "name": f"{self._folder.name}/{self._life}/{name}",
            "num_cpus": role.num_cpus,
            "num_gpus": role.num_gpus,
            "max_restarts": -1,
            "enable_task_events": False,
            "scheduling_strategy": where,
        }
        if role.name in ray_actors.ANSWERING_BESIDE_WORK:
            options["concurrency_groups"] = {"control": 2}
        if role.name == "inference":
            options["max_concurrency"] = MAX_CONCURRENT_REQUESTS
        handle = dressed(ray_actors.ACTORS[role.name], **options).remote(given)
        part = Part(name, role.name, handle, role.name in ray_actors.LOOPS)
        part.node, part.ray_name, part.num_gpus = node, options["name"], role.num_gpus
        part.made_at = time.monotonic()
        part.servers = tuple(given.asks["inference"]) if "inference" in given.asks else None
        self.parts[name] = part
        return part

    def _placement(self, role: Role, index: int) -> Any:
        """Return where an actor goes: learners of a team to the places reserved for them, the leader to the last."""
        if self._reserved is None or role.name not in ("colearner", "learner"):
            return beside_the_driver()
        place = index if role.name == "colearner" else self._reserved.bundle_count - 1
        return PlacementGroupSchedulingStrategy(self._reserved, placement_group_bundle_index=place)

    def _wait_for_weights(self, store: Handle) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while _answer(store.newest_version.remote(ray_actors.MODEL), POLL_SECONDS) is None:
            self.supervise()
            self.collect_stats(timeout_seconds=0.0)  # tells when a part could not be made
            if time.monotonic() > deadline:
                raise ClusterError(
                    "no weights were published",
                    why=f"the learner has not started within {START_TIMEOUT_SECONDS:.0f} s",
                    fix="look at the run's log.txt, and at free memory (`tamen doctor`)",
                )
            time.sleep(POLL_SECONDS / 2)

    def _warm_up(self) -> None:
        """Let the servers meet the model before anybody waits for them; what fails now is told when it fails again."""
        warming = [handle.warm_up.remote() for handle in self.handles("inference")]
        ray.wait(warming, num_returns=len(warming), timeout=WARM_UP_TIMEOUT_SECONDS)

    def _notice_end(self, part: Part, now: float) -> None:
        running, part.running = part.running, None
        try:
            get(running, timeout_seconds=1.0)
        except LOST as error:
            part.lose(cause_of(error), now, killed=False)
        except Exception as error:  # an unexpected failure of one part is not the end of the run
            if isinstance(error, TamenError) and part.node == AT_HOME:
                raise
            self._replace(part, error, now)

    def _replace(self, part: Part, error: Exception, now: float) -> None:
        """Kill a part that is broken for good: a new life of its process begins from what is on disk."""
        self._report(f"{part.name} failed: {in_one_line(error)}\n{error}")
        ray.kill(part.handle, no_restart=False)
        part.lose(in_one_line(error), now, killed=True)

    def _take_answer(self, part: Part, now: float) -> None:
        asked, part.asked = part.asked, None
        try:
            died = part.answered(get(asked, timeout_seconds=1.0), now)
        except RayActorError as error:
            if error.actor_init_failed:
                self._give_up(part, cannot_be_made(part.name, error), because=error)
            part.missed(cause_of(error), now)  # it is being restarted
        except LOST:
            return
        except Exception as error:  # it says itself that it is broken
            if part.killed_pid is None:
                self._replace(part, error, now)
        else:
            if died is not None:
                self._plan_restart(part, died, now)

    def _give_up(self, part: Part, error: TamenError, *, because: Exception | None = None) -> None:
        """End the run with `error`, or where the part is elsewhere note that its machine is of no use."""
        if part.node == AT_HOME:
            raise error from because
        self.given_up.setdefault(part.node, error)

    def _plan_restart(self, part: Part, reason: str, now: float) -> None:
        delay = part.policy.failed(now)
        if delay is None:
            failed = ClusterError(
                f"{part.name} keeps failing",
                why=f"it failed {part.policy.max_failures} times in {part.policy.window_seconds:.0f} s: {reason}",
                fix="look at the run's log.txt; the same command resumes the run",
            )
            self._give_up(part, failed)
            return
        part.restarts += 1
        part.servers = None  # it knows of those again that it was made with
        if part.loops:
            part.restart_at = now + delay
        self._report(
            f"{part.name} died ({reason}); it is back" if reason else f"{part.name} died; it is back"
        )


def _answer(reference: Any, timeout_seconds: float) -> Any:
    """Return what a call gave, None when nothing has come within the time."""
    try:
        return get(reference, timeout_seconds=timeout_seconds)
    except LOST:
        return None


def _knock(address: str) -> None:
    """Raise OSError unless somebody listens at `address`, "host:port": Ray would try for a quarter of an hour.

    Every other form of an address is Ray's to understand.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit():
        return
    # Ray takes the loopback address of a head for that of the network.
    known_as = ray.util.get_node_ip_address() if host in ("127.0.0.1", "localhost") else host.strip("[]")
    socket.create_connection((known_as, int(port)), timeout=KNOCK_SECONDS).close()


def _object_store_bytes() -> int:
    """Return a size that fits this machine's /dev/shm with room to spare; chunks and weights are small."""
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    return int(min(max(free * 0.3, 100e6), 2e9))


def _shared_environment() -> dict[str, str]:
    """Return what a cluster started by others has to be told: on each machine the checkout is where it is here.

    A copy of it, as Ray's `working_dir` would be, has kernels of its own to compile: half a minute a start.
    """
    names = ("NUMBA_CACHE_DIR", "OMP_NUM_THREADS", "PYTHONPATH")
    known = {name: os.environ[name] for name in names if name in os.environ}
    return known | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, [known.get("PYTHONPATH")])])}
