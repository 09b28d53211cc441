"""The autopilot's loop in its process: what is remembered is opened, and rounds are made until it is over.

It may die at any moment. `cluster.autopilot.guard` begins it again, and it goes on where it was.
"""

import contextlib
import functools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.autopilot import stages
from cluster.autopilot.locks import TABLES as LOCK_TABLES
from cluster.autopilot.locks import joined, open_locks
from cluster.autopilot.stage_process import POLL_SECONDS, Tell, run_apart
from cluster.autopilot.stages import KeyFolder
from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, duration
from cluster.data.export import Keep, Made, RowsOrder, export_rows_once, held_in
from cluster.run.program import Machine
from configs.autopilot import CONTROL, ControlConfig
from configs.schema import RunConfig
from control import export_cache, health, journal, presence, trainings
from control.autopilot import Autopilot, Memory
from control.database import CONTROL_FILE, Database
from control.export_cache import ExportCache, Verdict
from control.export_settings import ExportSettings
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key, parse_key
from control.presence import Presence
from control.registry import ModelRegistry
from control.trainings import Trainings
from core.errors import ClusterError
from pipeline.contract import Stopped

FOLDER = "autopilot"
TABLES = (
    LOCK_TABLES + journal.TABLES + export_cache.TABLES + health.TABLES + trainings.TABLES + presence.TABLES
)
PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
"""After a round in which nothing came to its end: the first, and twice as long after each that follows."""
REPORT_SECONDS = 1.0
LINE_SECONDS = 30.0
"""Between two lines that say how far a stage is, where no bar can be drawn."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an autopilot was begun with.

    Attributes:
        runs: folder of the runs.
        keys: "<game>_<players>p".
        settings: of `configs.autopilot.ControlConfig`, as typed.
        ends: seconds since 1970; None: when it is asked to.
        address: of a Ray cluster to play on; None: one of its own each time.
        plain: write lines on a terminal too.
        quiet: write nothing.
    """

    runs: Path
    keys: tuple[str, ...]
    settings: tuple[str, ...]
    ends: float | None
    address: str | None
    plain: bool = False
    quiet: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": str(self.runs),
            "keys": list(self.keys),
            "settings": list(self.settings),
            "ends": self.ends,
            "address": self.address,
            "plain": self.plain,
            "quiet": self.quiet,
        }

    @classmethod
    def from_json(cls, asked: Mapping[str, Any]) -> "Asked":
        lists = {name: tuple(asked[name]) for name in ("keys", "settings")}
        return cls(**{**asked, **lists, "runs": Path(asked["runs"])})

    @property
    def config(self) -> ControlConfig:
        """Raises UsageError when a setting is none."""
        return CONTROL.override(ControlConfig(), self.settings)

    def configs(self) -> dict[Key, RunConfig]:
        """Return the configuration of each key. Raises UsageError when one is none, or its game."""
        parsed = [parse_key(key) for key in self.keys]
        return {key: stages.config_of(key, []) for key in parsed}


