"""What a process on a machine of a cluster tells of it, for `tamen doctor --cluster`; it runs there, without torch."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ray

from cluster.doctor.machine import available_memory, compiled_kernels, mode_of
from cluster.environment import CHECKOUT, token_path
from cluster.on_ray.checkout import Code, code_here
from cluster.on_ray.client import Handle, get, in_one_line
from cluster.run.machine_limits import SHARED_MEMORY
from cluster.run.program import NVIDIA

BULK_BYTES = 1 << 20
"""So many do not fit into an answer of Ray's: they go through the stores of both machines."""
BULK_SECONDS = 20.0
TORCH_SECONDS = 60.0
"""For torch to be imported from a cold disk."""
_COUNT_GPUS = "import torch; print(torch.cuda.device_count() or f'torch {torch.__version__} sees none')"


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that a folder is on."""

    free_bytes: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A machine, in the eyes of a process that Ray started there.

    Attributes:
        with_token: whether its Ray asks for the cluster's token.
        token_file: where the token lies. token_mode: the permissions of that file; None when there is none.
        available_bytes: of memory.
        shared_bytes: that are free in /dev/shm; None without one.
        disks: those of Ray's own files and of the checkout, by folder.
        open_files: that a process may have.
        gpus: that the driver of NVIDIA shows.
        gpus_of_torch: how many torch can use, or why none; None when nobody had asked.
        kernels: that are compiled.
    """

    code: Code
    with_token: bool
    token_file: str
    token_mode: int | None
    available_bytes: int
    shared_bytes: int | None
    disks: Mapping[str, Disk]
    open_files: int
    gpus: int
    gpus_of_torch: int | str | None
    kernels: int


class NodeProbe:
    """The actor that looks."""

    def look(self, *, count_gpus: bool) -> NodeReport:
        """Return the report; with `count_gpus` also what torch can use, which takes seconds."""
        folders = (ray.get_runtime_context().get_temp_dir(), str(CHECKOUT))
        return NodeReport(
            code=code_here(),
            with_token=os.environ.get("RAY_AUTH_MODE") == "token",
            token_file=str(token_path()),
            token_mode=mode_of(token_path()),
            available_bytes=available_memory(),
            shared_bytes=shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None,
            disks={folder: _disk_of(folder) for folder in folders},
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            gpus=len(os.listdir(NVIDIA)) if os.path.isdir(NVIDIA) else 0,
            gpus_of_torch=_gpus_of_torch() if count_gpus else None,
            kernels=compiled_kernels(),
        )

    def clock(self) -> float:
        """Return the seconds since 1970 on this machine."""
        return time.time()

    def bulk(self) -> bytes:
        """Return what is too much for an answer, so that it is fetched from this machine's store."""
        return bytes(BULK_BYTES)

    def reach(self, other: Handle) -> str:
        """Call an actor elsewhere and fetch what it makes; return what went wrong, "" when nothing did."""
        try:
            got = get(other.bulk.remote(), timeout_seconds=BULK_SECONDS)
        except Exception as error:  # Ray raises a dozen kinds, all meaning the same to the user
            return in_one_line(error)
        return "" if len(got) == BULK_BYTES else f"{len(got)} of {BULK_BYTES} bytes came"


def _disk_of(folder: str) -> Disk:
    used = shutil.disk_usage(Path(folder))
    return Disk(used.free, used.total)


def _gpus_of_torch() -> int | str:
    """Ask in a process of its own: in this one Ray hides all GPUs, for it asked for none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _COUNT_GPUS],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TORCH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (asked.stdout.strip() or asked.stderr.strip() or "torch says nothing").splitlines()
    return int(lines[-1]) if lines[-1].isdigit() else lines[-1]
