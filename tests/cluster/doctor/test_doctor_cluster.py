"""What is wrong with the machines of a cluster is found, told with its fix, and nothing is left running there."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor import storage as doctor_storage
from cluster.doctor.cluster import of_all
from cluster.doctor.machine import GIB, Finding
from cluster.doctor.node_report import Disk, NodeReport
from cluster.doctor.nodes import Answer, Clock, compare
from cluster.doctor.storage import examine_storage
from cluster.environment import CHECKOUT
from cluster.on_ray.checkout import Code
from cluster.on_ray.refusals import what_ray_logs, why_refused
from cluster.run.placement import Node
from cluster.training.jobs import short_grace
from tests.cluster.commands import Said, assert_three_lines, run_here

VERSIONS = (("python", "3.11.7"), ("ray", "2.60.0"), ("torch", "2.13.0"))
REPORT = NodeReport(
    code=Code("0123", VERSIONS),
    with_token=True,
    token_file="/home/me/.ray/auth_token",
    token_mode=0o600,
    available_bytes=20 * GIB,
    shared_bytes=8 * GIB,
    disks={"/tmp/ray": Disk(40 * GIB, 100 * GIB)},
    open_files=65536,
    gpus=0,
    gpus_of_torch=None,
    kernels=81,
)
HOME = Answer(Node("home00", "head", 8, is_home=True), REPORT, clock=Clock(0.0, 0.001))
FAR = Answer(Node("far000", "spot-1", 16), REPORT, clock=Clock(0.002, 0.001))


def report(**changed: Any) -> Answer:
    """Return what the machine far away tells, with something else about it."""
    return dataclasses.replace(FAR, report=dataclasses.replace(REPORT, **changed))


def found(*answers: Answer) -> dict[str, Finding]:
    findings = list(compare(answers))
    assert all((each.verdict == "ok") == (each.fix == "") for each in findings)
    return {each.subject: each for each in findings}


def complaints(*answers: Answer) -> dict[str, Finding]:
    return {subject: each for subject, each in found(*answers).items() if each.verdict != "ok"}


def test_a_cluster_that_is_fit_gets_a_line_for_each_thing_looked_at() -> None:
    fit = found(HOME, FAR)

    assert {each.verdict for each in fit.values()} == {"ok"}
    assert "ray 2.60.0" in fit["code"].said
    assert len(fit) == 10


@pytest.mark.parametrize(
    ("answer", "subject", "verdict", "said"),
    [
        (report(code=Code("4567", VERSIONS)), "code", "bad", "their digest is 4567"),
        (
            report(code=Code("0123", (*VERSIONS[:2], ("torch", "2.12.0")))),
            "code",
            "bad",
            "torch 2.12.0 where here is 2.13.0",
        ),
        (report(with_token=False), "cluster token", "bad", "asks for no token"),
        (report(token_mode=0o640), "cluster token", "bad", "has mode 640"),
        (report(available_bytes=GIB), "memory", "warn", "1.0 GiB"),
        (report(shared_bytes=GIB // 16), "shared memory", "warn", "0.1 GiB"),
        (report(shared_bytes=None), "shared memory", "warn", "no /dev/shm"),
        (report(disks={"/tmp/ray": Disk(4 * GIB, 100 * GIB)}), "disks", "bad", "/tmp/ray is full"),
        (report(disks={"/tmp/ray": Disk(GIB, 10 * GIB)}), "disks", "warn", "1.0 GiB free"),
        (report(open_files=1024), "open files", "warn", "1,024"),
        (report(gpus=2), "GPUs", "warn", "2 there, of which Ray counts 0"),
        (report(kernels=0), "kernels", "warn", "none compiled"),
        (dataclasses.replace(FAR, unreached="from it to home: silence"), "reached", "bad", "silence"),
        (dataclasses.replace(FAR, clock=Clock(-2.5, 0.1)), "clocks", "warn", "2.5 s behind"),
        (dataclasses.replace(FAR, clock=Clock(400.0, 0.1)), "clocks", "bad", "400.0 s ahead of"),
        (dataclasses.replace(FAR, report=None, trouble="silence"), "answers", "bad", "silence"),
    ],
)
def test_what_is_wrong_with_a_machine_is_said_with_its_name(
    answer: Answer, subject: str, verdict: str, said: str
) -> None:
    (complaint,) = complaints(HOME, answer).values()

    assert (complaint.subject, complaint.verdict) == (subject, verdict)
    assert said in complaint.said
    assert "machine spot-1 (far000)" in complaint.said


@pytest.mark.parametrize(
    "node",
    [
        Node("far000", "spot-1", 16, gpus=1),
        Node("far000", "spot-1", 16, labels={"tamen": "gpu"}),
        Node("far000", "spot-1", 16, labels={"ray.io/accelerator-type": "L4"}),
    ],
)
@pytest.mark.parametrize(
    ("usable", "verdict"), [(0, "bad"), ("torch 2.13.0+cpu sees none", "bad"), (1, "ok")]
)
def test_a_machine_that_is_said_to_have_a_gpu_has_to_have_one(
    node: Node, usable: int | str, verdict: str
) -> None:
    node = dataclasses.replace(node, gpus=node.gpus if usable != 1 else 1)
    answer = dataclasses.replace(report(gpus=1 if usable == 1 else 0, gpus_of_torch=usable), node=node)

    assert found(HOME, answer)["GPUs"].verdict == verdict


def test_a_machine_on_which_ray_has_no_memory_for_an_actor_is_found() -> None:
    """A run gives it nothing, whatever is free there."""
    node = dataclasses.replace(FAR.node, memory_bytes=GIB // 20)
    complaint = complaints(HOME, dataclasses.replace(FAR, node=node))["memory"]

    assert complaint.verdict == "warn"
    assert "Ray may use 0.05 GiB there" in complaint.said
    assert not complaints(
        HOME, dataclasses.replace(FAR, node=dataclasses.replace(node, memory_bytes=2 * GIB))
    )


def test_a_machine_that_cannot_tell_may_have_a_full_disk() -> None:
    """No process of Ray's begins where its log cannot be written, and nothing that is heard of it says why."""
    silent = dataclasses.replace(FAR, report=None, trouble="ActorUnavailableError: Socket closed")

    assert "a full disk" in complaints(HOME, silent)["answers"].fix


