"""Learners that step together: each holds the same weights and works on a part of every batch.

The first of them leads: it has the loop, the feed and the checkpoints, and hands the others their parts. Gradients are
averaged by torch's DistributedDataParallel while they are computed, so all take the same step.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from learner.objective import Columns
from networks.build import Net

STEP_SECONDS = 60.0
"""How long one learner waits for the others before it takes them for dead."""


class Team(Protocol):
    """The other learners, as a trainer sees them.

    Attributes:
        size: learners in all. Gradients are averaged over them, so each scales its share of a loss by this.
    """

    @property
    def size(self) -> int: ...

    def joined(self, net: Net) -> nn.Module:
        """Return what to call instead of `net`, so that gradients are averaged over the team."""
        ...

    def handed_out(self, batch: Columns, totals: Mapping[str, float]) -> Columns:
        """Hand the others their parts of a batch, and return one's own."""
        ...

    def exchange(self, module: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Return the context of a forward and its backward: gradients go round in that of the last microbatch."""
        ...

    def summed(self, losses: Tensor) -> Tensor:
        """Return the sum over the team of everyone's share of the losses."""
        ...

    def confirm(self) -> None:
        """See to it that the others took the step too. Raises what one of them raised."""
        ...

    def follow(self, state: Mapping[str, Any]) -> None:
        """Let the others go on from a trainer's state: at first, and whenever it changed by more than steps."""
        ...


class Alone:
    """A team of one."""

    size = 1

    def joined(self, net: Net) -> nn.Module:
        return net

    def handed_out(self, batch: Columns, totals: Mapping[str, float]) -> Columns:
        return batch

    def exchange(self, module: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def summed(self, losses: Tensor) -> Tensor:
        return losses

    def confirm(self) -> None:
        pass

    def follow(self, state: Mapping[str, Any]) -> None:
        pass


ALONE = Alone()


class Member:
    """One of those that `join` brought together. It is given its parts of batches by the leader.

    Args:
        size: of the team.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def joined(self, net: Net) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # the argument's new name is not known to every torch
            # What a net holds beside its parameters is the same everywhere, and changes by `follow` alone.
            return DistributedDataParallel(net, broadcast_buffers=False)

    def handed_out(self, batch: Columns, totals: Mapping[str, float]) -> Columns:
        return batch

    def exchange(self, module: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        assert isinstance(module, DistributedDataParallel)
        return nullcontext() if last else module.no_sync()

    def summed(self, losses: Tensor) -> Tensor:
        distributed.all_reduce(losses)
        return losses

    def confirm(self) -> None:
        pass

    def follow(self, state: Mapping[str, Any]) -> None:
        pass


class Peer(Protocol):
    """The leader's way to another member."""

    def begin_step(self, part: Columns, totals: Mapping[str, float]) -> None:
        """Let it take a step on its part of a batch, while the leader takes its own."""
        ...

    def end_step(self) -> None:
        """Wait until it has. Raises what it raised."""
        ...

    def follow(self, state: Mapping[str, Any]) -> None:
        """Let it go on from a trainer's state; `end_step` waits until it does."""
        ...


class Leader(Member):
    """The member with the loop: it hands out the parts."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        super().__init__(1 + len(peers))
        self._peers = peers

    def handed_out(self, batch: Columns, totals: Mapping[str, float]) -> Columns:
        for rank, peer in enumerate(self._peers, 1):
            peer.begin_step(part_of(batch, rank=rank, size=self.size), totals)
        return part_of(batch, rank=0, size=self.size)

    def confirm(self) -> None:
        for peer in self._peers:
            peer.end_step()

    def follow(self, state: Mapping[str, Any]) -> None:
        for peer in self._peers:
            peer.follow(state)
        self.confirm()


def join(rendezvous: Path, *, rank: int, size: int, device: torch.device) -> None:
    """Meet the other learners of this machine at a file of their own, and leave whichever team one was in before.

    The file has to be new for each meeting. Connections are made on the loopback interface alone.

    Raises:
        RuntimeError: when they do not come within `STEP_SECONDS`.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(str(rendezvous), size)  # pyright: ignore[reportPrivateImportUsage]
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=STEP_SECONDS),
    )


def part_of(batch: Columns, *, rank: int, size: int) -> Columns:
    """Return the rows of a batch that member `rank` works on: equal parts, but for one row."""
    rows = len(next(iter(batch.values())))
    start, stop = rows * rank // size, rows * (rank + 1) // size
    return {name: column[start:stop] for name, column in batch.items()}
