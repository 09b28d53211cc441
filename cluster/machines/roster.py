"""The machines of a Ray cluster as a run sees them: who is there, who is of use, and who has left.

One is of use once a process there has told that it runs the code and the libraries that the driver runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.environment import CHECKOUT
from cluster.on_ray.checkout import Code, code_here, difference
from cluster.on_ray.client import get, in_one_line
from cluster.on_ray.supervision import LONGEST_STEP_SECONDS
from cluster.run.machine_file import batches_of
from cluster.run.placement import LEFT_ALONE, OWN_LABEL, Node
from cluster.run.program import Machine, gpus_there
from configs.schema import RunConfig
from core.errors import ClusterError, TamenError

GREETING_SECONDS = 90.0
"""For a machine to start a process and tell; one that has just booted reads Python from a cold disk."""
AGAIN_SECONDS = 60.0
"""After which a machine that was of no use is asked anew: somebody may have seen to it."""
AGAIN_AFTER_FAILURES_SECONDS, MOST_AGAIN_SECONDS = 600.0, 19200.0
"""After which one is used again that was given up; each time that it lasts for less than it was refused for, it is
refused for twice as long, up to the second: each try costs it the games of its actors."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a process on a machine tells of it.

    Attributes:
        batch_rows: that servers there take at most.
        gpus: that servers there would find.
    """

    code: Code
    batch_rows: int
    gpus: int


def greet(config: RunConfig) -> Greeting:
    """Tell of the machine on which this runs."""
    return Greeting(code_here(), batches_of(config).rows, gpus_there())


@dataclass(slots=True)
class _Known:
    """A machine elsewhere.

    Attributes:
        greeting: once it is of use.
        question: the greeting that is on its way, since `asked_at`.
        of_use_since: when that was told.
        not_before: when it is asked (again).
        given_up_seconds: for how long it was refused when it was given up last.
        told: why it was of no use, as a person was told last.
    """

    node: Node
    greeting: Greeting | None = None
    question: Any = None
    asked_at: float = 0.0
    of_use_since: float = 0.0
    not_before: float = 0.0
    given_up_seconds: float = 0.0
    told: str = ""


class Machines:
    """Follows the machines of the cluster that this process has joined.

    Args:
        config: of the run.
        home: what the driver's machine offers.
        code: that the run began with.
        report: told in one line, or the three of an error, what a person should know.

    Attributes:
        leaving: ids of those that Ray drains: they do not take on anything more.
    """

    def __init__(
        self, config: RunConfig, home: Machine, *, code: Code, report: Callable[[str], None]
    ) -> None:
        self._config = config
        self._home = home
        self._report = report
        self._home_id = ray.get_runtime_context().get_node_id()
        self._code = code
        self._known: dict[str, _Known] = {}
        self._aside: list[Node] = []
        self._looked_at: float | None = None
        self.leaving: frozenset[str] = frozenset()

    def look(self, now: float) -> list[Node]:
        """Return the machines that are of use now, home first; ask those that are new. Never waits for one.

        Args:
            now: monotonic seconds.

        Raises:
            Exception: of Ray's, when its head cannot tell.
        """
        pause, self._looked_at = now - (self._looked_at or now), now
        for known in self._known.values() if pause > LONGEST_STEP_SECONDS else ():
            known.asked_at += pause  # nobody could listen
        alive = {each["NodeID"]: self._node(each) for each in ray.nodes() if each["Alive"]}
        leaving = draining() & alive.keys()
        for gone in [id for id in self._known if id not in alive]:
            del self._known[gone]
        self.leaving = leaving
        self._aside = [node for node in alive.values() if not node.takes_part]
        for id, node in alive.items():
            if not node.is_home and node.takes_part and id not in self.leaving:
                self._meet(self._known.setdefault(id, _Known(node)), now)
        of_use = [each.node for each in self._known.values() if each.greeting is not None]
        return [node for node in alive.values() if node.is_home] + of_use

    def all_there(self) -> list[Node]:
        """Return all machines of the cluster, of use or not."""
        return [self._node(each) for each in ray.nodes() if each["Alive"]]

    def of_no_use(self) -> list[tuple[Node, str]]:
        """Return the machines that were refused, or that take no part, and why."""
        refused = [
            (each.node, each.told) for each in self._known.values() if each.told and each.greeting is None
        ]
        return refused + [(node, _why_aside(node)) for node in self._aside]

    def is_there(self, id: str) -> bool:
        """Whether a machine was in the cluster when looked last."""
        return id in self._known

    def batch_rows(self, node: Node) -> int | None:
        """Return what servers on a machine take at most; None at home, where the run has settled it."""
        known = self._known.get(node.id)
        return known.greeting.batch_rows if known is not None and known.greeting is not None else None

    def give_up(self, id: str, error: TamenError, now: float) -> None:
        """Count a machine that was of use as of none for some time, and tell why unless that was told before."""
        known = self._known.get(id)
        if known is None or known.greeting is None:
            return
        lasted, before = now - known.of_use_since, known.given_up_seconds
        known.given_up_seconds = AGAIN_AFTER_FAILURES_SECONDS
        if lasted < before:
            known.given_up_seconds = min(2 * before, MOST_AGAIN_SECONDS)
        self._refuse(known, error, now, for_seconds=known.given_up_seconds)

    def _refuse(self, known: _Known, error: TamenError, now: float, *, for_seconds: float) -> None:
        known.greeting = known.question = None
        known.not_before = now + for_seconds
        if str(error) != known.told:
            known.told = str(error)
            self._report(f"{name_of(known.node)} is not used: {in_one_line(error)}\n{error}")

    def _node(self, told: dict[str, Any]) -> Node:
        resources, is_home = told["Resources"], told["NodeID"] == self._home_id
        memory = resources.get("memory")
        return Node(
            id=told["NodeID"],
            host=told["NodeManagerHostname"],
            cpus=self._home.cpus if is_home else int(resources.get("CPU", 0)),
            gpus=self._home.gpus if is_home else int(resources.get("GPU", 0)),
            memory_bytes=self._home.memory_bytes if is_home else None if memory is None else int(memory),
            labels=told.get("Labels") or {},
            is_home=is_home,
        )

    def _meet(self, known: _Known, now: float) -> None:
        if known.greeting is not None or now < known.not_before:
            return
        if known.question is None:
            # Once: a process that has loaded some of the code may not be the one that an actor begins in later.
            ask = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(greet).options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(known.node.id, soft=False)
            )
            known.question, known.asked_at = ask.remote(self._config), now
            return
        try:
            told: Greeting = get(known.question, timeout_seconds=0)
        except GetTimeoutError:
            if now - known.asked_at > GREETING_SECONDS:
                error = _cannot_greet(f"no process there has answered for {GREETING_SECONDS:.0f} s")
                self._refuse(known, error, now, for_seconds=AGAIN_SECONDS)
        except Exception as error:  # Ray raises a dozen kinds, all meaning the same to the user
            self._refuse(known, _cannot_greet(in_one_line(error)), now, for_seconds=AGAIN_SECONDS)
        else:
            self._take(known, told, now)

    def _take(self, known: _Known, told: Greeting, now: float) -> None:
        known.question = None
        if differs := difference(self._code, told.code):
            self._refuse(known, _other_code(differs), now, for_seconds=AGAIN_SECONDS)
            return
        if told.gpus < known.node.gpus:
            self._report(_lacks_gpus(known.node, told.gpus))
            known.node = replace(known.node, gpus=told.gpus)
        known.greeting, known.of_use_since, known.told = told, now, ""


def labels_of_home() -> dict[str, str]:
    """Return the labels of Ray's that this process's node has."""
    return dict(_home().get("Labels") or {})


def check_gpus_of_home(asked: float, found: int) -> None:
    """Refuse to begin where Ray has fewer GPUs at home than parts there ask for: they would wait for them.

    Args:
        asked: shares of GPUs in all.
        found: by CUDA's driver.

    Raises:
        ClusterError: with the numbers.
    """
    counted = _home().get("Resources", {}).get("GPU", 0)
    if counted + 1e-6 < asked:
        raise ClusterError(
            f"Ray counts {counted:g} GPUs on this machine, and the run asks for {asked:g}",
            why=f"the learner and servers are given shares of those that CUDA's driver finds, which are {found}",
            fix=f"start Ray here with --num-gpus={found}, or hide GPUs from the run by CUDA_VISIBLE_DEVICES",
        )


def _home() -> dict[str, Any]:
    """Return what Ray tells of this process's node."""
    here = ray.get_runtime_context().get_node_id()
    return next((each for each in ray.nodes() if each["NodeID"] == here), {})


