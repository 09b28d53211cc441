"""Three hosts and a desk on one machine: each with addresses, processes, /tmp, /dev/shm, home and sshd of its own.

They are Linux namespaces without names, held by one process each: when that is gone, killed or not, so is all of the
host, and when the process that made them is gone, so are they. Nothing of the machine's own network is touched.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = Path("/mnt/home")
"""Of every host, in its own eyes."""
PATIENCE_SECONDS = 30.0
_NETWORK = "10.77.0"
_INIT = Path(__file__).with_name("host.sh")
_SSHD = """\
Port 22
HostKey /mnt/host_key
AuthorizedKeysFile /mnt/home/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A host of namespaces.

    Attributes:
        name: its host name.
        address: in the network of the hosts.
        home: the folder of this machine that is its home.
        holder: the process of this machine that holds its namespaces.
        init: its process 1, by its number on this machine.
    """

    name: str
    address: str
    home: Path
    holder: "subprocess.Popen[bytes]"
    init: psutil.Process

    def run(
        self,
        *command: str,
        folder: Path = HOME,
        timeout: float = PATIENCE_SECONDS,
        variables: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command there, as root and with no more environment than a fresh login has.

        Returns:
            Both outputs are in `stdout`; the code is 124 where it took longer than `timeout` seconds and was ended.
        """
        settings = {"HOME": str(HOME), "PATH": os.defpath, "LANG": "C.UTF-8", **(variables or {})}
        words = [f"{name}={value}" for name, value in settings.items()]
        enter = ["nsenter", "--target", str(self.init.pid), "--mount", "--net", "--pid", "--uts"]
        fresh = ["env", "-i", "--chdir", str(folder), *words]
        return subprocess.run(
            ["timeout", "--kill-after=5", str(timeout), *enter, *fresh, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout + 30,
        )

    def processes(self) -> list[psutil.Process]:
        """Return what runs there beside process 1 and its sshd."""
        return [
            process
            for process in self.init.children(recursive=True)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE and process.name() != "sshd"
        ]

    def cut_off(self) -> None:
        """Take its cable out."""
        self._link("down")

    def join_again(self) -> None:
        self._link("up")
        _ip(self.init.pid, "route", "replace", "default", "via", f"{_NETWORK}.1")

    def kill(self) -> None:
        """Switch it off."""
        self.init.kill()
        self.holder.wait(PATIENCE_SECONDS)

    def _link(self, state: str) -> None:
        _ip(self.init.pid, "link", "set", "eth0", state)


@dataclass(frozen=True, slots=True)
class Hosts:
    """A desk, from which a person works, and hosts that it reaches by ssh with its ~/.ssh/id_ed25519."""

    desk: Host
    others: tuple[Host, ...]


@contextmanager
def three_hosts(folder: Path, *, count: int = 3) -> Iterator[Hosts]:
    """Make `count` hosts and a desk, and end them with all that runs there.

    Args:
        folder: for their homes.
    """
    _skip_where_it_cannot_be()
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
    with ExitStack() as stack:
        desk = stack.enter_context(_host(folder, "desk", f"{_NETWORK}.1", key))
        _ip(desk.init.pid, "link", "add", "hub", "type", "bridge")
        _ip(desk.init.pid, "link", "set", "hub", "up")
        _ip(desk.init.pid, "address", "add", f"{desk.address}/24", "dev", "hub")
        others = []
        for number in range(1, count + 1):
            host = stack.enter_context(_host(folder, f"host-{number}", f"{_NETWORK}.{10 + number}", key))
            _plug_in(host, desk, f"port{number}")
            others.append(host)
        for name, to in (("id_ed25519", key), ("id_ed25519.pub", key.with_suffix(".pub"))):
            shutil.copy(to, desk.home / ".ssh" / name)
        _wait_for_ssh(desk, others)
        yield Hosts(desk, tuple(others))


def _skip_where_it_cannot_be() -> None:
    namespaces = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "true"]
    if os.geteuid() or subprocess.run(namespaces, check=False, capture_output=True, timeout=30).returncode:
        pytest.skip("needs Linux that lets root make namespaces")


@contextmanager
def _host(folder: Path, name: str, address: str, key: Path) -> Iterator[Host]:
    own = folder / name
    home = own / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    shutil.copy(key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
    shutil.copy(key, own / "host_key")
    (own / "sshd_config").write_text(_SSHD)
    lines = Path("/etc/passwd").read_text().splitlines()
    (own / "passwd").write_text(
        "\n".join([f"root:x:0:0:root:{HOME}:/bin/bash", *(line for line in lines if line[:5] != "root:")])
    )
    keep = {Path(path).resolve() for path in (CHECKOUT, sys.prefix, sys.base_prefix)}
    hidden = sorted(str(path) for path in keep if path.is_relative_to("/tmp"))
    with (own / "log").open("wb") as log:
        of_its_own = ["--net", "--pid", "--mount", "--uts", "--ipc", "--mount-proc"]
        namespaces = ["unshare", *of_its_own, "--fork", "--kill-child"]
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *namespaces, "bash", str(_INIT), name, str(own), *hidden],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _until((home / ".up").exists, holder, f"{name} is up", own / "log")
        (init,) = psutil.Process(holder.pid).children()
        yield Host(name, address, home, holder, init)
    finally:
        _end(holder)


def _end(holder: "subprocess.Popen[bytes]") -> None:
    children = psutil.Process(holder.pid).children() if holder.poll() is None else []
    for child in children:
        child.kill()  # with which all other processes of the host end, before the holder does
    if not children:
        holder.kill()
    holder.wait(PATIENCE_SECONDS)


def _plug_in(host: Host, desk: Host, port: str) -> None:
    to = str(desk.init.pid)
    _ip(host.init.pid, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", to)
    _ip(desk.init.pid, "link", "set", port, "master", "hub", "up")
    _ip(host.init.pid, "address", "add", f"{host.address}/24", "dev", "eth0")
    _ip(host.init.pid, "link", "set", "eth0", "up")
    # Ray asks by which address the world would be reached.
    _ip(host.init.pid, "route", "add", "default", "via", desk.address)


def _ip(pid: int, *arguments: str) -> None:
    command = ["nsenter", "--target", str(pid), "--net", "ip", *arguments]
    subprocess.run(command, check=True, timeout=30)


def _wait_for_ssh(desk: Host, hosts: Sequence[Host]) -> None:
    options = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oConnectTimeout=5"]
    for host in hosts:

        def answers(host: Host = host) -> bool:
            return desk.run("ssh", *options, host.address, "true").returncode == 0

        _until(answers, host.holder, f"{host.name} answers", host.home.parent / "log")


def _until(reached: Callable[[], bool], holder: "subprocess.Popen[bytes]", what: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert holder.poll() is None, f"ended before {what}: {log.read_text()}"
        assert time.monotonic() < deadline, f"{what} did not come to pass: {log.read_text()}"
        time.sleep(0.05)
