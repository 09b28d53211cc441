"""Who listens on a port of this machine, as far as /proc tells: whoever does answers what is sent there."""

import os
import socket
import sys
from collections.abc import Iterator, Set
from pathlib import Path

from engines.process import marked_processes

_LISTENS = "0A"
_MAPPED = "0000000000000000FFFF0000"
_LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
_ADDRESSES = {_LOOPBACK, "0" * 8, "0" * 32, _MAPPED + _LOOPBACK}
"""Those at which what is sent to 127.0.0.1 can be taken, as the kernel writes them: that one, and all."""


def stranger_at(port: int, *, mark: tuple[str, str], session: int) -> int | None:
    """Return the number of a process that listens on `port` of 127.0.0.1 and is none of one's own.

    Args:
        mark: an environment variable that one's own processes have, and its value.
        session: to which they belong otherwise.

    Returns:
        None when one's own listens, or nobody, or somebody of whom one cannot tell: of another user, or in a container.
    """
    sockets = _listening(port)
    if not sockets:
        return None
    for pid in marked_processes(*mark):
        sockets -= set(_sockets_of(pid))
    return next((pid for pid in _holders(sockets) if _session_of(pid) != session), None) if sockets else None


def _listening(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on `port`, where the kernel tells."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTENS and int(number, 16) == port and address in _ADDRESSES:
                found.add(fields[9])
    return found


def _holders(sockets: Set[str]) -> Iterator[int]:
    """Yield the processes that have one of `sockets` open and may be looked at."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and not sockets.isdisjoint(_sockets_of(int(folder.name))):
            yield int(folder.name)


def _sockets_of(pid: int) -> Iterator[str]:
    """Yield the inodes of the sockets of a process; none when it is gone, or of another user."""
    try:
        files = [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return
    for file in files:
        try:
            target = os.readlink(file)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
