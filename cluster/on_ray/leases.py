"""The table of leases as a Ray actor, and how processes of the cluster ask it.

The actor is found by a name made from the path of its file, and made by whoever asks first. It ends with the Ray job
that made it; the next who asks makes it again, and it goes on with what its file holds.
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import ray

from cluster.on_ray.client import LOST, get, in_one_line
from control import leases
from control.database import Database
from control.leases import LeaseTable
from control.locks import Held, UnreachableError
from core.files import digest

NAMESPACE = "tamen"
ANSWER_SECONDS = 5.0
"""Within which the actor answers, or is taken for unreachable."""


class LeaseActor:
    """`control.leases.LeaseTable` over the file at `path`."""

    def __init__(self, path: str) -> None:
        self._table = LeaseTable(Database(Path(path), leases.TABLES), time.monotonic)

    def try_acquire(self, name: str, owner: str, ttl_seconds: float, above: int) -> int | None:
        return self._table.try_acquire(name, owner, ttl_seconds=ttl_seconds, above=above)

    def renew(self, name: str, owner: str) -> bool:
        return self._table.renew(name, owner)

    def release(self, name: str, owner: str) -> None:
        self._table.release(name, owner)

    def holders(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(held) for held in self._table.holders()]

    def take_away(self, name: str) -> dict[str, Any] | None:
        held = self._table.take_away(name)
        return None if held is None else dataclasses.asdict(held)

    def stats(self) -> dict[str, Any]:
        return {"epoch": self._table.epoch, "pid": os.getpid()}


class RayLeases:
    """A `control.locks.LockBackend`: asks the lease actor of the Ray cluster that this process has joined.

    Args:
        path: of the file in which the actor keeps its table, on this machine.

    Raises:
        UnreachableError: when this process has joined no cluster.
    """

    def __init__(self, path: Path) -> None:
        _check_joined()
        self._path = path.resolve()
        self._actor: Any = None

    def try_acquire(self, name: str, owner: str, *, ttl_seconds: float, above: int) -> int | None:
        return self._ask("try_acquire", name, owner, ttl_seconds, above)

    def renew(self, name: str, owner: str) -> bool:
        return self._ask("renew", name, owner)

    def release(self, name: str, owner: str) -> None:
        self._ask("release", name, owner)

    def holders(self) -> list[Held]:
        return [Held(**held) for held in self._ask("holders")]

    def take_away(self, name: str) -> Held | None:
        held = self._ask("take_away", name)
        return None if held is None else Held(**held)

    def stats(self) -> dict[str, Any]:
        """Return the epoch of the table, and in which process it is."""
        return self._ask("stats")

    def close(self) -> None:
        self._actor = None

    def _found(self) -> Any:
        """Return the actor, which is made if it is not there."""
        if self._actor is None:
            from cluster.on_ray.program import beside_the_driver, dressed

            try:
                self._actor = (
                    dressed(LeaseActor, num_cpus=0, max_restarts=-1)
                    .options(
                        name=f"leases {digest(str(self._path).encode())}",
                        namespace=NAMESPACE,
                        get_if_exists=True,
                        scheduling_strategy=beside_the_driver(),
                    )
                    .remote(str(self._path))
                )
            except (*LOST, ValueError) as error:  # it is on its way out, or another makes it just now
                raise _silent(error) from error
        return self._actor

    def _ask(self, method: str, *args: Any) -> Any:
        _check_joined()  # Ray would begin a cluster of its own to ask
        actor = self._found()
        try:
            reference = getattr(actor, method).remote(*args)
        except (
            Exception
        ) as error:  # of a process that leaves its cluster meanwhile, Ray raises whatever comes first
            self._actor = None
            raise _silent(error) from error
        try:
            return get(reference, timeout_seconds=ANSWER_SECONDS)
        except LOST as error:
            self._actor = None  # its job may have ended, and with it the actor
            raise _silent(error) from error
        except UnreachableError:  # another table has taken over
            self._actor = None
            raise


def _check_joined() -> None:
    if not ray.is_initialized():
        raise UnreachableError(
            "the lease actor cannot be asked",
            why="this process has joined no Ray cluster",
            fix="give the cluster that keeps the locks with --address or RAY_ADDRESS",
        )


def _silent(error: Exception) -> UnreachableError:
    return UnreachableError(
        "the lease actor does not answer",
        why=in_one_line(error),
        fix="see to the cluster with `ray status`; nothing else keeps this run's locks",
    )
