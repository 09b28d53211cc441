"""`tamen selfplay`: games of a given model into a folder, by as many actors as the machine has, without a learner."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cluster import environment
from cluster.models import FoundModel, find_model
from cluster.observer import Observer
from cluster.parts import MODEL, make_store
from cluster.run_folder import RunFolder, open_run
from cluster.terminal import console
from cluster.train import run_engine
from configs.loading import override
from configs.schema import RunConfig
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
    """Play until `out` holds `games` games; what it holds already counts.

    Raises:
        UsageError: when `out` holds games of other weights.
    """
    found = find_model(model, runs=runs)
    config = override(
        found.config, [*KEEP_EVERYTHING, *overrides, "stop.minutes=null", "stop.learner_steps=null"]
    )
    config = override(config, [f"stop.games={games}"])
    folder = RunFolder(out.resolve())
    checked_name(folder.typed, what="folder")
    lock = open_run(folder, config)
    try:
        _place_weights(found, folder)
        _play(config, folder, address=address, plain=plain, metrics_port=metrics_port)
    finally:
        lock.release()
    target = console()
    target.print(
        f"games as text in {folder.games}, with their positions in {folder.root / 'replay'}", markup=False
    )
    target.print("next: the same command with more --games goes on from here", markup=False)


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


def _play(
    config: RunConfig, folder: RunFolder, *, address: str | None, plain: bool, metrics_port: int | None
) -> None:
    environment.prepare_ray(address)
    from cluster.ray_engine import RayEngine

    observer = Observer(folder.typed, config)
    engine = RayEngine(config, folder, address=address, report=observer.note, learn=False)
    run_engine(engine, observer, config, folder, plain=plain, metrics_port=metrics_port)
