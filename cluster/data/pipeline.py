"""`tamen pipeline`: from files of games, or a model's own self-play, to a trained model; after any end it goes on.

runs/<name>/
  pipeline.yaml    every setting, resolved
  config.yaml      game, network and learner, once they are known: `play`, `match` and `status` find the run by it
  log.txt          what happened, line by line
  models/, …       of the trained model, as in any run
  pipeline/        a folder for each step with its step.json; tasks.jsonl, a line for each task that was done
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, duration, percent, whole
from cluster.data.pipeline_plan import Estimate, estimate
from cluster.data.pipeline_stages import STEPS, build_stages, first_and_last, sources_of
from cluster.on_ray.executing import executor_for
from cluster.run.program import Machine
from cluster.run.run_folder import RunFolder, lock_run
from cluster.training.train import text_log
from configs.loading import dump
from configs.pipeline import PIPELINES, PipelineConfig
from core.errors import TamenError, UsageError
from core.files import write_atomic
from pipeline.contract import Context, Stopped
from pipeline.orchestrator import Pipeline, Planned
from pipeline.reading import find_files

DEFAULT_PRESET = "hex"
POSITION_ROWS_PER_SECOND = 300_000
SHUFFLED_ROWS_PER_SECOND = 300_000
FITTED_WORK_PER_SECOND = 500 * 5 * 48**2 * 10**2
"""Of a core, for estimates: rows, and rows of a network times its blocks, channels squared and cells."""

VALIDATED = {
    "policy_top1": "move found",
    "policy_top3": "among three",
    "value_accuracy": "winner found",
    "value_accuracy_second_half": "in second halves",
}
"""What is told of a network at the end, and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for beside the settings.

    Attributes:
        first, last, skip: which steps, see `pipeline.orchestrator.Pipeline`.
        engine: None: processes beside this one for tasks, and Ray for self-play.
        address: of a Ray cluster to join.
    """

    first: str | None = None
    last: str | None = None
    skip: tuple[str, ...] = ()
    engine: Literal["ray", "local"] | None = None
    address: str | None = None
    plain: bool = False
    quiet: bool = False


@dataclass(slots=True)
class Told:
    """What came of a pipeline: counts of each step that is finished, and whether it was stopped before its end."""

    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: bool = False
    seconds: float = 0.0

    @property
    def unreadable(self) -> list[dict[str, str]]:
        """Files of games that could not be read to their end, now or when they were: file, reason, detail."""
        return self.counts.get("preprocess", {}).get("files_set_aside", [])

    @property
    def exit_code(self) -> int:
        return 130 if self.stopped else int(bool(self.unreadable))


def resolve_pipeline(
    preset: str | None,
    overrides: Sequence[str],
    folder: RunFolder,
    *,
    data: Sequence[str] = (),
    selfplay_dir: str | None = None,
    model: str | None = None,
    size: Literal["cpu", "gpu"] = "cpu",
    cleanup: bool = True,
) -> PipelineConfig:
    """Return the configuration of a preset, or without one that of the run in `folder`, with what was typed for it.

    Which games a run is made from it remembers, until others are named.

    Raises:
        UsageError: for a preset, key or value that does not exist.
    """
    file = folder.root / "pipeline.yaml"
    before = PIPELINES.load_file(file) if file.exists() else None
    goes_on = before if preset is None else None
    config = goes_on or PIPELINES.load(preset or DEFAULT_PRESET, (), size)
    typed = {
        "data": list(data) or None,
        "selfplay_dir": selfplay_dir,
        "selfplay.model": model,
        "cleanup": None if cleanup else False,
    }
    config = PIPELINES.override(
        config,
        [*overrides, *(f"{key}={json.dumps(value)}" for key, value in typed.items() if value is not None)],
    )
    if before is not None and not (config.data or config.selfplay_dir or config.selfplay.model):
        selfplay = config.selfplay.model_copy(update={"model": before.selfplay.model})
        games = {"data": before.data, "selfplay_dir": before.selfplay_dir, "selfplay": selfplay}
        config = config.model_copy(update=games)
    return config


def show_plan(config: PipelineConfig, folder: RunFolder, runs: Path, asked: Asked) -> dict[str, Any]:
    """Print the settings, what would be done about each step, and estimates; nothing is changed.

    Returns:
        The same as plain JSON.

    Raises:
        UsageError: when the pipeline would not start.
    """
    _check(folder)
    pipeline = _pipeline(config, folder, runs, asked)
    plan = pipeline.plan()
    about = _estimated(config)
    result: dict[str, Any] = {
        "run": folder.typed,
        "folder": str(folder.root),
        "steps": [{"step": one.name, "action": one.action, "why": one.why} for one in plan],
        "estimate": None,
    }
    target = console()
    lines = [_beginning(folder, config), *_steps_as_lines(plan)]
    if about is not None:
        result["estimate"], told = _estimates(about, config, plan)
        lines += told
    if not asked.quiet:
        target.print(dump(config), end="", markup=False)
        for line in lines:
            target.print(f"# {line}", markup=False, soft_wrap=True)
    return result


def run_pipeline(config: PipelineConfig, folder: RunFolder, runs: Path, asked: Asked) -> Told:
    """Do what is left to be done, showing and logging how it goes, to its end or the first Ctrl-C.

    Raises:
        UsageError: when it cannot start.
        TamenError: when a step cannot be done; what could be done is kept.
    """
    _check(folder)
    pipeline = _pipeline(config, folder, runs, asked)
    plan = pipeline.plan()  # what cannot run must not leave a folder behind
    idle = all(one.action in ("finished", "skipped") for one in plan)
    beginning = _beginning(folder, config)
    lock = lock_run(folder)
    began = time.monotonic()
    target = console(stderr=asked.quiet)
    told = Told()
    try:
        file = folder.root / "pipeline.yaml"
        before = file.read_bytes() if file.exists() else None
        write_atomic(file, dump(_remembered(config)).encode())
        log = text_log(folder.log_file)
        with stop_request() as stop, StepDisplay(target, plain=asked.plain) as display:

            def say(line: str) -> None:
                display.end()
                display.say(line)
                log.info("%s", line)

            say(beginning)
            try:
                with executor_for(config.workers, asked.engine, asked.address, idle=idle) as executor:
                    around = Context(
                        executor,
                        display.progress,
                        lambda: stop.requested,
                        lambda line: log.info("%s", line),
                    )
                    told.counts = pipeline.run(around, say=say, begin=display.begin, cleanup=config.cleanup)
            except Stopped:
                told.stopped = True
            except TamenError as error:
                if isinstance(error, UsageError) and before is not None:
                    write_atomic(file, before)  # settings that were refused are not those to go on with
                raise _with_log(error, folder, log) from error
    finally:
        lock.release()
    told.seconds = time.monotonic() - began
    if not asked.quiet:
        _say_goodbye(told, folder, config)
    return told


def _check(folder: RunFolder) -> None:
    """Raise UsageError when the folder is that of a run of self-play."""
    if folder.exists() and not (folder.root / "pipeline.yaml").exists():
        raise UsageError(
            f"run {folder.typed!r} was not begun by `tamen pipeline`",
            why=f"{folder.root} holds a run of self-play, whose models a pipeline would mix with its own",
            fix="give this pipeline another --name",
        )


def _remembered(config: PipelineConfig) -> PipelineConfig:
    """Return the settings that the next call goes on with: what was allowed once is not allowed for ever."""
    fit = config.fit.model_copy(update={"accept_changes": False})
    return config.model_copy(update={"cleanup": True, "fit": fit})


def _pipeline(config: PipelineConfig, folder: RunFolder, runs: Path, asked: Asked) -> Pipeline:
    first, last, skip = first_and_last(config, asked.first, asked.last, asked.skip)
    stages = build_stages(
        config,
        folder,
        runs=runs,
        chosen=_chosen(first, last, skip),
        engine=asked.engine,
        address=asked.address,
        plain=asked.plain,
    )
    there = {stage.name for stage in stages}  # without self-play, where it is skipped and has not been done
    skip = [name for name in skip if name in there]
    return Pipeline(
        stages, folder.root / "pipeline", first=first if first in there else None, last=last, skip=skip
    )


def _chosen(first: str | None, last: str | None, skip: Sequence[str]) -> list[str]:
    start = STEPS.index(first) if first else 0
    stop = STEPS.index(last) + 1 if last else len(STEPS)
    return [name for name in STEPS[start:stop] if name not in skip]


def _with_log(error: TamenError, folder: RunFolder, log: logging.Logger) -> TamenError:
    """Log what ended the pipeline, and return it with the place of the log."""
    log.error("the pipeline ended: %s", error, exc_info=error)
    if isinstance(error, UsageError):
        return error
    return type(error)(error.what, why=error.why, fix=f"{error.fix}; what led to it is in {folder.log_file}")


def _beginning(folder: RunFolder, config: PipelineConfig) -> str:
    new = not (folder.root / "pipeline.yaml").exists()
    games = ", ".join([*config.data, *([config.selfplay_dir] if config.selfplay_dir else [])])
    if config.selfplay.model is not None:
        games = f"{whole(config.selfplay.games)} games of {config.selfplay.model}{f' and {games}' if games else ''}"
    begins = "new pipeline" if new else "goes on"
    return f"{folder.typed}: {begins} in {folder.root}{f', from {games}' if games else ''}"


def _steps_as_lines(plan: Sequence[Planned]) -> list[str]:
    return [f"{one.name:<12}{one.action:<10}{one.why}" for one in plan]


def _estimated(config: PipelineConfig) -> Estimate | None:
    """Return an estimate of the files of games; None when there are none, or one cannot be read."""
    try:
        files = find_files(sources_of(config))
        return estimate(files) if files else None
    except (OSError, UsageError):
        return None


def _estimates(
    about: Estimate, config: PipelineConfig, plan: Sequence[Planned]
) -> tuple[dict[str, Any], list[str]]:
    """Return what is to be expected, as JSON and in lines."""
    cores = Machine.here().cpus if config.workers == "auto" else config.workers
    rows = about.rows * (2 if config.positions.symmetries else 1)
    if config.positions.selector != "all":
        rows = about.games
    to_fit = min(rows, config.fit.max_rows or rows) * config.fit.epochs
    work = to_fit * config.network.blocks * config.network.channels**2 * about.board**2
    seconds = {
        "positions": rows / POSITION_ROWS_PER_SECOND / cores,
        "shuffle": 2 * rows / SHUFFLED_ROWS_PER_SECOND / cores,
        "train": min(work / FITTED_WORK_PER_SECOND / cores, 60 * (config.fit.minutes or float("inf"))),
    }
    left = sum(seconds.get(one.name, 0.0) for one in plan if one.action in ("run", "go on"))
    files = "1 file" if about.files == 1 else f"{about.files} files"
    megabytes = rows * about.row_bytes / 1e6
    peak = megabytes * (2 if config.cleanup else 3)
    result = {
        "files": about.files,
        "games": about.games,
        "rows": rows,
        "board": about.board,
        "disk_mb": round(megabytes, 1),
        "most_disk_mb": round(peak, 1),
        "seconds": round(left, 1),
    }
    lines = [
        f"data: {files} of {about.size / 1e6:,.1f} MB, about {whole(about.games)} games"
        f" on {about.board}×{about.board}, {whole(rows)} rows",
        f"disk: {megabytes:,.0f} MB of shuffled rows, up to {peak:,.0f} MB on the way",
        f"time: about {duration(left)} with {cores} workers and no GPU",
    ]
    return result, lines


def _say_goodbye(told: Told, folder: RunFolder, config: PipelineConfig) -> None:
    target = console()

    def say(line: str) -> None:
        target.print(line, markup=False, soft_wrap=True)

    if told.stopped:
        say(f"stopped; what was done is kept, and `tamen pipeline --name {folder.typed}` goes on from here")
        return
    for file in told.unreadable:
        say(f"{file['file']} was not read to its end: {file['reason']}, {file['detail']}")
    aside = folder.root / "pipeline" / "preprocess" / "rejected.jsonl"
    if told.counts.get("preprocess", {}).get("rejected"):
        say(f"what was set aside, and why: {aside}")
    if validation := told.counts.get("train", {}).get("validation"):
        shares = [f"{words} {percent(validation[name], 1)}" for name, words in VALIDATED.items()]
        say(f"on games kept apart: {', '.join(shares)}")
    say(f"done in {duration(told.seconds)}; everything is in {folder.root}")
    if "train" in told.counts:
        games = sources_of(config)
        data = f" --data {games[0]}" if games else " --data FILES"
        say(f"next: tamen play {folder.typed}   or   tamen evaluate {folder.typed}{data}")
    else:
        say(f"next: tamen pipeline --name {folder.typed}")
