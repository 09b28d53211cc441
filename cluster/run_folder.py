"""A run's folder: where each of its files lies, and who may write there.

runs/<name>/
  config.yaml      resolved configuration
  log.txt          what happened, for people
  metrics.jsonl    one object of numbers an interval;  tb/ the same for TensorBoard
  games/           finished games as text
  replay/          chunk files, the experience at rest
  checkpoints/     everything the learner needs to go on
  models/          published weights
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from configs.loading import dump, load_file
from configs.schema import RunConfig
from core.errors import UsageError
from core.files import write_atomic
from core.names import checked_name


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config_file(self) -> Path:
        return self.root / "config.yaml"

    @property
    def log_file(self) -> Path:
        return self.root / "log.txt"

    @property
    def games(self) -> Path:
        return self.root / "games"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def evaluations_file(self) -> Path:
        return self.root / "evaluations.jsonl"

    def exists(self) -> bool:
        return self.config_file.exists()

    def config(self) -> RunConfig:
        return load_file(self.config_file)


def run_folder(runs: Path, name: str) -> RunFolder:
    """Return the folder of run `name` below `runs`; nothing is created. Raises UsageError for a bad name."""
    return RunFolder(runs.resolve() / checked_name(name, what="run"))


def run_names(runs: Path) -> list[str]:
    """Return the names of all runs below `runs`, sorted."""
    return sorted(path.parent.name for path in runs.glob("*/config.yaml"))


def open_run(folder: RunFolder, config: RunConfig) -> FileLock:
    """Create or reopen a run for writing, and return the lock that its driver holds until it ends.

    Raises:
        UsageError: when the folder belongs to another game or network, or another process runs it.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.root / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        raise UsageError(
            f"run {folder.name!r} is being written by another process",
            why=f"{folder.root} is locked by it",
            fix="wait for it, stop it with Ctrl-C, or give this run another --name",
        ) from None
    try:
        if folder.exists():
            _refuse_foreign(folder, config)
        write_atomic(folder.config_file, dump(config).encode())
    except BaseException:
        lock.release()
        raise
    return lock


def changed_settings(before: RunConfig, after: RunConfig) -> list[str]:
    """Return "section.key: old -> new" for every setting that differs; when a run stops is no part of what it is."""
    old, new = _flat(before), _flat(after)
    return [f"{key}: {old[key]} -> {value}" for key, value in new.items() if old[key] != value]


def _flat(config: RunConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.model_dump(exclude={"stop"}).items():
        flat |= (
            {f"{name}.{key}": each for key, each in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return flat


def _refuse_foreign(folder: RunFolder, config: RunConfig) -> None:
    before = folder.config()
    for what, old, new in (
        ("game", before.game, config.game),
        ("network.blocks", before.network.blocks, config.network.blocks),
        ("network.channels", before.network.channels, config.network.channels),
    ):
        if old != new:
            raise UsageError(
                f"run {folder.name!r} cannot go on with {what}={new}",
                why=f"it was begun with {what}={old}, and its weights and games fit nothing else",
                fix=f"give this run another --name, or resume with {what}={old}",
            )
