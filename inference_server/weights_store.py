"""Published weights as files: one a version, newest first asked, in the run's `models/` folder.

The store outlives the learner, so that a restarted server finds the newest weights when the learner is gone.
`inference_server.broadcast` announces versions before they are here.
"""

import contextlib
from collections import OrderedDict
from pathlib import Path

from core.errors import DataError, TamenError, UsageError
from core.files import seal, unseal, write_atomic
from core.names import checked_name
from networks.weights import Weights

KEPT_IN_MEMORY = 4
MARK_FILE = "given_out"


class WeightsStore:
    """Keeps the versions of a run's models; used by one thread at a time.

    Args:
        folder: `models/` of the run; each version is a file `<model>/<version>.safetensors` with its digest inside.
        kept_files: versions of a model that stay on disk; older ones go, except every `milestone`-th.
    """

    def __init__(self, folder: Path, *, kept_files: int = 32, milestone: int = 100) -> None:
        self._folder = folder
        self._kept_files = kept_files
        self._milestone = milestone
        self._recent: OrderedDict[tuple[str, int], Weights] = OrderedDict()
        self._damaged: set[tuple[str, int]] = set()
        self.skipped: list[str] = []

    def publish(self, weights: Weights) -> None:
        """Keep `weights` durably; from now on they are the newest of their model. Publishing them again is no error.

        Raises:
            UsageError: when the version is not above the newest: a version names one set of weights for ever.
            TamenError: when they cannot be written, on a full disk say; nothing has changed then.
        """
        newest = self.newest_version(weights.model)
        if newest == weights.version and self._holds(weights):
            return
        check_above(weights, newest)
        self.write(weights.model, weights.version, weights.to_bytes())
        self._remember(weights)

    def write(self, model: str, version: int, content: bytes) -> None:
        """Write the file of a version durably, and let go of those that are too old.

        Raises:
            TamenError: when it cannot be written, on a full disk say; nothing has changed then.
        """
        _write(self._path(model, version), content)
        self._damaged.discard((model, version))
        with contextlib.suppress(
            OSError
        ):  # what was written is safe whatever happens here; the next tries again
            self._prune(model)

    def is_milestone(self, version: int) -> bool:
        """Return whether the file of a version stays for ever."""
        return version % self._milestone == 0

    def newest_version(self, model: str) -> int | None:
        """Return the number of the newest version; None when nothing was published."""
        versions = self._versions(model)
        return versions[-1] if versions else None

    def highest_version(self, model: str) -> int | None:
        """Return a number above which none was ever given out, for who makes new versions; None when none was at all.

        It is that of the newest file, unless a process died between giving versions out and writing them: then it is
        the mark, a number that nobody was given.

        Raises:
            DataError: as `mark`.
        """
        numbers, mark = self._numbers(model), self.mark(model)
        newest = numbers[-1] if numbers else None
        return mark if mark > (0 if newest is None else newest + 1) else newest

    def mark(self, model: str) -> int:
        """Return the number below which versions may have been given out that are no files; 0 when there is none.

        Raises:
            DataError: when the file that says so is damaged.
        """
        path = self._mark_path(model)
        if not path.exists():
            return 0
        return int(unseal(path.read_bytes(), source=str(path)))

    def set_mark(self, model: str, below: int) -> None:
        """Note durably that only versions below `below` are given out before their files are written.

        Raises:
            TamenError: when it cannot be written; the mark is what it was.
        """
        _write(self._mark_path(model), seal(str(below).encode()))

    def get(self, model: str, version: int | None = None) -> Weights:
        """Return a version (the newest by default); a damaged newest file falls back to the one before.

        Raises:
            UsageError: for a model or version that is not there.
            DataError: when a version asked for by number is damaged.
        """
        versions = self._versions(model)
        wanted = reversed(versions) if version is None else [v for v in versions if v == version]
        for number in wanted:
            try:
                return self._read(model, number)
            except DataError as error:
                if version is not None:
                    raise
                self.skipped.append(str(error))
                self._damaged.add((model, number))
        raise UsageError(
            f"no weights of model {model!r}" + ("" if version is None else f" version {version}"),
            why=f"{self._folder} holds versions {versions[-5:] if versions else 'none'} of it",
            fix="start the learner, or name a model that was published",
        )

    def _holds(self, weights: Weights) -> bool:
        try:
            return self._read(weights.model, weights.version).digest == weights.digest
        except DataError:
            return False

    def _read(self, model: str, version: int) -> Weights:
        if (model, version) not in self._recent:
            path = self._path(model, version)
            self._remember(Weights.from_bytes(path.read_bytes(), source=str(path)))
        return self._recent[model, version]

    def _remember(self, weights: Weights) -> None:
        self._recent[weights.model, weights.version] = weights
        while len(self._recent) > KEPT_IN_MEMORY:
            self._recent.popitem(last=False)

    def _versions(self, model: str) -> list[int]:
        return [number for number in self._numbers(model) if (model, number) not in self._damaged]

    def _numbers(self, model: str) -> list[int]:
        folder = self._folder / checked_name(model, what="model")
        return sorted(int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdigit())

    def _path(self, model: str, version: int) -> Path:
        return self._folder / checked_name(model, what="model") / f"{version:08d}.safetensors"

    def _mark_path(self, model: str) -> Path:
        return self._folder / checked_name(model, what="model") / MARK_FILE

    def _prune(self, model: str) -> None:
        for version in self._versions(model)[: -self._kept_files]:
            if not self.is_milestone(version):
                self._path(model, version).unlink(missing_ok=True)


def check_above(weights: Weights, newest: int | None) -> None:
    """Raise UsageError unless the version is above the `newest` of its model."""
    if newest is not None and weights.version <= newest:
        raise UsageError(
            f"version {weights.version} of model {weights.model!r} cannot be published",
            why=f"version {newest} is already published, and a version names one set of weights for ever",
            fix=f"publish it as version {newest + 1}",
        )


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise TamenError(
            f"{path} could not be written",
            why=str(error),
            fix="make room on the disk; the same command goes on from the last checkpoint",
        ) from error
