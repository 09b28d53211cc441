"""`tamen train river_values`: a network of hand values, fitted to samples of `tamen datagen generate`.

runs/<name>/
  values.yaml     every setting, resolved
  log.txt         what happened, line by line
  values/         fitting.jsonl, a line for each mini-epoch, and checkpoints
  models/         of the finished network
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, duration
from cluster.hands.plan import PURPOSES, finished_shards
from cluster.run.parts import MODEL, device, make_store
from cluster.run.run_folder import RunFolder, lock_run, run_folder
from cluster.training.fit_step import StorePublisher
from cluster.training.train import text_log
from configs.hand_values import HAND_VALUES, HandValuesConfig
from configs.loading import dump
from core.errors import UsageError
from core.files import write_atomic


def refuse_for_values(given: Mapping[str, Any]) -> None:
    """Raise UsageError when an option is given that is for runs that play."""
    if given.get("--resume") is not None:
        raise UsageError(
            "a network of hand values is not restored by --resume",
            why="runs that play are mirrored, and its folder is not",
            fix="leave out --resume; samples may lie at a URL",
        )
    if named := [name for name, value in given.items() if value is not None]:
        raise UsageError(
            f"{named[0]} says nothing to a network of hand values",
            why="it begins untrained, and is fitted to samples that are there, fit.epochs times",
            fix="leave it out",
        )


def show_settings(preset: str, overrides: Sequence[str], *, seed: int | None) -> None:
    """Print the settings that a fitting would have. Raises UsageError for those that do not exist."""
    console().print(dump(_resolved(preset, overrides, seed)), end="", markup=False)


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
    config = _resolved(preset, overrides, seed)
    if folder.exists() or any((folder.root / f"{kind}.yaml").exists() for kind in ("datagen", "pipeline")):
        raise UsageError(
            f"run {folder.typed!r} is another kind of run",
            why=f"{folder.root} holds something else",
            fix="give this network another --name",
        )
    shards = _shards(config, runs)
    target = console()
    lock = lock_run(folder)
    try:
        counts = _fit(config, shards, folder, StepDisplay(target, plain=plain))
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


def _fit(
    config: HandValuesConfig, shards: Mapping[str, list[Path]], folder: RunFolder, display: StepDisplay
) -> dict[str, Any]:
    import torch

    from learner.hand_values import HandFitting, fit_hand_values
    from learner.offline import Around

    file = folder.root / "values.yaml"
    before = file.read_bytes() if file.exists() else None
    write_atomic(file, dump(config).encode())
    (folder.root / "values").mkdir(exist_ok=True)
    log = text_log(folder.log_file)
    # Steps of 32 rows are no faster with two threads.
    torch.set_num_threads(1)
    environment.keep_freed_memory()
    fitting = HandFitting(
        train=shards["train"],
        validation=shards["validation"],
        settings=config.fit,
        network=config.network,
        learner=config.learner,
        seed=config.seed,
        model=MODEL,
    )
    with stop_request() as stop, display:

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
        try:
            return fit_hand_values(fitting, folder.root / "values", around)
        except UsageError:
            if before is not None:
                write_atomic(file, before)  # settings that were refused are not those of what is there
            raise


def _resolved(preset: str, overrides: Sequence[str], seed: int | None) -> HandValuesConfig:
    return HAND_VALUES.load(preset, [*overrides, *([] if seed is None else [f"seed={seed}"])])


def _shards(config: HandValuesConfig, runs: Path) -> dict[str, list[Path]]:
    """Return the shards of all runs that are named, by purpose.

    Raises:
        UsageError: when one has none, or two drew the same situations.
    """
    shards: dict[str, list[Path]] = {purpose: [] for purpose in PURPOSES}
    drawn_by: dict[int, str] = {}
    for name in config.samples:
        for purpose, tasks in finished_shards(run_folder(runs, name), runs, config.street).items():
            shards[purpose] += [task.path for task in tasks]
            seed = tasks[0].recipe.law.seed if tasks else -1
            if other := drawn_by.get(seed):
                raise UsageError(
                    f"{name} and {other} cannot be used together",
                    why="their situations were drawn with the same seed, and are the same",
                    fix="make one of them with another seed",
                )
            drawn_by |= {seed: name} if tasks else {}
    return shards
