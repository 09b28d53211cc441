"""Who takes part in a run at home, how many of each, and whom each one asks: the topology as data.

    actors ──positions──► inference ◄──weights── store ◄──weights── learner
      └───────games──────► replay ──────rows──────────────────────────┘

`cluster.local` runs a program in one process, `cluster.ray_program` runs the same parts as Ray actors.
"""

import math
import os
from dataclasses import dataclass

from cluster.placement import Node, Share, gpu_share, shares
from configs.schema import RunConfig
from core.errors import UsageError

NVIDIA = "/proc/driver/nvidia/gpus"
"""Where the driver lists its GPUs; asking torch would cost its import."""


_LEARNERS_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine offers."""

    cpus: int
    gpus: int

    @staticmethod
    def here() -> "Machine":
        """Count this process's usable cores and GPUs, as CUDA's driver and CUDA_VISIBLE_DEVICES tell them."""
        gpus = len(os.listdir(NVIDIA)) if os.path.isdir(NVIDIA) else 0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            gpus = min(
                gpus, len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
            )
        return Machine(cpus=len(os.sched_getaffinity(0)), gpus=gpus)


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


def share_of_home(config: RunConfig, machine: Machine) -> Share:
    """Return how many actors and servers the driver's machine gets."""
    home = Node("home", "home", machine.cpus, machine.gpus, is_home=True)
    return shares([home], actors=config.actors.count, servers=config.inference.servers)[home.id]


def plan(config: RunConfig, machine: Machine, *, learn: bool = True) -> Program:
    """Return the program of a run at home; without `learn` it only plays with the weights that are there.

    What other machines of a cluster add is for `cluster.following`, as they come and go.
    """
    share = share_of_home(config, machine)
    servers, actors = share.servers, share.actors
    evaluated = config.evaluation.episodes if config.environment else config.evaluation.games
    peers = config.learner.num_learners - 1 if learn else 0
    if peers and machine.gpus:
        learner_share, server_share = _shares_with_a_team(1 + peers, servers, machine)
    else:
        learner_share = server_share = gpu_share(servers + 1, machine.gpus)
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


def _shares_with_a_team(learners: int, servers: int, machine: Machine) -> tuple[float, float]:
    """Return the shares of a GPU that learners and servers ask for; more than half keeps two learners apart.

    Raises:
        UsageError: when there are more learners than GPUs: NCCL, by which they talk, wants one for each.
    """
    if learners > machine.gpus:
        raise UsageError(
            f"{learners} learners cannot share {machine.gpus} GPUs",
            why="each learner of a team needs one of its own",
            fix=f"set learner.num_learners to at most {machine.gpus}",
        )
    return _LEARNERS_SHARE, (1 - _LEARNERS_SHARE) / math.ceil(servers / machine.gpus)
