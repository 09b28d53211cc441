"""Whether a candidate becomes champion: it meets the champion and a fixed ladder, and every number is told.

What decides are counts of pairs of games that were played elsewhere. The champion is met in a sequential test or by
Wilson's bound (`control.sequential`), each rung of the ladder by Wilson's bound. A tier asks for more: a share of the
points, a number of games, a gain of Elo. What is not known never passes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from configs.promotion import PromotionConfig
from control.keys import Key, parse_key
from control.model_cards import Elo
from control.registry import ModelRegistry
from control.rollback import Regression, RollbackRules, judge_regression
from control.sequential import (
    PairCounts,
    Sprt,
    Verdict,
    WilsonBound,
    check_range,
    elo_of_meetings,
    planned_looks,
)
from core.errors import UsageError

_ORDER: tuple[Verdict, ...] = ("reject", "play on", "accept")
RANDOM = "random"
"""The player whose Elo is 0."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What a candidate must show against the champion beside the test.

    Attributes:
        min_score: points per game, within (0, 1).
        min_games: at least 1.
        min_elo_gain: of its rating over the champion's.
    """

    min_score: float
    min_games: int
    min_elo_gain: float

    def __post_init__(self) -> None:
        check_range("min_score", self.min_score, 0.0, 1.0)
        check_range("min_games", self.min_games, 1, 10_000_000)
        check_range("min_elo_gain", self.min_elo_gain, 0.0, 1000.0, ends=True)


TIERS: Mapping[str, Tier] = MappingProxyType(
    {
        "D1": Tier(0.55, 50, 10.0),
        "D2": Tier(0.55, 50, 10.0),
        "D3": Tier(0.55, 75, 15.0),
        "D4": Tier(0.55, 100, 20.0),
        "D5": Tier(0.57, 100, 25.0),
        "D6": Tier(0.57, 150, 30.0),
        "D7": Tier(0.58, 150, 35.0),
        "D8": Tier(0.58, 200, 40.0),
        "D9": Tier(0.60, 200, 50.0),
    }
)
"""The higher, the harder, as the champion grows stronger and each step dearer."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A fixed opponent, and the points per game that a candidate must surely have against it.

    0.64 are 100 Elo.
    """

    opponent: str
    min_score: float = 0.5

    def __post_init__(self) -> None:
        check_range("min_score", self.min_score, 0.0, 1.0)
        if not self.opponent.strip():
            raise UsageError(
                "a rung of the ladder has no opponent", why="its name is empty", fix="name a player: random"
            )


@dataclass(frozen=True, slots=True)
class PromotionRules:
    """By what it is decided.

    Attributes:
        test: against the champion.
        ladder: who else is met.
        alpha: probability of an error on each side at each rung.
        min_pairs, max_pairs: of games against each opponent: not judged before, and not played on after. What is not
            shown then is rejected, so `beta` of the test holds only as far as it ends before: without draws or
            lopsided openings one who is `elo1` stronger needs 440 pairs on average with elo1=35, 1 in 20 needs 1,300;
            with elo1=60 they are 140 and 400.
        tier: what is asked for beside the test; None for nothing.

    Raises:
        UsageError: when a number is out of its range, or they do not fit together.
    """

    test: Sprt | WilsonBound = field(default_factory=Sprt)
    ladder: tuple[Rung, ...] = (Rung(RANDOM, 0.64),)
    alpha: float = 0.05
    min_pairs: int = 25
    max_pairs: int = 1000
    tier: Tier | None = None

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0.0, 0.5)
        check_range("max_pairs", self.max_pairs, 1, 1_000_000)
        check_range("min_pairs", self.min_pairs, 1, self.max_pairs)
        opponents = [rung.opponent for rung in self.ladder]
        if len(set(opponents)) < len(opponents):
            raise UsageError(
                f"the ladder has an opponent twice: {', '.join(opponents)}",
                why="one of the two would say nothing new",
                fix="leave one out",
            )
        if self.tier is not None and self.tier.min_games > 2 * self.max_pairs:
            raise UsageError(
                f"min_games={self.tier.min_games} of the tier can never be played",
                why=f"max_pairs={self.max_pairs} are {2 * self.max_pairs} games",
                fix=f"set max_pairs to at least {math.ceil(self.tier.min_games / 2)}",
            )

    @staticmethod
    def of(config: PromotionConfig) -> "PromotionRules":
        """Return those of the settings. Raises UsageError when their tier and numbers do not fit together."""
        sprt = Sprt(0.0, config.elo_gain, config.error, config.error)
        return PromotionRules(
            test=sprt if config.test == "sprt" else WilsonBound(config.min_score, config.error),
            ladder=tuple(Rung(opponent, config.ladder_score) for opponent in config.ladder),
            alpha=config.error,
            min_pairs=config.min_pairs,
            max_pairs=config.max_pairs,
            tier=None if config.tier is None else TIERS[config.tier],
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the games against one opponent come to.

    Attributes:
        next_pairs: to be played before it is judged again; 0 once it is decided.
        why: with every number.
    """

    opponent: str
    verdict: Verdict
    next_pairs: int
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a candidate.

    Attributes:
        candidate, champion: their ids; None when there is no champion yet.
        judgements: of the champion first, then of the ladder.
    """

    candidate: str
    champion: str | None
    verdict: Verdict
    judgements: tuple[Judgement, ...]

    @property
    def next_pairs(self) -> dict[str, int]:
        """How many pairs to play against whom, before it is asked again; nobody once it is decided."""
        if self.verdict != "play on":
            return {}
        return {one.opponent: one.next_pairs for one in self.judgements if one.next_pairs}

    @property
    def why(self) -> str:
        return f"{self.verdict}: " + "; ".join(one.why for one in self.judgements)


def judge(
    rules: PromotionRules,
    candidate: str,
    champion: str | None,
    meetings: Mapping[str, PairCounts],
    *,
    elo: Elo | None = None,
    champion_elo: Elo | None = None,
) -> Decision:
    """Decide by what was played so far.

    It is rejected as soon as one opponent says so, and accepted when all do. Without a champion the ladder decides.

    Args:
        meetings: pairs against each opponent, in the eyes of the candidate; who is not in it has not been met.
        elo, champion_elo: their ratings, for a tier.

    Raises:
        UsageError: when there is neither a champion nor a ladder.
    """
    if champion is None and not rules.ladder:
        raise UsageError(
            f"{candidate} cannot be judged",
            why="there is no champion yet, and the ladder is empty",
            fix="give a ladder, such as random with min_score=0.64",
        )
    judgements = []
    if champion is not None:
        met = meetings.get(champion, PairCounts())
        judged = _judge_champion(rules, champion, met)
        judgements.append(_with_tier(rules, judged, met, elo, champion_elo))
    for rung in rules.ladder:
        bound = WilsonBound(rung.min_score, rules.alpha)
        judgements.append(
            _judge_bound(rules, rung.opponent, bound, meetings.get(rung.opponent, PairCounts()))
        )
    verdicts = [one.verdict for one in judgements]
    verdict = min(verdicts, key=_ORDER.index)
    return Decision(candidate, champion, verdict, tuple(judgements))


def rating_of(meetings: Mapping[str, PairCounts], anchors: Mapping[str, float]) -> Elo | None:
    """Return what games against opponents of known Elo say, see `elo_of_meetings`; None when there are none."""
    found = elo_of_meetings(meetings, anchors)
    return None if found is None else Elo(found[0], found[1].low, found[1].high, found[2])


@dataclass(frozen=True, slots=True)
class Promoter:
    """Decides by what the registry holds of games under the present conditions, and writes the outcome there.

    Attributes:
        who: stands in the history.
        conditions: of the games that count, as `control.model_cards.Match` has them.
    """

    registry: ModelRegistry
    rules: PromotionRules
    who: str
    conditions: str

    def propose(self, candidate: str, why: str) -> None:
        """Make a model @candidate of its key, whoever is; one that has been decided on stays what it is."""
        model = self.registry.find(candidate)
        if model.stage in ("development", "staging"):
            before = self.registry.alias(parse_key(model.key), "candidate")
            self.registry.propose(model.id, expected=before, who=self.who, why=why)

    def decide(self, candidate: str) -> Decision:
        """Judge a candidate by its recorded games against the present champion and the ladder.

        Of who is champion, rejected or archived already that is repeated.
        """
        model = self.registry.find(candidate)
        champion = self.registry.alias(parse_key(model.key), "champion")
        if model.stage in ("production", "rejected", "archived"):
            verdict: Verdict = "accept" if model.stage == "production" else "reject"
            settled = Judgement(model.id, verdict, 0, f"{model.id} is in {model.stage} already")
            return Decision(model.id, champion, verdict, (settled,))
        rated = None if champion is None else self._elo(champion)
        met, elo = self.meetings(model.id), self.estimate(model.id)
        return judge(self.rules, model.id, champion, met, elo=elo, champion_elo=rated)

    def estimate(self, model_id: str, meetings: Mapping[str, PairCounts] | None = None) -> Elo | None:
        """Estimate the rating of a model from games against rated models and "random".

        The ratings of the others count as certain. None when it has met none of them.

        Args:
            meetings: pairs against each opponent; None: all that are recorded.
        """
        met = self.meetings(model_id) if meetings is None else meetings
        ids = {model.id: self._elo(model.id) for model in self.registry.models() if model.id in met}
        anchors = {opponent: elo.rating for opponent, elo in ids.items() if elo is not None}
        return rating_of(met, {RANDOM: 0.0, **anchors})

    def _elo(self, model_id: str) -> Elo | None:
        """Return a model's rating, under the present conditions if it has one."""
        own = [
            each.elo
            for each in self.registry.ratings(model_id)
            if each.conditions == self.conditions
            and each.stage != "production"  # those of watches are of few games
        ]
        return own[-1] if own else self.registry.find(model_id).elo

    def rate(self, model_id: str, meetings: Mapping[str, PairCounts] | None = None) -> Elo | None:
        """Write down what `estimate` returns, and return it."""
        elo = self.estimate(model_id, meetings)
        if elo is not None:
            self.registry.rate(model_id, elo, conditions=self.conditions)
        return elo

    def meetings(self, model_id: str) -> dict[str, PairCounts]:
        """Return all recorded pairs of a model under the present conditions, by opponent."""
        found: dict[str, PairCounts] = {}
        for match in self.registry.matches(model_id, conditions=self.conditions):
            found[match.opponent] = found.get(match.opponent, PairCounts()) + match.pairs
        return found

    def settle(self, candidate: str) -> Decision:
        """Judge a candidate; promote or reject it when that is decided. Repeated, it changes nothing more.

        Raises:
            AliasMovedError: when another champion was made meanwhile: the candidate has to meet that one.
        """
        decision = self.decide(candidate)
        done = self.registry.find(candidate).stage not in ("development", "staging")
        if decision.verdict == "accept" and not done:
            self.registry.promote(
                decision.candidate, expected=decision.champion, who=self.who, why=decision.why
            )
        elif decision.verdict == "reject" and not done:
            self.registry.set_stage(decision.candidate, "rejected", who=self.who, why=decision.why)
        return decision

    def watch(self, key: Key, rules: RollbackRules) -> Regression:
        """Judge the champion of a key by what it was rated and played as champion; roll back when it is to go.

        Raises:
            AliasMovedError: when another champion was made meanwhile.
        """
        registry, before = self.registry, self.registry.champion_before(key)
        champion = registry.alias(key, "champion")
        if champion is None:
            return Regression("unknown", f"unknown: {key} has no champion")
        if before is None:
            return Regression("keep", "keep, for there is none before it")
        rated = [each for each in registry.ratings(champion) if each.conditions == self.conditions]
        since = registry.matches(champion, before, conditions=self.conditions, stage="production")
        regression = judge_regression(
            rules,
            [each.elo for each in rated if each.stage == "production"],
            [match.pairs for match in since if match.pairs.pairs],
            baseline=next((each.elo for each in reversed(rated) if each.stage != "production"), None),
        )
        if regression.verdict == "roll back":
            registry.rollback(key, expected=champion, who=self.who, why=regression.why)
        return regression


