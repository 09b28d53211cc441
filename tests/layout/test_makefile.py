"""The commands that CONTRIBUTING, CI and people share."""

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

TARGETS = ("help", "setup", "demo", "format", "check", "test", "test-system", "soak", "soak-cluster", "bench")


@pytest.fixture
def pinned(root: Path) -> list[str]:
    return [
        line for line in (root / "requirements.lock").read_text().splitlines() if not line.startswith("#")
    ]


def make(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_make_alone_lists_every_target(root: Path) -> None:
    listed = [line.split()[1] for line in make(root=root).stdout.splitlines()]
    assert listed == list(TARGETS)


def test_no_python_is_told_in_three_lines(root: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(root / name, tmp_path)
    result = make("setup", "PYTHON=no-such-python", root=tmp_path)
    assert result.returncode != 0
    assert [line[:7] for line in result.stderr.splitlines()[:3]] == ["tamen w", "  why: ", "  do:  "]
    assert "no-such-python" in result.stderr


def test_the_lock_names_one_version_each_and_no_place(pinned: list[str]) -> None:
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert {"torch", "ray"} <= {line.split("==")[0] for line in pinned}


@pytest.mark.system
def test_the_lock_is_what_is_installed(pinned: list[str]) -> None:
    installed = [
        f"{name}=={version(name).split('+')[0]}" for name in (line.split("==")[0] for line in pinned)
    ]
    assert installed == pinned


@pytest.mark.system
def test_a_finished_setup_is_not_done_again(root: Path) -> None:
    assert make("--question", "setup", root=root).returncode == 0
