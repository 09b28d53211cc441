"""A run's folder: where each of its files lies, and who may write there.

runs/<name>/
  config.yaml      resolved configuration
  name.txt         what the run was called when it began; its games carry it
  first.safetensors  the weights that it began with, if they were no untrained ones
  log.txt          what happened, for people
  metrics.jsonl    one object of numbers an interval;  tb/ the same for TensorBoard
  games/           finished games as text
  replay/          chunk files, the experience at rest
  checkpoints/     everything the learner needs to go on
  models/          published weights
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from configs.loading import dump, load_file
from configs.schema import RunConfig
from configs.words import nearest
from core.errors import UsageError
from core.files import write_atomic
from core.names import checked_name

LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run.

    Attributes:
        called: what the run was called when it began, told to who cannot look into the folder; "" for who can.
    """

    root: Path
    called: str = ""

    @property
    def name(self) -> str:
        """What the run was called when it began: its games carry that name, wherever the folder is moved."""
        if self.called:
            return self.called
        file = self.root / "name.txt"
        return checked_name(file.read_text().strip(), what="run") if file.exists() else self.root.name

    @property
    def typed(self) -> str:
        """What a person types to mean this run: the folder's present name."""
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
    def first_weights_file(self) -> Path:
        return self.root / "first.safetensors"

    @property
    def evaluations_file(self) -> Path:
        return self.root / "evaluations.jsonl"

    def exists(self) -> bool:
        return self.config_file.exists()

    def is_running(self) -> bool:
        """Whether a driver holds the run's lock."""
        if not (self.root / ".lock").exists():
            return False
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except PermissionError:  # another user's
            return False
        lock.release()
        return False

    def config(self) -> RunConfig:
        return load_file(self.config_file)


def run_folder(runs: Path, name: str) -> RunFolder:
    """Return the folder of run `name` below `runs`; nothing is created. Raises UsageError for a bad name."""
    return RunFolder(runs.resolve() / checked_name(name, what="run"))


def run_names(runs: Path) -> list[str]:
    """Return the names of all runs below `runs`, sorted."""
    return sorted(path.parent.name for path in runs.glob("*/config.yaml"))


def named_runs(runs: Path) -> str:
    """Return in words which runs are below `runs`."""
    names = run_names(runs)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (
        f"{runs.resolve()} holds {', '.join(names[:12])}{more}" if names else f"no runs in {runs.resolve()}"
    )


def nearest_run(name: str, runs: Path) -> str:
    """Return what to do for one who named the run `name`, which is not below `runs`."""
    names = run_names(runs)
    if not names:
        return "begin one with `tamen train hex5`, or say with --runs where they are"
    near = nearest(name, names)
    return (
        f"did you mean {' or '.join(near)}?" if near else "name one of them, or say with --runs where it is"
    )


def open_run(folder: RunFolder, config: RunConfig) -> FileLock:
    """Create or reopen a run for writing, and return the lock that its driver holds until it ends.

    Raises:
        UsageError: when the folder belongs to another game or network, or another process runs it.
    """
    lock = lock_run(folder)
    try:
        configure_run(folder, config)
    except BaseException:
        lock.release()
        raise
    return lock


def lock_run(folder: RunFolder) -> FileLock:
    """Return the lock of a run, which may have to be made yet. Raises UsageError when another process has it."""
    folder.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.root / ".lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise _is_being_written(folder) from None
    return lock


def configure_run(folder: RunFolder, config: RunConfig) -> None:
    """Write the configuration of a run that is locked. Raises UsageError when it is of another game or network."""
    refuse_foreign(folder, config)
    if not folder.exists():
        write_atomic(folder.root / "name.txt", f"{folder.root.name}\n".encode())
    write_atomic(folder.config_file, dump(config).encode())


def check_run(folder: RunFolder, config: RunConfig) -> None:
    """Raise what `open_run` would raise; nothing is created.

    Raises:
        UsageError: like `open_run`.
        PermissionError, NotADirectoryError: when the folder cannot be written or made.
    """
    there = next(path for path in (folder.root, *folder.root.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
    if folder.exists():
        if folder.is_running():
            raise _is_being_written(folder)
        refuse_foreign(folder, config)


def _is_being_written(folder: RunFolder) -> UsageError:
    return UsageError(
        f"run {folder.typed!r} is being written by another process",
        why=f"{folder.root} is locked by it",
        fix="wait for it, stop it with Ctrl-C, or give this run another --name",
    )


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


def refuse_foreign(folder: RunFolder, config: RunConfig) -> None:
    """Raise UsageError when the folder holds a run of another game or network."""
    if not folder.exists():
        return
    before = folder.config()
    for what, old, new in (
        ("game", before.game, config.game),
        ("network.blocks", before.network.blocks, config.network.blocks),
        ("network.channels", before.network.channels, config.network.channels),
        ("network.soft_policy", before.network.soft_policy, config.network.soft_policy),
        ("network.layers", list(before.network.layers), list(config.network.layers)),
        ("rollout.unroll_steps", before.rollout.unroll_steps, config.rollout.unroll_steps),
    ):
        if old != new:
            by_size = " (or the --size that it was begun with)" if what != "game" else ""
            raise UsageError(
                f"run {folder.typed!r} cannot go on with {what}={new}",
                why=f"it was begun with {what}={old}, and its weights and games fit nothing else",
                fix=f"give this run another --name, or resume with {what}={old}{by_size}",
            )
