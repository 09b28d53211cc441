"""A doctor's visit to a cluster of several machines, which are all this one: a process of its own, prints JSON.

    python -m tests.cluster.doctored FOLDER

One machine says that it has a GPU; another one hangs. The last line tells what was found, and what was left running.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
OTHER_RAY = """
import sys, ray
ray.__version__ = "2.59.0"
from cluster.main import main
main()
"""


def visit(folder: Path) -> dict[str, Any]:
    """Return what the command said in turn."""
    from ray.cluster_utils import Cluster

    from cluster.doctor_cluster import examine_cluster

    token, other = folder / "token", folder / "other"
    for path, letter in ((token, "a"), (other, "b")):
        path.write_text(letter * 64)
        path.chmod(0o600)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        liar = cluster.add_node(**NODE, num_gpus=1, labels={"tamen": "gpu"})
        told = {
            "without_gpu": doctor(cluster.address, "--json"),
            "in_words": doctor(cluster.address),
            "left": [each.pid for each in psutil.process_iter() if "NodeProbe" in " ".join(_words(each))],
            "no_token": train(cluster.address, folder, {"RAY_AUTH_MODE": "disabled"}),
            "other_token": train(cluster.address, folder, {"RAY_AUTH_TOKEN_PATH": str(other)}),
            "other_ray": train(cluster.address, folder, {}, program=("-c", OTHER_RAY)),
        }
        cluster.remove_node(liar)
        hanging = psutil.Process(cluster.add_node(**NODE).all_processes["raylet"][0].process.pid)
        token.chmod(0o644)
        hanging.send_signal(signal.SIGSTOP)
        found = list(examine_cluster(cluster.address, folder, patience_seconds=8.0))
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


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    sys.stdout.write(json.dumps(visit(Path(sys.argv[1]))) + "\n")