def test_gpus_of_home_that_ray_does_not_count_are_bad() -> None:
    """A run would ask for them and not start; elsewhere they are only not used."""
    with_gpus = dataclasses.replace(HOME, report=dataclasses.replace(REPORT, gpus=2))

    assert complaints(with_gpus, FAR)["GPUs"].verdict == "bad"


def test_a_clock_is_off_only_as_far_as_that_is_sure() -> None:
    assert not complaints(HOME, dataclasses.replace(FAR, clock=Clock(3.0, 2.5)))


def test_machines_with_the_same_trouble_share_a_line() -> None:
    many = [
        dataclasses.replace(report(kernels=0), node=Node(f"{number:06}", f"spot-{number}", 16))
        for number in range(40)
    ]
    (complaint,) = complaints(HOME, *many).values()

    assert "spot-3" in complaint.said
    assert "and 36 more machines" in complaint.said


def test_a_cluster_on_which_ray_counts_no_core_is_told() -> None:
    home, far = (dataclasses.replace(each.node, cpus=0) for each in (HOME, FAR))

    assert of_all([HOME.node, far]).verdict == "ok"
    finding = of_all([home, far])
    assert (finding.verdict, bool(finding.fix)) == ("warn", True)
    assert "only home would play" in finding.said


def test_home_needs_the_memory_of_a_run() -> None:
    poor = dataclasses.replace(HOME, report=dataclasses.replace(REPORT, available_bytes=2 * GIB))

    assert complaints(poor, FAR)["memory"].verdict == "bad"


