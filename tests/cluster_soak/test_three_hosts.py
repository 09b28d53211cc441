"""The real `ray up` and `ray down` with on-prem.yaml, on three hosts of namespaces; and that the hosts are such."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster_soak.hosts import CHECKOUT, HOME, Hosts, three_hosts
from tests.cluster_soak.installed import by_hand, install
from tests.cluster_soak.launched import nodes_seen_by, ray_down, ray_up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three_hosts(tmp_path_factory.mktemp("hosts")) as made:
        install(made)
        yield made


def ray_version() -> str:
    lines = (CHECKOUT / "requirements.lock").read_text().splitlines()
    return next(line.removeprefix("ray==") for line in lines if line.startswith("ray=="))


def test_hosts_have_addresses_files_and_processes_of_their_own(tmp_path: Path) -> None:
    with three_hosts(tmp_path, count=2) as hosts:
        first, second = hosts.others
        for folder in ("/tmp", "/dev/shm", str(HOME)):
            assert first.run("touch", f"{folder}/mine").returncode == 0
            assert second.run("test", "-e", f"{folder}/mine").returncode == 1
        assert "10.77.0.12" in second.run("ip", "-br", "address").stdout
        assert first.run("hostname").stdout.strip() == "host-1"
        assert len(first.run("ps", "-e", "-o", "pid=").stdout.split()) < 10

        to_second = [
            "ssh",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "ConnectTimeout=3",
            second.address,
            "hostname",
        ]
        assert hosts.desk.run(*to_second).stdout.splitlines()[-1] == "host-2"
        second.cut_off()
        assert hosts.desk.run(*to_second).returncode == 255
        second.join_again()
        assert hosts.desk.run(*to_second).stdout.splitlines()[-1] == "host-2"
        second.kill()
        assert hosts.desk.run(*to_second).returncode == 255
    assert not any(host.init.is_running() for host in hosts.others)


def test_hosts_end_with_the_process_that_made_them_however_it_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.cluster_soak.hosts import three_hosts\n"
        "with three_hosts(Path(sys.argv[1])): print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"up\n"
        started = psutil.Process(maker.pid).children(recursive=True)
        maker.send_signal(signal.SIGKILL)
    assert len(started) >= 8  # a holder and a process 1 of each
    assert psutil.wait_procs(started, timeout=10)[1] == []


def test_ray_up_makes_a_cluster_of_three_hosts_and_ray_down_leaves_nothing(hosts: Hosts) -> None:
    desk, (head, *workers) = hosts.desk, hosts.others
    ray_up(hosts)
    labels = {
        node["NodeManagerAddress"]: node["Labels"]["ray.io/market-type"] for node in nodes_seen_by(head)
    }
    assert labels == {head.address: "on-demand", workers[0].address: "spot", workers[1].address: "spot"}
    for host in hosts.others:
        # As a person finds it who logs in: tamen is there, and the token is for nobody else.
        login = ["bash", "-i", "-c", "tamen doctor --json; echo; stat -c %a ~/.ray/auth_token"]
        said = host.run(*login, timeout=120).stdout
        findings, mode = [line for line in said.splitlines() if line.startswith("[{") or line == "600"]
        token = next(finding for finding in json.loads(findings) if finding["subject"] == "ray token")
        assert mode == "600"
        assert token["said"] == f"{HOME}/.ray/auth_token, readable by you alone"

    # Also where nobody types, which is where `ssh WORKER ray stop` runs.
    to_worker = [
        "ssh",
        "-oStrictHostKeyChecking=no",
        workers[0].address,
        "ray --version; echo $RAY_AUTH_MODE",
    ]
    assert desk.run(*to_worker).stdout.splitlines()[-2:] == [f"ray, version {ray_version()}", "token"]

    reach = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).status)"
    assert "200" in head.run("python", "-c", reach, "http://127.0.0.1:8265", variables=by_hand()).stdout
    elsewhere = workers[0].run("python", "-c", reach, f"http://{head.address}:8265", variables=by_hand())
    assert "Connection refused" in elsewhere.stdout
    assert nodes_seen_by(workers[0]) != []
    assert nodes_seen_by(workers[0], RAY_AUTH_TOKEN="0" * 64) == []

    ray_down(hosts)
