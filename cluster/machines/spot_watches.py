"""The driver's eyes on the machines that may be taken away: a small process on each asks its cloud for a notice."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.machines.roster import name_of
from cluster.machines.spot import LOOK_SECONDS, METADATA, Told, Watch, clouds
from cluster.on_ray.client import Handle, get
from cluster.run.placement import Node
from core.errors import UsageError

SPOT = "spot"
"""The kind of the machines that are watched."""
CLOUDS = {"aws": "AWS", "gcp": "Google Cloud", "azure": "Azure"}
DOUBTED_SECONDS = 300.0
"""After the time of a notice a machine that is still there is asked anew: one that was stopped and goes on, or that was
spared. It is used again once its cloud has no notice for it, unless Ray ended it meanwhile."""
ENDPOINT_VARIABLE = "TAMEN_METADATA_URL"
"""Environment variable of the driver: where the metadata service answers instead, for all machines."""


@dataclass(slots=True)
class _Watched:
    """A machine, its watcher, what that told last, when it is asked next, and the question on its way.

    There is no watcher while a notice is believed.
    """

    handle: Handle | None = None
    ask_at: float = 0.0
    question: Any = None
    told: Told = field(default_factory=Told)
    leaves_at: float | None = None


class Watches:
    """Keeps a watcher on each machine that may be taken away. Never waits for one.

    Args:
        base: where the metadata service answers, "http://HOST[:PORT]".
        report: told in one line that a machine may be taken away soon.
        drain: called with a machine's id, the seconds that are left and a reason, once a machine has a notice.

    Attributes:
        notices_given: since the driver began.

    Raises:
        UsageError: when `base` has another form.
    """

    def __init__(
        self,
        *,
        report: Callable[[str], None],
        drain: Callable[[str, float, str], None],
        base: str = METADATA,
    ) -> None:
        if not re.fullmatch(r"http://[^/?#@\s]+", base):
            raise UsageError(
                f"{ENDPOINT_VARIABLE} is {base!r}",
                why="it says where machines ask their cloud for notices: http://HOST or http://HOST:PORT",
                fix=f"unset {ENDPOINT_VARIABLE}: clouds answer at {METADATA}",
            )
        self._base = base
        self._report = report
        self._drain = drain
        self._watched: dict[str, _Watched] = {}
        self.notices_given = 0

    def step(self, nodes: Iterable[Node], now: float) -> None:
        """Take in what the watchers told and ask anew; begin with machines that have come, forget those that left.

        Args:
            nodes: of use, and those that are leaving.
            now: monotonic seconds.
        """
        spot = {node.id: node for node in nodes if SPOT in node.kinds and not node.is_home}
        for id in self._watched.keys() - spot.keys():
            _end(self._watched.pop(id))
        for id, node in spot.items():
            watched = self._watched.setdefault(id, _Watched())
            if watched.leaves_at is None or now >= watched.leaves_at + DOUBTED_SECONDS:
                if watched.handle is None:
                    watched.handle = self._begin(id)
                self._take_answer(node, watched, now)
                self._ask(watched, now)

    def leaving(self) -> frozenset[str]:
        """Return the ids of the machines that have a notice, also while it is doubted."""
        return frozenset(id for id, each in self._watched.items() if each.leaves_at is not None)

    def leaves_at(self, id: str) -> float | None:
        """Return when a machine is taken away, in monotonic seconds; None where that is not known."""
        return self._watched[id].leaves_at if id in self._watched else None

    def told(self, id: str) -> Told:
        """Return what a machine told last."""
        return self._watched[id].told if id in self._watched else Told()

    def _begin(self, id: str) -> Handle:
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": -1,
            "enable_task_events": False,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(id, soft=False),
        }
        return ray.remote(**options)(Watch).remote(clouds(self._base))

    def _ask(self, watched: _Watched, now: float) -> None:
        if watched.handle is not None and watched.question is None and now >= watched.ask_at:
            watched.question, watched.ask_at = watched.handle.look.remote(), now + LOOK_SECONDS

    def _take_answer(self, node: Node, watched: _Watched, now: float) -> None:
        if watched.question is None:
            return
        before, doubted = watched.told, watched.leaves_at is not None
        try:
            watched.told = get(watched.question, timeout_seconds=0)
        except GetTimeoutError:
            return
        except Exception:  # Ray brings it back, or its machine is gone and soon known to be
            watched.question = None
            return
        watched.question = None
        left, cloud = watched.told.leaves_in_seconds, CLOUDS.get(watched.told.cloud, "")
        if left is not None:
            watched.leaves_at = now + left
            if not doubted:
                self.notices_given += 1
                self._drain(node.id, left, f"{cloud}: {watched.told.what}")
            _end(watched)  # a machine that Ray drains ends once nothing is on it
        elif doubted:
            watched.leaves_at = None
            self._report(f"{name_of(node)} was not taken away, and no notice is left")
        elif watched.told.at_risk and not before.at_risk:
            self._report(f"{name_of(node)} may be taken away soon, says {cloud}")


def _end(watched: _Watched) -> None:
    """End the watcher of a machine, if there is one."""
    if watched.handle is not None:
        ray.kill(watched.handle)
    watched.handle = None


def ask_ray_to_drain(id: str, seconds: float, reason: str) -> None:
    """Let Ray put nothing more on a machine, and end it there once nothing runs; other programs see it, too.

    Where this version of Ray has no such call, or refuses, the machine is left alone by this run only.
    """
    try:
        from ray._private.worker import global_worker
        from ray.core.generated import autoscaler_pb2

        reasons: Any = autoscaler_pb2  # neither is described to type checkers
        gcs: Any = getattr(global_worker, "gcs_client")  # noqa: B009
        preemption = reasons.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        gcs.drain_node(id, preemption, reason, int(1000 * (time.time() + seconds)))
    except Exception:  # private to Ray: whatever it raises, the run goes by its own notice
        return
