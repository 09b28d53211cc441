"""`tamen datagen generate | audit`: samples of poker hands from a profile, in a run's folder.

runs/<name>/
  datagen.yaml              every setting, resolved
  log.txt                   what happened, line by line
  datagen/train/            shards, see `replay.hand_shards`; those of `validation` beside them
"""

import json
import os
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
from core.errors import UsageError
from core.files import write_atomic
from pipeline.contract import Context, Stopped
from pipeline.hand_samples import (
    HandSamplesStep,
    Recipe,
    ShardTask,
    audit,
    make_shard,
    memory_of,
    shard_tasks,
)
from pipeline.orchestrator import Pipeline, Planned, Stage
from poker.acpc import STREETS
from poker.analytics import newest_analytics, read_analytics
from poker.batches import Stop
from poker.sampling import POT_LAW, Law

PURPOSES = ("train", "validation")
ANALYTICS, WITH_ANALYTICS = Path("analytics"), ("quick_analytics", "official_analytics")
LARGEST_SHARE = 0.8
"""Of this machine's memory, that all workers together may need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for beside the settings.

    Attributes:
        yes: do not ask whether to begin.
        anew: whether samples that were made with other settings may be set aside.
        engine: "ray", or None for processes beside this one.
        address: of a Ray cluster to join.
        quiet: print nothing but progress.
    """

    yes: bool = False
    anew: bool = False
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
    in a folder. Profiles made for that take the folder `ANALYTICS` where none is given.

    Raises:
        UsageError: for a profile, key or value that does not exist.
    """
    file = folder.root / "datagen.yaml"
    goes_on = profile is None and file.exists()
    config = DATAGEN.load_file(file) if goes_on else DATAGEN.load(profile or "testing")
    if (
        analytics is None
        and not goes_on
        and profile in WITH_ANALYTICS
        and any(ANALYTICS.glob("analytics_*.json"))
    ):
        analytics = ANALYTICS
    from_play = {} if analytics is None else _of_play(analytics, config.street)
    given = from_play | {key: value for key, value in typed.items() if value is not None}
    if "cfr_iterations" in typed and typed["cfr_iterations"] is not None:
        given["target_pct"] = None  # so many iterations are asked for, not so exact a result
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    return DATAGEN.override(config, [*settings, *overrides])


def _of_play(analytics: Path, street: str) -> dict[str, Any]:
    """Return what a file of analytics, or the newest of a folder, says of a street."""
    file = newest_analytics(analytics) if analytics.is_dir() else analytics
    found = read_analytics(file)
    sizes = found.sizes[STREETS.index(street)]
    said = (
        f"{file} says bets of {', '.join(f'{size:g}' for size in sizes)} pots on the {street}"
        if sizes
        else ""
    )
    for line in (*found.notes, said or f"{file} says nothing of bets on the {street}"):
        console(stderr=True).print(line, markup=False, soft_wrap=True)
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
    if not asked.anew:
        _refuse_to_replace(plan, folder)
    if not idle:
        _check_memory(config)
    if not (asked.yes or idle or asked.quiet):
        _ask(config, folder)
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
        {"audited", "differing": numbers by purpose}, plain JSON.

    Raises:
        UsageError: when there are no samples in the run.
        DataError: when a shard is missing, damaged, or not what it should be.
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
            tasks = tasks_of(config, folder, purpose)
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
    if stack == 20_000:
        return POT_LAW
    return tuple((round(low * stack / 20_000), round(high * stack / 20_000)) for low, high in POT_LAW)


def finished_shards(folder: RunFolder) -> dict[str, list[ShardTask]]:
    """Return the tasks of all samples of a run, by purpose.

    Raises:
        UsageError: when there are none, or they are not all made.
    """
    file = folder.root / "datagen.yaml"
    why = f"there is no {file}"
    if file.exists():
        config = DATAGEN.load_file(file)
        plan = Pipeline(_stages(config), folder.root / "datagen").plan()
        left = [one.name for one in plan if one.action != "finished"]
        if not left:
            return {purpose: tasks_of(config, folder, purpose) for purpose in PURPOSES}
        why = f"those for {left[0]} are not all made"
    raise UsageError(
        f"there are no finished samples in run {folder.typed!r}",
        why=why,
        fix=f"make them: tamen datagen generate --name {folder.typed}; or name another run with samples=[RUN]",
    )


def _stages(config: DatagenConfig) -> list[Stage]:
    steps = [HandSamplesStep("train", recipe_of(config, "train"), config.samples)]
    if config.validation_samples:
        steps.append(
            HandSamplesStep("validation", recipe_of(config, "validation"), config.validation_samples)
        )
    return [Stage(step, goes_on_from=step.goes_on_from) for step in steps]


def _refuse_to_replace(plan: Sequence[Planned], folder: RunFolder) -> None:
    for one in plan:
        if one.action == "run" and (folder.root / "datagen" / one.name / "step.json").exists():
            raise UsageError(
                f"the samples for {one.name} in run {folder.typed!r} were made with other settings",
                why=one.why,
                fix="give another --name; or --anew, which sets them aside and makes others",
            )


def _check_memory(config: DatagenConfig) -> None:
    """Raise UsageError when all workers together would need more memory than there is."""
    needed = memory_of(recipe_of(config, "train")) * _workers(config)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > LARGEST_SHARE * there:
        raise UsageError(
            f"bets of {list(config.bet_sizes)} make trees that do not fit in memory",
            why=f"{_workers(config)} workers would need {needed / 1e9:.1f} GB of {there / 1e9:.1f}",
            fix="give fewer or larger bet_sizes, or fewer workers",
        )


def _workers(config: DatagenConfig) -> int:
    return Machine.here().cpus if config.workers == "auto" else config.workers


def _ask(config: DatagenConfig, folder: RunFolder) -> None:
    """Tell what it will cost, as far as a few situations tell, and ask on a terminal whether to begin."""
    target = console()
    rate, cores = measured_rate(config), _workers(config)
    tasks = [task for purpose in PURPOSES for task in tasks_of(config, folder, purpose)]
    number = sum(
        task.samples - task.number * task.recipe.shard_samples for task in tasks if not task.path.exists()
    )
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
        make_shard(task)
        return task.samples / (time.perf_counter() - began)


def _refuse_other_runs(folder: RunFolder) -> None:
    if folder.exists() or any((folder.root / f"{kind}.yaml").exists() for kind in ("pipeline", "values")):
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
