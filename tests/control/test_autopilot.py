"""The autopilot goes round: it plays, trains what calls for it, once, and what was left unfinished first."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.autopilot import CONTROL, ControlConfig
from control import fencing, health, journal, locks, trainings
from control.autopilot import MOST_FAILURES, Autopilot, Memory, Result
from control.database import Database
from control.export_settings import ExportSettings
from control.file_locks import FileLocks
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key
from control.locks import Lock
from control.registry import ModelRegistry
from control.trainings import Trainings, lock_of
from core.errors import EvaluationError, UsageError

KEY, OTHER = Key("hex5"), Key("tic_tac_toe")
TABLES = locks.TABLES + fencing.TABLES + journal.TABLES + health.TABLES + trainings.TABLES
SETTINGS = (
    "autopilot.games_a_round=120",
    "autopilot.min_pairs=10",
    "autopilot.max_pairs=100",
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
        self.lost: Callable[[], bool] = lambda: False

    def tidy(self, key: Key, number: int) -> None:
        self.tidied.append(number)

    def games(self, key: Key) -> int:
        return self.played.get(key, 0)

    def rows_per_game(self, key: Key) -> float | None:
        return 10.0 if self.games(key) else None

    def play(self, key: Key, model: Path | None, version: int, games: int) -> None:
        self._note(f"play {key} v{version}")
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
        self._note(f"meet {key} {opponent if isinstance(opponent, str) else opponent.stem}")
        weaker = opponent == "random" or strength(model) > strength(Path(opponent))
        return {"draws": 0, "pair_scores": [1.0 if weaker else 0.0] * pairs}

    def _note(self, what: str) -> None:
        if self.broken and what.startswith(self.broken):
            raise EvaluationError("the machine failed", why="a test had it so", fix="none")
        self.done.append(what)


def strength(model: Path) -> int:
    return int(model.read_text().split()[1])


class Rig:
    """An autopilot on files in a folder, as one process has it."""

    def __init__(self, folder: Path, *keys: Key) -> None:
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
        config = CONTROL.override(ControlConfig(), SETTINGS)
        self.autopilot = Autopilot(
            keys or (KEY,), config, self.memory, self.stages, say=self.said.append, should_stop=lambda: False
        )

    def round(self) -> list[Result]:
        return self.autopilot.round()

    def close(self) -> None:
        self.memory.registry.close()
        self.database.close()
        self.backend.close()


@contextmanager
def rig_at(folder: Path, *keys: Key) -> Iterator[Rig]:
    rig = Rig(folder, *keys)
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rig_at(tmp_path) as made:
        yield made


def test_the_first_model_is_trained_from_untrained_games_and_becomes_champion(rig: Rig) -> None:
    (result,) = rig.round()
    assert (result.key, result.success, result.model_id, result.promoted) == (KEY, True, "hex5_2p-v1", True)
    assert rig.stages.done[:3] == ["play hex5_2p v0", "export hex5_2p", "fit hex5_2p from None"]
    assert set(result.seconds) == {"parent", "export", "fit", "register", "evaluate"}
    elo = rig.memory.registry.find("hex5_2p@champion").elo
    assert elo is not None
    assert elo.rating > 100
    (state,) = rig.memory.monitor.report().keys
    assert (state.record.models, state.record.games) == (1, 120)


def test_the_champion_plays_and_is_the_parent_of_the_next(rig: Rig) -> None:
    rig.round()
    rig.stages.done.clear()
    (result,) = rig.round()
    assert rig.stages.done[:3] == ["play hex5_2p v1", "export hex5_2p", "fit hex5_2p from hex5_2p-v1"]
    assert "meet hex5_2p hex5_2p-v1" in rig.stages.done
    model = rig.memory.registry.find("hex5_2p@champion")
    assert (model.id, model.parent, result.promoted) == ("hex5_2p-v2", "hex5_2p-v1", True)


def test_one_that_is_no_stronger_does_not_become_champion(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.round()
    monkeypatch.setattr("tests.control.test_autopilot.strength", lambda model: 1)
    (result,) = rig.round()
    assert (result.success, result.promoted) == (True, False)
    assert rig.memory.registry.alias(KEY, "champion") == "hex5_2p-v1"
    assert rig.memory.registry.find("hex5_2p-v2").stage == "rejected"


def test_nothing_is_trained_before_its_signals_call_for_it(rig: Rig) -> None:
    rig.round()
    rig.stages.play = lambda *args: None  # type: ignore[method-assign] # nobody plays, so nothing is new
    assert rig.round() == []


def test_a_failure_is_told_counted_and_leaves_the_others_alone(tmp_path: Path) -> None:
    with rig_at(tmp_path, KEY, OTHER) as rig:
        rig.stages.broken = f"fit {KEY}"
        results = {result.key: result for result in rig.round()}
        assert not results[KEY].success
        assert results[OTHER].promoted
        assert "the machine failed" in results[KEY].message
        alerts = rig.memory.monitor.report().active_alerts
        assert [(alert.key, alert.severity) for alert in alerts] == [(KEY, "warning")]
        rig.stages.broken = None
        assert KEY in {result.key for result in rig.round() if result.success}
        assert not rig.memory.monitor.report().active_alerts


def test_what_a_dead_process_left_is_gone_on_with_first_and_done_once(tmp_path: Path) -> None:
    with rig_at(tmp_path) as first:
        first.stages.played[KEY] = 200

        class Killed(BaseException):
            """As if the process were gone: nothing is tidied up."""

        def die(*args: Any, **given: Any) -> Any:
            raise Killed

        first.stages.fit = die  # type: ignore[method-assign]
        with pytest.raises(Killed):
            first.round()
    with rig_at(tmp_path) as second:
        second.stages.played[KEY] = 200
        result = second.round()[0]
        assert (result.model_id, result.promoted) == ("hex5_2p-v1", True)
        assert second.stages.done[0] == "fit hex5_2p from None"
        assert "export hex5_2p" not in second.stages.done[: second.stages.done.index("play hex5_2p v1")]
        assert len(second.memory.registry.models(KEY)) == 1 + (len(second.memory.trainings.newest(9)) - 1)


def test_a_key_that_another_trains_is_left_to_it(rig: Rig, tmp_path: Path) -> None:
    with rig.memory.lock(lock_of(KEY)):
        assert rig.round() == []
    assert any("another trains it" in line for line in rig.said)
    assert rig.round()[0].success


@pytest.mark.parametrize("keys", [(KEY, KEY)])
def test_keys_are_given_once(tmp_path: Path, keys: tuple[Key, ...]) -> None:
    with pytest.raises(UsageError, match="given twice"):
        Rig(tmp_path, *keys)


def test_one_that_is_asked_to_stop_leaves_no_failure_behind(rig: Rig) -> None:
    class AskedToStop(Exception):
        pass

    def stop(*args: Any, **given: Any) -> Any:
        raise AskedToStop

    rig.stages.fit = stop  # type: ignore[method-assign]
    with pytest.raises(AskedToStop):
        rig.round()
    (state,) = rig.memory.monitor.report().keys
    assert (state.record.training, state.record.failures) == (None, 0)
    assert len(rig.memory.trainings.under_way()) == 1


def test_a_pause_is_of_the_training_that_is_named(rig: Rig) -> None:
    monitor = rig.memory.monitor
    monitor.record_training_start(KEY, "first")
    monitor.record_training_pause(KEY, "another")
    assert monitor.report().keys[0].record.training is not None
    monitor.record_training_pause(KEY, "first")
    assert monitor.report().keys[0].record.training is None


def test_a_stage_that_failed_is_tried_again_and_given_up_after_some_times(rig: Rig) -> None:
    rig.stages.broken = f"fit {KEY}"
    for _ in range(MOST_FAILURES):
        if rig.memory.trainings.newest(9) and rig.memory.trainings.get(1).ended:
            break
        rig.round()
    assert rig.memory.trainings.get(1).success is False
    assert rig.database.read("SELECT failures FROM trainings WHERE number = 1")[0][0] == MOST_FAILURES
    rig.stages.broken = None
    assert any(result.success for result in rig.round())


def test_who_loses_the_lock_leaves_the_training_and_its_records_to_the_other(rig: Rig) -> None:
    name, fence = lock_of(KEY), fencing.Fence(rig.database)

    def lose(*args: Any, **given: Any) -> Any:
        fence.outrun(name)  # another has been given the lock
        return {"model": "", "config": {}, "metrics": {}}

    rig.stages.fit = lose  # type: ignore[method-assign]
    assert rig.round() == []
    assert any("left to another" in line for line in rig.said)
    assert len(rig.memory.trainings.under_way()) == 1
    (state,) = rig.memory.monitor.report().keys
    assert state.record.failures == 0


def test_what_only_a_training_needed_is_removed_at_its_end(rig: Rig) -> None:
    rig.round()
    assert rig.stages.tidied == [1]
