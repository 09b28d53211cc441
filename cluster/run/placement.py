"""How many actors and servers each machine of a run gets, by what it offers and what its settings ask: a pure function.

*Home* is the machine with the run's folder. Store, replay, learner and evaluator stay there; actors and servers are on
every machine that takes part.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from configs.schema import MOST_A_MACHINE, Auto, PerMachine
from core.errors import UsageError

HOME, GPU, OTHERS = "home", "gpu", "others"
"""Kinds that machines are of without a label: the driver's, those with a GPU, all but the driver's."""
OWN_LABEL = "tamen"
KIND_LABELS = (OWN_LABEL, "ray.io/market-type", "ray.io/node-group")
"""Labels of Ray whose values are kinds of machine: ours, "spot" or "on-demand", the name in the cluster's file."""
LEFT_ALONE = "no"
"""A machine with the label tamen=no takes no part."""
ACTOR_BYTES, SERVER_BYTES = 400 << 20, 900 << 20
"""Memory that "auto" allows for each, rather too much: of hex13 an actor began with 210 MB, a server, with torch in it,
had 460 after its largest batch."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, as far as parts are placed by it.

    Attributes:
        id: by which Ray knows it.
        host: how a person knows it.
        cpus, gpus: that Ray may use there.
        memory_bytes: that Ray may use there for processes; None where that is not known.
        labels: of Ray, by key.
        is_home: whether it is the driver's.
    """

    id: str
    host: str
    cpus: int
    gpus: int = 0
    memory_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    is_home: bool = False

    @property
    def kinds(self) -> set[str]:
        """By which settings may mean it; "key=value" of each label among them."""
        return {
            *([HOME] if self.is_home else [OTHERS]),
            *([GPU] if self.gpus else []),
            *(self.labels[key] for key in KIND_LABELS if key in self.labels),
            *(f"{key}={value}" for key, value in self.labels.items()),
        }

    @property
    def takes_part(self) -> bool:
        return self.is_home or (self.cpus > 0 and self.labels.get(OWN_LABEL) != LEFT_ALONE)


@dataclass(frozen=True, slots=True)
class Share:
    """What a machine gets."""

    actors: int
    servers: int


def shares(
    nodes: Sequence[Node],
    *,
    actors: PerMachine,
    servers: PerMachine,
    spares: int = 0,
    serving: Collection[str] | None = None,
) -> dict[str, Share]:
    """Return what each machine that takes part gets, by its id.

    "auto" at home is, with GPUs, a server for each and n - 2 actors on n cores, without them n/2 servers and n/2
    actors, at least one of each. Elsewhere it is a server for each GPU, without any n/2, and an actor for each core
    that is left; but where another machine evaluates on GPUs, all cores of one without play, and its actors ask that
    one. What does not fit into memory is left out. Home always has a server: it is asked when others leave.

    Args:
        nodes: all machines of the cluster, in any order.
        spares: actors in reserve on each machine where any play; there is to be memory for them too.
        serving: ids of those where a server has answered: GPUs elsewhere, which somebody else may hold, count from then
            on. None counts all of them.
    """
    taking_part = [node for node in nodes if node.takes_part]
    on_gpus = any(
        node.gpus and (serving is None or node.id in serving) and asked_of(node, servers) != 0
        for node in taking_part
    )
    reserve = spares * ACTOR_BYTES
    return {node.id: _share(_less(node, actors, reserve), actors, servers, on_gpus) for node in taking_part}


def asked_of(node: Node, setting: PerMachine) -> int | Auto:
    """Return what a setting asks of a machine, a number or "auto"."""
    if not isinstance(setting, dict):
        return setting
    for kind, number in setting.items():
        if kind in node.kinds:
            return number
    return "auto"


def gpu_share(parts: int, gpus: int) -> float:
    """Return the share of a GPU that each of `parts` asks for, so that all of them fit, none over two GPUs."""
    return 1 / math.ceil(parts / gpus) if gpus and parts else 0.0


def share_beside(learners: int, share: float, *, servers: int, gpus: int) -> float:
    """Return the share of a GPU that each of `servers` asks for, so that all of them fit, none over two GPUs, while
    each of `learners`, fewer than GPUs and servers together, holds `share` of a GPU of its own.
    """
    left = 1 - share if share < 1 else 1.0
    for on_one_gpu in range(1, servers + 1) if gpus else ():
        each = left / on_one_gpu
        room = learners * _times(each, 1 - share) + (gpus - learners) * _times(each, 1.0)
        if room >= servers:
            return each
    return 0.0


def _times(each: float, room: float) -> int:
    return int(room / each + 1e-6)


def check_kinds(setting: PerMachine, nodes: Iterable[Node], *, name: str) -> None:
    """Refuse a setting that means no machine which is there.

    Raises:
        UsageError: with the kinds that there are.
    """
    known = set().union(*(node.kinds for node in nodes)) | {HOME, OTHERS, GPU, "spot", "on-demand"}
    unknown = [kind for kind in setting if kind not in known] if isinstance(setting, dict) else []
    if unknown:
        raise UsageError(
            f"{name} names {unknown[0]!r}, which no machine is",
            why=f"kinds of machine are {', '.join(sorted(kind for kind in known if '=' not in kind))}",
            fix="name one of them, or give a machine that label: ray start --labels tamen=NAME",
        )


def _share(node: Node, actors: PerMachine, servers: PerMachine, on_gpus: bool) -> Share:
    evaluate, play = asked_of(node, servers), asked_of(node, actors)
    if node.is_home:
        return _share_of_home(node, play, evaluate)
    if evaluate == "auto":
        wanted = node.gpus or (0 if on_gpus else max(1, _cores_with_memory(node) // 2))
        evaluate = min(wanted, _fitting(node, SERVER_BYTES, beside=ACTOR_BYTES))
        if play == 0 and not node.gpus:
            evaluate = 0  # nobody near would ask it
    if play == "auto":
        play = min(max(1, node.cpus - evaluate), _fitting(node, ACTOR_BYTES, beside=evaluate * SERVER_BYTES))
    return Share(actors=play, servers=evaluate)


def _less(node: Node, actors: PerMachine, reserve: int) -> Node:
    """Return a machine without the memory of its spares, if it is to have actors."""
    if node.memory_bytes is None or asked_of(node, actors) == 0:
        return node
    least = min(node.memory_bytes, ACTOR_BYTES)  # one that plays comes before one that waits
    return replace(node, memory_bytes=max(least, node.memory_bytes - reserve))


def _share_of_home(home: Node, play: int | Auto, evaluate: int | Auto) -> Share:
    if evaluate == "auto":
        evaluate = max(1, home.gpus or _cores_with_memory(home) // 2)
    if play == "auto":
        cores = home.cpus - 2 if home.gpus else home.cpus // 2
        play = max(1, min(cores, _fitting(home, ACTOR_BYTES, beside=evaluate * SERVER_BYTES)))
    return Share(actors=play, servers=max(1, evaluate))


def _cores_with_memory(node: Node) -> int:
    """Return for how many cores of a machine there is memory, where half of them play and half evaluate."""
    if node.memory_bytes is None:
        return node.cpus
    return min(node.cpus, 2 * node.memory_bytes // (ACTOR_BYTES + SERVER_BYTES))


def _fitting(node: Node, each_bytes: int, *, beside: int) -> int:
    """Return how many processes of `each_bytes` fit into a machine's memory beside `beside` bytes."""
    if node.memory_bytes is None:
        return MOST_A_MACHINE
    return max(0, (node.memory_bytes - beside) // each_bytes)
