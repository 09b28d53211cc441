"""Where a trained model is found: a run, one version of a run, or a file."""

from dataclasses import dataclass
from pathlib import Path

from cluster.run.parts import MODEL, make_store
from cluster.run.run_folder import RunFolder, named_runs, nearest_run, run_folder
from configs.schema import RunConfig
from core.errors import UsageError
from networks.weights import Weights, network_parts


@dataclass(frozen=True, slots=True)
class FoundModel:
    """Weights with the configuration that they were trained under; only its game and network are sure for a file."""

    label: str
    weights: Weights
    config: RunConfig


def find_model(text: str, *, runs: Path) -> FoundModel:
    """Return the model that `text` names: "RUN" (its newest weights), "RUN@VERSION", or a path to a .safetensors file.

    Raises:
        UsageError: when there is none.
        DataError: when its file is damaged.
    """
    if _is_file(text):
        return _from_file(Path(text))
    folder, version = _run_of(text, runs)
    if folder.config().environment is not None:
        raise UsageError(
            f"{folder.typed} is no run of a board game",
            why=f"it learns {folder.config().game}, which nobody plays against",
            fix=f"see how it does with `tamen status {folder.typed}`",
        )
    weights = make_store(folder).get(MODEL, version)
    return FoundModel(f"{folder.typed}@{weights.version}", weights, folder.config())


def find_weights(text: str, *, runs: Path) -> tuple[str, Weights]:
    """Return the run or file that `text` names, as `find_model` takes it, and its weights, of whatever network.

    Raises:
        UsageError: when there are none.
        DataError: when their file is damaged.
    """
    if _is_file(text):
        return Path(text).name, _read(Path(text))
    folder, version = _run_of(text, runs)
    return folder.typed, make_store(folder).get(MODEL, version)


def _is_file(text: str) -> bool:
    return text.endswith(".safetensors") or "/" in text


def _run_of(text: str, runs: Path) -> tuple[RunFolder, int | None]:
    """Return the folder of the run that is named, and the version, if one is. Raises UsageError."""
    name, _, version = text.partition("@")
    folder = run_folder(runs, name)
    if not folder.exists():
        raise UsageError(f"there is no run {name!r}", why=named_runs(runs), fix=nearest_run(name, runs))
    if version and not version.isdecimal():
        raise UsageError(
            f"there is no model {text!r}",
            why="a version is a number, such as 12",
            fix=f"name {name} for its newest weights, or {name}@VERSION",
        )
    return folder, int(version) if version else None


def _read(path: Path) -> Weights:
    """Return the weights in a file. Raises UsageError when it is not there, DataError when it is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the model {str(path)!r}",
            why=error.strerror or str(error),
            fix="name a .safetensors file that tamen wrote, such as runs/NAME/models/main/00000012.safetensors",
        ) from error
    return Weights.from_bytes(data, source=str(path))


def _from_file(path: Path) -> FoundModel:
    weights = _read(path)
    if "blocks" not in weights.network:
        raise UsageError(
            f"{path} is no model of a board game",
            why=f"it was trained on {weights.game}, which nobody plays against",
            fix="name a model of a board game",
        )
    _, network = network_parts(weights.network)
    return FoundModel(path.stem, weights, RunConfig(game=weights.game, network=network))
