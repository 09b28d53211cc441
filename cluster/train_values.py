"""`tamen train river_values`: a network of hand values, fitted to samples of `tamen datagen generate`.

runs/<name>/
  values.yaml     every setting, resolved
  log.txt         what happened, line by line
  values/         fitting.jsonl, a line for each mini-epoch, and checkpoints
  models/         of the finished network
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.datagen import PURPOSES
from cluster.fit_step import StorePublisher
from cluster.parts import MODEL, device, make_store
from cluster.pipeline_display import StepDisplay
from cluster.program import Machine
from cluster.run_folder import RunFolder, lock_run, run_folder
from cluster.stopping import stop_request
from cluster.terminal import console, duration
from cluster.train import text_log
from configs.hand_values import HAND_VALUES, HandValuesConfig
from configs.loading import dump
from core.errors import UsageError
from core.files import write_atomic


def train_values(
    preset: str, overrides: Sequence[str], folder: RunFolder, *, runs: Path, seed: int | None, plain: bool
) -> dict[str, Any]:
    """Fit until the end or the first Ctrl-C; the same call goes on.

    Returns:
        What `learner.hand_values.fit_hand_values` does.

    Raises:
        UsageError: for settings that do not exist, samples that are not there, or a folder begun with other ones.
        TamenError: when it cannot be done; what could be done is kept.
    """
    import torch

    from learner.hand_values import HandFitting, fit_hand_values
    from learner.offline import Around

    config = HAND_VALUES.load(preset, [*overrides, *([] if seed is None else [f"seed={seed}"])])
    if folder.exists() or (folder.root / "datagen.yaml").exists():
        raise UsageError(
            f"run {folder.typed!r} is another kind of run",
            why=f"{folder.root} holds something else",
            fix="give this network another --name",
        )
    shards = {purpose: _shards(config, runs, purpose) for purpose in PURPOSES}
    lock = lock_run(folder)
    target = console()
    try:
        write_atomic(folder.root / "values.yaml", dump(config).encode())
        (folder.root / "values").mkdir(exist_ok=True)
        log = text_log(folder.log_file)
        torch.set_num_threads(Machine.here().cpus)
        with stop_request() as stop, StepDisplay(target, plain=plain) as display:

            def say(line: str) -> None:
                display.say(line)
                log.info("%s", line)

            display.begin("fitting")
            around = Around(
                publisher=StorePublisher(make_store(folder)),
                progress=display.progress,
                should_stop=lambda: stop.requested,
                log=say,
                device=device(),
            )
            fitting = HandFitting(
                train=shards["train"],
                validation=shards["validation"],
                settings=config.fit,
                network=config.network,
                learner=config.learner,
                seed=config.seed,
                model=MODEL,
            )
            counts = fit_hand_values(fitting, folder.root / "values", around)
    finally:
        lock.release()
    if counts["finished"]:
        target.print(
            f"done in {duration(counts['seconds'])}; {folder.models} has the network",
            markup=False,
            soft_wrap=True,
        )
    else:
        target.print("stopped; the same command goes on from here", markup=False)
    return counts


def _shards(config: HandValuesConfig, runs: Path, purpose: str) -> list[Path]:
    """Return the shards of a purpose in all runs that are named. Raises UsageError when there are none."""
    found: list[Path] = []
    for name in config.samples:
        folder = run_folder(runs, name).root / "datagen" / purpose
        shards = sorted(folder.glob("samples_*.npz"))
        if not shards:
            raise UsageError(
                f"there are no samples in run {name!r}",
                why=f"{folder} holds no shards",
                fix=f"make some: tamen datagen generate --name {name}; or name another run with samples=[RUN]",
            )
        found += shards
    return found
