"""How a cluster of Ray's is joined or begun: what has to be known of one that others started, and what it is told."""

import logging
import os
import shutil
import signal
import socket

import ray

from cluster.environment import CHECKOUT, TOLD_AT_ONCE
from cluster.on_ray.refusals import what_ray_logs, why_refused
from cluster.run.machine_limits import SHARED_MEMORY
from core.errors import ClusterError

KNOCK_SECONDS = 5.0


def connect(address: str | None, *, cpus: int, dashboard: bool = False) -> None:
    """Join the Ray cluster at `address`, or start one on this machine.

    Raises:
        ClusterError: when the address does not answer, or the local cluster does not start.
    """
    on_terminate = signal.getsignal(signal.SIGTERM)
    logged = [""]
    try:
        if address is None:
            ray.init(
                address="local",  # not whichever Ray happens to run on this machine
                num_cpus=cpus,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=_object_store_bytes(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        else:
            knock(address)
            with what_ray_logs() as logged:
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": shared_environment()},
                )
    except Exception as error:  # Ray raises a dozen kinds, all meaning the same to the user
        why, fix = why_refused(error, logged[0])
        raise ClusterError(
            f"cannot reach a Ray cluster at {address!r}" if address else "cannot start Ray on this machine",
            why=why,
            fix=fix if address else "run `tamen doctor`; `--engine local` trains without Ray",
        ) from error
    finally:
        # Ray puts in a handler that ends everything at once; ours saves first.
        signal.signal(signal.SIGTERM, on_terminate)


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


def _object_store_bytes() -> int:
    """Return a size that fits this machine's /dev/shm with room to spare; chunks and weights are small."""
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    return int(min(max(free * 0.3, 100e6), 2e9))
