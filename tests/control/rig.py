"""An autopilot over stages that only count what is asked of them, as one process has it."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.autopilot import CONTROL, ControlConfig
from control import fencing, health, journal, locks, trainings
from control.autopilot import Autopilot, Memory
from control.database import Database
from control.export_settings import ExportSettings
from control.file_locks import FileLocks
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key
from control.locks import Lock
from control.registry import ModelRegistry
from control.trainings import Training, Trainings
from core.errors import EvaluationError

KEY, OTHER = Key("hex5"), Key("tic_tac_toe")
TABLES = locks.TABLES + fencing.TABLES + journal.TABLES + health.TABLES + trainings.TABLES
SETTINGS = (
    "autopilot.games_a_round=120",
    "promotion.min_pairs=10",
    "promotion.max_pairs=100",
    "triggers.freshness_games=100",
    "triggers.bootstrap_games=60",
    "triggers.min_interval_minutes=0",
    "triggers.longest_interval_minutes=0",
)


class Counted:
    """Stages that count what was asked for. A model's strength is its number; it wins against all weaker ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.played: dict[Key, int] = {}
        self.done: list[str] = []
        self.broken: str | None = None
        self.tidied: list[int] = []
        self.openings: list[tuple[str, str, range]] = []
        self.lost: Callable[[], bool] = lambda: False

    def tidy(self, key: Key, number: int) -> None:
        self.tidied.append(number)

    def games(self, key: Key) -> int:
        return self.played.get(key, 0)

    def rows_per_game(self, key: Key) -> float | None:
        return 10.0 if self.games(key) else None

    def play(self, key: Key, model: Path | None, reign: int, games: int) -> None:
        self._note(f"play {key} {model.stem if model else 'untrained'} in reign {reign}")
        self.played[key] = self.games(key) + games

    def export(self, key: Key, settings: ExportSettings) -> Mapping[str, Any]:
        self._note(f"export {key}")
        data = self.folder / "data" / str(key)
        data.mkdir(parents=True, exist_ok=True)
        (data / "manifest.json").write_text(f"{self.games(key)}")
        return {"games": settings.games, "rows": settings.estimated_samples, "folder": str(data)}

    def fit(
        self, key: Key, number: int, parent: Path | None, *, epochs: int, batch_rows: int
    ) -> Mapping[str, Any]:
        self._note(f"fit {key} from {parent and parent.stem}")
        model = self.folder / f"{key}-{number}.safetensors"
        model.write_text(f"{key} {number}")
        return {
            "model": str(model),
            "config": {"epochs": epochs, "batch_rows": batch_rows},
            "metrics": {"loss": 1 / number},
        }

    def meet(
        self, key: Key, model: Path, opponent: str | Path, *, pairs: int, first_pair: int
    ) -> Mapping[str, Any]:
        name = opponent if isinstance(opponent, str) else opponent.stem
        self._note(f"meet {key} {name}")
        self.openings.append((model.stem, name, range(first_pair, first_pair + pairs)))
        weaker = opponent == "random" or strength(model) > strength(Path(opponent))
        return {"draws": 0, "pair_scores": [1.0 if weaker else 0.0] * pairs}

    def _note(self, what: str) -> None:
        if self.broken and what.startswith(self.broken):
            raise EvaluationError("the machine failed", why="a test had it so", fix="none")
        self.done.append(what)


def strength(model: Path) -> int:
    return int(model.read_text().split()[1])


class Rig:
    """An autopilot on files in a folder. Its clock stands still but for `later`."""

    def __init__(self, folder: Path, *keys: Key, settings: tuple[str, ...] = ()) -> None:
        self.now = time.time()
        self.database = Database(folder / "control.sqlite", TABLES)
        self.backend = FileLocks(folder / ".locks")
        lock = functools.partial(
            Lock,
            backend=self.backend,
            floor=fencing.Fence(self.database),
            ttl_seconds=5.0,
            timeout_seconds=1.0,
        )
        self.memory = Memory(
            Journal(self.database),
            Trainings(self.database),
            HealthMonitor(self.database),
            ModelRegistry(folder),
            lock,
            self.database.write,
        )
        self.stages = Counted(folder)
        self.said: list[str] = []
        self.autopilot = Autopilot(
            keys or (KEY,),
            CONTROL.override(ControlConfig(), (*SETTINGS, *settings)),
            self.memory,
            self.stages,
            say=self.said.append,
            should_stop=lambda: False,
            clock=lambda: self.now,
        )

    def later(self, minutes: float) -> None:
        self.now += 60 * minutes

    def round(self) -> list[Training]:
        return self.autopilot.round()

    def close(self) -> None:
        self.memory.registry.close()
        self.database.close()
        self.backend.close()


@contextmanager
def rig_at(folder: Path, *keys: Key, settings: tuple[str, ...] = ()) -> Iterator[Rig]:
    rig = Rig(folder, *keys, settings=settings)
    try:
        yield rig
    finally:
        rig.close()
