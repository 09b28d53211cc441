"""`ray up` and `ray down` as typed on the desk, and what is to be seen of the hosts between them."""

import json
import time
from collections.abc import Callable, Iterable

from tests.cluster_soak.hosts import Host, Hosts
from tests.cluster_soak.installed import CLUSTER_FILE, TAMEN, by_hand

PATIENCE_SECONDS = 240.0
_NODES = """
import json, ray
ray.init("auto", log_to_driver=False)
print("nodes", json.dumps([node for node in ray.nodes() if node["Alive"]], default=str))
"""


def ray_up(hosts: Hosts) -> None:
    """Return when all hosts are nodes of one cluster."""
    head = hosts.others[0]
    _type(hosts.desk, "ray", "up", "--yes", CLUSTER_FILE)
    until(
        lambda: len(nodes_seen_by(head)) == len(hosts.others),
        lambda: f"not all are nodes: {nodes_seen_by(head)} {running(hosts)}",
    )


def ray_down(hosts: Hosts, *, at_once: Iterable[Host] = ()) -> None:
    """Return when nothing runs on any host; those of `at_once` are not left to notice by themselves that it is over."""
    _type(hosts.desk, "ray", "down", "--yes", CLUSTER_FILE)
    for host in at_once:
        _type(hosts.desk, "ssh", "-oStrictHostKeyChecking=no", host.address, "ray stop")
    until(lambda: not any(running(hosts).values()), lambda: f"something is left: {running(hosts)}")


def until(
    reached: Callable[[], object], what: Callable[[], object], seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until something has come to pass; `what` says how it stands when it has not."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what()
        time.sleep(1.0)


def nodes_seen_by(host: Host, **variables: str) -> list[dict]:
    """Return the nodes that a program on a host finds there; none where it may not join."""
    said = host.run("python", "-c", _NODES, timeout=60, variables=by_hand() | variables).stdout
    lines = [line for line in said.splitlines() if line.startswith("nodes ")]
    return json.loads(lines[-1].removeprefix("nodes ")) if lines else []


def running(hosts: Hosts) -> dict[str, list[str]]:
    """Return what runs on each host that is there, as its command lines begin."""
    there = [host for host in (hosts.desk, *hosts.others) if host.init.is_running()]
    return {host.name: [" ".join(process.cmdline())[:120] for process in host.processes()] for host in there}


def _type(desk: Host, *command: str) -> None:
    done = desk.run(*command, folder=TAMEN, timeout=PATIENCE_SECONDS, variables=by_hand())
    assert done.returncode == 0, done.stdout
