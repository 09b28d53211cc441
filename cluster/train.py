"""`tamen train`: opens a run, starts an engine on it, shows how it goes, and stops it without losing anything."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

import numpy as np

from cluster import environment
from cluster.exporter import Exporter
from cluster.metrics_sinks import RunLog
from cluster.observer import Observer, Stats
from cluster.panel import RunDisplay, plain_line
from cluster.program import Machine, plan
from cluster.run_folder import RunFolder, changed_settings, open_run, run_folder
from cluster.snapshot import Snapshot
from cluster.terminal import console
from configs.loading import dump, load
from configs.schema import RunConfig
from core.metrics import Metrics
from games.catalog import make_game

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
) -> RunConfig:
    """Return the configuration of a preset with the command line's words for it; flags win over overrides."""
    flags = {"seed": seed, "stop.minutes": minutes, "stop.games": games, "stop.learner_steps": steps}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return load(preset, [*overrides, *given], size)


def show_plan(config: RunConfig) -> None:
    """Print the resolved configuration, who would take part, and what a full replay takes on disk."""
    target = console()
    target.print(dump(config), end="", markup=False)
    target.print("# who would take part")
    for role in plan(config, Machine.here()).roles:
        target.print(f"#   {role.count} × {role.name}", markup=False)
    game = make_game(config.game)
    row_bytes = sum(int(np.prod(spec.shape)) for spec in game.board.inputs) + 2 * game.num_actions + 32
    size = config.replay.capacity_rows * row_bytes
    target.print(
        f"# replay: at most {config.replay.capacity_rows:,} rows, {size / 1e6:,.0f} MB before compression"
    )
    bounds = config.stop.model_dump(exclude_none=True)
    target.print(f"# stops after: {bounds or 'never, until Ctrl-C'}", markup=False)


def train(
    config: RunConfig,
    *,
    name: str,
    runs: Path,
    engine: Literal["ray", "local"],
    address: str | None,
    plain: bool,
    metrics_port: int | None,
) -> None:
    """Train until a stop bound or Ctrl-C; what the folder holds already is where it goes on.

    Raises:
        TamenError: when the run cannot start or go on; what was acknowledged is in the folder.
    """
    make_game(config.game)  # a game that is not there must not leave a folder behind
    folder = run_folder(runs, name)
    before = folder.config() if folder.exists() else None
    lock = open_run(folder, config)
    target = console()
    try:
        observer = Observer(name, config, evaluations_file=folder.evaluations_file)
        chosen = make_engine(engine, config, folder, address=address, report=observer.note)
        target.print(
            f"{name} · {config.game} · {'resumes' if before else 'begins'} in {folder.root}", markup=False
        )
        for change in changed_settings(before, config) if before else ():
            target.print(f"  changed: {change}", markup=False)
        snapshot = run_engine(chosen, observer, config, folder, plain=plain, metrics_port=metrics_port)
        if snapshot is not None:
            _publish_card(snapshot, folder)
        _say_goodbye(snapshot, folder)
    finally:
        lock.release()


def make_engine(
    kind: Literal["ray", "local"],
    config: RunConfig,
    folder: RunFolder,
    *,
    address: str | None,
    report: Callable[[str], None],
) -> Engine:
    """Return the engine called `kind`; only here do ray and torch begin to cost time."""
    if kind == "local":
        from cluster.local import LocalEngine

        return LocalEngine(config, folder)
    environment.prepare_ray(address)
    from cluster.ray_engine import RayEngine

    return RayEngine(config, folder, address=address, report=report)


def run_engine(
    engine: Engine,
    observer: Observer,
    config: RunConfig,
    folder: RunFolder,
    *,
    plain: bool,
    metrics_port: int | None,
) -> Snapshot | None:
    """Run an engine to a stop bound or the first Ctrl-C, showing and logging how it goes; return the last picture."""
    snapshot: Snapshot | None = None
    log, numbers = _text_log(folder.log_file), RunLog(folder.root)
    boards = LastBoard(config.game)
    observer.log_to(log.info)
    with (
        _stop_requested() as stop_requested,
        _served(metrics_port) as port,
        RunDisplay(console(), plain=plain) as display,
    ):
        try:
            engine.start()
            exporter = Exporter([engine.metrics(), *port])
            began = logged = time.monotonic()
            while not stop_requested() and not (snapshot and reached(config, snapshot)):
                engine.advance(REFRESH_SECONDS)
                stats = engine.stats()
                board = boards.of(stats)
                snapshot = observer.take(stats, elapsed_seconds=time.monotonic() - began, last_board=board)
                exporter.record(stats, snapshot)
                display.update(snapshot)
                if time.monotonic() - logged >= LOG_SECONDS:
                    logged = time.monotonic()
                    _log(snapshot, numbers, log)
        finally:
            if snapshot is not None:  # the last interval is seldom a whole one
                _log(snapshot, numbers, log)
            numbers.close()
            engine.stop()
    return snapshot


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


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a question that can be asked; the second ends the process at once.

    Even then nothing acknowledged is lost: it was on disk before it was acknowledged, and Ray's processes on this
    machine end with the driver.
    """
    requested: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if requested:
            os._exit(130)
        requested.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _served(port: int | None) -> Iterator[list[Metrics]]:
    """Serve Prometheus text on 127.0.0.1 while the context lasts; without a port there is nobody to write to."""
    if port is None:
        yield []
        return
    from core.prometheus import PrometheusMetrics

    metrics = PrometheusMetrics()
    console().print(f"metrics: http://127.0.0.1:{metrics.serve(port)}/metrics", markup=False)
    try:
        yield [metrics]
    finally:
        metrics.close()


def _text_log(path: Path) -> logging.Logger:
    log = logging.getLogger(f"tamen.run.{path.parent.name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log


def _publish_card(snapshot: Snapshot, folder: RunFolder) -> None:
    """Put the newest weights with a card of how they were made into `model/`."""
    from cluster.parts import MODEL, make_store
    from networks.model_folder import save_model

    facts = {
        "games of self-play": f"{snapshot.games.played or 0:,}",
        "learner steps": f"{snapshot.learner.steps or 0:,}",
    }
    for opponent, score in (snapshot.strength or {}).items():
        facts[f"score against {opponent}"] = f"{score.score:.1%} ({score.low:.1%} to {score.high:.1%})"
    if snapshot.perfect_share is not None:
        facts["perfect moves without search"] = f"{snapshot.perfect_share:.1%}"
    save_model(folder.root / "model", make_store(folder).get(MODEL), facts=facts)


def _say_goodbye(snapshot: Snapshot | None, folder: RunFolder) -> None:
    target = console()
    if snapshot is not None:
        target.print(plain_line(snapshot), markup=False, soft_wrap=True)
    target.print(f"saved in {folder.root}; the same command goes on from here", markup=False, soft_wrap=True)
    target.print(f"next: tamen match {folder.name} mcts:400   or   tamen play {folder.name}", markup=False)
