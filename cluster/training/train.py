"""`tamen train`: opens a run, starts an engine on it, shows how it goes, and stops it without losing anything."""

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from cluster import environment
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, reward, whole
from cluster.mirror.manifests import in_words as mirrored_in_words
from cluster.mirror.restore import Restoring
from cluster.mirror.thread import Mirror, check_mirror, mirrored
from cluster.monitoring.exporter import Exporter
from cluster.monitoring.observer import Observer, Stats
from cluster.monitoring.panel import RunDisplay, plain_line
from cluster.monitoring.sinks import RunLog, newest_moment, served
from cluster.monitoring.snapshot import Snapshot
from cluster.run.first_weights import first_weights, in_words, keep_first_weights
from cluster.run.machine_file import batches_of
from cluster.run.program import Machine, check_kinds_at_home, plan
from cluster.run.run_folder import RunFolder, changed_settings, check_run, configure_run, lock_run
from cluster.run.workloads import Workload, workload_of
from cluster.training.jobs import short_grace
from configs.loading import dump, load
from configs.schema import RunConfig
from core.errors import TamenError, UsageError
from core.metrics import Metrics
from games.catalog import make_game
from networks.weights import Weights

REFRESH_SECONDS = 1.0
LOG_SECONDS = 5.0
"""Between two lines of metrics.jsonl and log.txt."""


class Engine(Protocol):
    """What carries a run: Ray, or this process alone."""

    def start(self) -> None:
        """Build all parts and set them going."""
        ...

    def advance(self, seconds: float) -> None:
        """Let the run go on for about this long. Raises TamenError when it cannot go on."""
        ...

    def stats(self) -> Stats:
        """Return the newest counters of each part."""
        ...

    def metrics(self) -> Metrics:
        """Return where the engine's own monitoring reads metrics; `NoMetrics` when it has none."""
        ...

    def stop(self) -> None:
        """Bring finished games to the replay, save the learner, end every part."""
        ...


def resolve_config(
    preset: str,
    overrides: Sequence[str],
    *,
    size: Literal["cpu", "gpu"],
    seed: int | None = None,
    minutes: float | None = None,
    games: int | None = None,
    steps: int | None = None,
    resume: str | None = None,
) -> RunConfig:
    """Return the configuration of a preset with the command line's words for it; flags win over overrides.

    A run that is restored from `resume` goes on being mirrored there, unless the overrides say otherwise.
    """
    flags = {"seed": seed, "stop.minutes": minutes, "stop.games": games, "stop.learner_steps": steps}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    mirrored_there = [f"mirror.url={json.dumps(resume)}"] if resume is not None else []
    return load(preset, [*mirrored_there, *overrides, *given], size)


def fitting_size(size: Literal["auto", "cpu", "gpu"], machine: Machine) -> Literal["cpu", "gpu"]:
    """Return the size of a preset that `size` asks for: "auto" is "gpu" where the machine has one."""
    if size == "auto":
        return "gpu" if machine.gpus else "cpu"
    return size


def show_plan(
    config: RunConfig,
    folder: RunFolder,
    *,
    size: Literal["cpu", "gpu"],
    first: Weights | None = None,
    resume: str | None = None,
) -> None:
    """Print the resolved configuration, who would take part, and what a full replay takes on disk.

    Raises:
        TamenError, OSError: when the run would not start in `folder`, of which nothing is changed.
    """
    workload = workload_of(config)
    row_bytes = _row_bytes(workload)
    refuse_imitation(folder)
    check_run(folder, config)
    target, machine = console(), Machine.here()
    mirrored_as = Restoring(resume, folder, config=config.mirror, say=_say).look() if resume else None
    check_mirror(config.mirror, folder, successor_of=mirrored_as.token if mirrored_as else None)
    target.print(dump(config), end="", markup=False)

    def say(text: str) -> None:
        target.print(f"# {text}", markup=False, soft_wrap=True)

    if mirrored_as is not None and not folder.exists():
        say(f"{folder.typed}: restored from {resume}, {mirrored_in_words(mirrored_as)}")
    else:
        say(_beginning(folder, config))
        if first is not None and not folder.exists():
            say(f"begins with {in_words(first)}")
    for change in changed_settings(folder.config(), config) if folder.exists() else ():
        say(f"  changed: {change}")
    try:
        check_kinds_at_home(config, machine)
    except UsageError as error:  # on a cluster there may be such machines
        say(f"{error.what} here: {error.why}")
    say(f"size: {size}, on {machine.cpus} cores and {machine.gpus} GPUs")
    say(
        "who would take part: "
        + ", ".join(f"{role.count} × {role.name}" for role in plan(config, machine).roles)
    )
    most = config.replay.capacity_rows
    say(f"replay: at most {most:,} rows, {most * row_bytes / 1e6:,.0f} MB uncompressed")


