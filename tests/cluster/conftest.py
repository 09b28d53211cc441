"""One Ray for all tests that need one; it is never the user's, and has a token of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import environment

# Ray reads these once, when it is first imported.
_SECRETS = tempfile.TemporaryDirectory(prefix="tamen-tests-")
os.environ["RAY_AUTH_TOKEN_PATH"] = str(Path(_SECRETS.name) / "token")
os.environ.pop("RAY_AUTH_MODE", None)
os.environ.pop("RAY_ADDRESS", None)
# What was measured on this machine is no part of a test.
os.environ["TAMEN_MACHINE_FILE"] = str(Path(_SECRETS.name) / "machine.json")
# Otherwise a call by mistake starts a Ray in the thread of one test; a minute after it has gone, Ray ends this process.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
environment.prepare()
environment.prepare_ray(None)

OBJECT_STORE_BYTES = 100_000_000


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Run Ray on this machine while a module is tested."""
    import ray

    from cluster.on_ray import address as ray_address

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_address, "_object_store_bytes", lambda: OBJECT_STORE_BYTES)
        ray_address.connect(None, cpus=2)
    yield
    ray.shutdown()
