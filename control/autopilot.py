"""The loop of the control plane: keys are played in proportion, and those that their signals call for are trained.

A round:

    1. go on   Trainings that were left unfinished, by this process or one that died, come to their end first.
    2. watch   A champion that has not played for long meets the one before it again, which may replace it.
    3. play    The champion of each key plays its share of games.
    4. decide  `control.triggers` says which keys are to be trained.
    5. train   lock, export, fit, register, evaluate, promote: each stage written down, and done once.

What is done in each stage is given (`Stages`). What is remembered is in two SQLite files, so several autopilots may
work on the same keys, and any of them may be killed at any moment.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from configs.autopilot import AutopilotConfig, ControlConfig
from control.curriculum import KeyFacts, Weight, shares, weigh
from control.evaluation import WHO, Evaluation, Matches
from control.export_settings import ExportSettings, export_settings
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key
from control.lineage import hash_source
from control.locks import Lock, LockLostError, not_held
from control.registry import ModelRegistry
from control.trainings import Training, Trainings, lock_of
from control.triggers import Decision, decide_all
from core.errors import ClusterError, EvaluationError, TamenError, UsageError

BEAT_SECONDS = 5.0
MOST_FAILURES = 3
"""Of the stages of one training, before it is given up."""


class Stages(Matches, Protocol):
    """What is done for a key. Any of it may be killed, and done again: it finds what was there."""

    def games(self, key: Key) -> int:
        """Return how many games of a key there are."""
        ...

    def rows_per_game(self, key: Key) -> float | None:
        """Return how many rows its games have on average; None while there is none."""
        ...

    def play(self, key: Key, model: Path | None, reign: int, games: int) -> None:
        """Add so many games of a model, or of the untrained one, to those of its reign.

        A model that is champion again after a rollback reigns anew: the reigns of a key are counted from 1 in the order
        in which they began, 0 is the untrained one's.
        """
        ...

    def export(self, key: Key, settings: ExportSettings) -> Mapping[str, Any]:
        """Make the data set of a key; return {"games", "rows", "folder"}, plain JSON."""
        ...

    def fit(
        self, key: Key, number: int, parent: Path | None, *, epochs: int, batch_rows: int
    ) -> Mapping[str, Any]:
        """Fit a network to it for training `number`; return {"model": path, "config", "metrics"}, plain JSON."""
        ...

    def tidy(self, key: Key, number: int) -> None:
        """Remove what only training `number` needed, or one before it."""
        ...


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, and what keeps two trainings of a key apart.

    Attributes:
        lock: makes the lock of a name.
        together: opens a transaction of the file that journal, trainings and monitor are in.
    """

    journal: Journal
    trainings: Trainings
    monitor: HealthMonitor
    registry: ModelRegistry
    lock: Callable[[str], Lock]
    together: Callable[[], AbstractContextManager[Any]]


