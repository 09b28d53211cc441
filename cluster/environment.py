"""Environment variables that must stand before ray, torch or numba are imported. Imports none of them."""

import contextlib
import ctypes
import hashlib
import os
import secrets
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
KERNEL_FOLDERS = ("games", "networks", "search", "poker", "inference_server", "replay", "learner", "pipeline")
"""Folders whose files hold numba kernels."""
TOLD_AT_ONCE = "RAY_timeout_ms_task_wait_for_death_info"
"""For how long Ray keeps back that a call was lost, in case the actor is dead for good."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's options."""
_KEPT_BELOW, _KEPT_IN_ALL = 32 << 20, 1 << 30
"""Bytes: of one piece, more than which glibc does not allow; and what may lie unused."""


def prepare() -> None:
    """Set what this process and every process it starts should find; what the user has set stays."""
    defaults = {
        "NUMBA_CACHE_DIR": str(kernel_cache()),
        # One thread a process: two torch threads on a busy 2-core machine fell to 440 positions/s from 9,900.
        "OMP_NUM_THREADS": "1",
        # Fitting uses two. On a busy machine those that waited by spinning made a step of it five times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Under `uv run` Ray would pack and upload the working folder to every worker.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "1",
        # Ray would tell of a call that was lost 1 to 2 s later, and so for each call until the actor is back.
        TOLD_AT_ONCE: "0",
        # When a machine leaves, Ray prints its raylet's errors, with stacks of C++, on every driver, which says it in a
        # line. They are in Ray's logs.
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Let glibc, where that is the C library, keep what this process frees instead of giving it back.

    Tensors of some megabytes that are made anew at each step are else fetched page by page each time: to fit a network
    of hand values took 1.37 times as long.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT_BELOW)
        mallopt(_TRIM_THRESHOLD, _KEPT_IN_ALL)


def kernel_cache() -> Path:
    """Return where compiled kernels are kept: one folder for each state of the files that hold any.

    Numba looks at a kernel's own file alone, and would go on using one that was inlined from a file since changed.
    """
    paths = sorted(path for folder in KERNEL_FOLDERS for path in (CHECKOUT / folder).rglob("*.py"))
    sources = (source for path in paths if b"@njit" in (source := path.read_bytes()))
    state = hashlib.blake2b(b"".join(sources), digest_size=8).hexdigest()
    return CHECKOUT / ".cache" / "numba" / state


def token_path() -> Path:
    """Return where Ray's cluster token lies."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))


def prepare_ray(address: str | None) -> None:
    """Decide on token authentication, and how long to knock, before ray is imported.

    Whoever reaches a Ray cluster without a token can run code on it, so a local one always has a token.
    For a cluster that somebody else started Ray's own rule holds: a token is used when there is one.

    Args:
        address: of the cluster that will be joined; None when a local one will be started.
    """
    if address is not None:
        # Where something other than Ray listens, Ray would ask twenty times for 40 s each.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
        os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "10")
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address is None and "RAY_AUTH_TOKEN" not in os.environ:
        _ensure_token(token_path())
    if "RAY_AUTH_TOKEN" in os.environ or token_path().exists():
        os.environ["RAY_AUTH_MODE"] = "token"


def _ensure_token(path: Path) -> None:
    """Create the token readable by its owner alone; Ray itself would leave the mode to the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