def refuse_imitation(folder: RunFolder) -> None:
    """Raise UsageError when the folder has a network that imitates games: a run would begin beside it, untrained."""
    if (folder.root / "imitation.yaml").exists():
        raise UsageError(
            f"run {folder.typed!r} was not begun by `tamen train`",
            why=f"{folder.root} has a network that imitates games that were watched",
            fix=f"begin with that: tamen train PRESET --weights {folder.typed} --name NAME",
        )


def _row_bytes(workload: Workload) -> int:
    """Return what a row takes, with where it came from."""
    columns = workload.experience().columns
    return sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in columns) + 24


def _beginning(folder: RunFolder, config: RunConfig) -> str:
    """Say what begins where, and when it stops."""
    stop, where = config.stop, f"{folder.root} ({config.game})"
    bounds = [
        *([f"after {stop.minutes:g} min"] if stop.minutes is not None else []),
        *([f"at {stop.games:,} games"] if stop.games is not None else []),
        *([f"at {stop.learner_steps:,} steps"] if stop.learner_steps is not None else []),
    ]
    stops = f"stops {', '.join([*bounds, ''])}or at Ctrl-C" if bounds else "goes on until Ctrl-C"
    if not folder.exists():
        return f"{folder.typed}: new run in {where}; {stops}"
    last = newest_moment(folder.root)
    games, steps = whole(last.get("games/played", 0)), whole(last.get("learner/steps", 0))
    return f"{folder.typed}: resumes in {where} at {games} games and {steps} steps; {stops}"


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    engine: Literal["ray", "local"],
    address: str | None,
    plain: bool,
    metrics_port: int | None,
    first: Weights | None = None,
    resume: str | None = None,
) -> None:
    """Train until a stop bound or Ctrl-C; what the folder holds already is where it goes on.

    A run that begins does so with the weights `first`; None: untrained ones. With `resume`, where the run is mirrored,
    the folder is restored from there first, unless it is here and as new.

    Raises:
        TamenError: when the run cannot start or go on; what was acknowledged is in the folder.
    """
    workload_of(config).experience()  # a game or environment that is not there must not leave a folder behind
    if address is None:
        check_kinds_at_home(config, Machine.here())
    successor_of = None
    if resume is not None:
        restoring = Restoring(resume, folder, config=config.mirror, say=_say)
        newest = restoring.look()
        check_mirror(config.mirror, folder, successor_of=newest.token)  # before all of it is brought
        successor_of = restoring.run(config)
    else:
        check_mirror(config.mirror, folder)
    before = folder.config() if folder.exists() else None
    beginning = _beginning(folder, config)
    refuse_imitation(folder)
    lock = lock_run(folder)
    target = console()
    try:
        if not folder.exists():
            keep_first_weights(folder, first)
        configure_run(folder, config)
        target.print(beginning, markup=False, soft_wrap=True)
        if before is None and first is not None:
            target.print(f"begins with {in_words(first)}", markup=False, soft_wrap=True)
        for change in changed_settings(before, config) if before else ():
            target.print(f"  changed: {change}", markup=False)
        observer = Observer(folder.typed, config, evaluations_file=folder.evaluations_file)
        chosen = make_engine(engine, config, folder, address=address, report=observer.note)
        with mirrored(config.mirror, folder, report=observer.note, successor_of=successor_of) as mirror:
            chosen = chosen if mirror is None else _Mirrored(chosen, mirror)
            snapshot = run_engine(chosen, observer, config, folder, plain=plain, metrics_port=metrics_port)
            if snapshot is not None:
                _publish_card(snapshot, folder)
                if mirror is not None:
                    _finish(mirror, config)
        _say_goodbye(snapshot, folder)
    finally:
        lock.release()


