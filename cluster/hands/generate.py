"""`tamen datagen generate | audit`: samples of poker hands from a profile, in a run's folder.

runs/<name>/
  datagen.yaml                   every setting, resolved
  log.txt                        what happened, line by line
  datagen/<street>_<purpose>/    shards, see `replay.hand_shards`
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.prompt import Confirm

from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, duration, is_live, whole
from cluster.hands.cost import measured_rate
from cluster.hands.health import Health
from cluster.hands.networks import HandNetwork, Here, find_networks, served
from cluster.hands.plan import (
    PURPOSES,
    Networks,
    network_for,
    recipe_of,
    samples_of,
    stages,
    step_name,
    streets_to_make,
    tasks_of,
    why_missing,
)
from cluster.on_ray.executing import executor_for
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder, lock_run
from cluster.training.train import text_log
from configs.datagen import DATAGEN, DatagenConfig
from configs.loading import dump
from core.errors import UsageError
from core.files import write_atomic
from core.hands import Street
from pipeline.contract import Context, Stopped
from pipeline.hand_recipe import memory_of
from pipeline.hand_samples import Connect, ShardTask, audit
from pipeline.orchestrator import Pipeline, Planned
from poker.acpc import STREETS
from poker.analytics import newest_analytics, read_analytics, street_weights

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
        runs: folder of runs, where networks are.
        quiet: print nothing but progress.
    """

    runs: Path
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

    Bet sizes, shares of the streets if there are several, and iterations where none are typed, are those of a file of
    `analytics`, or of the newest in a folder. Profiles made for that take the folder `ANALYTICS` where none is given.

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
    from_play = {} if analytics is None else _of_play(analytics)
    given = from_play | {key: value for key, value in typed.items() if value is not None}
    if "cfr_iterations" in typed and typed["cfr_iterations"] is not None:
        given["target_pct"] = None  # so many iterations are asked for, not so exact a result
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    resolved = DATAGEN.override(config, [*settings, *overrides])
    if "cfr_iterations" in from_play and resolved.target_pct is not None:
        said = f"its {from_play['cfr_iterations']:,} iterations are not used"
        console(stderr=True).print(
            f"{said}: samples are solved to {resolved.target_pct:g} % of the pot",
            markup=False,
            soft_wrap=True,
        )
    if analytics is not None and len(resolved.streets) > 1 and not resolved.street_shares:
        resolved = DATAGEN.override(resolved, [f"street_shares={json.dumps(_shares(analytics, resolved))}"])
    return resolved


def _of_play(analytics: Path) -> dict[str, Any]:
    """Return what a file of analytics, or the newest of a folder, says of bets and iterations."""
    file = _file_of(analytics)
    found = read_analytics(file)
    sizes = {street: list(own) for street, own in zip(STREETS, found.sizes, strict=True) if own}
    lines = [
        f"{file} says bets of {', '.join(f'{size:g}' for size in own)} pots on the {street}"
        for street, own in sizes.items()
    ]
    for line in (*found.notes, *(lines or [f"{file} says nothing of bets"])):
        console(stderr=True).print(line, markup=False, soft_wrap=True)
    sizes.pop("preflop", None)  # of which nothing is solved
    settings: dict[str, Any] = {"bet_sizes": sizes} if sizes else {}
    return settings | ({"cfr_iterations": found.cfr_iterations} if found.cfr_iterations else {})


def _shares(analytics: Path, config: DatagenConfig) -> dict[Street, float]:
    """Return the shares of a configuration's streets: of each, and of its end, what analytics say of it."""
    said = street_weights(read_analytics(_file_of(analytics)))
    weights: dict[str, float] = dict(zip(STREETS, said, strict=True))
    own: dict[Street, float] = {street: weights[street.removesuffix("_end")] for street in config.streets}
    total = sum(own.values())
    shares: dict[Street, float] = {street: round(weight / total, 6) for street, weight in own.items()}
    return shares


def _file_of(analytics: Path) -> Path:
    return newest_analytics(analytics) if analytics.is_dir() else analytics