class Autopilot:
    """Goes round over `keys`.

    Args:
        keys: what is played and trained.
        config: by what.
        memory: what is remembered.
        stages: what is done.
        say: takes a line for people.
        should_stop: whether to leave off between two stages.
        clock: seconds since 1970.

    Raises:
        UsageError: when there are no keys, one is given twice, or the settings do not go together.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        config: ControlConfig,
        memory: Memory,
        stages: Stages,
        *,
        say: Callable[[str], None],
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_keys(keys)
        self._keys = tuple(keys)
        self._config = config
        self._memory = memory
        self._stages = stages
        self._say = say
        self._should_stop = should_stop
        self._clock = clock
        self._evaluation = Evaluation(
            config, memory.registry, memory.journal, memory.monitor, stages, clock=clock
        )
        self._complaints: dict[Key, str] = {}
        self._results: list[Training] = []

    def round(self) -> list[Training]:
        """Go round once, and return what was trained, as it was left.

        Raises:
            TamenError: when what is remembered cannot be read or written. What fails for a key is told, and counted.
        """
        self._results = []
        for training in self._memory.trainings.under_way():
            self._train(training.key)
        for key in self._keys:
            self._watch(key)
        curriculum, facts = self._config.curriculum, self._facts()
        weights = {key: weigh(known, curriculum, now=self._clock()) for key, known in facts.items()}
        for key, games in shares_of_a_round(weights, self._config.autopilot).items():
            self._play(key, games)
        for key, decision in self._decisions().items():
            if decision.should_train:
                self._train(key)
        self._memory.monitor.report()
        return self._results

    def _facts(self) -> dict[Key, KeyFacts]:
        recent = self._config.recent
        return self._memory.journal.facts(recent, now=self._clock(), keys=self._keys)

    def _decisions(self) -> dict[Key, Decision]:
        """Return a decision for each key, those of the greatest priority first."""
        now = self._clock()
        running = self._memory.journal.running(now=now)
        decisions = decide_all(self._facts(), running, self._config.triggers, now=now)
        return dict(sorted(decisions.items(), key=lambda each: -each[1].priority))

    def _play(self, key: Key, games: int) -> None:
        """Let the champion of a key play; somebody else may be doing that, and then nothing is to be done."""
        if self._should_stop():
            return
        with self._locked(f"selfplay:{key}") as lock:
            if lock is None:
                self._complain(key, "another plays it")
                return
            try:
                reign, champion = self._memory.registry.reign(key)
                model = None if champion is None else self._memory.registry.get(champion).file
                self._stages.play(key, model, reign, games)
                there = self._stages.games(key)
                self._memory.journal.record_data(key, there, moves_per_game=self._stages.rows_per_game(key))
                self._memory.monitor.record_data_update(key, there)
            except (TamenError, OSError) as error:
                self._complain(key, f"no games: {_in_a_line(error)}")
                return
        self._complaints.pop(key, None)
        self._say(f"{key}: {games:,} games of {champion or 'an untrained network'}, {there:,} in all")

    def _watch(self, key: Key) -> None:
        """Let the champion of a key show again that it is the best there is, unless the key is just being trained."""
        if self._should_stop() or not self._evaluation.is_due(key):
            return
        with self._locked(lock_of(key)) as lock:
            # Under the lock: since it was seen to be due another may have done it, or begun a training.
            if lock is None or self._is_under_way(key) or not self._evaluation.is_due(key):
                return
            try:
                self._say(f"{key}: {self._evaluation.watch(key)}")
            except (TamenError, OSError) as error:
                self._complain(key, f"its champion was not watched: {_in_a_line(error)}")

    def _train(self, key: Key) -> None:
        """Go on with what is left of a key's training, or begin one if it is called for, unless another does."""
        if key not in self._keys or self._should_stop():
            return
        with self._locked(lock_of(key)) as lock:
            if lock is None:
                self._complain(key, "another trains it")
                return
            try:
                # Under the lock: since it was decided another may have trained it.
                decision = self._decisions()[key]
                rests = self._facts()[key].failures > 0 and decision.limits.wait_seconds > 0
                if not rests if self._is_under_way(key) else decision.should_train:
                    self._train_under(lock, key, decision.reason)
            except LockLostError as error:
                self._say(f"{key}: left to another: {_in_a_line(error)}")

    def _is_under_way(self, key: Key) -> bool:
        return any(training.key == key for training in self._memory.trainings.under_way())

    @contextmanager
    def _locked(self, name: str) -> Iterator[Lock | None]:
        """Hold a lock while the block runs, whose stages end when it is lost; give None when another has it."""
        lock = self._memory.lock(name)
        if not lock.acquire(timeout_seconds=0):
            yield None
            return
        self._stages.lost = lambda: lock.lost
        try:
            yield lock
        finally:
            self._stages.lost = lambda: False
            lock.release()

    def _train_under(self, lock: Lock, key: Key, reason: str) -> None:
        memory, most = self._memory, self._config.triggers.max_concurrent
        owner = f"{lock.token.number}"
        now = self._clock()
        if not memory.journal.start_training(key, owner=owner, most=most, now=now, token=lock.token):
            return
        training = memory.trainings.begin(key, lock.token, reason=reason)
        run = f"training-{training.number}"
        memory.monitor.record_training_start(key, run)
        self._say(f"{key}: training {training.number}, for {training.reason}")
        failure: TamenError | OSError | None = None
        with self._beating(key, owner):
            try:
                message = self._all_stages(lock, training)
            except LockLostError:
                raise
            except Exception as error:
                if lock.lost:
                    raise not_held(lock.name) from error
                if not isinstance(error, TamenError | OSError):  # it was asked to stop
                    memory.journal.pause_training(key, owner=owner, now=self._clock())
                    memory.monitor.record_training_pause(key, run)
                    raise
                failure = error
                message = _in_a_line(error)
        with memory.together():
            tried = self._note_failure(lock, training, failure)
            if 0 < tried < MOST_FAILURES:
                # After the first there is no rest: a process was killed, a disk was full for a moment.
                memory.journal.pause_training(key, owner=owner, now=self._clock(), failed=tried > 1)
            else:
                memory.trainings.end(training, lock.token, success=failure is None, message=message)
                memory.journal.end_training(key, owner=owner, success=failure is None, now=self._clock())
            memory.monitor.record_training_complete(key, success=failure is None, run=run, reason=message)
        left = memory.trainings.get(training.number)
        if left.ended is not None:
            self._stages.tidy(key, training.number)
        self._say(f"{key}: {message}")
        self._results.append(left)

    def _note_failure(self, lock: Lock, training: Training, failure: Exception | None) -> int:
        """Note that a stage failed; return how often that happened, 0 where to try again is of no use."""
        if not isinstance(failure, ClusterError | EvaluationError | OSError):
            return 0  # it came to its end, or was refused
        return self._memory.trainings.note_failure(training, lock.token, _in_a_line(failure))

    def _all_stages(self, lock: Lock, training: Training) -> str:
        """Do what is left of a training; return what came of it."""
        key, trainings, registry = training.key, self._memory.trainings, self._memory.registry

        def export() -> dict[str, Any]:
            settings = export_settings(
                key.game,
                self._stages.games(key),
                self._config.export,
                moves_per_game=self._stages.rows_per_game(key),
            )
            # Written down with it: a fitting goes on as it was begun, whatever is set by then.
            fitted = {"epochs": settings.epochs, "batch_rows": settings.batch_rows}
            return {**self._stages.export(key, settings), **fitted}

        def fit() -> Mapping[str, Any]:
            parent_file = registry.get(parent["id"]).file if parent["id"] else None
            epochs, batch_rows = exported["epochs"], exported["batch_rows"]
            return self._stages.fit(key, training.number, parent_file, epochs=epochs, batch_rows=batch_rows)

        def once(stage: str, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
            return trainings.once(training, lock.token, stage, work)

        def parent_of() -> dict[str, Any]:
            return {"id": None if self._config.autopilot.begin_anew else registry.alias(key, "champion")}

        def register() -> dict[str, Any]:
            self._evaluation.check_held()
            return {
                "id": registry.register(
                    key,
                    Path(fitted["model"]),
                    config=fitted["config"],
                    metrics=fitted["metrics"],
                    who=WHO,
                    why=training.reason,
                    sources=[hash_source(Path(exported["folder"]) / "manifest.json")],
                    parent=parent["id"],
                    games=exported["games"],
                )
            }

        parent = once("parent", parent_of)
        exported = once("export", export)
        fitted = once("fit", fit)
        model_id = once("register", register)["id"]
        models = len(registry.models(key))
        self._memory.journal.record_models(key, models)
        self._memory.monitor.record_model(key, models)
        judged = once("evaluate", lambda: self._evaluation.settle(key, model_id))
        return f"{model_id}: {judged['why']}"

    def _complain(self, key: Key, line: str) -> None:
        """Say what fails, which may be so for days, once until something else does."""
        if self._complaints.get(key) != line:
            self._complaints[key] = line
            self._say(f"{key}: {line}")

    @contextmanager
    def _beating(self, key: Key, owner: str) -> Iterator[None]:
        """Tell the journal from a thread that the training goes on, while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                with suppress(TamenError):  # the next one may get through
                    self._memory.journal.beat(key, owner=owner, now=self._clock())

        thread = threading.Thread(target=beat, name=f"beat {key}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(2 * BEAT_SECONDS)


def check_keys(keys: Sequence[Key]) -> None:
    """Raise UsageError unless there are some, each once."""
    if not keys or len(set(keys)) < len(keys):
        raise UsageError(
            "a key is given twice" if keys else "there is nothing to go round",
            why=f"the keys are {', '.join(map(str, keys)) or 'none'}",
            fix="name each once, such as hex5_2p",
        )


def shares_of_a_round(weights: Mapping[Key, Weight], settings: AutopilotConfig) -> dict[Key, int]:
    """Return how many games of a round are each key's."""
    games = max(settings.games_a_round, settings.least_games * len(weights))
    return shares({key: each.weight for key, each in weights.items()}, games, least=settings.least_games)


def _in_a_line(error: Exception) -> str:
    return f"{error.what}: {error.why}; {error.fix}" if isinstance(error, TamenError) else str(error)
