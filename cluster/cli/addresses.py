"""What may stand behind `--address`: whose Ray a verb runs on."""

import re

from core.errors import UsageError

OWN = ("local", "new")
"""Ray's words for a cluster of one's own, which is started and ended again; so is what is no address at all."""
_HOST_AND_PORT = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def cluster_to_join(address: str | None) -> str | None:
    """Return the address of a cluster to join, "auto" or "host:port"; None to start one here.

    Raises:
        UsageError: when it is neither, or leads to a cluster from outside.
    """
    if not address or address in OWN:
        return None
    if address.startswith("ray://"):
        raise UsageError(
            f"a run cannot join a cluster from outside, as {address!r} would",
            why="its parts run beside the command that starts them, and ray:// leads to another machine",
            fix="type the command on a node of that cluster, with --address auto",
        )
    found = _HOST_AND_PORT.fullmatch(address)
    if address != "auto" and (found is None or not 1 <= int(found[1]) <= 65535):
        raise UsageError(
            f"{address!r} is not the address of a Ray cluster",
            why="an address is auto (the cluster of this machine), local (one of its own) or HOST:PORT",
            fix="write one such as --address auto or --address 10.0.0.1:6379, or leave it away",
        )
    return address