def generate(config: DatagenConfig, folder: RunFolder, asked: Asked) -> dict[str, Any]:
    """Make what is left of the samples, to the end or the first Ctrl-C.

    Returns:
        {"run", "folder", "stopped", "seconds", "missing": the street that waits for a network, and counts by step such
        as "river_train"}, plain JSON.

    Raises:
        UsageError: when a person says no, nothing can be made for want of a network, or the run is being written by
            another process.
        TamenError: when samples cannot be made; those that are there are kept.
    """
    _refuse_other_runs(folder)
    networks = find_networks(config.networks, asked.runs)
    streets, missing = streets_to_make(config, networks)
    if missing and not streets:
        raise why_missing(missing, folder.typed)
    lock = lock_run(folder)
    began = time.monotonic()
    try:
        to_do = _look_ahead(config, folder, asked, streets, networks)
        write_atomic(folder.root / "datagen.yaml", dump(config).encode())
        counts, stopped = _make(config, folder, asked, streets, to_do, networks)
    finally:
        lock.release()
    seconds = time.monotonic() - began
    if not asked.quiet:
        _say_goodbye(folder, counts, stopped=stopped, seconds=seconds)
    return {
        "run": folder.typed,
        "folder": str(folder.root),
        "stopped": stopped,
        "missing": missing,
        "seconds": round(seconds, 3),
        **counts,
    }


def _look_ahead(
    config: DatagenConfig, folder: RunFolder, asked: Asked, streets: Sequence[Street], networks: Networks
) -> list[Street]:
    """Return the streets of which samples are left to be made.

    Raises:
        UsageError: when they cannot be made here, would replace others, or a person says no.
    """
    plan = Pipeline(stages(config, streets, networks), folder.root / "datagen").plan()
    unfinished = {one.name for one in plan if one.action != "finished"}
    to_do: list[Street] = [
        street for street in streets if any(step_name(street, purpose) in unfinished for purpose in PURPOSES)
    ]
    if not asked.anew:
        _refuse_to_replace(plan, folder)
    for street in to_do:
        _check_memory(config, street, networks)
    if to_do and not (asked.yes or asked.quiet):
        _ask(config, folder, to_do, networks)
    return to_do


def _make(
    config: DatagenConfig,
    folder: RunFolder,
    asked: Asked,
    streets: Sequence[Street],
    to_do: Sequence[Street],
    networks: Networks,
) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the counts of all steps, and whether a person stopped them."""
    log = text_log(folder.log_file)
    with (
        stop_request() as stop,
        StepDisplay(console(stderr=asked.quiet), plain=asked.plain) as display,
        executor_for(config.workers, asked.engine, asked.address, idle=not to_do) as executor,
    ):

        def say(line: str) -> None:
            display.say(line)
            log.info("%s", line)

        def end(line: str) -> None:
            display.end()
            if summary := health.summary():
                say(summary)
                health.begin("")
            say(line)

        def begin(name: str) -> None:
            display.begin(name)
            health.begin(name)

        health = Health(executor.workers, say)
        around = Context(
            executor, display.progress, lambda: stop.requested, lambda line: log.info("%s", line)
        )
        counts: dict[str, dict[str, Any]] = {}
        with health:
            for street in streets:
                network = network_for(street, networks) if street in to_do else None
                with _connected(network, on_ray=asked.engine == "ray", say=say) as connect:
                    steps = stages(config, [street], networks, connect=connect, told=health.told)
                    pipeline = Pipeline(steps, folder.root / "datagen")
                    try:
                        counts |= pipeline.run(around, say=end, begin=begin)
                    except Stopped:
                        return counts, True
        return counts, False


@contextlib.contextmanager
def _connected(
    network: HandNetwork | None, *, on_ray: bool, say: Callable[[str], None]
) -> Iterator[Connect | None]:
    """Give how workers reach a network: a server on Ray, else each worker has its own."""
    if network is None:
        yield None
    elif on_ray:
        with served(network, say=say) as servers:
            yield servers
    else:
        yield Here(network)


def audit_samples(folder: RunFolder, *, runs: Path, share: float, seed: int, quiet: bool) -> dict[str, Any]:
    """Solve some samples again, and compare every byte; where a network was asked, values nearly.

    Returns:
        {"audited", "differing": numbers by step}, plain JSON.

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
    networks = find_networks(config.networks, runs)
    streets, _ = streets_to_make(config, networks)
    differing: dict[str, list[int]] = {}
    audited = 0
    with stop_request() as stop, StepDisplay(console(stderr=True), plain=quiet) as display:
        for street in streets:
            network = network_for(street, networks)
            for purpose in PURPOSES:
                tasks = tasks_of(config, folder, street, purpose, networks, network and Here(network))
                expected = max(len(tasks), round(share * sum(map(_count, tasks))))
                display.begin(f"auditing {street} {purpose}")
                for done, (number, same) in enumerate(audit(tasks, share, seed), start=1):
                    audited += 1
                    if not same:
                        differing.setdefault(f"{street}_{purpose}", []).append(number)
                    display.progress(done, max(done, expected), "samples")
                    if stop.requested:
                        raise KeyboardInterrupt
    report = {"audited": audited, "differing": differing}
    if not quiet:
        verdict = "all are the same" if not differing else f"others came out for {differing}"
        console().print(f"{whole(audited)} samples solved again: {verdict}", markup=False)
    return report


