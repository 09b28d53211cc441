"""`tamen datagen generate | audit`: samples of poker hands from a profile, in a run's folder.

runs/<name>/
  datagen.yaml              every setting, resolved
  log.txt                   what happened, line by line
  datagen/train/            shards, see `replay.hand_shards`; those of `validation` beside them
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.prompt import Confirm

from cluster.executing import executor_for
from cluster.pipeline_display import StepDisplay
from cluster.program import Machine
from cluster.run_folder import RunFolder, lock_run
from cluster.stopping import stop_request
from cluster.terminal import console, duration, is_live, whole
from cluster.train import text_log
from configs.datagen import DATAGEN, DatagenConfig
from configs.loading import dump
from core.errors import DataError, UsageError
from core.files import write_atomic
from pipeline.contract import Context, Stopped
from pipeline.hand_samples import HandSamplesStep, Recipe, ShardTask, audit, make_shard, shard_tasks
from pipeline.orchestrator import Pipeline, Stage
from poker.acpc import STREETS
from poker.analytics import newest_analytics, read_analytics
from poker.batches import Stop
from poker.sampling import Law

PURPOSES = ("train", "validation")
AUDITED_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for beside the settings.

    Attributes:
        yes: do not ask whether to begin.
        engine: "ray", or None for processes beside this one.
        address: of a Ray cluster to join.
        quiet: print nothing but progress.
    """

    yes: bool = False
    engine: str | None = None
    address: str | None = None
    plain: bool = False
    quiet: bool = False


def resolve_datagen(
    profile: str | None,
    overrides: Sequence[str],
    folder: RunFolder,
    *,
    typed: dict[str, Any],
    analytics: Path | None = None,
) -> DatagenConfig:
    """Return the configuration of a profile, or without one that of the run in `folder`, with what was typed for it.

    Bet sizes of the street, and iterations where none are typed, are those of a file of `analytics`, or of the newest
    in a folder.

    Raises:
        UsageError: for a profile, key or value that does not exist.
    """
    file = folder.root / "datagen.yaml"
    goes_on = profile is None and file.exists()
    config = DATAGEN.load_file(file) if goes_on else DATAGEN.load(profile or "testing")
    from_play = {} if analytics is None else _of_play(analytics, config.street)
    given = from_play | {key: value for key, value in typed.items() if value is not None}
    if "cfr_iterations" in typed and typed["cfr_iterations"] is not None:
        given["target_pct"] = None  # so many iterations are asked for, not so exact a result
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    return DATAGEN.override(config, [*settings, *overrides])


def _of_play(analytics: Path, street: str) -> dict[str, Any]:
    """Return what a file of analytics, or the newest of a folder, says of a street."""
    found = read_analytics(newest_analytics(analytics) if analytics.is_dir() else analytics)
    for note in found.notes:
        console(stderr=True).print(note, markup=False, soft_wrap=True)
    sizes = found.sizes[STREETS.index(street)]
    settings: dict[str, Any] = {"bet_sizes": list(sizes)} if sizes else {}
    return settings | ({"cfr_iterations": found.cfr_iterations} if found.cfr_iterations else {})


def generate(config: DatagenConfig, folder: RunFolder, asked: Asked) -> dict[str, Any]:
    """Make what is left of the samples, to the end or the first Ctrl-C.

    Returns:
        {"run", "folder", "stopped", "seconds", "train": counts, "validation": counts}, plain JSON.

    Raises:
        UsageError: when a person says no, or the run is being written by another process.
        TamenError: when samples cannot be made; those that are there are kept.
    """
    _refuse_other_runs(folder)
    pipeline = Pipeline(_stages(config), folder.root / "datagen")
    plan = pipeline.plan()
    idle = all(one.action == "finished" for one in plan)
    if not (asked.yes or idle or asked.quiet):
        _ask(config)
    lock = lock_run(folder)
    began = time.monotonic()
    target = console(stderr=asked.quiet)
    counts: dict[str, dict[str, Any]] = {}
    stopped = False
    try:
        write_atomic(folder.root / "datagen.yaml", dump(config).encode())
        log = text_log(folder.log_file)
        with (
            stop_request() as stop,
            StepDisplay(target, plain=asked.plain) as display,
            executor_for(config.workers, asked.engine, asked.address, idle=idle) as executor,
        ):

            def say(line: str) -> None:
                display.end()
                display.say(line)
                log.info("%s", line)

            def note(line: str) -> None:
                log.info("%s", line)

            around = Context(executor, display.progress, lambda: stop.requested, note)
            try:
                counts = pipeline.run(around, say=say, begin=display.begin)
            except Stopped:
                stopped = True
    finally:
        lock.release()
    seconds = time.monotonic() - began
    if not asked.quiet:
        _say_goodbye(folder, counts, stopped=stopped, seconds=seconds)
    return {
        "run": folder.typed,
        "folder": str(folder.root),
        "stopped": stopped,
        "seconds": round(seconds, 3),
        **counts,
    }


