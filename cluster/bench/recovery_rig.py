"""One side of `tamen bench recovery`: a run on two machines of Ray's, both on this one, with faults or without any.

Home has the driver, store, replay and learner, the other machine nothing that must not be lost. They share out the
cores of this machine, to which their processes are bound, so that a machine that is killed takes its cores with it.
A killed machine is killed whole, Ray and all that it started there, by SIGKILL; another one joins in its place.

A side has a process of its own: a Ray that ended may leave something in it.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cluster import environment
from cluster.autopilot.stage_process import Tell
from cluster.bench.recovery_account import KeptChunks, account_for, as_numbers, read_acks
from cluster.bench.recovery_faults import Fault, Recovery
from cluster.run.run_folder import RunFolder, open_run
from configs.schema import RunConfig
from core.errors import ClusterError

if TYPE_CHECKING:
    from cluster.on_ray.part import Part

HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "2",
}
"""How soon Ray's head notes that a machine is gone: 2 s after its Ray has died, some 9 s after it was cut off. With 1 s
to answer, one of a slow core that had just joined was given up, for it was beginning seven processes."""
NO_WORKERS_AHEAD = {"RAY_prestart_worker_first_driver": "0"}
"""Processes that a machine of Ray's starts at once, one a core, have not a run's environment, so none of its parts."""
MARK = "TAMEN_BENCH_RECOVERY"
"""In the environment of every process that a side starts, so that those that are left are known."""
REPLACEMENT_SECONDS = 5.0
"""From a machine's death until another begins to start in its place, as a cloud's would at the soonest."""
LOOK_SECONDS = 0.2
"""Between two looks at the counters: how fine a recovery is told."""
KEEP_SECONDS = 1.0
"""Between two looks for new chunks."""
SETTLE_SECONDS = 5.0
"""From when all play until the time that counts begins."""
START_SECONDS = 180.0
"""For all to play."""
HOME_STORE_BYTES, FAR_STORE_BYTES = 400_000_000, 100_000_000
_LINES_KEPT = 200


@dataclass(frozen=True, slots=True)
class Order:
    """What one side is to do.

    Attributes:
        folder: of the run.
        seconds: that count, from when all play.
        bound: whether the machines are bound to cores of their own.
        mark: value of `MARK`.
    """

    folder: Path
    config: RunConfig
    seconds: float
    faults: tuple[Fault, ...]
    bound: bool
    mark: str


def play_side(order: Order, tell: Tell) -> dict[str, Any]:
    """Play one side to its end; return what came of it, see `_Side.result`.

    Raises:
        ClusterError: when it does not begin to play, or does not go on.
    """
    environment.prepare()
    environment.prepare_ray(None)
    os.environ.update({**HEALTH, **NO_WORKERS_AHEAD, MARK: order.mark})
    side = _Side(order, tell)
    try:
        side.begin()
        side.go_on()
    finally:
        side.close()
    return side.result()


def shared_cores(cores: set[int], *, bound: bool) -> tuple[set[int], set[int]]:
    """Return the cores of home and of the other machine: half of them each, or all where they are not bound."""
    if not bound or len(cores) < 2:
        return cores, cores
    ordered = sorted(cores)
    return set(ordered[: len(ordered) // 2]), set(ordered[len(ordered) // 2 :])


class _Side:
    """A run, the faults that befall it, and its witnesses."""

    def __init__(self, order: Order, tell: Tell) -> None:
        from cluster.bench.recovery_witness import witness_folder

        self._order = order
        self._tell = tell
        self._folder = RunFolder(order.folder)
        self._lock = open_run(self._folder, order.config)
        self._witnesses = witness_folder(self._folder.root)
        self._kept = KeptChunks(self._folder.root / "replay", self._witnesses / "chunks")
        self._keep_at = 0.0
        self._home_cores, self._far_cores = shared_cores(os.sched_getaffinity(0), bound=order.bound)
        self._machines: _Machines | None = None
        self._engine: Any = None
        self._began = 0.0
        self._seconds = 0.0
        self._to_come = list(order.faults)
        self._pending: list[_Pending] = []
        self._killed: set[str] = set()
        self._stats: dict[str, dict[str, Any]] = {}
        self._actors = {"home": 0, "far": 0}
        self._counters: dict[str, Any] = {}
        self.recoveries: list[Recovery] = []
        self.said: list[str] = []

    def begin(self) -> None:
        """Start both machines and the run, and wait until all play and the learner learns."""
        self._tell(0.0, self._order.seconds, "Ray starts on both machines")
        os.sched_setaffinity(0, self._home_cores)  # before Ray's threads begin, which have it from here
        from cluster.bench.recovery_witness import WitnessedActor
        from cluster.on_ray import actors as ray_actors
        from cluster.training.ray_engine import RayEngine

        self._machines = _Machines(self._home_cores, self._far_cores)
        # The driver takes the class of a role from here, and in this process there is no other run.
        ray_actors.ACTORS["actor"] = WitnessedActor
        self._engine = RayEngine(
            self._order.config, self._folder, address=self._machines.address, report=self.said.append
        )
        self._engine.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._all_play():
            if time.monotonic() > deadline:
                raise ClusterError(
                    "the run does not get going",
                    why=f"not everybody plays after {START_SECONDS:.0f} s: {'; '.join(self.said[-3:]) or 'no word'}",
                    fix="ask for less (a smaller preset, fewer actors.count), or see `tamen doctor`",
                )
            self._pass(LOOK_SECONDS, self._in_words_of_beginning())
        self._actors = {"home": len(self._playing(far=False)), "far": len(self._playing(far=True))}
        settled = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < settled:
            self._pass(LOOK_SECONDS, "all play, and it begins")

    def go_on(self) -> None:
        """Let the time that counts pass, and the faults come."""
        due = self._to_come
        self._began = time.monotonic()
        while (now := time.monotonic() - self._began) < self._order.seconds:
            if due and now >= due[0].at and self._strike(due[0], now):
                due.pop(0)
            self._pass(min(LOOK_SECONDS, self._order.seconds - now), self._in_words())
            self._pending = [each for each in self._pending if not each.look()]
        self._seconds = time.monotonic() - self._began
        self._counters = {name: dict(each) for name, each in self._stats.items()}

    def close(self) -> None:
        """Stop the run, which delivers and saves, and end both machines."""
        try:
            if self._engine is not None:
                self._engine.stop()
            self._kept.look()
        finally:
            if self._machines is not None:
                self._machines.close()
            self._lock.release()

    def result(self) -> dict[str, Any]:
        """Return what came of it.

        Returns:
            rows: that actors saw acknowledged in `seconds`; rows_per_s. account: of the whole run, see
            `cluster.bench.recovery_account`. chunks_missed: that the witness did not see. actors, cores: of each
            machine. faults: see `Recovery`. faults_not_come: for which nobody was there. machines_given_up: that nobody
            had killed. learner_steps, rows_trained, versions, effective_ratio, games_lost, games_taken_over: the run's
            own counters at the end of that time. said: what a person was told.
        """
        acks = read_acks(self._witnesses)
        ended = self._began + self._seconds
        rows = sum(sum(one.rows.values()) for one in acks if self._began <= one.at < ended)
        learner, machines = self._counters.get("learner", {}), self._counters.get("machines", {})
        return {
            "rows": rows,
            "seconds": round(self._seconds, 3),
            "rows_per_s": rows / self._seconds,
            "account": as_numbers(account_for(acks, self._kept.chunks())),
            "chunks_missed": self._kept.missed(),
            "actors": self._actors,
            "cores": {"home": sorted(self._home_cores), "far": sorted(self._far_cores)},
            "faults": [each.as_numbers() for each in self.recoveries],
            "faults_not_come": len(self._to_come),
            "machines_given_up": self._machines.given_up if self._machines else 0,
            "learner_steps": learner.get("learner_steps"),
            "rows_trained": learner.get("rows_trained"),
            "versions": learner.get("version"),
            "effective_ratio": machines.get("effective_ratio"),
            "games_lost": machines.get("games_lost"),
            "games_taken_over": machines.get("games_taken_over"),
            "said": self.said[-_LINES_KEPT:],
        }

    def _pass(self, seconds: float, words: str) -> None:
        self._engine.advance(max(0.0, seconds))
        self._stats = self._engine.stats()
        assert self._machines is not None
        if (given_up := self._machines.look()) is not None:
            self._killed.add(given_up)
        now = time.monotonic()
        if now >= self._keep_at:
            self._keep_at = now + KEEP_SECONDS
            self._kept.look()
        passed = now - self._began if self._began else 0.0
        self._tell(min(passed, self._order.seconds), self._order.seconds, words)

    def _in_words_of_beginning(self) -> str:
        here, there = (
            f"{len(self._playing(far=far))} of {len(self._actor_parts(far=far))}" for far in (False, True)
        )
        steps = self._stats.get("learner", {}).get("learner_steps", 0)
        return f"starts: {here} actors at home and {there} on the other machine play, {steps:.0f} steps are learnt"

    def _in_words(self) -> str:
        rows = int(self._stats.get("replay", {}).get("total_rows", 0))
        over = [each for each in self.recoveries if each.seconds is not None]
        newest = f", the last ({over[-1].kind}) got over in {over[-1].seconds:.1f} s" if over else ""
        return f"{rows:,} rows, {len(self.recoveries)} faults{newest}"

    def _all_play(self) -> bool:
        far, home = self._actor_parts(far=True), self._actor_parts(far=False)
        playing = len(self._playing(far=True)) == len(far) > 0 and len(self._playing(far=False)) == len(home)
        return playing and self._stats.get("learner", {}).get("learner_steps", 0) > 0

    def _actor_parts(self, *, far: bool) -> list["Part"]:
        parts = self._engine.program.parts.values()
        return [part for part in parts if part.role == "actor" and bool(part.node) == far]

    def _playing(self, *, far: bool) -> list["Part"]:
        """Return the actors of a machine that is there whose present process plays."""
        parts = [part for part in self._actor_parts(far=far) if part.node not in self._killed]
        return [part for part in parts if not part.lost and self._moves(part) > 0]

    def _moves(self, part: "Part") -> int:
        return self._stats.get(part.name, {}).get("moves", 0)

    def _strike(self, fault: Fault, now: float) -> bool:
        """Let a fault come; return False when nobody is there whom it could befall, so that it comes later."""
        assert self._machines is not None
        if fault.kind == "node":
            if not self._machines.other_is_there or len(self._playing(far=True)) < self._actors["far"]:
                return False
            node = self._machines.kill()
            self._killed.add(node)
            recovery = Recovery("node", fault.at, now, node[:6])
            self._pending.append(_Pending(recovery, self._node_watch(node), time.monotonic()))
        else:
            waited = {each.recovery.victim for each in self._pending}
            victims = [*self._playing(far=False), *self._playing(far=True)]
            victims = [part for part in victims if part.name not in waited]
            if not victims:
                return False
            victim = victims[int(fault.lot * len(victims))]
            pid = self._stats[victim.name]["pid"]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            recovery = Recovery("actor", fault.at, now, victim.name)
            self._pending.append(_Pending(recovery, self._actor_watch(victim, pid), time.monotonic()))
        self.recoveries.append(recovery)
        return True

    def _actor_watch(self, victim: "Part", pid: int) -> Callable[[Recovery, float], bool]:
        def look(recovery: Recovery, seconds: float) -> bool:
            if self._engine.program.parts.get(victim.name) is not victim:
                recovery.overtaken = True
                return True
            if self._stats.get(victim.name, {}).get("pid", pid) != pid and self._moves(victim) > 0:
                recovery.seconds = seconds
            return recovery.over

        return look

    def _node_watch(self, node: str) -> Callable[[Recovery, float], bool]:
        before: dict[str, int] = {}

        def look(recovery: Recovery, seconds: float) -> bool:
            dropped = not any(part.node == node for part in self._engine.program.parts.values())
            if recovery.seconds is None and dropped:
                moves = {part.name: self._moves(part) for part in self._actor_parts(far=False)}
                if before and any(moves[name] != before.get(name) for name in moves):
                    recovery.seconds = seconds
                before.update(moves)
            if recovery.replaced_seconds is None and len(self._playing(far=True)) >= self._actors["far"]:
                recovery.replaced_seconds = seconds
            return recovery.over

        return look


@dataclass(slots=True)
class _Pending:
    """A fault that is not got over yet."""

    recovery: Recovery
    watch: Callable[[Recovery, float], bool]
    since: float

    def look(self) -> bool:
        """Return whether there is nothing more to wait for."""
        return self.watch(self.recovery, time.monotonic() - self.since)


class _Machines:
    """Home's Ray, and that of the other machine, which is killed and replaced.

    Attributes:
        address: of the cluster.
        given_up: machines that Ray's head counted as gone though nobody had killed them.
    """

    def __init__(self, home: set[int], far: set[int]) -> None:
        from ray.cluster_utils import Cluster

        logging.getLogger("ray").setLevel(logging.ERROR)  # that another Ray was begun here is no news
        self._far_cores = far
        self.given_up = 0
        self._trouble: Exception | None = None
        self._replacing: threading.Thread | None = None
        # With hooks of its own Ray's processes would end with the thread that began them. See `play_side`'s caller.
        self._cluster = Cluster(shutdown_at_exit=False)
        self._cluster.add_node(
            num_cpus=len(home), object_store_memory=HOME_STORE_BYTES, include_dashboard=False
        )
        self.address: str = self._cluster.address  # pyright: ignore[reportAttributeAccessIssue]
        self._far: Any = self._add()

    def kill(self) -> str:
        """Kill the other machine, and let another come; return the killed one's id."""
        node, self._far = self._far, None
        for process in _processes_of(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._replacing = threading.Thread(target=self._replace, args=(node,), daemon=True)
        self._replacing.start()
        return node.node_id

    @property
    def other_is_there(self) -> bool:
        return self._far is not None

    def look(self) -> str | None:
        """Let another machine come in the place of one that Ray's head has given up, as a cloud does; return its id.

        Raises:
            ClusterError: when none came in the place of one before.
        """
        self._raise_trouble()
        if self._far is not None and any(name == "raylet" for name, _ in self._far.dead_processes()):
            self.given_up += 1
            return self.kill()
        return None

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise ClusterError(
                "no machine came in the place of the killed one",
                why=str(self._trouble),
                fix="look into Ray's logs (/tmp/ray/session_latest/logs), and at free memory",
            ) from self._trouble

    def close(self) -> None:
        import ray

        if self._replacing is not None:
            self._replacing.join(START_SECONDS)
        ray.shutdown()
        self._cluster.shutdown()

    def _replace(self, node: Any) -> None:
        try:
            killed = time.monotonic()
            self._cluster.remove_node(node, allow_graceful=False)
            time.sleep(max(0.0, killed + REPLACEMENT_SECONDS - time.monotonic()))
            self._far = self._add()
        except Exception as error:  # told by `raise_trouble`, in the thread that can end the run
            self._trouble = error

    def _add(self) -> Any:
        """Begin a machine; what it starts inherits the cores of the thread that began it."""
        here = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._far_cores)
        try:
            return self._cluster.add_node(num_cpus=len(self._far_cores), object_store_memory=FAR_STORE_BYTES)
        finally:
            os.sched_setaffinity(0, here)


def _processes_of(node: Any) -> list[psutil.Process]:
    """Return the processes of a machine, Ray's and all that they began, the ones that begin others first."""
    found: list[psutil.Process] = []
    for infos in node.all_processes.values():
        for info in infos:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(info.process.pid)
                found += [process, *process.children(recursive=True)]
    return found


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that a side with this mark began and that are still there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
