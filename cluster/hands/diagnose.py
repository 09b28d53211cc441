"""`tamen datagen diagnose`: where the time of a sample goes, what more workers bring, whether settings take effect."""

import hashlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.cli.progress import StepDisplay
from cluster.cli.terminal import console, percent
from cluster.hands.generate import resolve_datagen
from cluster.hands.plan import recipe_of
from cluster.on_ray.executing import executor_for
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder
from configs.datagen import DATAGEN, DatagenConfig
from core.messages import without_asking
from pipeline.contract import Context
from pipeline.hand_recipe import facts_of, group_of, values_of
from pipeline.hand_samples import HandSamplesStep, columns
from poker.holdem import board_hands, forget_boards
from poker.program import compile_tree, stakes
from poker.rows import LANES
from poker.sampling import Law

OVERRIDES = ("bet_sizes=[0.5, 1.0]", "stack=10_000", "variant=linear", "cfr_iterations=7", "seed=9")
"""Each has to change what is solved."""


def diagnose(*, samples: int, cfr_iterations: int, analytics: Path | None, quiet: bool) -> dict[str, Any]:
    """Return {"seconds": parts of one sample's time, "samples_per_s": by workers, "efficiency", "config", "problems"}.

    Args:
        samples: that are made for each figure.
        cfr_iterations: of each.
        analytics: a file that is to take effect.
        quiet: print nothing but progress.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tamen-") as name,
        StepDisplay(console(stderr=True), plain=quiet) as display,
    ):
        folder = Path(name)
        typed = {"cfr_iterations": cfr_iterations, "samples": samples, "validation_samples": 0}
        config = resolve_datagen("testing", [], RunFolder(folder / "none"), typed=typed, analytics=analytics)
        display.begin("one worker at a time")
        seconds = _parts(config, samples)
        rates = {}
        for workers in sorted({1, Machine.here().cpus}):
            rates[workers] = _rate(config, samples, workers, folder / str(workers), display)
    most = max(rates)
    report = {
        "samples": samples,
        "cfr_iterations": cfr_iterations,
        "seconds_per_sample": seconds,
        "samples_per_s": {str(workers): round(rate, 2) for workers, rate in rates.items()},
        "efficiency": round(rates[most] / most / rates[1], 3),
        "config": config.model_dump(mode="json"),
        "problems": _without_effect(config, analytics),
    }
    if not quiet:
        _show(report)
    return report


def fingerprint(config: DatagenConfig) -> str:
    """Return a digest of all that is solved on rivers: trees with their stakes, law, exactness and variant."""
    recipe = recipe_of(config, "river", "train", {})
    tree = recipe.subgame.tree(400.0)
    code = compile_tree(tree).programs[0].code
    state = hashlib.blake2b(code.tobytes() + stakes(tree).tobytes(), digest_size=16)
    state.update(repr(facts_of(recipe)).encode())
    return state.hexdigest()


def _parts(config: DatagenConfig, samples: int) -> dict[str, float]:
    """Return seconds for each sample: drawing, ordering hands, and solving."""
    plain = recipe_of(config, "river", "train", {})
    recipe = replace(plain, law=Law(config.seed + 1, group=LANES, pots=plain.law.pots))
    seconds = dict.fromkeys(("draw", "strengths", "solve", "columns"), 0.0)
    made = 0
    for group in range(-1, -(-samples // LANES)):  # the first compiles
        forget_boards()
        marks = [time.perf_counter()]
        situations = group_of(recipe, max(group, 0))
        marks.append(time.perf_counter())
        forget_boards()
        board_hands(situations[0].board)  # once more, to see what of drawing it was
        marks.append(time.perf_counter())
        solved = without_asking(values_of(recipe, situations))
        marks.append(time.perf_counter())
        columns(solved, recipe.street)
        marks.append(time.perf_counter())
        if group >= 0:
            made += len(situations)
            for name, begin, end in zip(seconds, marks, marks[1:], strict=False):
                seconds[name] += end - begin
    return {name: round(total / made, 6) for name, total in seconds.items()}


def _rate(config: DatagenConfig, samples: int, workers: int, folder: Path, display: StepDisplay) -> float:
    """Return samples/s of so many workers, each with as many groups to do."""
    small = DATAGEN.override(config, ["group_samples=16", "shard_samples=16"])
    recipe = recipe_of(small, "river", "train", {})
    number = max(samples, 16 * 2) * workers
    folder.mkdir()
    with executor_for(workers, None, None) as executor:
        around = Context(executor, lambda *told: None, lambda: False, lambda line: None)
        (folder / "warm").mkdir()
        HandSamplesStep("warm", recipe, 16 * workers).run({}, folder / "warm", around)
        display.begin(f"{workers} workers")
        began = time.perf_counter()
        around = Context(executor, display.progress, lambda: False, lambda line: None)
        HandSamplesStep("train", recipe, number).run({}, folder, around)
        return number / (time.perf_counter() - began)


def _without_effect(config: DatagenConfig, analytics: Path | None) -> list[str]:
    """Return which settings change nothing of what is solved, in sentences."""
    plain = DATAGEN.load("testing")
    problems = [
        f"{override} changes nothing"
        for override in OVERRIDES
        if fingerprint(DATAGEN.override(plain, [override])) == fingerprint(plain)
    ]
    if analytics is not None and config.sizes_of("river") == plain.sizes_of("river"):
        problems.append(f"the bet sizes of {analytics} change nothing")
    return problems


def _show(report: dict[str, Any]) -> None:
    target = console()
    table = Table(box=None, pad_edge=False, show_header=False)
    whole = sum(report["seconds_per_sample"].values())
    for name, seconds in report["seconds_per_sample"].items():
        table.add_row(name, f"{1000 * seconds:.2f} ms", percent(seconds / whole))
    for workers, rate in report["samples_per_s"].items():
        table.add_row(f"{workers} workers", f"{rate:.1f} samples/s", "")
    table.add_row("efficiency", percent(report["efficiency"]), "of as many times one worker")
    target.print(table)
    for problem in report["problems"] or ["every setting that was tried takes effect"]:
        target.print(problem, markup=False)
