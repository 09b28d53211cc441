"""Which code this process runs: by it a machine is told from one with other code, whose games would be other games."""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.environment import CHECKOUT
from core.errors import ClusterError

LIBRARIES = ("ray", "numpy", "numba", "torch", "msgpack")
"""Which have to be the same on all machines: by them arrays travel, or games and evaluations are computed."""
GAMES = ("gymnasium", "ale-py", "open_spiel")
"""From which environments and games come: where one is missing, a run that needs it says so when its actors are made,
and no other needs it. Where two machines have it, they may not have different ones."""
_NO_PART = ("tests", "benchmarks")
_MISSING = "-"


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
        (("python", platform.python_version()), *((name, _version(name)) for name in (*LIBRARIES, *GAMES))),
    )


def difference(ours: Code, theirs: Code) -> str:
    """Return in words how another process differs from this one; "" when it does not."""
    differ = [f"{name} {other} where here is {mine}" for name, mine, other in _other_versions(ours, theirs)]
    if ours.digest != theirs.digest:
        differ.insert(0, f"other sources: their digest is {theirs.digest}, here it is {ours.digest}")
    return "; ".join(differ)


def changed_since(began: Code, checkout: Path = CHECKOUT) -> ClusterError | None:
    """Return what to tell a person when a process that starts now would not run the code `began`; None when it would.

    It reads all sources again, some 35 ms of a core: Ray may give an actor a process that has been there for long.
    """
    now = code_here(checkout)
    differ = [f"{name} is {new}, it was {old}" for name, old, new in _other_versions(began, now)]
    if now.digest != began.digest:
        newest = max(_sources(checkout), key=lambda path: path.stat().st_mtime)
        differ.insert(0, f"its sources are others, changed last: {newest.relative_to(checkout).as_posix()}")
    if not differ:
        return None
    return ClusterError(
        f"the checkout at {checkout} was changed while the run went on",
        why=f"a part that starts now would run other code than the others: {'; '.join(differ)}",
        fix="the same command goes on from what is saved, with the code as it is then, or bring it back first (git "
        "stash); who edits while a run goes on does so in another checkout (git worktree add)",
    )


def _other_versions(ours: Code, theirs: Code) -> list[tuple[str, str, str]]:
    """Return name, our version and theirs of all that differ."""
    told = dict(theirs.versions)  # other sources may tell of other libraries
    return [
        (name, mine, told[name])
        for name, mine in ours.versions
        if told.get(name, mine) != mine and not (name in GAMES and _MISSING in (mine, told[name]))
    ]


def _sources(checkout: Path) -> list[Path]:
    packages = (path.parent for path in checkout.glob("*/__init__.py") if path.parent.name not in _NO_PART)
    presets = (checkout / "configs").rglob("*.yaml")
    return sorted([path for package in packages for path in package.rglob("*.py")] + list(presets))


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return _MISSING