def _judge_champion(rules: PromotionRules, champion: str, met: PairCounts) -> Judgement:
    if isinstance(rules.test, WilsonBound):
        return _judge_bound(rules, champion, rules.test, met)
    test = rules.test
    low, high = test.bounds
    told = (
        f"{_score(champion, met)}, log likelihood ratio {test.log_ratio(met):+.2f} of Elo {test.elo1:g} over"
        f" {test.elo0:g}, decided at {low:.2f} and {high:.2f}"
    )
    if met.pairs < rules.min_pairs:
        return _open(rules, champion, met, rules.min_pairs - met.pairs, told)
    verdict = test.verdict(met)
    if verdict != "play on":
        return Judgement(champion, verdict, 0, told)
    # No more than as many again, for what is missing is estimated from what was played; and not one by one.
    ahead = min(max(test.missing_pairs(met), math.ceil(rules.min_pairs / 4)), met.pairs)
    return _open(rules, champion, met, ahead, told)


def _judge_bound(rules: PromotionRules, opponent: str, bound: WilsonBound, met: PairCounts) -> Judgement:
    looks = planned_looks(rules.min_pairs, rules.max_pairs)
    low, high = bound.interval(met, first=rules.min_pairs, last=rules.max_pairs)
    told = (
        f"{_score(opponent, met)}, within {low:.1%} to {high:.1%} by one of {len(looks)} looks,"
        f" wanted above {bound.min_score:.1%}"
    )
    verdict = bound.verdict(met, first=rules.min_pairs, last=rules.max_pairs)
    if verdict != "play on":
        return Judgement(opponent, verdict, 0, told)
    ahead = next((look - met.pairs for look in looks if look > met.pairs), 0)
    return _open(rules, opponent, met, ahead, told)


