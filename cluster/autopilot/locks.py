"""The locks of a folder of runs: which backend keeps them, `tamen locks`, and how one is made."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.cli.terminal import console, duration
from control import fencing, leases, locks
from control.database import CONTROL_FILE, Database
from control.fencing import Fence
from control.file_locks import FileLocks
from control.locks import (
    TIMEOUT_SECONDS,
    TTL_SECONDS,
    Held,
    Lock,
    LockBackend,
    LockSetting,
    checked_lock_name,
    fix_backend,
    parse_setting,
)
from core.errors import UsageError

FOLDER = ".locks"
"""Below the runs; no run has a name with a dot at its beginning."""
TABLES = locks.TABLES + fencing.TABLES + leases.TABLES


@dataclass(frozen=True)
class Locks:
    """The locks of one folder of runs, in this process.

    Attributes:
        setting: which backend it is.
        fence: guards what is written to the file of the control plane.
    """

    setting: LockSetting
    backend: LockBackend
    fence: Fence

    def lock(
        self, name: str, *, ttl_seconds: float = TTL_SECONDS, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Lock:
        """Return the lock `name`, which is not acquired yet."""
        return Lock(name, self.backend, self.fence, ttl_seconds=ttl_seconds, timeout_seconds=timeout_seconds)

    def take_away(self, name: str) -> Held | None:
        """Free lock `name` whoever holds it, refuse what that one writes from now on, and return who did."""
        # First the fence: the next holder may come as soon as the lock is free.
        self.fence.outrun(name)
        return self.backend.take_away(name)


@contextmanager
def open_locks(database: Database, setting: str | None = None) -> Iterator[Locks]:
    """Give the locks that the file `database` belongs to, kept by the backend that its first process fixed.

    Args:
        database: with `TABLES`.
        setting: what this process is configured for (see `control.locks.parse_setting`); None: what was fixed.

    Raises:
        UsageError: when it is configured for another backend than was fixed.
        UnreachableError: when the backend does not answer; there is no other instead.
    """
    fixed = fix_backend(database, None if setting is None else parse_setting(setting))
    backend = _backend(fixed, database.path)
    try:
        yield Locks(fixed, backend, Fence(database))
    finally:
        backend.close()


@contextmanager
def joined(setting: str, address: str | None) -> Iterator[None]:
    """Join the Ray cluster at `address`, if there is one and locks are kept by Ray."""
    if address is None or setting != "ray":
        yield
        return
    from cluster import environment

    environment.prepare_ray(address)
    import ray

    from cluster.on_ray.address import connect

    connect(address, cpus=1)
    try:
        yield
    finally:
        ray.shutdown()


def show_locks(
    runs: Path, *, broken: str | None = None, address: str | None = None, quiet: bool = False
) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, who holds the locks of `runs`; free the one called `broken` before.

    Args:
        runs: the folder of runs.
        broken: name of a lock.
        address: of the Ray cluster to join, if that keeps the locks.

    Returns:
        name, owner, number of the token, ttl_seconds, since (seconds since 1970), held_seconds; sorted by name.

    Raises:
        UsageError: when nobody holds `broken`.
    """
    if broken is not None:
        checked_lock_name(broken)
    file = runs / CONTROL_FILE
    database = Database(file, TABLES) if file.exists() else None
    try:
        # To look fixes no backend.
        if database is None or not database.read("SELECT 1 FROM lock_backend"):
            if broken is not None:
                raise _not_held(broken, [])
            return _shown([], quiet=quiet)
        setting = database.read("SELECT setting FROM lock_backend")[0]["setting"]
        with joined(setting, address), open_locks(database) as opened:
            if broken is not None:
                _break(opened, broken, quiet=quiet)
            return _shown(opened.backend.holders(), quiet=quiet)
    finally:
        if database is not None:
            database.close()


def _break(opened: Locks, name: str, *, quiet: bool) -> None:
    holders = opened.backend.holders()
    if all(held.name != name for held in holders):
        raise _not_held(name, holders)
    before = opened.take_away(name)
    if not quiet and before is not None:
        console().print(
            f"{name} was taken from {before.owner}; what it still writes is refused",
            markup=False,
            soft_wrap=True,
        )


def _not_held(name: str, holders: list[Held]) -> UsageError:
    names = ", ".join(held.name for held in holders)
    return UsageError(
        f"nobody holds {name}",
        why=f"held are {names}" if names else "no lock is held here",
        fix="look with `tamen locks`, or say with --runs where the runs are",
    )


def _backend(setting: LockSetting, file: Path) -> LockBackend:
    if setting.kind == "file":
        return FileLocks(file.parent / FOLDER)
    if setting.kind == "ray":
        from cluster.on_ray.leases import RayLeases

        return RayLeases(file)
    try:
        from control.redis_locks import RedisLocks
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{setting.text} cannot be asked",
            why="the package redis is not installed",
            fix="install it with `pip install -e '.[redis]'`",
        ) from error
    return RedisLocks(setting)


def _shown(holders: list[Held], *, quiet: bool) -> list[dict[str, Any]]:
    now = time.time()
    # A clock that was set back since would make it negative.
    found: list[dict[str, Any]] = [
        asdict(held) | {"held_seconds": round(max(0.0, now - held.since), 1)} for held in holders
    ]
    if quiet:
        return found
    target = console()
    if not found:
        target.print("no lock is held", markup=False)
        return found
    table = Table(box=None, pad_edge=False)
    for heading in ("lock", "held by", "token", "for", "TTL"):
        table.add_column(heading, justify="left" if heading in ("lock", "held by") else "right")
    for each in found:
        table.add_row(
            each["name"],
            each["owner"],
            str(each["number"]),
            duration(each["held_seconds"]),
            f"{each['ttl_seconds']:g} s",
        )
    target.print(table)
    target.print(
        "free one whose process is of no more use with: tamen locks --break NAME",
        markup=False,
        soft_wrap=True,
    )
    return found
