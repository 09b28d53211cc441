"""Who takes part in a run at home, how many of each, and whom each one asks: the topology as data.

    actors ──positions──► inference ◄──weights── store ◄──weights── learner
      └───────games──────► replay ──────rows──────────────────────────┘

`cluster.training.local_engine` runs a program in one process, `cluster.on_ray.program` the same parts as Ray actors.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.run.machine_limits import limits_here
from cluster.run.placement import Node, Share, check_kinds, gpu_share, share_beside, shares
from configs.schema import RunConfig
from core.errors import UsageError

NVIDIA = "/proc/driver/nvidia/gpus"
"""Where the driver lists its GPUs; asking torch would cost its import."""
_LEARNERS_SHARE = 0.6
FOR_PROCESSES = 0.7
"""The share of a machine's memory that Ray counts for processes; objects, and what else runs there, have the rest."""
BESIDE_BYTES = 2 << 30
"""Of it, for the parts that are at home alone: the driver, the learner, the replay, the evaluator and the store."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine offers.

    Attributes:
        memory_bytes: that its actors and servers may take; None where that is not known.
    """

    cpus: int
    gpus: int
    memory_bytes: int | None = None

    @staticmethod
    def here() -> "Machine":
        """Count this process's usable cores, memory and GPUs, as CUDA's driver and CUDA_VISIBLE_DEVICES tell them.

        A container's share of its machine counts: its processes may be seen to run on any core.
        """
        gpus = gpus_there()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            gpus = min(
                gpus, len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
            )
        limits = limits_here()
        memory = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), limits.memory_bytes)
        return Machine(
            cpus=max(1, math.floor(min(len(os.sched_getaffinity(0)), limits.cpus))),
            gpus=gpus,
            memory_bytes=max(0, int(memory * FOR_PROCESSES) - BESIDE_BYTES),
        )


def gpus_there() -> int:
    """Count the GPUs that CUDA's driver finds, whether or not this process may use them."""
    return len(os.listdir(NVIDIA)) if os.path.isdir(NVIDIA) else 0


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of part.

    Attributes:
        count: how many of it run.
        num_cpus, num_gpus: Ray's bookkeeping for each; coordinators take none.
        asks: the roles that it asks; they come before it in a program.
    """

    name: str
    count: int
    num_cpus: float
    num_gpus: float
    asks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """All roles of a run; the order is the order in which they start."""

    roles: tuple[Role, ...]

    def role(self, name: str) -> Role:
        return next(role for role in self.roles if role.name == name)

    def count(self, name: str) -> int:
        return sum(role.count for role in self.roles if role.name == name)

    def server(self, servers: int, gpus: int) -> Role:
        """Return what each server is given where there are to be so many, beside the learners of this program."""
        learners = self.count("learner") + self.count("colearner")
        share = _share_of_server(servers, gpus, learners, self.role("learner").num_gpus if learners else 0.0)
        return replace(self.role("inference"), count=1, num_gpus=share)


def share_of_home(config: RunConfig, machine: Machine, labels: Mapping[str, str]) -> Share:
    """Return how many actors and servers the driver's machine gets, which has these labels of Ray's."""
    home = _home(machine, labels)
    actors, spares = config.actors.count, 0 if config.environment else config.actors.spares
    return shares([home], actors=actors, servers=config.inference.servers, spares=spares)[home.id]


def check_kinds_at_home(config: RunConfig, machine: Machine) -> None:
    """Refuse settings that mean machines of kinds which cannot be, where there is none but the driver's.

    Raises:
        UsageError: with the kinds that there are.
    """
    check_settings_of_kinds(config, [_home(machine, {})])


def check_settings_of_kinds(config: RunConfig, nodes: Sequence[Node]) -> None:
    """Raise UsageError when the settings name kinds of machine of which none of `nodes` is."""
    check_kinds(config.actors.count, nodes, name="actors.count")
    check_kinds(config.inference.servers, nodes, name="inference.servers")


def _home(machine: Machine, labels: Mapping[str, str]) -> Node:
    return Node(
        "home",
        "home",
        machine.cpus,
        machine.gpus,
        memory_bytes=machine.memory_bytes,
        labels=labels,
        is_home=True,
    )


def plan(
    config: RunConfig, machine: Machine, *, learn: bool = True, labels: Mapping[str, str] | None = None
) -> Program:
    """Return the program of a run at home; without `learn` it only plays with the weights that are there.

    What other machines of a cluster add is for `cluster.machines.following`, as they come and go.

    Args:
        labels: of Ray, by which home is of kinds that settings may name.
    """
    share = share_of_home(config, machine, labels or {})
    servers, actors = share.servers, share.actors
    evaluated = config.evaluation.episodes if config.environment else config.evaluation.games
    peers = config.learner.num_learners - 1 if learn else 0
    in_a_team = peers > 0 and machine.gpus > 0
    learner_share = (
        _share_in_a_team(1 + peers, machine) if in_a_team else gpu_share(servers + 1, machine.gpus)
    )
    server_share = _share_of_server(servers, machine.gpus, 1 + peers if learn else 0, learner_share)
    roles = [
        Role("store", 1, 0.0, 0.0, ()),
        Role("replay", 1, 0.0, 0.0, ()),
        Role("colearner", peers, 0.0, learner_share, ()),
        Role("learner", 1, 0.0, learner_share, ("replay", "store", *(("colearner",) if peers else ()))),
        Role("inference", servers, 0.0, server_share, ("store",)),
        Role("actor", actors, 0.0, 0.0, ("inference", "replay")),
        Role("evaluator", int(evaluated > 0), 0.0, 0.0, ("inference", "store")),
    ]
    takes_part = {
        role.name: role.count > 0 and (learn or role.name not in ("learner", "evaluator")) for role in roles
    }
    return Program(tuple(role for role in roles if takes_part[role.name]))


def plan_serving(machine: Machine, *, servers: int = 1) -> Program:
    """Return the program that only answers: a store with models, and servers."""
    return Program(
        (
            Role("store", 1, 0.0, 0.0, ()),
            Role("inference", servers, 0.0, gpu_share(servers + 1, machine.gpus), ("store",)),
        )
    )


def _share_of_server(servers: int, gpus: int, learners: int, learners_share: float) -> float:
    """Return the share of a GPU that each server asks for; where nobody learns, as if somebody did."""
    if not learners:
        return gpu_share(servers + 1, gpus)
    return share_beside(learners, learners_share, servers=servers, gpus=gpus)


def _share_in_a_team(learners: int, machine: Machine) -> float:
    """Return the share of a GPU that each learner asks for; more than half keeps two of them apart.

    Raises:
        UsageError: when there are more learners than GPUs: NCCL, by which they talk, wants one for each.
    """
    if learners > machine.gpus:
        raise UsageError(
            f"{learners} learners cannot share {machine.gpus} GPUs",
            why="each learner of a team needs one of its own",
            fix=f"set learner.num_learners to at most {machine.gpus}",
        )
    return _LEARNERS_SHARE
