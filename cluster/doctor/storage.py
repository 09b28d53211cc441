"""Can this machine write to a place for runs, such as s3://bucket/runs, and read it again?"""

import os
import secrets
import threading

from cluster.doctor.machine import Finding
from core.errors import TamenError, UsageError
from pipeline.storage import join, reaching, read_bytes, write_atomic_at

PATIENCE_SECONDS = 20.0
"""Libraries of clouds go on trying for minutes."""


def examine_storage(url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Finding:
    """Write a few bytes to `url`, read them and delete them; what has not ended in time is told as it is."""
    said: list[Finding] = []
    trying = threading.Thread(target=lambda: said.append(_try(url)), daemon=True)
    trying.start()
    trying.join(patience_seconds)
    if said:
        return said[0]
    return _unreachable(url, f"no answer within {patience_seconds:.0f} s")


def _try(url: str) -> Finding:
    place, content = join(url, f".doctor-{secrets.token_hex(4)}"), os.urandom(16)
    try:
        if "://" not in url:
            raise UsageError(
                f"{url} is not a URL", why="storage is at one", fix="write one such as s3://bucket/runs"
            )
        write_atomic_at(place, content)
        came = read_bytes(place)
        with reaching(place) as (system, path):
            system.rm_file(path)
    except TamenError as error:
        return Finding("storage", f"{error.what}: {error.why}", "bad", error.fix)
    except Exception as error:  # the libraries of clouds have trees of their own
        why = " ".join(str(error).split()).removeprefix(f"{place}: ")
        return _unreachable(url, why or type(error).__name__)
    if came != content:
        return Finding("storage", f"{url} gave other bytes than it was given", "bad", "choose another place")
    return Finding("storage", f"{url} can be written and read", "ok")


def _unreachable(url: str, why: str) -> Finding:
    fix = "see that the place is there, and that who runs this may write to it"
    if url.startswith("s3:"):
        fix = "see that the bucket is there, and to keys and endpoint: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ~/.aws"
    return Finding("storage", f"{url}: {why}", "bad", fix)
