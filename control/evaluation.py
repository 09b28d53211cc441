"""How strong a model is: candidates meet champion and ladder, and champions meet the one before them again.

What is decided stands in `control.promotion` and `control.rollback`; here the games are played that it is decided by,
and what came of them is noted. Every match is in the registry as soon as it is played, so whoever is killed in between
goes on from there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.autopilot import ControlConfig
from control.curriculum import MatchResult
from control.health import HealthMonitor
from control.journal import Journal
from control.keys import Key
from control.locks import not_held
from control.model_cards import Elo, Match
from control.promotion import Decision, Promoter, PromotionRules
from control.registry import ModelRegistry
from control.registry_tables import AliasMovedError
from control.rollback import RollbackRules
from control.sequential import PairCounts
from core.errors import EvaluationError

WHO = "autopilot"


class Matches(Protocol):
    """How games between models are played.

    Attributes:
        lost: whether the key's lock is another's by now, and the work has to end.
    """

    lost: Callable[[], bool]

    def meet(
        self, key: Key, model: Path, opponent: str | Path, *, pairs: int, first_pair: int
    ) -> Mapping[str, Any]:
        """Play pairs of games; return {"draws", "pair_scores"} in the eyes of the model, plain JSON."""
        ...


class Evaluation:
    """Compares models of keys, each under the lock of its key's training.

    Args:
        config: by what it is decided, and under which conditions is played.
        registry, journal, monitor: where is noted what came of it.
        matches: how games are played.
        clock: seconds since 1970.

    Raises:
        UsageError: when the settings of promotion do not go together.
    """

    def __init__(
        self,
        config: ControlConfig,
        registry: ModelRegistry,
        journal: Journal,
        monitor: HealthMonitor,
        matches: Matches,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._registry = registry
        self._journal = journal
        self._monitor = monitor
        self._matches = matches
        self._clock = clock
        self._conditions = config.autopilot.conditions
        self._promoter = Promoter(registry, PromotionRules.of(config.promotion), WHO, self._conditions)
        self._rollback = RollbackRules.of(config.promotion)
        self._tried: dict[Key, float] = {}

    def settle(self, key: Key, candidate: str) -> dict[str, Any]:
        """Let a candidate meet the champion and the ladder until it is decided, and settle it.

        Returns:
            {"why", "verdict", "elo"}, plain JSON.

        Raises:
            EvaluationError: when no games come to an end.
            LockLostError: when the lock is another's by now.
        """
        promoter = self._promoter
        while True:
            try:
                promoter.propose(candidate, "it was trained")
                while (decision := promoter.decide(candidate)).next_pairs:
                    for opponent, pairs in decision.next_pairs.items():
                        self._meet(key, candidate, opponent, pairs)
                self.check_held()
                open_still = self._registry.find(candidate).stage in ("development", "staging")
                elo = promoter.rate(candidate) if open_still else promoter.estimate(candidate)
                # Before it is settled: who is champion afterwards is not the one that it has met.
                self._note(key, decision, elo)
                decision = promoter.settle(candidate)
                if not decision.next_pairs:
                    break  # else another champion was made meanwhile
            except AliasMovedError:
                continue  # another champion was made meanwhile, whom it has to meet
        rated = f"; Elo {elo.rating:+.0f} ({elo.low:+.0f} to {elo.high:+.0f})" if elo else ""
        return {"why": decision.why + rated, "verdict": decision.verdict, "elo": elo and elo.rating}

    def is_due(self, key: Key) -> bool:
        """Say whether the champion of a key is to be watched: it last played long ago, and there is one before it."""
        minutes, now = self._config.promotion.watch_minutes, self._clock()
        champion = self._registry.alias(key, "champion")
        if minutes is None or champion is None or self._registry.champion_before(key) is None:
            return False
        played = [match.played_at for match in self._registry.matches(champion)]
        # What a clock that went wrong dated ahead must not keep a champion from being watched until then.
        last = max((at for at in (*played, self._tried.get(key, 0.0)) if at <= now), default=0.0)
        return now - last >= 60 * minutes

    def watch(self, key: Key) -> str:
        """Let a champion meet the one before it and the ladder again, and roll it back if that is called for.

        Returns:
            What came of it, in a line.

        Raises:
            EvaluationError, LockLostError: as `settle` does.
            AliasMovedError: when another champion was made meanwhile.
        """
        registry, config = self._registry, self._config.promotion
        self._tried[key] = self._clock()  # one that fails is not tried each round
        champion, before = registry.alias(key, "champion"), registry.champion_before(key)
        if champion is None or before is None:
            return "there is no champion with one before it"
        met = {
            opponent: self._meet(key, champion, opponent, config.watch_pairs).pairs
            for opponent in (before, *config.ladder)
        }
        self.check_held()
        elo = self._promoter.rate(champion, met)
        regression = self._promoter.watch(key, self._rollback)
        if regression.verdict == "roll back":
            newest = registry.matches(champion, before)[-1]
            self._journal.record_result(key, self._result([newest], elo))
            self._monitor.record_win_rate(key, newest.pairs.score)
            return f"{champion} gives way to {before}, {regression.why}"
        return f"{champion} has met {before} again, {regression.why}"

    def check_held(self) -> None:
        """Raise LockLostError when the work is another's by now: what the registry is told next is not fenced."""
        if self._matches.lost():
            raise not_held("the lock of this training")

    def _note(self, key: Key, decision: Decision, elo: Elo | None) -> None:
        """Note how a candidate did against the champion, once, however often it is decided."""
        candidate, champion = decision.candidate, decision.champion
        if champion is None or champion == candidate:
            return
        matches = self._registry.matches(candidate, champion, conditions=self._conditions)
        if any(match.games for match in matches):
            result = self._result(matches, elo)
            self._journal.record_result(key, result, match=f"{candidate} against {champion}")
            self._monitor.record_win_rate(key, result.score / result.games)

    def _result(self, matches: list[Match], elo: Elo | None) -> MatchResult:
        wins, draws = sum(match.wins for match in matches), sum(match.draws for match in matches)
        losses = sum(match.losses for match in matches)
        return MatchResult(self._clock(), wins, draws, losses, elo and elo.rating)

    def _meet(self, key: Key, model_id: str, opponent: str, pairs: int) -> Match:
        """Play some pairs more, whose openings are new to the two, and write down how they ended."""
        registry, seed = self._registry, self._config.autopilot.seed
        first = registry.next_pair(model_id, opponent, seed, self._conditions)
        model = registry.get(model_id)
        against = registry.get(opponent).file if opponent.startswith(f"{key}-v") else opponent
        played = self._matches.meet(key, model.file, against, pairs=pairs, first_pair=first)
        self.check_held()
        counts = PairCounts.of_scores(played["pair_scores"])
        if not counts.pairs:
            raise EvaluationError(
                f"{model_id} could not be compared with {opponent}",
                why=f"all of {pairs} pairs of games were set aside, for evaluations failed",
                fix="see the key's log.txt",
            )
        match = Match(
            model_id,
            opponent,
            counts,
            played["draws"],
            self._conditions,
            seed,
            first,
            self._clock(),
            set_aside=pairs - counts.pairs,
        )
        registry.record(match)
        return match