def _open(rules: PromotionRules, opponent: str, met: PairCounts, ahead: int, told: str) -> Judgement:
    """Play on, or reject what is open when all pairs are played."""
    left = rules.max_pairs - met.pairs
    if left <= 0:
        return Judgement(opponent, "reject", 0, f"{told}, still open after all {rules.max_pairs} pairs")
    return Judgement(opponent, "play on", min(ahead, left), told)


def _with_tier(
    rules: PromotionRules, judged: Judgement, met: PairCounts, elo: Elo | None, champion_elo: Elo | None
) -> Judgement:
    tier = rules.tier
    if tier is None or judged.verdict != "accept":
        return judged
    games = 2 * met.pairs
    told = f"{judged.why}, of {tier.min_games} games by its tier"
    if games < tier.min_games:
        return Judgement(judged.opponent, "play on", math.ceil((tier.min_games - games) / 2), told)
    told += f" with {tier.min_score:.1%} and a gain of {tier.min_elo_gain:g} Elo"
    if elo is None or champion_elo is None:
        missing = " and ".join(
            name for name, rated in (("candidate", elo), ("champion", champion_elo)) if rated is None
        )
        return Judgement(judged.opponent, "reject", 0, f"{told}, but the {missing} has no Elo")
    gain = elo.rating - champion_elo.rating
    enough = met.score >= tier.min_score and gain >= tier.min_elo_gain
    told += f", where {elo.rating:+.0f} over {champion_elo.rating:+.0f} are {gain:+.0f}"
    return Judgement(judged.opponent, "accept" if enough else "reject", 0, told)


def _score(opponent: str, met: PairCounts) -> str:
    if not met.pairs:
        return f"{opponent} has not been met"
    return f"{met.score:.1%} against {opponent} in {met.pairs} pairs {'-'.join(map(str, met.counts))}"