def test_storage_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert examine_storage(f"file://{tmp_path}").verdict == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/runs", "is not a URL"),
        ("s4://bucket", "cannot be opened: what reads s4:// is not installed"),
        ("file:///proc", ""),
    ],
)
def test_storage_that_cannot_be_used_is_bad(url: str, said: str) -> None:
    finding = examine_storage(url)

    assert finding.verdict == "bad"
    assert said in finding.said
    assert finding.fix


def test_storage_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(doctor_storage, "write_atomic_at", lambda place, content: never.wait(60))
    try:
        assert "no answer within" in examine_storage("file:///tmp", patience_seconds=0.1).said
    finally:
        never.set()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, False),
        ({"RAY_JOB_STOP_WAIT_TIME_S": "3"}, False),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, True),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_JOB_STOP_WAIT_TIME_S": "10"}, True),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_JOB_STOP_WAIT_TIME_S": "60"}, False),
    ],
)
def test_a_job_that_would_be_killed_while_it_saves_is_told(
    environment: Mapping[str, str], told: bool
) -> None:
    assert (short_grace(environment) is not None) == told


def test_what_ray_logs_is_kept_only_when_joining_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with what_ray_logs():
        os.write(2, b"a word\n")
    assert capfd.readouterr().err == "a word\n"

    logged: list[list[str]] = []

    def fail() -> None:
        with what_ray_logs() as said:
            logged.append(said)
            os.write(2, b"InvalidAuthToken\n")
            raise ConnectionError("Failed to connect")

    with pytest.raises(ConnectionError) as failed:
        fail()
    assert capfd.readouterr().err == ""
    assert logged == [["InvalidAuthToken\n"]]
    assert "token" in why_refused(failed.value, logged[0][0])[0]


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        (("--cluster", "--address", "local"), ["not at 'local'", "leave --address away"]),
        (("--cluster", "--address", "ray://here:1"), ["ray://"]),
        (("--cluster", "--launch", "x.yaml"), ["--launch looks at a file alone"]),
    ],
)
def test_a_wrong_word_is_answered(
    options: tuple[str, ...], mentions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert_three_lines(run_here(capsys, "doctor", *options), code=2, mentions=mentions)


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cluster.doctored", tmp_path_factory.mktemp("doctored")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.soak
def test_a_machine_that_is_said_to_have_a_gpu_and_has_none_is_found(visit: dict[str, Any]) -> None:
    findings = {each["subject"]: each for each in json.loads(visit["without_gpu"]["out"])}

    assert visit["without_gpu"]["code"] == 3
    assert "2 machines" in findings["cluster"]["said"]
    assert [name for name, each in findings.items() if each["verdict"] == "bad"] == ["GPUs"]
    assert "Ray counts 1 there, the driver shows 0" in findings["GPUs"]["said"]
    assert "GPUs           bad  machine" in visit["in_words"]["out"]
    assert "next:" not in visit["in_words"]["out"]
    assert visit["left"] == []


@pytest.mark.soak
@pytest.mark.parametrize(
    ("how", "mentions"),
    [
        ("no_token", "it asks for a token, and here is none"),
        ("other_token", "that of this machine is another"),
        ("other_ray", "it runs Ray 2.60.0 on Python"),
    ],
)
def test_who_cannot_join_is_told_why_in_three_lines(how: str, mentions: str, visit: dict[str, Any]) -> None:
    assert_three_lines(Said(*visit[how].values()), code=1, mentions=[mentions])


@pytest.mark.soak
def test_a_machine_that_hangs_and_an_open_token_are_found_within_bounds(visit: dict[str, Any]) -> None:
    bad = {subject: said for subject, verdict, said in visit["hanging"] if verdict == "bad"}

    assert set(bad) == {"answers", "cluster token"}
    assert "no process there has answered for 8 s" in bad["answers"]
    assert "has mode 644" in bad["cluster token"]
