"""`tamen scale`: how many actors and servers each machine of a run gets, changed while it goes on.

The command leaves a small file in the run's folder; the driver takes it, and says in `machines.json` what it goes by.
"""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.cli.terminal import console
from cluster.run.machine_table import MACHINES_FILE, Standing, read_standing
from cluster.run.run_folder import RunFolder, named_runs, nearest_run, run_folder
from configs.loading import Kind
from configs.names import PRESETS_FOLDER
from configs.scale import Scale
from core.errors import ClusterError, UsageError
from core.files import write_atomic

TAKEN_SECONDS = 20.0
"""Within which a driver takes what it is asked: it looks every second, and may be busy with a checkpoint's disk."""
POLL_SECONDS = 0.2
_SCALES = Kind(Scale, PRESETS_FOLDER, whole="the scale of a run")


def scale_run(name: str, settings: Sequence[str], *, runs: Path, quiet: bool) -> dict[str, Any]:
    """Ask the driver of run `name` to go by `settings`, and wait until it does; without settings, only look.

    Returns:
        what the run goes by then.

    Raises:
        UsageError: when there is no such run, setting or kind of machine, or it does not run.
        ClusterError: when its driver does not take it.
    """
    folder = run_folder(runs, name)
    if not folder.exists():
        raise UsageError(f"there is no run {name!r}", why=named_runs(runs), fix=nearest_run(name, runs))
    if not folder.is_running():
        raise UsageError(
            f"run {name!r} is not running",
            why="a run's scale is changed while it goes on; the settings of the command begin it",
            fix=f"begin it with the number, such as: tamen train {name} actors.count=4",
        )
    standing = read_standing(folder)
    if standing is None:
        raise UsageError(
            f"run {name!r} takes no scale",
            why="it runs in one process (--engine local), or does not play yet",
            fix="try again when it plays",
        )
    if standing.is_old(time.time()):
        raise ClusterError(
            f"run {name!r} takes no scale now",
            why=f"its driver has not written {MACHINES_FILE} for {time.time() - standing.time:,.0f} s: "
            "the disk is full, or it was stopped (Ctrl-Z)",
            fix=f"look at `df -h {folder.root}` and {folder.log_file}, and try again",
        )
    asked = _SCALES.override(standing.scale, settings)
    standing.check_kinds(asked)
    if asked != standing.scale:
        write_atomic(_file(folder), asked.model_dump_json().encode())
        standing = _wait_until_taken(folder, asked)
    if not quiet:
        _print(name, standing)
    return standing.scale.model_dump(mode="json")


class ScaleWatch:
    """The driver's eye on the file of a run; what an earlier life was asked counts no more.

    Args:
        report: told why a file was not taken.
    """

    def __init__(self, folder: RunFolder, *, report: Callable[[str], None]) -> None:
        self._file = _file(folder)
        self._report = report
        self._seen: tuple[int, int] | None = None
        self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Take the file away: it counted for this life of the run."""
        self._file.unlink(missing_ok=True)

    def news(self) -> Scale | None:
        """Return what was asked since the last look; None when nothing was."""
        try:
            found = self._file.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen == self._seen:
                return None
            self._seen = seen
            return Scale.model_validate_json(self._file.read_bytes(), strict=True)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            why = str(error).splitlines()[0]
            self._report(f"{self._file} is not taken: {why}; write it with `tamen scale`")
            return None


def _wait_until_taken(folder: RunFolder, asked: Scale) -> Standing:
    deadline = time.monotonic() + TAKEN_SECONDS
    while time.monotonic() < deadline:
        standing = read_standing(folder)
        if standing is not None and standing.scale == asked:
            return standing
        time.sleep(POLL_SECONDS)
    with contextlib.suppress(OSError):
        _file(folder).unlink(missing_ok=True)
    raise ClusterError(
        f"run {folder.typed!r} has not taken {json.dumps(asked.model_dump(mode='json'))}",
        why=f"its driver has not said so in {MACHINES_FILE} for {TAKEN_SECONDS:.0f} s: it is busy, or the disk is full",
        fix=f"look at `df -h {folder.root}`, {folder.log_file} and `tamen status {folder.typed}`, and try again",
    )


def _file(folder: RunFolder) -> Path:
    return folder.root / "scale.json"


def _print(name: str, standing: Standing) -> None:
    target = console()
    for setting, value in standing.scale.model_dump(mode="json").items():
        target.print(
            f"{setting}: {value if isinstance(value, int | str) else json.dumps(value)}", markup=False
        )
    target.print(f"next: tamen status {name}", markup=False)