def audit_samples(folder: RunFolder, *, share: float, seed: int, quiet: bool) -> dict[str, Any]:
    """Solve some samples again, and compare every byte.

    Returns:
        {"audited", "differing": numbers by purpose, "max_exploitability_pct"}, plain JSON.

    Raises:
        UsageError: when there are no samples in the run.
        DataError: when a shard is damaged.
    """
    file = folder.root / "datagen.yaml"
    if not file.exists():
        raise UsageError(
            f"run {folder.typed!r} has no samples",
            why=f"there is no {file}",
            fix="make some with `tamen datagen generate`, or name another run",
        )
    config = DATAGEN.load_file(file)
    differing: dict[str, list[int]] = {}
    audited = 0
    with stop_request() as stop, StepDisplay(console(stderr=True), plain=quiet) as display:
        for purpose in PURPOSES:
            tasks = [task for task in tasks_of(config, folder, purpose) if task.path.exists()]
            expected = max(len(tasks), round(share * sum(task.recipe.shard_samples for task in tasks)))
            display.begin(f"auditing {purpose}")
            for done, (number, same) in enumerate(audit(tasks, share, seed), start=1):
                audited += 1
                if not same:
                    differing.setdefault(purpose, []).append(number)
                display.progress(done, max(done, expected), "samples")
                if stop.requested:
                    raise KeyboardInterrupt
    report = {"audited": audited, "differing": differing}
    if not quiet:
        verdict = "all bytes are the same" if not differing else f"others came out for {differing}"
        console().print(f"{whole(audited)} samples solved again: {verdict}", markup=False)
    return report


def tasks_of(config: DatagenConfig, folder: RunFolder, purpose: str) -> list[ShardTask]:
    """Return the tasks that make the samples of a purpose."""
    samples = config.samples if purpose == "train" else config.validation_samples
    return shard_tasks(recipe_of(config, purpose), purpose, samples, folder.root / "datagen" / purpose)


def recipe_of(config: DatagenConfig, purpose: str) -> Recipe:
    """Return how the samples of a purpose are made."""
    share = config.validation_iterations_share if purpose == "validation" else 1.0
    if config.target_pct is None:
        stop = Stop(None, max(1, round(config.cfr_iterations * share)))
    else:
        stop = Stop(config.target_pct / 100 / share, config.most_iterations)
    return Recipe(
        law=Law(config.seed, group=config.group_samples, pots=_pots_below(config.stack)),
        stack=config.stack,
        bet_sizes=config.bet_sizes,
        variant=config.variant,
        stop=stop,
        shard_groups=config.shard_samples // config.group_samples,
    )


def _pots_below(stack: float) -> tuple[tuple[int, int], ...]:
    """Return DeepStack's law of pots, which is for stacks of 20,000, in proportion to other stacks."""
    from poker.sampling import POT_LAW

    if stack == 20_000:
        return POT_LAW
    scaled = [(max(1, round(low * stack / 20_000)), round(high * stack / 20_000)) for low, high in POT_LAW]
    return tuple((low, max(low, high)) for low, high in scaled)


def _stages(config: DatagenConfig) -> list[Stage]:
    steps = [HandSamplesStep("train", recipe_of(config, "train"), config.samples)]
    if config.validation_samples:
        steps.append(
            HandSamplesStep("validation", recipe_of(config, "validation"), config.validation_samples)
        )
    return [Stage(step, goes_on_from=step.goes_on_from) for step in steps]


def _ask(config: DatagenConfig) -> None:
    """Tell what it will cost, as far as a first shard of a few groups tells, and ask whether to begin."""
    target = console()
    rate = measured_rate(config)
    cores = Machine.here().cpus if config.workers == "auto" else config.workers
    number = config.samples + config.validation_samples
    exact = (
        f"{config.target_pct:g} % of the pot"
        if config.target_pct
        else f"{config.cfr_iterations:,} iterations"
    )
    target.print(
        f"{whole(config.samples)} samples of the {config.street} to learn from and"
        f" {whole(config.validation_samples)} to judge by, each to {exact}:"
        f" about {duration(number / rate / cores)} with {cores} workers ({rate:.0f} samples/s a core)",
        markup=False,
        soft_wrap=True,
    )
    if is_live(target) and not Confirm.ask("begin?", default=True, console=target):
        raise UsageError(
            "nothing was begun", why="you said no", fix="give --yes to begin without being asked"
        )


def measured_rate(config: DatagenConfig, groups: int = 8) -> float:
    """Return samples/s of a core, of a few small groups at the recipe's exactness."""
    recipe = recipe_of(config, "train")
    law = replace(recipe.law, group=16, seed=recipe.law.seed + 1)
    small = replace(recipe, law=law, shard_groups=groups)
    with tempfile.TemporaryDirectory(prefix="tamen-") as folder:
        task = ShardTask(small, 0, small.shard_samples, Path(folder) / "samples_0000.npz")
        make_shard(replace(task, samples=1))  # compiles
        began = time.perf_counter()
        try:
            made = make_shard(task)
        except DataError:
            made = small.shard_samples
        return made / (time.perf_counter() - began)


def _refuse_other_runs(folder: RunFolder) -> None:
    if folder.exists() or (folder.root / "pipeline.yaml").exists():
        raise UsageError(
            f"run {folder.typed!r} is another kind of run",
            why=f"{folder.root} holds a run that learns",
            fix="give these samples another --name",
        )


def _say_goodbye(
    folder: RunFolder, counts: dict[str, dict[str, Any]], *, stopped: bool, seconds: float
) -> None:
    target = console()
    if stopped:
        line = f"stopped; `tamen datagen generate --name {folder.typed}` goes on from here"
    else:
        made = sum(each["samples"] for each in counts.values())
        line = f"{whole(made)} samples in {folder.root / 'datagen'}, after {duration(seconds)}"
    target.print(line, markup=False, soft_wrap=True)
