"""Models of a registry that tests fill: a few bytes each."""

from pathlib import Path

from control.keys import Key
from control.registry import ModelRegistry
from core.files import digest

KEY, OTHER = Key("hex5"), Key("tic_tac_toe")
WHO = "a test"


def weights(folder: Path, content: bytes) -> Path:
    file = folder / f"{digest(content)}.safetensors"
    file.write_bytes(content)
    return file


def add(registry: ModelRegistry, number: int, *, key: Key = KEY, parent: str | None = None) -> str:
    """Register a model of its own."""
    file = weights(registry.folder.parent, b"weights %d of %s" % (number, str(key).encode()))
    return registry.register(key, file, config={"n": number}, metrics={}, who=WHO, parent=parent)


def reign(registry: ModelRegistry, model: str) -> None:
    registry.promote(model, expected=registry.alias(KEY, "champion"), who=WHO, why="better")
