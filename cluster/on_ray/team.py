"""A team of learners on Ray: the leader hands parts of its batches to the others by remote calls."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from cluster.on_ray.client import LOST, Handle, call, get
from learner.objective import Columns
from learner.team import STEP_SECONDS, Leader, join


class RayPeer:
    """The leader's way to another learner; see `learner.team.Peer`.

    Args:
        handle: of its actor.
        meeting: the reference of its joining.
    """

    def __init__(self, handle: Handle, meeting: ray.ObjectRef) -> None:
        self._handle = handle
        self._busy_with = meeting

    def begin_step(self, part: Columns, totals: Mapping[str, float]) -> None:
        self._busy_with = self._handle.step.remote(dict(part), dict(totals))

    def end_step(self) -> None:
        """Wait until it has done what it was told.

        Raises:
            RuntimeError: when it is gone: the leader has to gather a new team, which only its own new process does.
        """
        try:
            get(self._busy_with, timeout_seconds=STEP_SECONDS)
        except LOST as error:
            raise RuntimeError("a member of the team is gone") from error

    def follow(self, state: Mapping[str, Any]) -> None:
        self.end_step()  # what went wrong before is told rather than what follows from it
        self._busy_with = self._handle.follow.remote(dict(state))


def lead(handles: Sequence[Handle], device: str) -> Leader:
    """Gather a team, of which this process is the leader; each of the others has to build its trainer as this does.

    Raises:
        RuntimeError: when they do not come.
    """
    size = 1 + len(handles)
    for handle in handles:
        call(handle.stats)  # one that is being started again would not hear of the meeting
    # Ray's workers of one machine share its files, and each meeting needs a file that is new.
    rendezvous = Path(tempfile.mkdtemp(prefix="tamen-team-")) / "meeting"
    meetings = [handle.meet.remote(str(rendezvous), rank, size) for rank, handle in enumerate(handles, 1)]
    join(rendezvous, rank=0, size=size, device=torch.device(device))
    return Leader([RayPeer(handle, meeting) for handle, meeting in zip(handles, meetings, strict=True)])
