"""Games of a given model into a folder, by as many actors as the machine has, without a learner."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from cluster.cli.terminal import console
from cluster.monitoring.observer import Observer
from cluster.monitoring.snapshot import Snapshot
from cluster.run.models import FoundModel, find_model
from cluster.run.parts import MODEL, make_store
from cluster.run.run_folder import RunFolder, open_run
from cluster.training.train import make_engine, run_engine
from configs.loading import override
from core.errors import UsageError
from core.names import checked_name

KEEP_EVERYTHING = (
    "replay.capacity_rows=1000000000",
    "replay.window_exponent=1.0",
    "replay.window_growth=1.0",
    "evaluation.games=0",
)


def play_games(
    model: str,
    out: Path,
    overrides: Sequence[str],
    *,
    games: int,
    address: str | None,
    runs: Path,
    plain: bool,
    metrics_port: int | None,
) -> None:
    """`tamen selfplay`: play until `out` holds `games` games; what it holds already counts.

    Raises:
        UsageError: when `out` holds games of other weights.
    """
    folder = RunFolder(out.resolve())
    checked_name(folder.typed, what="folder")
    found = find_model(model, runs=runs)
    play_into(
        folder,
        found,
        overrides,
        games=games,
        engine="ray",
        address=address,
        plain=plain,
        metrics_port=metrics_port,
    )
    target = console()
    target.print(
        f"games as text in {folder.games}, with their positions in {folder.root / 'replay'}", markup=False
    )
    target.print("next: the same command with more --games goes on from here", markup=False)


def play_into(
    folder: RunFolder,
    found: FoundModel,
    overrides: Sequence[str],
    *,
    games: int,
    engine: Literal["ray", "local"],
    address: str | None,
    plain: bool,
    metrics_port: int | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> None:
    """Play with the model `found` until `folder` holds `games` games, or the first Ctrl-C.

    Args:
        watch: takes each picture of how it goes.

    Raises:
        UsageError: when it holds games of other weights.
    """
    config = override(
        found.config, [*KEEP_EVERYTHING, *overrides, "stop.minutes=null", "stop.learner_steps=null"]
    )
    config = override(config, [f"stop.games={games}"])
    lock = open_run(folder, config)
    try:
        _place_weights(found, folder)
        observer = Observer(folder.typed, config)
        chosen = make_engine(engine, config, folder, address=address, report=observer.note, learn=False)
        run_engine(chosen, observer, config, folder, plain=plain, metrics_port=metrics_port, watch=watch)
    finally:
        lock.release()


def _place_weights(found: FoundModel, folder: RunFolder) -> None:
    """Publish the model in the folder as its only weights, or make sure that it is the one there."""
    store = make_store(folder)
    if store.newest_version(MODEL) is None:
        store.publish(dataclasses.replace(found.weights, model=MODEL))
    elif store.get(MODEL).digest != found.weights.digest:
        raise UsageError(
            f"{folder.root} holds games of another model",
            why=f"its weights have the digest {store.get(MODEL).digest}, {found.label} has {found.weights.digest}",
            fix="choose another folder for the games of this model",
        )
