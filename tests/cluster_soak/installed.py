"""A checkout on the desk, and on every host the packages of this machine, as an earlier `make setup` had left them."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import yaml

from cluster.environment import KERNEL_FOLDERS, kernel_cache
from tests.cluster_soak.hosts import CHECKOUT, HOME, Host, Hosts

CLUSTER_FILE = "cluster.yaml"
TAMEN = HOME / "tamen"
"""The checkout of every host, where on-prem.yaml lays it."""
_SCRIPTS = {
    "ray": "from ray.scripts.scripts import main",
    "tamen": "from cluster.main import main",
}


def install(hosts: Hosts) -> None:
    """Lay a checkout on the desk, with a cluster file made of on-prem.yaml, and packages on all others."""
    desk = hosts.desk
    exclude = ["--exclude", ".git", "--filter", ":- .gitignore"]
    copy = ["rsync", "-a", *exclude, f"{CHECKOUT}/", f"{desk.home / 'tamen'}/"]
    subprocess.run(copy, check=True, timeout=120)
    for host in (desk, *hosts.others):
        _lay_packages(host)
    config = yaml.safe_load((CHECKOUT / "cluster" / "ray_up" / "on-prem.yaml").read_text())
    config["provider"]["head_ip"] = hosts.others[0].address
    config["provider"]["worker_ips"] = [host.address for host in hosts.others[1:]]
    config["auth"] |= {"ssh_user": "root", "ssh_private_key": f"{HOME}/.ssh/id_ed25519"}
    (desk.home / "tamen" / CLUSTER_FILE).write_text(yaml.safe_dump(config, sort_keys=False))
    make_token = "ray get-auth-token --generate && chmod 600 ~/.ray/auth_token"
    assert desk.run("bash", "-c", make_token, variables=by_hand()).returncode == 0


def lay_kernels(host: Host) -> None:
    """Lay the kernels on a host that were compiled here, as `make setup` compiles them there for minutes."""
    compiled = kernel_cache()
    for package in KERNEL_FOLDERS:
        here, there = (_of_kernels(checkout / package) for checkout in (CHECKOUT, TAMEN))
        if (compiled / here).exists():  # else compiled there after all
            to = host.home / "tamen" / compiled.relative_to(CHECKOUT) / there
            shutil.copytree(compiled / here, to)


def by_hand() -> dict[str, str]:
    """Return what a person's shell has set on the desk, and on a host after `source ~/.bashrc`."""
    return {
        "PATH": f"{TAMEN}/.venv/bin:{os.defpath}",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _of_kernels(package: Path) -> str:
    """Return where numba keeps the kernels of a package: it goes by the package's path."""
    return f"{package.name}_{hashlib.sha1(str(package).encode()).hexdigest()}"


def _lay_packages(host: Host) -> None:
    """Make a .venv of which make says that it is ready; `pip install` in it would touch nothing of this machine."""
    venv = host.home / "tamen" / ".venv"
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    make = [str(python), "-m", "venv", "--without-pip", str(TAMEN / ".venv")]
    made = host.run(*make)
    assert made.returncode == 0, made.stdout
    # Three nodes start on the cores of one machine; Ray gives each 30 s.
    (host.home / ".bashrc").write_text("export RAY_raylet_start_wait_time_s=120\n")
    folder = next(venv.glob("lib/python*/site-packages"))
    packages = sysconfig.get_path("purelib")
    (folder / "packages_of_this_machine.pth").write_text(f"{TAMEN}\n{packages}\n")
    for name, line in _SCRIPTS.items():
        script = venv / "bin" / name
        script.write_text(f"#!{TAMEN}/.venv/bin/python\n{line}\n\nmain()\n")
        script.chmod(0o755)
    ready = venv / "ready"
    ready.touch()
    os.utime(ready, (time.time() + 60, time.time() + 60))
