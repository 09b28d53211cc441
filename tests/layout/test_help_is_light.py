"""`tamen --help` answers at once, and who plays games holds no torch: its import costs seconds and 200 MB."""

import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = {
    "cluster/main.py": ("torch", "ray", "numba"),
    "actors/selfplay.py": ("torch", "ray"),
    "inference_server/client.py": ("torch", "ray"),
}
"""Entry points, and what importing them must not load."""


def loaded_by(module: str, heavy: tuple[str, ...], *, root: Path) -> set[str]:
    """Import `module` in a fresh interpreter and return which of `heavy` came with it."""
    code = f"import sys, {module}; print(*(sys.modules.keys() & set({heavy!r})))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("path", LIGHT)
def test_importing_it_stays_light(path: str, root: Path) -> None:
    module = path.removesuffix(".py").replace("/", ".")
    assert loaded_by(module, LIGHT[path], root=root) == set()


def test_a_heavy_import_would_be_seen(root: Path) -> None:
    assert loaded_by("numba", ("numba", "torch"), root=root) == {"numba"}
