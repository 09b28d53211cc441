"""A doctor's visit to a cluster of several machines, which are all this one: a process of its own, prints JSON.

    python -m tests.cluster.doctored FOLDER

One machine says that it has a GPU; another one hangs. The last line tells what was found, and what was left running.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.training.test_driver import told_of

END_SECONDS = 20.0
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
OTHER_RAY = """
import sys, ray
ray.__version__ = "2.59.0"
from cluster.main import main
main()
"""


def visit(folder: Path) -> dict[str, Any]:
    """Return what the command said in turn."""
    from ray.cluster_utils import Cluster

    from cluster.doctor.cluster import examine_cluster

    token, other = folder / "token", folder / "other"
    for path, letter in ((token, "a"), (other, "b")):
        path.write_text(letter * 64)
        path.chmod(0o600)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    address = str(cluster.address)
    try:
        liar = cluster.add_node(**NODE, num_gpus=1, labels={"tamen": "gpu"})
        told = {
            "without_gpu": doctor(address, "--json"),
            "in_words": doctor(address),
            "left": left_over(
                [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
            ),
            "no_token": train(address, folder, {"RAY_AUTH_MODE": "disabled"}),
            "other_token": train(address, folder, {"RAY_AUTH_TOKEN_PATH": str(other)}),
            "other_ray": train(address, folder, {}, program=("-c", OTHER_RAY)),
        }
        cluster.remove_node(liar)
        hanging = psutil.Process(cluster.add_node(**NODE).all_processes["raylet"][0].process.pid)
        token.chmod(0o644)
        hanging.send_signal(signal.SIGSTOP)
        found = list(examine_cluster(address, folder, patience_seconds=8.0))
        told["hanging"] = [[each.subject, each.verdict, each.said] for each in found]
        hanging.send_signal(signal.SIGCONT)
    finally:
        cluster.shutdown()
    return told


def doctor(address: str, *options: str) -> dict[str, Any]:
    return typed("-m", "cluster.main", "doctor", "--cluster", "--address", address, *options, setting={})


def train(
    address: str,
    folder: Path,
    setting: dict[str, str],
    program: tuple[str, str] = ("-m", "cluster.main"),
) -> dict[str, Any]:
    place = ["--runs", str(folder / "runs"), "--address", address]
    return typed(*program, "train", "tic_tac_toe", *place, setting=setting)


def typed(*words: str, setting: dict[str, str]) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, **setting},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return {"code": ended.returncode, "out": ended.stdout, "err": ended.stderr}


def left_over(raylets: list[int]) -> list[int]:
    """Return the processes that look and are still there after a while: Ray ends them once the driver has gone."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        children = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
        left = [child.pid for child in children if told_of(child, "NodeProbe")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(visit(Path(sys.argv[1]))) + "\n")
