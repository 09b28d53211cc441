"""The reference daemon is compiled once, and what stands in the way is told in three lines."""

import subprocess
from pathlib import Path

import pytest

from core.errors import UsageError
from engines.reference.compile import compiled

SOURCE = 'public class Small { public static void main(String[] a) { System.out.println("small " + a[0]); } }'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "Small.java"
    path.write_text(SOURCE)
    return path


def test_without_a_compiler_it_is_told_what_to_install(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match="cannot be compiled") as caught:
        compiled(tmp_path / "cache", source=source)
    assert "apt-get install default-jdk-headless" in caught.value.fix
    assert not (tmp_path / "cache").exists()


def test_a_compiler_that_is_too_old_is_told_as_such(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bin" / "javac"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'error: release version 17 not supported' >&2\nexit 2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"Small\.java cannot be compiled") as caught:
        compiled(tmp_path / "cache", source=source)
    assert "version 17 or newer" in caught.value.fix


@pytest.mark.system
def test_a_source_is_compiled_once_for_each_of_its_states(tmp_path: Path, source: Path) -> None:
    first = compiled(tmp_path / "cache", source=source)
    made = first.stat().st_mtime_ns
    ran = subprocess.run(["java", "-jar", first, "x"], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "small x\n"
    assert compiled(tmp_path / "cache", source=source).stat().st_mtime_ns == made
    source.write_text(SOURCE.replace("small", "large"))
    assert compiled(tmp_path / "cache", source=source) != first


@pytest.mark.system
def test_an_error_in_the_source_is_shown(tmp_path: Path, source: Path) -> None:
    source.write_text("public class Small { int x = ; }")
    with pytest.raises(UsageError) as caught:
        compiled(tmp_path / "cache", source=source)
    assert "illegal start of expression" in caught.value.why
    assert list(tmp_path.glob("cache/*")) == []
