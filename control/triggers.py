"""When a key is trained: three signals, and a limit on how many are trained at a time.

Everything here is a pure function of what is known and of the time that is passed in, in seconds since 1970. What is
dated after that time counts as of it, and is said.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from configs.control import TriggersConfig
from control.curriculum import SKEW_SECONDS, KeyFacts, age_seconds, checked_number
from control.keys import Key

Signal: TypeAlias = Literal["data_freshness", "model_staleness", "performance_regression"]
Rule: TypeAlias = Literal[
    "training",
    "interval",
    "bootstrap",
    "data_freshness",
    "model_staleness",
    "performance_regression",
    "none",
    "limit",
]

Ruling: TypeAlias = tuple[bool, Rule, str]
"""Whether a key is trained, by which rule, and why in words."""

SIGNALS: tuple[Signal, ...] = ("data_freshness", "model_staleness", "performance_regression")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key has to reach at present.

    Attributes:
        freshness_games: how many new games are enough.
        interval_seconds: how long to wait after the last attempt.
        wait_seconds: how much of it is left.
        win_rate_below: the win rate regresses if it is below this; None while it is not known.
    """

    freshness_games: int
    interval_seconds: float
    wait_seconds: float
    win_rate_below: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a key is trained, and why.

    Attributes:
        should_train: now.
        rule: the one that decided; "limit" where another wanted it, but as many are trained as may be.
        reason: in words, with the numbers.
        priority: beside other keys.
        signal_scores: of each signal, in 0-1.
        notes: what is odd about what is known.
    """

    should_train: bool
    rule: Rule
    reason: str
    priority: float
    signal_scores: Mapping[Signal, float]
    limits: Limits
    notes: tuple[str, ...] = ()


def decide(facts: KeyFacts, settings: TriggersConfig, *, now: float, training: bool = False) -> Decision:
    """Return whether a key is trained, as if it were the only one.

    Args:
        training: it is being trained already.

    Raises:
        UsageError: when `now` is no time. Facts that are none cannot be made.
    """
    checked_number("now", now)
    limits = _limits(facts, settings, now)
    scores = _scores(facts, settings, limits, now)
    should, rule, reason = (
        _hindrance(facts, limits, training=training)
        or _first_model(facts, settings)
        or _signal(facts, settings, scores, limits)
    )
    weights = (settings.freshness_weight, settings.staleness_weight, settings.regression_weight)
    summed = sum(weight * scores[signal] for weight, signal in zip(weights, SIGNALS, strict=True))
    bootstraps = facts.models == 0 and facts.new_games >= settings.bootstrap_games
    return Decision(
        should_train=should,
        rule=rule,
        reason=reason,
        priority=settings.bootstrap_priority if bootstraps else summed,
        signal_scores=scores,
        limits=limits,
        notes=_notes(facts, now),
    )


def decide_all(
    facts: Mapping[Key, KeyFacts], running: Collection[Key], settings: TriggersConfig, *, now: float
) -> dict[Key, Decision]:
    """Return a decision for each key, so that no more than `max_concurrent` are trained, those of `running` included.

    Those of the greatest priority go first, of equal ones who waited longest since it was trained, then the first by
    name. Others have the rule "limit", and wait for a place.
    """
    busy = set(running)
    decisions = {key: decide(known, settings, now=now, training=key in busy) for key, known in facts.items()}
    free = max(0, settings.max_concurrent - len(busy))
    wanting = sorted(
        (key for key, decision in decisions.items() if decision.should_train),
        key=lambda key: (-decisions[key].priority, _last_trained(facts[key]), key),
    )
    ahead = sorted(map(str, {*busy, *wanting[:free]}))
    taken = ", ".join(ahead[:3]) + (" …" if len(ahead) > 3 else "")
    for place, key in enumerate(wanting[free:], start=1):
        waits = f"but max_concurrent={settings.max_concurrent} are taken by {taken}; it is number {place} of who waits"
        decision = decisions[key]
        decisions[key] = replace(
            decision, should_train=False, rule="limit", reason=f"{decision.reason}; {waits}"
        )
    return decisions


def _limits(facts: KeyFacts, settings: TriggersConfig, now: float) -> Limits:
    interval = _interval_seconds(facts, settings)
    return Limits(
        _enough_games(facts, settings),
        interval,
        _wait_seconds(facts, interval, now),
        _regression_bound(facts, settings),
    )


def _scores(facts: KeyFacts, settings: TriggersConfig, limits: Limits, now: float) -> dict[Signal, float]:
    """Return the three scores; a key that was never trained is as stale as can be."""
    age, rate = age_seconds(facts.last_trained, now), facts.recent.win_rate
    return {
        "data_freshness": min(1.0, facts.new_games / limits.freshness_games),
        "model_staleness": 1.0 if age is None else min(1.0, age / (3600 * settings.staleness_hours)),
        "performance_regression": 0.0 if rate is None else max(0.0, 1.0 - rate / settings.min_win_rate),
    }


def _hindrance(facts: KeyFacts, limits: Limits, *, training: bool) -> Ruling | None:
    if training:
        return False, "training", "it is being trained"
    if limits.wait_seconds > 0:
        left, interval = _time(limits.wait_seconds), _time(limits.interval_seconds)
        after = f" after {facts.failures} failures" if facts.failures else ""
        return False, "interval", f"{left} are left of the {interval} between trainings{after}"
    return None


def _first_model(facts: KeyFacts, settings: TriggersConfig) -> Ruling | None:
    new, needed = facts.new_games, settings.bootstrap_games
    if facts.models > 0:
        return None
    if new < needed:
        return False, "none", f"there is no model yet, and {new:,} new games of {needed:,}"
    return True, "bootstrap", f"there is no model, and {new:,} new games are at least {needed:,}"


def _signal(
    facts: KeyFacts, settings: TriggersConfig, scores: Mapping[Signal, float], limits: Limits
) -> Ruling:
    """Return the first of the signals that is reason enough for another model."""
    new, enough, rate, bound = (
        facts.new_games,
        limits.freshness_games,
        facts.recent.win_rate,
        limits.win_rate_below,
    )
    fresh = scores["data_freshness"]
    if fresh >= 1:
        climbing = "" if enough == settings.freshness_games else f", while Elo is {facts.recent.momentum}"
        return True, "data_freshness", f"{new:,} new games are at least {enough:,}{climbing}"
    if scores["model_staleness"] >= 1 and fresh >= settings.stale_freshness:
        old = (
            "it was never trained"
            if facts.last_trained is None
            else f"it is {settings.staleness_hours:g} h old"
        )
        return True, "model_staleness", f"{old}, and {new:,} new games are there"
    if bound is not None and rate is not None and rate < bound and fresh >= settings.regressed_freshness:
        return (
            True,
            "performance_regression",
            f"a win rate of {rate:.1%} in {facts.recent.games:,} games is below {bound:.1%},"
            f" {settings.win_rate_sigmas:g} deviations under {settings.min_win_rate:.0%}; {new:,} new games",
        )
    return False, "none", f"{new:,} new games of {enough:,}, and neither age nor win rate is reason enough"


def _enough_games(facts: KeyFacts, settings: TriggersConfig) -> int:
    """Return how many new games are enough: fewer while Elo climbs, as what is learnt then is soon out of date."""
    share = {
        "accelerating": settings.accelerating_share,
        "improving": settings.improving_share,
        "stable": settings.stable_share,
    }.get(facts.recent.momentum, 1.0)
    return max(1, round(settings.freshness_games * share))


def _regression_bound(facts: KeyFacts, settings: TriggersConfig) -> float | None:
    """Return below which win rate so many games say that the true one is below `min_win_rate`.

    The standard deviation is the largest that games with that win rate can have, as without draws.
    """
    if facts.recent.win_rate is None or facts.recent.weight <= 0:
        return None
    least = settings.min_win_rate
    deviation = math.sqrt(least * (1 - least) / facts.recent.weight)
    return max(0.0, least - settings.win_rate_sigmas * deviation)


def _interval_seconds(facts: KeyFacts, settings: TriggersConfig) -> float:
    """Return how long to wait after an attempt: who fails again and again would keep others from their place."""
    doubled = settings.min_interval_minutes * 2.0 ** min(facts.failures, 64)
    return 60 * min(doubled, settings.longest_interval_minutes)


def _wait_seconds(facts: KeyFacts, interval: float, now: float) -> float:
    """Return how much of the interval is left.

    An attempt that is dated further ahead than the interval is long says nothing: a clock that was once a year ahead
    would stop all training for a year.
    """
    if facts.last_attempt is None or facts.last_attempt - now > interval:
        return 0.0
    return max(0.0, interval - max(0.0, now - facts.last_attempt))


def _notes(facts: KeyFacts, now: float) -> tuple[str, ...]:
    notes = list(facts.recent.notes)
    for name, then in (("training that succeeded", facts.last_trained), ("attempt", facts.last_attempt)):
        if then is not None and then - now > SKEW_SECONDS:
            notes.append(f"the last {name} is dated {_time(then - now)} ahead; it counts as of now")
    if facts.games_trained_on > facts.games:
        notes.append(f"{facts.games_trained_on - facts.games:,} of the games trained on are gone")
    return tuple(notes)


def _last_trained(facts: KeyFacts) -> float:
    return -math.inf if facts.last_trained is None else facts.last_trained


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
