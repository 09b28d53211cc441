"""Ports of this machine on which nobody listens."""

import socket
from collections.abc import Collection

from core.errors import ClusterError

LOOPBACK = "127.0.0.1"
LARGEST_PORT = 65_535
MOST_TRIED = 1_000


def free_port(base: int, *, taken: Collection[int] = ()) -> int:
    """Return the first port from `base` on that is not `taken` and can be listened on at 127.0.0.1.

    It is free at this moment only: who is given it has to be ready to find it in use.

    Raises:
        ClusterError: when none of `MOST_TRIED` ports is free.
    """
    last = min(base + MOST_TRIED - 1, LARGEST_PORT)
    for port in range(base, last + 1):
        if port not in taken and is_free(port):
            return port
    raise ClusterError(
        f"there is no free port from {base} on",
        why=f"all up to {last} are in use, by others or by these engines",
        fix="choose another with engine.base_port=…",
    )


def is_free(port: int) -> bool:
    """Whether nobody listens on `port` at 127.0.0.1, nor at all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        # As daemons do: connections that have ended a moment ago do not count.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((LOOPBACK, port))
            tried.listen(1)
        except OSError:
            return False
        return True
