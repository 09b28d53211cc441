"""Which process does something, and whether it is still there: for those who did not start it; and which can wait."""

import contextlib
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

LEAST_PRESSING = 19
"""The greatest niceness. Ray's processes begin with 15."""
_ENDED_STATES = "ZX"
"""A zombie, whose parent has not yet looked at its end, and a dead one."""


@dataclass(frozen=True, slots=True)
class Process:
    """What tells a process from all others of its machine, since and before that was started.

    Attributes:
        boot: changes with each start of the machine.
        namespace: in which its number counts; a container has its own.
        started: clock ticks after the machine; a number that is used again comes with another time.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int


def give_way() -> None:
    """Let the thread that calls, and those that it starts, leave the processor to others that want it for a moment.

    For threads that compute for as long as they are let. On a full machine those that answer, and processes that begin
    in the place of dead ones, are then served first. Linux has a niceness for each thread.
    """
    with contextlib.suppress(OSError):  # another system
        thread = threading.get_native_id()
        there = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, max(there, LEAST_PRESSING))


def this_process() -> Process:
    """Return the process that calls."""
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    """Return who has the number `pid` now; `started` is 0 when that cannot be read, as of one that has gone."""
    _, started = _state_and_start(pid) or ("", 0)
    return Process(
        host=socket.gethostname(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        namespace=str(Path("/proc/self/ns/pid").readlink()),
        pid=pid,
        started=started,
    )


def is_of(process: Process, here: Process) -> bool:
    """Whether `process` is where `here` can look at it: of the same host, and not in another container."""
    return process.host == here.host and process.namespace == here.namespace


def is_gone(process: Process, here: Process) -> bool:
    """Whether `process` is known to have ended; of one on another host or in another container that cannot be told."""
    if process.host != here.host:
        return False
    if process.boot != here.boot:
        return True
    if process.namespace != here.namespace:
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # there is one, of another user
    found = _state_and_start(process.pid)
    return found is not None and (found[0] in _ENDED_STATES or found[1] != process.started)


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and when it started, in clock ticks; None when it cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()  # the name may hold spaces and brackets
    return after_name[0], int(after_name[19])
