"""A skipped test looks like a passed one from afar, so only a few reasons are let through."""

import shutil
import subprocess
import sys
from pathlib import Path

CASES = """
import pytest

def test_gpu(): pytest.skip("needs a GPU of 24 GiB")

@pytest.mark.skip(reason="flaky")
def test_marked(): pass

def test_lazy(): pytest.skip("later")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected(): assert False
"""
MODULE = "import pytest\npytest.importorskip('no_such_package')"


def test_only_good_reasons_skip(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text(MODULE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    last_line = result.stdout.splitlines()[-1]
    assert result.returncode == 1
    assert "1 skipped, 1 xfailed" in last_line
    assert "1 failed" in last_line
    assert "2 errors" in last_line
    assert "skipped because 'later'" in result.stdout
