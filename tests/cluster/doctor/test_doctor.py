"""Is this machine fit to run? Every complaint comes with what mends it."""

import importlib.metadata
import json
from collections import namedtuple
from pathlib import Path

import pytest

from cluster.doctor import machine as doctor
from cluster.doctor.machine import GIB, Finding, examine, show_findings
from cluster.run.program import Machine

Usage = namedtuple("Usage", "total used free")


def findings(runs: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(runs)}


def test_everything_is_looked_at_and_every_complaint_has_a_fix(tmp_path: Path) -> None:
    found = findings(tmp_path)

    assert set(found) == {
        "python", "ray", "torch", "numpy", "numba", "machine", "memory", "shared memory", "disk", "ray token",
        "kernels", "precision",
    }  # fmt: skip
    for finding in found.values():
        assert finding.said
        assert (finding.verdict == "ok") == (finding.fix == "")


@pytest.mark.parametrize(("gib", "verdict"), [(2, "bad"), (4, "ok")])
def test_ray_needs_memory(gib: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: gib * GIB)

    assert findings(tmp_path)["memory"].verdict == verdict


@pytest.mark.parametrize(
    ("gib", "memory", "disk"), [(0.1, "warn", "warn"), (1, "ok", "warn"), (9, "ok", "ok")]
)
def test_room_is_needed_in_shared_memory_and_on_the_disk(
    gib: float, memory: str, disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(0, 0, gib * GIB))
    found = findings(tmp_path)

    assert (found["shared memory"].verdict, found["disk"].verdict) == (memory, disk)


def test_a_machine_without_shared_memory_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")

    assert findings(tmp_path)["shared memory"].verdict == "warn"


def test_a_folder_that_cannot_be_written_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)

    assert findings(tmp_path / "not" / "yet")["disk"].verdict == "bad"


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    findings(tmp_path / "runs")

    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("mode", "verdict"), [(None, "ok"), (0o600, "ok"), (0o640, "bad"), (0o604, "bad")])
def test_a_token_that_others_can_read_is_bad(
    mode: int | None, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    if mode is not None:
        token.write_text("secret")
        token.chmod(mode)
    finding = findings(tmp_path)["ray token"]

    assert finding.verdict == verdict
    assert verdict == "ok" or finding.fix.endswith(f"chmod 600 {token}")
    assert "secret" not in finding.said + finding.fix


def test_a_package_that_is_not_installed_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)

    assert findings(tmp_path)["torch"] == Finding("torch", "not installed", "bad", "run `make setup`")


def test_kernels_that_are_not_compiled_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "none"))
    assert findings(tmp_path)["kernels"].verdict == "warn"

    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "x.nbi").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert findings(tmp_path)["kernels"].verdict == "ok"


def test_a_single_core_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda: Machine(cpus=1, gpus=0))

    assert findings(tmp_path)["machine"].verdict == "warn"


@pytest.mark.parametrize("verdict", ["ok", "warn", "bad"])
def test_findings_are_shown_with_their_fixes(verdict, capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("disk", "3 GiB free", verdict, "" if verdict == "ok" else "make room")
    show_findings([finding], as_json=False)
    printed = capsys.readouterr().out

    assert "disk" in printed
    assert ("make room" in printed) == (verdict != "ok")
    assert ("next: tamen demo" in printed) == (verdict != "bad")
    show_findings([finding], as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == verdict
