"""A program on Ray: parts as actors on this or a given cluster, watched, restarted and stopped by the driver.

The driver only starts, watches and stops: no position, game or weight passes through it.
"""

import heapq
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from actors.game_log import remove_logs
from cluster.on_ray import actors as ray_actors
from cluster.on_ray.checkout import Code, changed_since, code_here
from cluster.on_ray.client import LOST, Handle, NamedServer, Servers, get, in_one_line
from cluster.on_ray.part import AT_HOME, Part, cannot_be_made, cause_of, keeps_dying
from cluster.on_ray.reserved import reserve_together
from cluster.on_ray.spares import Spare, Spares
from cluster.on_ray.supervision import LONGEST_STEP_SECONDS, MOST_QUESTIONS
from cluster.run.machine_file import batches_of
from cluster.run.program import Program, Role
from cluster.run.run_folder import RunFolder
from configs.loading import override
from configs.schema import RunConfig
from core.errors import ClusterError, TamenError

START_TIMEOUT_SECONDS = 150.0
WARM_UP_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1
SILENT_SECONDS = 30.0
ASK_THE_LOST_SECONDS = 0.2
"""Between two questions to a part whose loop has ended, which is to run again as soon as a process answers."""
BEGIN_AGAIN_SECONDS = 2.0
"""Between two processes that begin in the place of one actor, the first of which died before it played."""
MAX_CONCURRENT_REQUESTS = 4096
"""Requests that one server holds at a time, and servers that wait for news at the store, whose calls do so beside its
others; further ones wait in Ray without a word."""


def dressed(part: type, **options: Any) -> Any:
    """Return a plain class as a Ray actor class; Ray's own types do not describe what comes out."""
    return ray.remote(**options)(part)


