"""The checkout as the layout tests see it."""

import ast
import tomllib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def declared(root: Path) -> tuple[str, ...]:
    """Our packages, as pyproject.toml declares them, with those below others."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    return tuple(project["tool"]["setuptools"]["packages"])


@pytest.fixture(scope="session")
def packages(declared: tuple[str, ...]) -> tuple[str, ...]:
    """Our top-level packages."""
    return tuple(name for name in declared if "." not in name)


@pytest.fixture(scope="session")
def sources(root: Path, packages: tuple[str, ...]) -> dict[str, ast.Module]:
    """Every source file of ours, by its path in the checkout."""
    files = sorted(path for package in packages for path in (root / package).rglob("*.py"))
    return {str(path.relative_to(root)): ast.parse(path.read_text()) for path in files}


@pytest.fixture(scope="session")
def test_sources(root: Path) -> dict[str, ast.Module]:
    """Every test file, by its path in the checkout."""
    files = sorted((root / "tests").rglob("*.py"))
    return {str(path.relative_to(root)): ast.parse(path.read_text()) for path in files}