def _refuse_to_replace(plan: Sequence[Planned], folder: RunFolder) -> None:
    for one in plan:
        if one.action == "run" and (folder.root / "datagen" / one.name / "step.json").exists():
            raise UsageError(
                f"the samples for {one.name} in run {folder.typed!r} were made with other settings",
                why=one.why,
                fix="give another --name; or --anew, which sets them aside and makes others",
            )


def _check_memory(config: DatagenConfig, street: Street, networks: Networks) -> None:
    """Raise UsageError when all workers together would need more memory than there is."""
    needed = memory_of(recipe_of(config, street, "train", networks)) * _workers(config)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > LARGEST_SHARE * there:
        raise UsageError(
            f"samples of the {street} do not fit in memory",
            why=f"{_workers(config)} workers would need {needed / 1e9:.1f} GB of {there / 1e9:.1f}, for"
            f" trees with bets of {config.bet_sizes}",
            fix="give fewer or larger bet_sizes, or fewer workers",
        )


def _workers(config: DatagenConfig) -> int:
    return Machine.here().cpus if config.workers == "auto" else config.workers


def _ask(config: DatagenConfig, folder: RunFolder, streets: Sequence[Street], networks: Networks) -> None:
    """Tell what it will cost, as far as a few situations tell, and ask on a terminal whether to begin."""
    target, cores = console(), _workers(config)
    exact = (
        f"{config.target_pct:g} % of the pot"
        if config.target_pct
        else f"{config.cfr_iterations:,} iterations"
    )
    for street in streets:
        recipe, network = recipe_of(config, street, "train", networks), network_for(street, networks)
        rate = measured_rate(recipe, network and Here(network))
        tasks = [task for purpose in PURPOSES for task in tasks_of(config, folder, street, purpose, networks)]
        number = sum(_count(task) for task in tasks if not task.path.exists())
        how = f"each to {exact}" if recipe.solves else f"by the network of {network and network.run}"
        target.print(
            f"{whole(samples_of(config, street, 'train'))} samples of the {street} to learn from and"
            f" {whole(samples_of(config, street, 'validation'))} to judge by, {how}:"
            f" about {duration(number / rate / cores)} with {cores} workers ({rate:.3g} samples/s a core)",
            markup=False,
            soft_wrap=True,
        )
    if is_live(target) and not Confirm.ask("begin?", default=True, console=target):
        raise UsageError(
            "nothing was begun", why="you said no", fix="give --yes to begin without being asked"
        )


def _count(task: ShardTask) -> int:
    return task.samples - task.number * task.recipe.shard_samples


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