def beside_the_driver() -> NodeAffinitySchedulingStrategy:
    """Return the placement of an actor at home: on this machine, where the run's folder is."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class RayProgram:
    """Starts the parts of `program`, keeps them alive and stops them.

    Those of `program` are at home, on the driver's machine. Others are added on any machine, and leave again; what goes
    wrong with one elsewhere never ends the run.

    Args:
        report: told of everything that a person should know (restarts, silence): in one line, after which the
            traceback of a failure that nobody foresaw may follow.
        spares: that wait on each machine to take the place of an actor; see `cluster.on_ray.spares`.
        code: that this process has loaded; None reads it now.

    Attributes:
        parts: by name; nobody gets a number that another had before it.
        given_up: what no restart would mend, by the id of a machine elsewhere; for its reader to clear.
        code: that this process runs; no part begins that would run other code.
        spares: that are to wait on each machine.
        gpus: that parts at home ask for.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        program: Program,
        *,
        report: Callable[[str], None],
        spares: int = 0,
        code: Code | None = None,
    ) -> None:
        self.code = code or code_here()
        self._config = config
        # Elsewhere the folder is not at hand, in which the run's name stands.
        self._folder = replace(folder, called=folder.name)
        self._program = program
        self._report = report
        # Ray frees the names of a program that was stopped a moment after it is gone.
        self._life = secrets.token_hex(4)
        self._playing = False
        self._looked_at: float | None = None
        self._left: dict[str, dict[str, Any]] = {}
        self._reserved: PlacementGroup | None = None
        self._next_number = {role.name: role.count for role in program.roles}
        self._games_lost = self._games_taken_over = 0  # of parts that are there no more
        # A spare would open its environments, and keep what they are connected to from those that play.
        self.spares = 0 if config.environment else spares
        self._spares = Spares(self.spares, self._spare, report=report)
        self.gpus = sum(role.count * role.num_gpus for role in program.roles)
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
        here = ray.get_runtime_context().get_node_id()
        for role in self._program.roles:
            asks = {name: names[name] for name in role.asks if name != "inference"}
            servers = names["inference"] if "inference" in role.asks else []
            names[role.name] = [
                self._create(
                    role.name if role.count == 1 else f"{role.name}-{index}",
                    self._assignment(index, asks, tuple(NamedServer(name, here) for name in servers)),
                    role,
                    self._placement(role, index),
                ).ray_name
                for index in range(role.count)
            ]
        if "learner" in self.parts:
            self.parts["learner"].run()
        waiting = [part for part in self.parts.values() if part.loops and part.running is None]
        if waiting or "learner" in self.parts:  # those elsewhere want weights too, where nobody plays at home
            self._wait_for_weights(self.parts["store"].handle)
            self._warm_up()
        for part in waiting:
            part.run()
        self._playing = True

    def add(
        self,
        role: Role,
        *,
        node: str,
        asks: Mapping[str, list[str]],
        servers: Servers = (),
        batch_rows: int | None = None,
    ) -> Part:
        """Create one more part, set it going, and return it.

        Args:
            role: of which `count` is not looked at.
            node: id of its machine; `AT_HOME` for the driver's.
            asks, servers: Ray names of those it asks, by role, and the inference servers.
            batch_rows: that batches on its machine may have at most; None for as many as at home.
        """
        index = self._number(role.name)
        given = self._assignment(index, asks, servers)
        if batch_rows is not None:
            given = replace(given, config=override(given.config, [f"inference.max_batch_rows={batch_rows}"]))
        part = self._create(f"{role.name}-{index}", given, role, _on(node), node=node)
        if part.loops:
            part.run()
        return part

    def drop(self, part: Part) -> None:
        """End a part at once, for good."""
        self._games_lost += part.games_lost + part.games_unsettled + part.games_at_stake
        self._games_taken_over += part.games_taken_over
        self._left[part.name] = part.told()
        ray.kill(part.handle)
        del self.parts[part.name]

    @property
    def games_lost(self) -> int:
        """Games lost with parts that were dropped, and with processes that died; see `Part.games_at_stake`."""
        return self._games_lost + sum(part.games_lost for part in self.parts.values())

    @property
    def games_taken_over(self) -> int:
        """Games of processes that died with which others have gone on; see `actors.game_log`."""
        return self._games_taken_over + sum(part.games_taken_over for part in self.parts.values())

    def server(self, servers: int, gpus: int) -> Role:
        """Return what each server at home is given, where there are to be so many on so many GPUs."""
        return self._program.server(servers, gpus)

    def spares_ready(self, node: str = AT_HOME) -> int:
        """Return how many processes on a machine could take the place of an actor at once."""
        return self._spares.ready(node)

    def handles(self, role: str) -> list[Handle]:
        """Return the handles of all that play `role`."""
        return [part.handle for part in self.parts.values() if part.role == role]

    def supervise(self) -> None:
        """Notice loops that ended, and run them again once their process is back and their delay is over.

        Raises:
            TamenError: what a part at home raised that no restart would mend, or that it keeps failing.
        """
        now = time.monotonic()
        self._forgive_pause(now)
        for part in self.parts.values():
            if part.lost and now - part.asked_at >= ASK_THE_LOST_SECONDS:
                part.ask(now)
        awaited = [part.running or (part.asked if part.lost else None) for part in self.parts.values()]
        awaited = [reference for reference in awaited if reference is not None]
        ready = set(ray.wait(awaited, num_returns=len(awaited), timeout=0)[0]) if awaited else set()
        for part in list(self.parts.values()):
            if part.leaves_by is not None:
                if part.running in ready:
                    part.has_left()
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
        if self._playing:
            self._spares.keep(self.parts.values(), now)

    def _forgive_pause(self, now: float) -> None:
        """Judge no part by time in which nobody could listen to it."""
        seconds, self._looked_at = now - (self._looked_at or now), now
        if seconds > LONGEST_STEP_SECONDS:
            for part in self.parts.values():
                part.made_at += seconds
                part.attendance.forgive(seconds)

    def collect_stats(self, timeout_seconds: float) -> dict[str, dict[str, Any]]:
        """Ask parts how they are, of many those that were asked longest ago; return the newest answer of each, of one
        that has left since the last time its last.

        Args:
            timeout_seconds: to wait for the answers of those that are there, while loops that end are looked after. For
                one that starts, or was lost, nobody waits.

        Raises:
            TamenError: as `supervise`.
        """
        now = time.monotonic()
        free = [part for part in self.parts.values() if part.asked is None]
        for part in heapq.nsmallest(MOST_QUESTIONS, free, key=lambda part: part.asked_at):
            part.ask(now)
        asked = [part for part in self.parts.values() if part.asked is not None]
        there = [part.asked for part in asked if part.heard_at is not None and not part.lost]
        others = [part.asked for part in asked if part.heard_at is None or part.lost]
        ready = self._answers(there, now + timeout_seconds)
        ready |= set(ray.wait(others, num_returns=len(others), timeout=0)[0]) if others else set()
        now = time.monotonic()  # a pause that came while it waited has been forgiven
        silent = []
        for part in asked:
            if part.asked is None or self.parts.get(part.name) is not part:
                continue  # lost meanwhile
            if part.asked in ready:
                self._take_answer(part, now)
            elif now - part.asked_at > SILENT_SECONDS:
                silent.append(part.name)
                part.asked = None
        if silent:
            have = "has" if len(silent) == 1 else "have"
            self._report(f"{', '.join(silent)} {have} not answered for {SILENT_SECONDS:.0f} s")
        left, self._left = self._left, {}
        return left | {part.name: part.told() for part in self.parts.values()}

    def _answers(self, awaited: list[Any], until: float) -> set[Any]:
        """Return which of the answers have come, when all have or at `until`."""
        come: set[Any] = set()
        while awaited:
            left = max(0.0, until - time.monotonic())
            ready, awaited = ray.wait(awaited, num_returns=len(awaited), timeout=min(POLL_SECONDS, left))
            come.update(ready)
            if left <= POLL_SECONDS:
                break
            if awaited:
                self.supervise()
        return come

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Stop actors first, so that their games reach the replay, then the learner, which saves its last step.

        The evaluator is told too, but not waited for: it has nothing that would be lost. Neither has anybody before
        the games began.
        """
        if self._playing:
            self._end_loops(timeout_seconds)
        self._spares.end()
        for part in self.parts.values():
            ray.kill(part.handle)
        self.parts.clear()
        if ray.is_initialized():  # not when the cluster could not be joined
            remove_logs(ray.get_runtime_context().get_node_id(), self._life)
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

    def _assignment(
        self, index: int, asks: Mapping[str, list[str]], servers: Servers
    ) -> ray_actors.Assignment:
        learns = self._program.count("learner") > 0
        return ray_actors.Assignment(
            self._config, self._folder, index, asks, learns, servers, code=self.code, life=self._life
        )

    def _begin(self, name: str, given: ray_actors.Assignment, role: Role, where: Any) -> tuple[Handle, str]:
        """Create a Ray actor; return its handle and Ray's name for it."""
        options: dict[str, Any] = {
            "name": f"{self._folder.name}/{self._life}/{name}",
            "num_cpus": role.num_cpus,
            "num_gpus": role.num_gpus,
            # In the place of an actor another process plays, see `_let_another_play`. Ray would begin one beside it.
            "max_restarts": 0 if role.name == "actor" else -1,
            "enable_task_events": False,
            "scheduling_strategy": where,
        }
        if role.name in ray_actors.ANSWERING_BESIDE_WORK:
            options["concurrency_groups"] = {"control": 2}
        if role.name in ("inference", "store"):
            options["max_concurrency"] = MAX_CONCURRENT_REQUESTS
        handle = dressed(ray_actors.ACTORS[role.name], **options).remote(replace(given, called=name))
        return handle, options["name"]

    def _number(self, role: str) -> int:
        """Return a number that nobody who plays `role` has had."""
        number = self._next_number.get(role, 0)
        self._next_number[role] = number + 1
        return number

    def _spare(self, part: Part) -> Spare:
        """Begin a process that can take the place of `part`, or of another actor of its machine."""
        index = self._number(part.role)
        role = Role(part.role, 1, 0.0, part.num_gpus, ())
        return Spare(
            *self._begin(f"{part.role}-{index}", replace(part.given, index=index), role, _on(part.node))
        )

    def _create(
        self, name: str, given: ray_actors.Assignment, role: Role, where: Any, *, node: str = AT_HOME
    ) -> Part:
        """Create one part at `where`, on the machine `node`."""
        handle, ray_name = self._begin(name, given, role, where)
        part = Part(name, role.name, handle, role.name in ray_actors.LOOPS)
        part.node, part.ray_name, part.num_gpus = node, ray_name, role.num_gpus
        part.given = given
        part.made_at = time.monotonic()
        part.servers = given.servers
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
            if isinstance(error, RayActorError) and error.actor_init_failed:
                self._give_up(part, self._cannot_be_made(part, error), because=error)
            part.lose(cause_of(error), now, killed=False)
            if not isinstance(error, ActorUnschedulableError):  # else its machine has left
                self._let_another_play(part, now)
        except Exception as error:  # an unexpected failure of one part is not the end of the run
            if isinstance(error, TamenError) and part.node == AT_HOME:
                raise
            self._replace(part, error, now)

    def _let_another_play(self, part: Part, now: float) -> None:
        """Give the place of an actor that was lost to a spare of its machine, or to a process that begins now.

        Of all other parts Ray begins a process again by itself.
        """
        if part.role != "actor":
            return
        spare = self._spares.take(part.node)
        ray.kill(part.handle)
        try:
            heir = spare or self._spare(part)
        except Exception:  # a dozen kinds, while Ray's head is overloaded
            return  # the dead one is asked again, and this is tried again
        part.succeed(heir.handle, heir.ray_name, now, has_waited=spare is not None)
        part.ask(now)  # it plays once it has answered: its machine may be what was lost

    def _replace(self, part: Part, error: Exception, now: float) -> None:
        """Kill a part that is broken for good: a new life of its process begins from what is on disk."""
        self._report(f"{part.name} failed: {in_one_line(error)}\n{error}")
        ray.kill(part.handle, no_restart=False)
        part.lose(in_one_line(error), now, killed=True)
        self._let_another_play(part, now)

    def _take_answer(self, part: Part, now: float) -> None:
        asked, part.asked = part.asked, None
        try:
            died = part.answered(get(asked, timeout_seconds=1.0), now)
        except RayActorError as error:
            if error.actor_init_failed:
                self._give_up(part, self._cannot_be_made(part, error), because=error)
            part.missed(cause_of(error), now)  # it is being restarted
            if part.lost and now - part.succeeded_at >= BEGIN_AGAIN_SECONDS:
                self._let_another_play(part, now)
        except LOST:
            return
        except Exception as error:  # it says itself that it is broken
            if part.killed_pid is None:
                self._replace(part, error, now)
        else:
            if died is not None:
                self._plan_restart(part, died, now)

    def _cannot_be_made(self, part: Part, error: RayActorError) -> TamenError:
        """Return why a constructor failed. Of code that has changed, what it raised may be anything."""
        changed = changed_since(self.code) if part.node == AT_HOME else None
        return changed or cannot_be_made(part.name, error)

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
        self._report(f"{part.name} died" + (f" ({reason})" if reason else "") + f"; {part.who_is_back()}")


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    """Return the placement of an actor on a machine."""
    return beside_the_driver() if node == AT_HOME else NodeAffinitySchedulingStrategy(node, soft=False)


def _answer(reference: Any, timeout_seconds: float) -> Any:
    """Return what a call gave, None when nothing has come within the time."""
    try:
        return get(reference, timeout_seconds=timeout_seconds)
    except LOST:
        return None
