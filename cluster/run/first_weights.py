"""`tamen train --weights MODEL`: the weights that a run begins with, in place of untrained ones.

A copy is in the run's folder before anything else of it: whenever the run is killed, it goes on from the very same,
whatever became of the run or file that they were taken from.
"""

import dataclasses
import json
from pathlib import Path

from cluster.run.models import find_weights
from cluster.run.run_folder import RunFolder
from cluster.run.workloads import workload_of
from configs.schema import RunConfig
from core.errors import UsageError
from core.files import write_atomic
from networks.weights import Weights, network_description


def choose_first_weights(text: str, config: RunConfig, folder: RunFolder, *, runs: Path) -> Weights:
    """Return the weights that `text` names, for the run in `folder` to begin with; nothing is changed.

    Args:
        text: as `cluster.run.models.find_weights` takes it.
        config: of the run.
        folder: of the run, which may be there already if it began with these.
        runs: below which runs are.

    Raises:
        UsageError: when there are none, they do not fit, or the run began with others.
        DataError: when their file is damaged.
    """
    before = first_weights(folder) if folder.exists() else None
    try:
        name, weights = find_weights(text, runs=runs)
    except UsageError:
        # The same command goes on, whatever became of what the run began with.
        if before is not None and Path(text).name in (before.model, f"{before.model}@{before.version}"):
            return before
        raise
    weights = dataclasses.replace(weights, model=name)
    if not folder.exists():
        _refuse_unfit(weights, config)
    elif before is None or before.digest != weights.digest:
        began = "untrained weights" if before is None else in_words(before)
        raise UsageError(
            f"run {folder.typed!r} cannot begin with {in_words(weights)}",
            why=f"it began with {began}",
            fix="leave --weights out to go on with it, or give a new run another --name",
        )
    return weights


def keep_first_weights(folder: RunFolder, weights: Weights | None) -> None:
    """Put the weights that a run begins with into its folder, before its configuration; None: untrained ones.

    Raises:
        OSError: when they cannot be written.
    """
    if weights is None:  # a run that never began may have left some
        folder.first_weights_file.unlink(missing_ok=True)
    else:
        write_atomic(folder.first_weights_file, weights.to_bytes())


def first_weights(folder: RunFolder) -> Weights | None:
    """Return the weights that a run began with; None: untrained ones. Raises DataError when they are damaged."""
    path = folder.first_weights_file
    return Weights.from_bytes(path.read_bytes(), source=str(path)) if path.exists() else None


def in_words(weights: Weights) -> str:
    """Return whose the weights are, and which."""
    return f"{weights.model} version {weights.version} ({weights.digest[:12]})"


def _refuse_unfit(weights: Weights, config: RunConfig) -> None:
    """Raise UsageError unless the weights are of the game and network of a run."""
    has, wanted = weights.network, network_description(workload_of(config).spec, config.network)
    if weights.game == config.game and has == wanted:
        return
    sized = [name for name in ("blocks", "channels", "layers") if has.get(name) != wanted.get(name)]
    if weights.game != config.game:
        why, fix = f"they are of {weights.game}, the run is of {config.game}", "name weights of that game"
    elif sized and has["kind"] == wanted["kind"]:
        why = f"their network has {', '.join(f'{name} {has[name]} instead of {wanted[name]}' for name in sized)}"
        settings = " ".join(
            f"network.{name}={json.dumps(has[name], separators=(',', ':'))}" for name in sized
        )
        fix = f"set {settings}, or name other weights"
    else:
        why = "their network sees or answers something else than the run's"
        fix = "set network.soft_policy as they have it, or name weights of the same game and release"
    raise UsageError(f"the run cannot begin with {in_words(weights)}", why=why, fix=fix)