class _Mirrored:
    """An engine whose run's folder is mirrored while it goes on; the place is taken once the engine has started."""

    def __init__(self, engine: Engine, mirror: Mirror) -> None:
        self._mirror = mirror
        self._engine = engine
        self.metrics, self.stop = engine.metrics, engine.stop

    def start(self) -> None:
        self._engine.start()
        self._mirror.claim()
        self._mirror.start()

    def advance(self, seconds: float) -> None:
        self._engine.advance(seconds)
        self._mirror.refuse_taken()

    def stats(self) -> Stats:
        return {**self._engine.stats(), "mirror": self._mirror.stats()}


def _finish(mirror: Mirror, config: RunConfig) -> None:
    """Wait until what the run left is mirrored, and say whether it is. Raises ClusterError when its place was taken."""
    mirror.refuse_taken()
    if mirror.fails:
        _say(f"tries to mirror what is new, for at most {config.mirror.finish_seconds:g} s; Ctrl-C ends that")
    if mirror.finish():
        _say(f"mirrored to {config.mirror.url}")
        return
    mirror.refuse_taken()
    _say(f"not all of it is mirrored to {config.mirror.url}: the folder here is newer")


def _say(text: str) -> None:
    console().print(text, markup=False, soft_wrap=True)


def make_engine(
    kind: Literal["ray", "local"],
    config: RunConfig,
    folder: RunFolder,
    *,
    address: str | None,
    report: Callable[[str], None],
    learn: bool = True,
) -> Engine:
    """Return the engine called `kind`, which without `learn` only plays; here ray and torch begin to cost time."""
    if kind == "local":
        from cluster.training.local_engine import LocalEngine

        return LocalEngine(config, folder, learn=learn)
    environment.prepare_ray(address)
    from cluster.training.ray_engine import RayEngine

    return RayEngine(config, folder, address=address, report=report, learn=learn)


