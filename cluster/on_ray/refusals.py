"""Why a Ray cluster could not be joined, and what mends it, in words; Ray says it in its log or in a dozen ways."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from cluster.environment import token_path

_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
_NO_TOKEN, _WRONG_TOKEN = "AuthenticationError", "InvalidAuthToken"


@contextlib.contextmanager
def what_ray_logs() -> Iterator[list[str]]:
    """Keep from the terminal what Ray's own code writes to stderr inside, which is the only place for some reasons.

    Yields:
        A list that afterwards has one text; when nothing was raised it has been written to stderr after all.
    """
    said: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    sys.stderr.write(said[0])


def why_refused(error: Exception, logged: str) -> tuple[str, str]:
    """Return why a cluster was not joined, and what mends it.

    Args:
        error: that Ray raised.
        logged: what Ray wrote meanwhile.
    """
    text = str(error).strip()
    if "Version mismatch" in text and len(versions := _VERSIONS.findall(text)) == 2:
        (ray_there, python_there), (ray_here, python_here) = versions
        return (
            f"it runs Ray {ray_there} on Python {python_there}, this is Ray {ray_here} on Python {python_here}",
            "use the environment with which that cluster was started, or bring all its machines to this one",
        )
    if type(error).__name__ == _NO_TOKEN or _WRONG_TOKEN in logged + text:
        sends = os.environ.get("RAY_AUTH_MODE") == "token" and type(error).__name__ != _NO_TOKEN
        return (
            "it asks for a token, and that of this machine is another"
            if sends
            else "it asks for a token, and here is none",
            f"copy the token of the cluster's head to {token_path()} and chmod 600 it; then RAY_AUTH_MODE=token",
        )
    return (
        (text or type(error).__name__).splitlines()[0],
        "check `ray status` there, the address, and RAY_AUTH_MODE with the token of that cluster",
    )
