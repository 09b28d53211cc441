"""`tamen train --auto`: the autopilot on this machine, over the folder of runs."""

import functools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster import autopilot_stages as stages
from cluster.addresses import cluster_to_join
from cluster.autopilot_stages import KeyFolder
from cluster.locks import TABLES as LOCK_TABLES
from cluster.locks import open_locks
from cluster.program import Machine
from cluster.stage_process import run_apart
from cluster.stopping import stop_request
from cluster.terminal import console, duration
from configs.autopilot import CONTROL, ControlConfig
from configs.schema import RunConfig
from control import export_cache, health, journal, trainings
from control.autopilot import Autopilot, Memory, Result
from control.database import CONTROL_FILE, Database
from control.export_cache import ExportCache, Source
from control.export_settings import ExportSettings, Selection
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key, parse_key
from control.registry import ModelRegistry
from control.trainings import Trainings
from core.errors import UsageError
from pipeline.contract import Stopped

FOLDER = "autopilot"
TABLES = LOCK_TABLES + journal.TABLES + export_cache.TABLES + health.TABLES + trainings.TABLES
PAUSE_SECONDS = 2.0
"""After a round in which nothing came to its end."""


def go_round(
    words: Sequence[str],
    refused: Mapping[str, Any],
    *,
    runs: Path,
    minutes: float | None,
    address: str | None,
) -> None:
    """`tamen train --auto WORDS`: keys, and settings with a "=" in them.

    Raises:
        UsageError: when one of the options is given that say nothing here, or a word is neither.
    """
    given = [option for option, value in refused.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} says nothing to the autopilot",
            why="it goes round over keys until its time is over, or Ctrl-C",
            fix="leave it out; --minutes bounds its time",
        )
    keys = [word for word in words if "=" not in word]
    results = run_autopilot(
        keys,
        [word for word in words if "=" in word],
        runs=runs,
        minutes=minutes,
        rounds=None,
        address=cluster_to_join(address),
    )
    promoted = sum(result.promoted for result in results)
    target = console()
    target.print(f"{len(results)} trainings, {promoted} champions", markup=False)
    target.print(f"next: tamen models list, tamen why {keys[0]}, tamen health", markup=False)


def run_autopilot(
    keys: Sequence[str],
    overrides: Sequence[str],
    *,
    runs: Path,
    minutes: float | None,
    rounds: int | None,
    address: str | None,
) -> list[Result]:
    """Go round over `keys` until the time is over, so many rounds are done, or the first Ctrl-C.

    Args:
        keys: "<game>_<players>p".
        overrides: settings of `configs.autopilot.ControlConfig`, as typed.
        runs: folder of the runs.
        minutes, rounds: bounds; None: none.
        address: of a Ray cluster to play on; None: one of its own each time.

    Raises:
        TamenError: when it cannot go on; what was finished is kept.
    """
    config = CONTROL.override(ControlConfig(), overrides)
    parsed = [parse_key(key) for key in keys]
    configs = {key: stages.config_of(key, []) for key in parsed}
    database = Database(runs / CONTROL_FILE, TABLES)
    target, began = console(), time.monotonic()

    def over() -> bool:
        return stop.requested or (minutes is not None and time.monotonic() - began >= 60 * minutes)

    def say(line: str) -> None:
        target.print(f"{duration(time.monotonic() - began)}  {line}", markup=False, soft_wrap=True)

    with stop_request() as stop, open_locks(database, config.autopilot.locks) as locks:
        memory = Memory(
            journal=Journal(database),
            trainings=Trainings(database),
            monitor=HealthMonitor(database),
            registry=ModelRegistry(runs),
            lock=functools.partial(locks.lock, ttl_seconds=config.autopilot.lock_seconds),
            together=database.write,
        )
        memory.journal.save_settings(config.decisions.model_dump(mode="json"))
        work = MachineStages(runs, configs, config, ExportCache(database), address, over)
        autopilot = Autopilot(parsed, config, memory, work, say=say, should_stop=over)
        done = 0
        try:
            while not over() and (rounds is None or done < rounds):
                work.done = 0
                autopilot.round()
                done += 1
                time.sleep(0 if work.done else PAUSE_SECONDS)
        except Stopped:
            say("stopped; the same command goes on from here")
        finally:
            memory.registry.close()
            database.close()
    return autopilot.results


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
        should_stop: whether to leave a stage.
        done: how many stages have come to their end.
        lost: whether the work is another's by now.
    """

    runs: Path
    configs: Mapping[Key, RunConfig]
    control: ControlConfig
    cache: ExportCache
    address: str | None
    should_stop: Callable[[], bool]
    done: int = 0
    lost: Callable[[], bool] = _never

    def games(self, key: Key) -> int:
        return stages.games_at_rest(self._folder(key))[0]

    def rows_per_game(self, key: Key) -> float | None:
        games, rows = stages.games_at_rest(self._folder(key))
        return rows / games if games else None

    def play(self, key: Key, model: Path | None, version: int, games: int) -> None:
        folder = self._folder(key)
        there = stages.games_of(folder.games_of(version))[0]
        settings = self.control.autopilot
        task = stages.PlayTask(
            self.configs[key], folder, model, version, there + games, settings.engine, self.address
        )
        self._do(stages.play, task)

    def export(self, key: Key, settings: ExportSettings) -> dict[str, Any]:
        folder = self._folder(key)
        selection = settings.selection
        played = [path for path in folder.played_in() if (path / "replay").is_dir()]
        sources = [Source(path / "replay", stages.games_of(path)[0]) for path in played]
        about = {
            "max_games": selection.max_games,
            "stride": str(selection.stride),
            "seed": selection.seed,
            "validation_share": self.control.autopilot.validation_share,
        }
        found = self.cache.look(folder.data, sources, about)
        if found.valid and found.games is not None and found.samples is not None:
            return {"games": found.games, "rows": found.samples, "folder": str(folder.data), "cached": True}
        task = stages.ExportTask(
            self.configs[key],
            folder,
            selection.max_games,
            self.control.autopilot.validation_share,
            Keep(selection),
        )
        made = self._do(stages.export, task)
        self.cache.record(found.seen, games=made["games"], samples=made["rows"])
        return {**made, "folder": str(folder.data), "cached": False}

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
        return self._do(stages.fit, task)

    def tidy(self, key: Key, number: int) -> None:
        shutil.rmtree(self._folder(key).training(number), ignore_errors=True)  # the registry has the weights

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
        return self._do(stages.meet, task)

    def _do(self, function: Callable[[Any], dict[str, Any]], task: Any) -> dict[str, Any]:
        made = run_apart(function, task, should_stop=lambda: self.should_stop() or self.lost())
        self.done += 1
        return made

    def _folder(self, key: Key) -> KeyFolder:
        return KeyFolder(self.runs.resolve() / FOLDER / str(key))


@dataclass(frozen=True, slots=True)
class Keep:
    """Which rows a selection takes, as `pipeline.searched_rows.export_searched` asks."""

    selection: Selection

    def __call__(self, games: np.ndarray, plies: np.ndarray) -> np.ndarray:
        """Return bool [R] of rows with games uint64 [R] and plies int64 [R]."""
        if self.selection.stride == 1:
            return np.ones(len(plies), bool)
        kept = np.zeros(len(plies), bool)
        for game in np.unique(games):
            own = np.flatnonzero(games == game)
            taken = self.selection.positions(str(game), int(plies[own].max()) + 1)
            kept[own] = np.isin(plies[own], taken)
        return kept
