"""What has to be known of a Ray cluster that others started before it is joined, and what it has to be told."""

import os
import socket

import ray

from cluster.environment import CHECKOUT, TOLD_AT_ONCE

KNOCK_SECONDS = 5.0


def knock(address: str) -> None:
    """Raise OSError unless somebody listens at `address`, "host:port": Ray would try for a quarter of an hour.

    Every other form of an address is Ray's to understand.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit():
        return
    # Ray takes the loopback address of a head for that of the network.
    known_as = ray.util.get_node_ip_address() if host in ("127.0.0.1", "localhost") else host.strip("[]")
    socket.create_connection((known_as, int(port)), timeout=KNOCK_SECONDS).close()


def shared_environment() -> dict[str, str]:
    """Return what a cluster started by others has to be told: on each machine the checkout is where it is here.

    A copy of it, as Ray's `working_dir` would be, has kernels of its own to compile: half a minute a start.
    """
    names = ("NUMBA_CACHE_DIR", "OMP_NUM_THREADS", "PYTHONPATH", TOLD_AT_ONCE)
    known = {name: os.environ[name] for name in names if name in os.environ}
    return known | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, [known.get("PYTHONPATH")])])}
