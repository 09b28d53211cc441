"""Published weights: one immutable object a version, newest first asked, backed by the run's `models/` folder.

The store outlives the learner, so that a restarted server finds the newest weights when the learner is gone.
"""

from collections import OrderedDict
from pathlib import Path

from core.errors import DataError, TamenError, UsageError
from core.files import write_atomic
from core.names import checked_name
from networks.weights import Weights

KEPT_IN_MEMORY = 4


class WeightsStore:
    """Keeps the versions of a run's models.

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
        if newest is not None and weights.version <= newest:
            raise UsageError(
                f"version {weights.version} of model {weights.model!r} cannot be published",
                why=f"version {newest} is already published, and a version names one set of weights for ever",
                fix=f"publish it as version {newest + 1}",
            )
        path = self._path(weights.model, weights.version)
        try:
            write_atomic(path, weights.to_bytes())
        except OSError as error:
            raise TamenError(
                f"{path} could not be written",
                why=str(error),
                fix="make room on the disk; the same command goes on from the last checkpoint",
            ) from error
        self._damaged.discard((weights.model, weights.version))
        self._remember(weights)
        self._prune(weights.model)

    def newest_version(self, model: str) -> int | None:
        """Return the number of the newest version; None when nothing was published."""
        versions = self._versions(model)
        return versions[-1] if versions else None

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
        folder = self._folder / checked_name(model, what="model")
        versions = (int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdigit())
        return sorted(version for version in versions if (model, version) not in self._damaged)

    def _path(self, model: str, version: int) -> Path:
        return self._folder / checked_name(model, what="model") / f"{version:08d}.safetensors"

    def _prune(self, model: str) -> None:
        for version in self._versions(model)[: -self._kept_files]:
            if version % self._milestone:
                self._path(model, version).unlink(missing_ok=True)
