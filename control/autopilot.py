"""The loop of the control plane: keys are played in proportion, and those that their signals call for are trained.

A round:

    1. go on   Trainings that were left unfinished, by this process or one that died, come to their end first.
    2. play    The champion of each key plays its share of games.
    3. decide  `control.triggers` says which keys are to be trained.
    4. train   lock, export, fit, register, evaluate, promote: each stage written down, and done once.

What is done in each stage is given (`Stages`). What is remembered is in two SQLite files, so several autopilots may
work on the same keys, and any of them may be killed at any moment.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from configs.autopilot import ControlConfig
from control.curriculum import KeyFacts, MatchResult, Weight, shares, weigh
from control.export_settings import ExportSettings, export_settings
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key
from control.lineage import hash_source
from control.locks import Lock
from control.model_cards import Match
from control.promotion import Promoter, PromotionRules, Rung
from control.registry import ModelRegistry
from control.registry_tables import AliasMovedError
from control.sequential import PairCounts, Sprt
from control.trainings import Training, Trainings, lock_of
from control.triggers import Decision, decide_all
from core.errors import EvaluationError, TamenError, UsageError

WHO = "autopilot"
BEAT_SECONDS = 5.0


class Stages(Protocol):
    """What is done for a key. Any of it may be killed, and done again: it finds what was there."""

    def games(self, key: Key) -> int:
        """Return how many games of a key there are."""
        ...

    def rows_per_game(self, key: Key) -> float | None:
        """Return how many rows its games have on average; None while there is none."""
        ...

    def play(self, key: Key, model: Path | None, version: int, games: int) -> None:
        """Add so many games of a model, or of the untrained one, to those of its version."""
        ...

    def export(self, key: Key, settings: ExportSettings) -> Mapping[str, Any]:
        """Make the data set of a key; return {"games", "rows", "folder"}, plain JSON."""
        ...

    def fit(self, key: Key, number: int, parent: Path | None, settings: ExportSettings) -> Mapping[str, Any]:
        """Fit a network to it for training `number`; return {"model": path, "config", "metrics"}, plain JSON."""
        ...

    def meet(
        self, key: Key, model: Path, opponent: str | Path, *, pairs: int, first_pair: int
    ) -> Mapping[str, Any]:
        """Play pairs of games; return {"draws", "pair_scores"} in the eyes of the model, plain JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, and what keeps two trainings of a key apart.

    Attributes:
        lock: makes the lock of a name.
    """

    journal: Journal
    trainings: Trainings
    monitor: HealthMonitor
    registry: ModelRegistry
    lock: Callable[[str], Lock]


@dataclass(frozen=True, slots=True)
class Result:
    """How the training of a key ended.

    Attributes:
        seconds: of each stage.
        model_id: of the model that came of it; None when none did.
        promoted: whether it is champion now.
    """

    key: Key
    success: bool
    seconds: Mapping[str, float]
    model_id: str | None
    promoted: bool
    message: str


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
        if not keys or len(set(keys)) < len(keys):
            raise UsageError(
                "there is nothing to go round" if not keys else "a key is given twice",
                why=f"the keys are {', '.join(map(str, keys)) or 'none'}",
                fix="name each once, such as hex5_2p",
            )
        self._keys = tuple(keys)
        self._config = config
        self._memory = memory
        self._stages = stages
        self._say = say
        self._should_stop = should_stop
        self._clock = clock

    def round(self) -> list[Result]:
        """Go round once, and return what was trained.

        Raises:
            TamenError: when what is remembered cannot be read or written. What fails for a key is told, and counted.
        """
        results = [self._train(one.key, one.reason) for one in self._memory.trainings.under_way()]
        weights = {
            key: weigh(facts, self._config.curriculum, now=self._clock())
            for key, facts in self._facts().items()
        }
        for key, games in self._shares(weights).items():
            self._play(key, games)
        for key, decision in self._decisions().items():
            if decision.should_train and not self._should_stop():
                results.append(self._train(key, decision.reason))
        for key in self._keys:
            self._memory.monitor.record_model(key, len(self._memory.registry.models(key)))
        self._memory.monitor.report()
        return [result for result in results if result is not None]

    def _facts(self) -> dict[Key, KeyFacts]:
        recent = self._config.recent
        return self._memory.journal.facts(recent, now=self._clock(), keys=self._keys)

    def _shares(self, weights: Mapping[Key, Weight]) -> dict[Key, int]:
        settings = self._config.autopilot
        games = max(settings.games_a_round, settings.least_games * len(weights))
        return shares(
            {key: weight.weight for key, weight in weights.items()}, games, least=settings.least_games
        )

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
        lock = self._memory.lock(f"selfplay:{key}")
        if not lock.acquire(timeout_seconds=0):
            self._say(f"{key}: another plays it")
            return
        try:
            champion = self._champion(key)
            self._stages.play(key, champion and champion.file, champion.version if champion else 0, games)
            there = self._stages.games(key)
            self._memory.journal.record_data(key, there, moves_per_game=self._stages.rows_per_game(key))
            self._memory.monitor.record_data_update(key, there)
            self._say(
                f"{key}: {games:,} games of {champion.id if champion else 'an untrained network'}, {there:,} in all"
            )
        except TamenError as error:
            self._say(f"{key}: no games: {error.what}: {error.why}")
        finally:
            lock.release()

    def _train(self, key: Key, reason: str) -> Result | None:
        """Train a key, unless another does so or as many are trained as may be."""
        if key not in self._keys or self._should_stop():
            return None
        lock = self._memory.lock(lock_of(key))
        if not lock.acquire(timeout_seconds=0):
            self._say(f"{key}: another trains it")
            return None
        try:
            return self._train_under(lock, key, reason)
        finally:
            lock.release()

    def _train_under(self, lock: Lock, key: Key, reason: str) -> Result | None:
        memory, most = self._memory, self._config.triggers.max_concurrent
        owner = f"{lock.token.number}"
        if not memory.journal.start_training(key, owner=owner, most=most, now=self._clock()):
            return None
        training = memory.trainings.begin(key, lock.token, reason=reason)
        run = f"training-{training.number}"
        memory.monitor.record_training_start(key, run)
        self._say(f"{key}: training {training.number}, for {training.reason}")
        failure: TamenError | None = None
        with self._beating(key, owner):
            try:
                message, model_id, promoted = self._all_stages(lock, training)
            except TamenError as error:
                failure = error
                message, model_id, promoted = f"{error.what}: {error.why}", None, False
            except Exception:  # it was asked to stop, and is gone on with by whoever comes next
                memory.monitor.record_training_pause(key, run)
                raise
        # In this order: a kill in between leaves a training that is gone on with, and not games that look new.
        memory.journal.end_training(key, owner=owner, success=failure is None, now=self._clock())
        memory.monitor.record_training_complete(key, success=failure is None, run=run, reason=message)
        if not lock.lost:
            training = memory.trainings.end(training, lock.token, success=failure is None, message=message)
        self._say(f"{key}: {message}")
        return Result(key, failure is None, training.seconds, model_id, promoted, message)

    def _all_stages(self, lock: Lock, training: Training) -> tuple[str, str, bool]:
        """Do what is left of a training; return what came of it, the model, and whether it is champion."""
        key, trainings, registry = training.key, self._memory.trainings, self._memory.registry
        games = self._stages.games(key)
        settings = export_settings(
            key.game,
            games,
            self._config.export,
            moves_per_game=self._stages.rows_per_game(key),
        )

        def once(stage: str, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
            return trainings.once(training, lock.token, stage, work)

        def parent_of() -> dict[str, Any]:
            champion = None if self._config.autopilot.begin_anew else self._champion(key)
            return {"id": champion and champion.id}

        def register() -> dict[str, Any]:
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
        exported = once("export", lambda: self._stages.export(key, settings))
        parent_file = registry.get(parent["id"]).file if parent["id"] else None
        fitted = once("fit", lambda: self._stages.fit(key, training.number, parent_file, settings))
        model_id = once("register", register)["id"]
        self._memory.journal.record_models(key, len(registry.models(key)))
        judged = once("evaluate", lambda: self._evaluate(key, model_id))
        promoted = registry.alias(key, "champion") == model_id
        return f"{model_id}: {judged['why']}", model_id, promoted

    def _evaluate(self, key: Key, model_id: str) -> dict[str, Any]:
        """Let a candidate meet the champion and the ladder until that is decided, and settle it."""
        registry = self._memory.registry
        promoter = Promoter(registry, self._rules(), WHO)
        promoter.propose(model_id, "it was trained")
        while True:
            try:
                while (decision := promoter.decide(model_id)).next_pairs:
                    for opponent, pairs in decision.next_pairs.items():
                        self._meet(key, model_id, opponent, pairs)
                elo = promoter.rate(model_id)
                decision = promoter.settle(model_id)
            except AliasMovedError:
                continue  # another champion was made meanwhile, whom it has to meet
            told = (
                f"{decision.why}; Elo {elo.rating:+.0f} ({elo.low:+.0f} to {elo.high:+.0f})"
                if elo
                else decision.why
            )
            return {"why": told, "verdict": decision.verdict, "elo": elo and elo.rating}

    def _meet(self, key: Key, model_id: str, opponent: str, pairs: int) -> None:
        """Play some pairs more, and write down how they ended."""
        registry, seed = self._memory.registry, self._config.autopilot.seed
        before = registry.next_pair(model_id, opponent, seed)
        model = registry.get(model_id)
        against = registry.get(opponent).file if opponent.startswith(f"{key}-v") else opponent
        played = self._stages.meet(key, model.file, against, pairs=pairs, first_pair=before)
        counts, now = PairCounts.of_scores(played["pair_scores"]), self._clock()
        if not counts.pairs:
            raise EvaluationError(
                f"{model_id} could not be compared with {opponent}",
                why=f"all of {pairs} pairs of games were set aside, for evaluations failed",
                fix="see the key's log.txt",
            )
        aside = pairs - counts.pairs
        registry.record(
            Match(model_id, opponent, counts, played["draws"], seed, before, now, set_aside=aside)
        )
        if opponent.startswith(f"{key}-v"):
            games, draws = 2 * counts.pairs, played["draws"]
            wins = round(2 * counts.points - draws / 2)
            result = MatchResult(
                now, wins=wins, draws=draws, losses=games - wins - draws, elo=self._elo(key, model_id)
            )
            self._memory.journal.record_result(key, result, match=f"{model_id}:{opponent}:{before}")
            self._memory.monitor.record_win_rate(key, counts.score)

    def _elo(self, key: Key, model_id: str) -> float | None:
        """Return what is known of a model's rating by now."""
        elo = Promoter(self._memory.registry, self._rules(), WHO).rate(model_id)
        return elo and elo.rating

    def _rules(self) -> PromotionRules:
        settings = self._config.autopilot
        return PromotionRules(
            test=Sprt(0.0, settings.elo_gain, settings.error, settings.error),
            ladder=tuple(Rung(opponent, settings.ladder_score) for opponent in settings.ladder),
            alpha=settings.error,
            min_pairs=settings.min_pairs,
            max_pairs=settings.max_pairs,
        )

    def _champion(self, key: Key) -> Any:
        name = self._memory.registry.alias(key, "champion")
        return None if name is None else self._memory.registry.get(name)

    @contextmanager
    def _beating(self, key: Key, owner: str) -> Iterator[None]:
        """Tell the journal from a thread that the training goes on, while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                self._memory.journal.beat(key, owner=owner, now=self._clock())

        thread = threading.Thread(target=beat, name=f"beat {key}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(2 * BEAT_SECONDS)
