"""Which code this process runs: by it a machine is told from one with other code, whose games would be other games."""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.environment import CHECKOUT

LIBRARIES = ("ray", "numpy", "numba", "torch", "msgpack")
"""Which have to be the same on all machines: by them arrays travel, or games and evaluations are computed."""
_NO_PART = ("tests", "benchmarks")


@dataclass(frozen=True, slots=True)
class Code:
    """What a process runs.

    Attributes:
        digest: of the sources and presets of the checkout.
        versions: of Python and of the libraries, "-" where one is missing. Builds of one version for other devices, as
            torch has them, count as the same.
    """

    digest: str
    versions: tuple[tuple[str, str], ...]


def code_here(checkout: Path = CHECKOUT) -> Code:
    """Return what a process that starts now from `checkout` runs."""
    hashed = hashlib.blake2b(digest_size=8)
    for path in _sources(checkout):
        content = path.read_bytes()
        hashed.update(f"{path.relative_to(checkout).as_posix()} {len(content)}\n".encode())
        hashed.update(content)
    return Code(
        hashed.hexdigest(),
        (("python", platform.python_version()), *((name, _version(name)) for name in LIBRARIES)),
    )


def difference(ours: Code, theirs: Code) -> str:
    """Return in words how another process differs from this one; "" when it does not."""
    versions = [
        f"{name} {other} where here is {mine}"
        for (name, mine), (_, other) in zip(ours.versions, theirs.versions, strict=True)
        if mine != other
    ]
    if ours.digest != theirs.digest:
        versions.insert(0, f"other sources: their digest is {theirs.digest}, here it is {ours.digest}")
    return "; ".join(versions)


def _sources(checkout: Path) -> list[Path]:
    packages = (path.parent for path in checkout.glob("*/__init__.py") if path.parent.name not in _NO_PART)
    presets = (checkout / "configs").rglob("*.yaml")
    return sorted([path for package in packages for path in package.rglob("*.py")] + list(presets))


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "-"