def draining() -> frozenset[str]:
    """Return the ids of the machines that Ray drains; none where the private way is gone, for no public one tells.

    Raises:
        Exception: of Ray's, when its head cannot tell.
    """
    try:
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())
    except (ImportError, AttributeError, TypeError):
        return frozenset()


def free_resources(id: str) -> str:
    """Return in words what Ray has left on a machine, as far as it can be told."""
    try:
        from ray._private.state import state

        free = state.available_resources_per_node().get(id, {})
    except Exception:  # private to Ray: whatever it raises, it is only for the reader of an error
        return "unknown"
    shown = {name: free[name] for name in ("CPU", "GPU", "memory") if name in free}
    return ", ".join(f"{name} {amount:g}" for name, amount in shown.items()) or "nothing"


def name_of(node: Node) -> str:
    """Return how a person is told of a machine; several may have one host name, as containers do."""
    return f"machine {node.host} ({node.id[:6]})"


def _lacks_gpus(node: Node, found: int) -> str:
    """Return what to tell of a machine whose servers would compute on its cores, though Ray counts GPUs there."""
    return (
        f"{name_of(node)} counts as one with {found} GPUs: Ray has {node.gpus} there, CUDA's driver finds {found}\n"
        "  do:  look at `nvidia-smi` there, or at --num-gpus of its `ray start`"
    )


def _why_aside(node: Node) -> str:
    if node.labels.get(OWN_LABEL) == LEFT_ALONE:
        return f"it has the label {OWN_LABEL}={LEFT_ALONE}"
    return "Ray may use less than one core there"


def _cannot_greet(why: str) -> ClusterError:
    return ClusterError(
        "it cannot take part",
        why=why,
        fix=f"see that the checkout is at {CHECKOUT} there too, with the same Python;"
        " it is asked again every minute",
    )


def _other_code(differs: str) -> ClusterError:
    return ClusterError(
        "it runs other code",
        why=differs,
        fix="bring its checkout and libraries to the state of this one; it is asked again every minute",
    )