def run_loop(number: int, asked: Asked) -> None:
    """Go round as autopilot `number` until its time is over, or it is asked to stop.

    Raises:
        TamenError: when it cannot go on; what was finished is kept.
    """
    config = asked.config
    database = Database(asked.runs / CONTROL_FILE, TABLES)
    present = Presence(database)
    with (
        contextlib.closing(database),
        stop_request() as stop,
        joined(config.autopilot.locks, asked.address),
        open_locks(database, config.autopilot.locks) as locks,
        contextlib.closing(ModelRegistry(asked.runs)) as registry,
        Telling(present, number, asked, lambda: stop.requested) as telling,
    ):
        memory = Memory(
            journal=Journal(database),
            trainings=Trainings(database),
            monitor=HealthMonitor(database),
            registry=registry,
            lock=functools.partial(locks.lock, ttl_seconds=config.autopilot.lock_seconds),
            together=database.write,
        )
        memory.journal.save_settings(config.decisions.model_dump(mode="json"))
        configs = asked.configs()
        work = MachineStages(asked.runs, configs, config, ExportCache(database), asked.address, telling)
        autopilot = Autopilot(
            list(configs), config, memory, work, say=telling.say, should_stop=telling.is_over
        )
        with contextlib.suppress(Stopped):
            pause = PAUSE_SECONDS
            while not telling.is_over():
                done = telling.stages
                try:
                    autopilot.round()
                except (
                    ClusterError
                ) as error:  # a lock server that is away, a file that is busy: it may come back
                    telling.say(f"{error.what}: {error.why}; {error.fix}")
                if telling.stages > done:
                    pause = PAUSE_SECONDS
                else:
                    telling.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class Telling:
    """Shows what is done at this moment, on the terminal and in `presence`; and says when it is over.

    Attributes:
        stages: how many have come to their end.
    """

    def __init__(self, present: Presence, number: int, asked: Asked, is_stopped: Callable[[], bool]) -> None:
        self._presence = present
        self._number = number
        self._ends = asked.ends
        self._began = present.get(number).began
        self._is_stopped = is_stopped
        target = console() if not asked.quiet else Console(quiet=True)
        self._display = StepDisplay(target, plain=asked.plain, line_seconds=LINE_SECONDS)
        self._doing: dict[str, Any] = {}
        self._reported = float("-inf")
        self._moved = time.monotonic()
        self.stages = 0

    def __enter__(self) -> "Telling":
        return self

    def __exit__(self, *exception: object) -> None:
        self._display.end()

    def is_over(self) -> bool:
        """Whether to leave off; asked several times a second, so it is a sign of life, too."""
        self._report()
        if (self._ends is not None and time.time() >= self._ends) or self._is_stopped():
            return True
        with contextlib.suppress(ClusterError):  # the file is busy; it will be asked again
            return self._presence.is_asked_to_stop(self._number)
        return False

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than until it is over."""
        deadline = time.monotonic() + seconds
        while not self.is_over() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def say(self, line: str) -> None:
        """Print a line."""
        with self._shown():
            self._display.say(f"{duration(time.time() - self._began)}  {line}")

    def begin(self, key: Key, stage: str) -> None:
        """A stage of a key begins."""
        self._doing = {"key": str(key), "stage": stage, "since": time.time()}
        self._moved = time.monotonic()
        with self._shown():
            self._display.begin(f"{key} {stage}")
        self._report(at_once=True)

    def progress(self, done: float, total: float, unit: str) -> None:
        """So much of it is done."""
        if done != self._doing.get("done"):
            self._moved = time.monotonic()
        first = self._doing.get("first", {"done": done, "at": time.time()})
        self._doing |= {"done": done, "total": total, "unit": unit, "first": first}
        with self._shown():
            self._display.progress(done, total, unit)
        self._report()

    def end(self, *, finished: bool) -> None:
        """It ends."""
        self.stages += finished
        self._doing = {}
        with self._shown():
            self._display.end()
        self._report(at_once=True)

    def check_moving(self, longest_seconds: float) -> None:
        """Raise ClusterError when the present stage has got no further for so long."""
        if time.monotonic() - self._moved > longest_seconds:
            raise ClusterError(
                f"{self._doing.get('stage', 'a stage')} stands still",
                why=f"it has got no further for {longest_seconds / 60:g} minutes",
                fix="see to the key's log.txt; set autopilot.still_minutes higher if that is how long it takes",
            )

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Whatever becomes of the terminal, which may be closed, the work goes on."""
        with contextlib.suppress(OSError):
            yield

    def _report(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            with contextlib.suppress(ClusterError):  # the file is busy; what it says is for those who look
                self._presence.report(self._number, self._doing)


def _never() -> bool:
    return False


@dataclass
class MachineStages:
    """The stages on this machine, each in a process of its own; see `control.autopilot.Stages`.

    Attributes:
        runs: folder of the runs.
        configs: of each key.
        control: of the autopilot.
        cache: of exports.
        address: of Ray.
        telling: what is done at this moment.
        lost: whether the work is another's by now.
    """

    runs: Path
    configs: Mapping[Key, RunConfig]
    control: ControlConfig
    cache: ExportCache
    address: str | None
    telling: Telling
    lost: Callable[[], bool] = field(default=_never)

    def games(self, key: Key) -> int:
        return stages.games_at_rest(self._folder(key))[0]

    def rows_per_game(self, key: Key) -> float | None:
        games, rows = stages.games_at_rest(self._folder(key))
        return rows / games if games else None

    def play(self, key: Key, model: Path | None, reign: int, games: int) -> None:
        folder = self._folder(key)
        there = stages.games_of(folder.games_of(reign))[0]
        settings = self.control.autopilot
        task = stages.PlayTask(
            self.configs[key], folder, model, reign, there + games, settings.engine, self.address
        )
        self._do(key, stages.play, task)

    def export(self, key: Key, settings: ExportSettings) -> dict[str, Any]:
        folder, config = self._folder(key), self.configs[key]
        share = self.control.autopilot.validation_share
        played = [path for path in folder.played_in() if (path / "replay").is_dir()]
        order = RowsOrder(
            key.game, tuple(map(held_in, played)), folder.data, settings.selection, share, config.seed
        )

        def make(verdict: Verdict) -> Made:
            task = stages.ExportTask(
                config, folder, settings.selection.max_games, share, Keep(settings.selection)
            )
            made = self._do(key, stages.export, task)
            return Made(made["games"], made["rows"])

        done = export_rows_once(self.cache, order, make)
        return {
            "games": done.games,
            "rows": done.samples,
            "estimated_rows": settings.estimated_samples,
            "folder": str(folder.data),
            "cached": done.cached,
        }

    def fit(
        self, key: Key, number: int, parent: Path | None, *, epochs: int, batch_rows: int
    ) -> dict[str, Any]:
        task = stages.FitTask(
            self.configs[key],
            self._folder(key),
            number,
            parent,
            epochs,
            batch_rows,
            Machine.here().cpus,
        )
        return self._do(key, stages.fit, task)

    def tidy(self, key: Key, number: int) -> None:
        for folder in self._folder(key).trainings(number):  # the registry has the weights
            shutil.rmtree(folder, ignore_errors=True)

    def meet(
        self, key: Key, model: Path, opponent: str | Path, *, pairs: int, first_pair: int
    ) -> dict[str, Any]:
        settings = self.control.autopilot
        task = stages.MatchTask(
            key,
            self._folder(key),
            str(model),
            str(opponent),
            pairs,
            first_pair,
            settings.opening_plies,
            settings.seed,
            settings.simulations,
        )
        return self._do(key, stages.meet, task)

    def _do(self, key: Key, function: Callable[[Any, Tell], dict[str, Any]], task: Any) -> dict[str, Any]:
        self.telling.begin(key, function.__name__)
        finished = False
        try:
            made = run_apart(
                function,
                task,
                should_stop=self._should_stop,
                tell=self.telling.progress,
            )
            finished = True
            return made
        finally:
            self.telling.end(finished=finished)

    def _should_stop(self) -> bool:
        """Raises ClusterError when the stage stands still."""
        self.telling.check_moving(60 * self.control.autopilot.still_minutes)
        return self.telling.is_over() or self.lost()

    def _folder(self, key: Key) -> KeyFolder:
        return KeyFolder(self.runs.resolve() / FOLDER / str(key))
