"""Disks that fail and processes that die, at the n-th operation."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OPERATIONS = ("fsync", "replace", "rename", "unlink")
KILLED = 9


def in_child(action: Callable[[], object]) -> int:
    """Run `action` in a forked process that may die of it; return its exit status, 1 if it raised."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os._exit(KILLED)


def find_the_disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def striking(at: int, strike: Callable[[], None], *, after: bool = False) -> dict[str, Callable[..., object]]:
    """Return operations of `os` by name; their n-th call in all is struck before or after its effect."""
    calls = iter(range(1_000_000))

    def struck(real: Callable[..., object]) -> Callable[..., object]:
        def operation(*args: object, **kwargs: object) -> object:
            now = next(calls) == at
            if now and not after:
                strike()
            result = real(*args, **kwargs)
            if now and after:
                strike()
            return result

        return operation

    return {name: struck(getattr(os, name)) for name in OPERATIONS}


def strike_here(at: int, strike: Callable[[], None], *, after: bool = False) -> None:
    """Make this process meet the strike: for a forked child, which ends with it."""
    for name, operation in striking(at, strike, after=after).items():
        setattr(os, name, operation)


@contextmanager
def files_no_larger_than(kilobytes: int) -> Iterator[None]:
    """Let writing fail in the middle of a file, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
