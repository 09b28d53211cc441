"""From the counters of all parts at two moments to one picture of the run."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.monitoring.exporter import PERSISTENT
from cluster.monitoring.faults import Faults
from cluster.monitoring.lag import LagWatch
from cluster.monitoring.snapshot import (
    ActorsPart,
    Event,
    GamesPart,
    InferencePart,
    LearnerPart,
    ReplayPart,
    RolloutPart,
    Score,
    Snapshot,
)
from configs.schema import RunConfig

Stats = Mapping[str, Mapping[str, Any]]
"""By part ("actor-0"), its counters by name. A part that restarted counts from zero again."""

WINDOW_SECONDS = 10.0
EVENTS_KEPT = 5
TROUBLES = ("skipped_checkpoints", "checkpoint_trouble", "last_refusal", "damaged", "trouble")
"""What a part's stats say in words when something went wrong, and leave empty otherwise."""


class Observer:
    """Keeps the last seconds of counters, and tells how the run stands.

    Args:
        run: its name.
        config: of the run.
        evaluations_file: where the evaluator writes its results; None where nobody evaluates.
    """

    def __init__(self, run: str, config: RunConfig, *, evaluations_file: Path | None = None) -> None:
        self._run = run
        self._config = config
        self._evaluations_file = evaluations_file
        self._moments: deque[tuple[float, Stats]] = deque()
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._also_tell: Callable[[str], None] = lambda text: None
        self._troubles: dict[tuple[str, str], str] = {}
        self._faults = Faults()
        self._lag = LagWatch(config.learner.max_lag_versions)
        self._now = 0.0

    def note(self, text: str) -> None:
        """Remember something a person should know; lines after the first (a traceback) are for the log alone."""
        self._events.append(Event(self._now, text.partition("\n")[0]))
        self._also_tell(text)

    def log_to(self, write: Callable[[str], None]) -> None:
        """From now on let `write` have every note too, at once: the next picture may never be taken."""
        self._also_tell = write

    def take(self, stats: Stats, *, elapsed_seconds: float, last_board: str | None = None) -> Snapshot:
        """Return the picture at `elapsed_seconds` since this life of the run began."""
        self._now = elapsed_seconds
        self._moments.append((elapsed_seconds, stats))
        while len(self._moments) > 2 and self._moments[1][0] <= elapsed_seconds - WINDOW_SECONDS:
            self._moments.popleft()
        self._note_troubles(stats)
        faults = self._faults.take(stats)
        if told := self._faults.note(elapsed_seconds):
            self.note(told)
        for told in self._lag.take(stats, elapsed_seconds):
            self.note(told)
        replay, learner = stats.get("replay", {}), stats.get("learner", {})
        stop, remaining = self._stop(elapsed_seconds, replay, learner)
        evaluations = newest_evaluations(self._evaluations_file)
        return Snapshot(
            run=self._run,
            game=self._config.game,
            elapsed_seconds=elapsed_seconds,
            remaining_seconds=remaining,
            stop=stop,
            games=self._games(replay, last_board),
            rollout=self._rollout(replay, learner, evaluations) if self._config.environment else None,
            actors=self._actors(),
            inference=self._inference(),
            learner=self._learner(learner),
            replay=ReplayPart(
                rows=replay.get("rows"),
                window_rows=replay.get("window_rows"),
                capacity_rows=self._config.replay.capacity_rows,
                samples_per_insert=replay.get("samples_per_insert"),
            ),
            faults=faults,
            ends=self._faults.ends(stats),
            strength=evaluations.get("strength"),
            perfect_share=evaluations.get("perfect_share"),
            events=tuple(self._events),
        )

    def _note_troubles(self, stats: Stats) -> None:
        # A part that has left does not come back, and no other is given its name.
        self._troubles = {seen: trouble for seen, trouble in self._troubles.items() if seen[0] in stats}
        for part, counters in stats.items():
            for name in TROUBLES:
                trouble = " ".join(str(counters.get(name, "")).split())
                if trouble and trouble != self._troubles.get((part, name)):
                    self.note(f"{part}: {trouble}")
                self._troubles[part, name] = trouble

    def _games(self, replay: Mapping[str, Any], last_board: str | None) -> GamesPart:
        games, plies = self._growth("actor", "games"), self._growth("actor", "plies")
        rate = self._rate("replay", "games")
        return GamesPart(
            played=replay.get("games"),
            per_hour=None if rate is None else rate * 3600,
            mean_plies=plies / games if games and plies else None,
            last_board=last_board,
        )

    def _rollout(
        self, replay: Mapping[str, Any], learner: Mapping[str, Any], evaluations: Mapping[str, Any]
    ) -> RolloutPart:
        evaluated = evaluations.get("returned", {})
        return RolloutPart(
            steps_per_second=self._rate("actor", "moves"),
            training_return=replay.get("mean_return"),
            evaluated_return=evaluated.get("mean_return"),
            low=evaluated.get("low"),
            high=evaluated.get("high"),
            policy_entropy=learner.get("policy_entropy"),
            kl=learner.get("kl"),
            clip_share=learner.get("clip_share"),
            ratio_error=learner.get("ratio_error"),
        )

    def _actors(self) -> ActorsPart:
        def share(name: str) -> float | None:
            rate = self._rate("actor", f"{name}_seconds")
            return None if rate is None else min(1.0, rate / max(1, self._count("actor")))

        return ActorsPart(
            search_share=share("search"),
            wait_share=share("wait"),
            deliver_share=share("deliver"),
            held_back_share=share("held_back"),
        )

    def _inference(self) -> InferencePart:
        rows, batches = self._growth("inference", "rows"), self._growth("inference", "batches")
        busy, cached = self._rate("inference", "busy_seconds"), self._growth("inference", "cached_rows")
        answered, failed = self._growth("inference", "requests"), self._growth("inference", "failed_requests")
        asked = (answered or 0) + (failed or 0)
        return InferencePart(
            positions_per_second=self._rate("inference", "rows"),
            mean_batch_rows=rows / batches if rows and batches else None,
            busy_ratio=None if busy is None else min(1.0, busy / max(1, self._count("inference"))),
            cache_hit_ratio=cached / rows if rows and cached is not None else None,
            failure_ratio=failed / asked if asked and failed is not None else None,
        )

    def _learner(self, learner: Mapping[str, Any]) -> LearnerPart:
        return LearnerPart(
            steps=learner.get("learner_steps"),
            steps_per_second=self._rate("learner", "learner_steps"),
            data_wait_ratio=learner.get("data_wait_ratio"),
            policy_loss=learner.get("policy_loss"),
            value_loss=learner.get("value_loss"),
            lag_versions=learner.get("policy_lag_versions"),
            newest_version=learner.get("version"),
            rows_too_old=learner.get("rows_too_old"),
        )

    def _stop(
        self, elapsed: float, replay: Mapping[str, Any], learner: Mapping[str, Any]
    ) -> tuple[str, float | None]:
        """Return the nearest stop bound in words and the seconds until it, as far as both can be told."""
        stop, bounds = self._config.stop, []
        if stop.minutes is not None:
            bounds.append((stop.minutes * 60 - elapsed, f"{stop.minutes:g} min"))
        for bound, unit, part, name in (
            (stop.games, "games", "replay", "games"),
            (stop.learner_steps, "steps", "learner", "learner_steps"),
        ):
            rate = self._rate(part, name)
            if bound is not None:
                left = bound - (replay if part == "replay" else learner).get(name, 0)
                bounds.append((left / rate if rate else float("inf"), f"{bound:,} {unit}"))
        if not bounds:
            return "", None
        seconds, words = min(bounds)
        return words, max(0.0, seconds) if seconds != float("inf") else None

    def _count(self, role: str) -> int:
        return sum(_is(part, role) for part in self._moments[-1][1])

    def _growth(self, role: str, name: str) -> float | None:
        """Return by how much a counter grew within the window, summed over a role; None when it cannot be told."""
        (_, before), (_, now) = self._moments[0], self._moments[-1]
        counting = [part for part in now if _is(part, role) and name in now[part]]
        if len(self._moments) < 2 or not counting:
            return None
        total = 0.0
        for part in counting:
            counter, earlier = now[part][name], before.get(part, {}).get(name, 0)
            # A counter below its earlier value belongs to a part that restarted in between.
            restarted = counter < earlier and (role, name) not in PERSISTENT
            total += max(0, counter - (0 if restarted else earlier))
        return total

    def _rate(self, role: str, name: str) -> float | None:
        growth = self._growth(role, name)
        return None if growth is None else growth / max(1e-9, self._moments[-1][0] - self._moments[0][0])


def newest_evaluations(path: Path | None) -> dict[str, Any]:
    """Return what was measured last: "strength", the score against each opponent, weakest first as they are played,
    "perfect_share" by the solver, and "returned", the line of an environment's episodes; those that were.
    """
    if path is None or not path.exists():
        return {}
    strength: dict[str, Score] = {}
    perfect: float | None = None
    returned: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that is being written
        if "opponent" in result:
            strength[result["opponent"]] = Score(result["score"], result["low"], result["high"])
        perfect = result.get("perfect_share", perfect)
        returned = result if "mean_return" in result else returned
    found = {"strength": strength or None, "perfect_share": perfect}
    return found | {"returned": returned} if returned else found


def _is(part: str, role: str) -> bool:
    return part == role or part.startswith(f"{role}-")
