"""What control groups leave to a process, read from files as the kernel writes them."""

import math
from pathlib import Path

import pytest

from cluster.run.machine_limits import Limits, limits_here
from cluster.run.program import BESIDE_BYTES, FOR_PROCESSES, Machine

UNLIMITED_OF_VERSION_1 = str((1 << 63) - 4096)


def written(folder: Path, own: str, **files: str) -> Limits:
    """Return the limits where the process's groups are `own`; a file's "__" stands for "/", "_dot_" for "."."""
    for name, content in files.items():
        path = folder / "mounted" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (folder / "own").write_text(own)
    return limits_here(folder / "mounted", folder / "own")


def test_a_container_of_version_2_is_limited_by_its_own_files(tmp_path: Path) -> None:
    found = written(tmp_path, "0::/\n", cpu_dot_max="750000 100000", memory_dot_max=str(24 << 30))

    assert found == Limits(7.5, 24 << 30)


def test_a_container_of_version_1_is_limited_by_each_of_its_controllers(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        **{
            "cpu,cpuacct__cpu_dot_cfs_quota_us": "300000",
            "cpu,cpuacct__cpu_dot_cfs_period_us": "100000",
            "memory__memory_dot_limit_in_bytes": str(8 << 30),
        },
    )

    assert found == Limits(3.0, 8 << 30)


def test_the_tightest_of_a_group_and_those_around_it_counts(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        "0::/pods/one\n",
        pods__cpu_dot_max="200000 100000",
        pods__memory_dot_max="max",
        pods__one__cpu_dot_max="max 100000",
        pods__one__memory_dot_max="1000",
    )

    assert found == Limits(2.0, 1000)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"cpu_dot_max": "max 100000", "memory_dot_max": "max"}),
        ("4:cpu:/\n", {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}),
        ("0::/gone\n", {}),
        ("", {"cpu_dot_max": "100000 100000"}),
        ("0::/\n", {"cpu_dot_max": "", "memory_dot_max": "many"}),
    ],
)
def test_where_nothing_is_said_there_is_no_limit(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    assert written(tmp_path, own, **files) == Limits(math.inf, math.inf)


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert limits_here(tmp_path / "nothing", tmp_path / "none") == Limits()


def machine_under(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("cluster.run.program.limits_here", lambda: limits)
    monkeypatch.setattr("cluster.run.program.os.sched_getaffinity", lambda pid: set(range(64)))
    return Machine.here()


@pytest.mark.parametrize(("quota", "cpus"), [(math.inf, 64), (8.0, 8), (7.5, 7), (0.5, 1), (128.0, 64)])
def test_a_machine_has_no_more_cores_than_its_container(
    quota: float, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine_under(Limits(cpus=quota), monkeypatch).cpus == cpus


def test_a_machine_has_no_more_memory_than_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = machine_under(Limits(memory_bytes=float(UNLIMITED_OF_VERSION_1)), monkeypatch)
    limited = machine_under(Limits(memory_bytes=4 << 30), monkeypatch)

    assert unlimited == machine_under(Limits(), monkeypatch)
    assert limited.memory_bytes == int((4 << 30) * FOR_PROCESSES) - BESIDE_BYTES
    assert machine_under(Limits(memory_bytes=1 << 30), monkeypatch).memory_bytes == 0
