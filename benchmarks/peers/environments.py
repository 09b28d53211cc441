"""Environments of the peers, made by `python -m venv` and pip."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.measuring import say

INSTALL_SECONDS = 1800.0
HERE = Path(__file__).parent

ALONE = {"gumbel_mcts": "gumbel-mcts==0.2.0"}
"""What is installed without that which it asks for: gumbel-mcts wants the libraries of its demos."""


def make_environments(folder: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Return the Python of each named peer's environment, made if it is not there; None where that failed."""
    pythons: dict[str, str | None] = {}
    for name in names:
        try:
            pythons[name] = str(_make(folder.resolve() / name, name))
        except (subprocess.SubprocessError, OSError) as error:
            say(f"the environment of {name} could not be made: {error}")
            pythons[name] = None
    return pythons


def _make(environment: Path, name: str) -> Path:
    python, ready = environment / "bin" / "python", environment / "ready"
    if ready.exists():
        return python
    say(f"making {environment} (minutes)")
    _run([sys.executable, "-m", "venv", "--clear", str(environment)])
    pip = [str(python), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    _run([*pip, "-r", str(HERE / f"requirements_{name}.txt")])
    if name in ALONE:
        _run([*pip, "--no-deps", ALONE[name]])
    ready.touch()
    return python


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=INSTALL_SECONDS)