def run_engine(
    engine: Engine,
    observer: Observer,
    config: RunConfig,
    folder: RunFolder,
    *,
    plain: bool,
    metrics_port: int | None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Snapshot | None:
    """Run an engine to a stop bound or the first Ctrl-C, showing and logging how it goes; return the last picture.

    It is None when Ctrl-C came before there was one. Who gives `watch` takes each picture, too.

    Raises:
        TamenError: when the engine cannot start or go on; log.txt holds it with its traceback.
    """
    snapshot: Snapshot | None = None
    log, numbers = text_log(folder.log_file), RunLog(folder.root, report=observer.note)
    boards = LastBoard(config.game) if config.environment is None else None
    observer.log_to(log.info)
    mirror_seconds = 0.0 if config.mirror.url is None else config.mirror.finish_seconds
    if (short := short_grace(os.environ, mirror_seconds=mirror_seconds)) is not None:
        observer.note(short)
    with (
        stop_request() as stop,
        served(metrics_port, run=folder.name) as port,
        RunDisplay(console(), plain=plain) as display,
    ):
        try:
            with stop.at_once():  # nothing has been played yet that would be lost
                engine.start()
            if stop.requested:
                return None
            _log_ray(log, config)
            exporter = Exporter([engine.metrics(), *port])
            began = logged = time.monotonic()
            while not stop.requested and not (snapshot and reached(config, snapshot)):
                engine.advance(REFRESH_SECONDS)
                stats = engine.stats()
                board = boards.of(stats) if boards is not None else None
                snapshot = observer.take(stats, elapsed_seconds=time.monotonic() - began, last_board=board)
                exporter.record(stats, snapshot)
                display.update(snapshot)
                if watch is not None:
                    watch(snapshot)
                if time.monotonic() - logged >= LOG_SECONDS:
                    logged = time.monotonic()
                    _log(snapshot, numbers, log)
        except TamenError as error:
            _log_ray(log, config)
            raise _with_log(error, folder, log) from error
        finally:
            try:
                if snapshot is not None:  # the last interval is seldom a whole one
                    _log(snapshot, numbers, log)
                numbers.close()
            finally:
                engine.stop()
    return snapshot


def _with_log(error: TamenError, folder: RunFolder, log: logging.Logger) -> TamenError:
    """Log what ended the run, and return it with the place of the log; what was wrongly asked for is told as it is."""
    log.error("the run ended: %s", error, exc_info=error)
    if isinstance(error, UsageError):
        return error
    return type(error)(error.what, why=error.why, fix=f"{error.fix}; what led to it is in {folder.log_file}")


def _log_ray(log: logging.Logger, config: RunConfig) -> None:
    """Log where Ray's processes write, tracebacks of parts among it, and their batches, if Ray carries the run."""
    ray = sys.modules.get("ray")  # imported by the engine that needs it
    if ray is not None and ray.is_initialized():
        session = ray.get_runtime_context()
        log.info("Ray's own logs: %s/%s/logs", session.get_temp_dir(), session.get_session_name())
        log.info("%s", batches_of(config).why)


def _log(snapshot: Snapshot, numbers: RunLog, log: logging.Logger) -> None:
    numbers.append(snapshot.flat(), learner_steps=snapshot.learner.steps or 0)
    log.info(plain_line(snapshot))


def reached(config: RunConfig, snapshot: Snapshot) -> bool:
    """Whether one of the stop bounds has been reached."""
    stop = config.stop
    return (
        (stop.minutes is not None and snapshot.elapsed_seconds >= 60 * stop.minutes)
        or (stop.games is not None and (snapshot.games.played or 0) >= stop.games)
        or (stop.learner_steps is not None and (snapshot.learner.steps or 0) >= stop.learner_steps)
    )


class LastBoard:
    """Draws the final position of the newest game that the replay took in."""

    def __init__(self, game: str) -> None:
        self._game = make_game(game)
        self._states = self._game.new_states(1)

    def of(self, stats: Stats) -> str | None:
        actions = stats.get("replay", {}).get("newest_actions")
        if not actions:
            return None
        row = np.zeros(1, np.int32)
        self._game.new(self._states, row)
        for action in actions:
            self._game.play(self._states, row, np.array([action], np.int16), row)
        return self._game.render(self._states, 0)


def text_log(path: Path) -> logging.Logger:
    """Return what writes lines with their time into the file `path`, also when the disk has no room for one."""
    log = logging.getLogger(f"tamen.run.{path.parent.name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in list(log.handlers):
        log.removeHandler(old)
        with contextlib.suppress(OSError):  # what a full disk had no room for
            old.close()
    handler = logging.FileHandler(path, encoding="utf-8")
    # Logging would print a traceback across the panel for every line that a full disk has no room for.
    handler.handleError = lambda record: None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log


def _publish_card(snapshot: Snapshot, folder: RunFolder) -> None:
    """Put the newest weights with a card of how they were made into `model/`."""
    from cluster.run.parts import MODEL, make_store
    from networks.model_folder import save_model

    played = "games of self-play" if snapshot.rollout is None else "episodes"
    facts = {
        played: f"{snapshot.games.played or 0:,}",
        "learner steps": f"{snapshot.learner.steps or 0:,}",
    }
    if (first := first_weights(folder)) is not None:
        facts["began with"] = in_words(first)
    if snapshot.rollout is not None and snapshot.rollout.evaluated_return is not None:
        rollout = snapshot.rollout
        facts["mean return"] = reward(rollout.evaluated_return)
        if rollout.low is not None:  # of a single episode there is no interval
            facts["mean return"] += f" ({reward(rollout.low)} to {reward(rollout.high)})"
    for opponent, score in (snapshot.strength or {}).items():
        facts[f"score against {opponent}"] = f"{score.score:.1%} ({score.low:.1%} to {score.high:.1%})"
    if snapshot.perfect_share is not None:
        facts["perfect moves without search"] = f"{snapshot.perfect_share:.1%}"
    save_model(folder.root / "model", make_store(folder).get(MODEL), facts=facts)


def _say_goodbye(snapshot: Snapshot | None, folder: RunFolder) -> None:
    target = console()
    if snapshot is None:
        target.print(f"stopped before it began; the same command starts {folder.typed}", markup=False)
        return
    target.print(plain_line(snapshot), markup=False, soft_wrap=True)
    target.print(f"saved in {folder.root}; the same command goes on from here", markup=False, soft_wrap=True)
    if snapshot.rollout is None:
        target.print(
            f"next: tamen match {folder.typed} mcts:400   or   tamen play {folder.typed}", markup=False
        )
    else:
        target.print(
            f"next: tamen status {folder.typed}   or   tensorboard --logdir {folder.root}/tb", markup=False
        )
