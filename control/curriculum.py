"""How often each key is played: what its recent results say, and self-play games in proportion to it.

A weight is 1 plus what applies, so it can be told line by line. Everything here is a pure function of what is known and
of the time that is passed in, in seconds since 1970. What is dated after that time counts as of it, and is said.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Literal, TypeAlias

from configs.control import CurriculumConfig, RecentConfig
from control.keys import Key
from core.errors import UsageError

Momentum: TypeAlias = Literal["accelerating", "improving", "stable", "plateau", "regressing", "unknown"]

HALF_LIVES = 10
"""A game older than so many half-lives weighs less than a thousandth, and is not looked at."""
SKEW_SECONDS = 1.0
"""Clocks of machines differ by less; so little ahead is not worth a word."""
_MOST = 2**63 - 1


def checked_number(name: str, value: float, *, whole: bool = False) -> None:
    """Raise UsageError unless `value` is a number from 0 to 2^63 - 1, as files hold; with `whole` an integer."""
    if isinstance(value, bool) or not 0 <= value <= _MOST or (whole and value != int(value)):
        raise UsageError(
            f"{name}={value} is not allowed",
            why=f"it must be a {'whole' if whole else 'finite'} number of at least 0 and at most 2^63 - 1",
            fix="look for where it was computed or recorded",
        )


@dataclass(frozen=True, slots=True)
class MatchResult:
    """Games of a key's newest model, from its view.

    Attributes:
        time: seconds since 1970.
        elo: rating of the model then, None when it was not rated.
    """

    time: float
    wins: int = 0
    draws: int = 0
    losses: int = 0
    elo: float | None = None

    def __post_init__(self) -> None:
        for name in ("wins", "draws", "losses"):
            checked_number(name, getattr(self, name), whole=True)
        if self.games == 0:
            raise UsageError(
                "a result without games", why="wins, draws and losses are 0", fix="record what was played"
            )
        checked_number("time", self.time)
        if self.elo is not None and not math.isfinite(self.elo):
            raise UsageError(f"elo={self.elo} is no rating", why="it must be finite", fix="leave it out")

    @property
    def games(self) -> int:
        return self.wins + self.draws + self.losses

    @property
    def score(self) -> float:
        """Wins, and draws by half."""
        return self.wins + 0.5 * self.draws


@dataclass(frozen=True, slots=True)
class Recent:
    """What recent results of a key come to.

    Attributes:
        games: how many, each counted once.
        weight: how many of this moment they are worth.
        win_rate: wins and half of the draws among them, by weight; None while they are too few.
        elo_trend: how much Elo rose from the older half of their weight to the newer, in points; None likewise.
        notes: what is odd about them.
    """

    games: int = 0
    weight: float = 0.0
    win_rate: float | None = None
    elo_trend: float | None = None
    momentum: Momentum = "unknown"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_number("games", self.games, whole=True)
        checked_number("weight", self.weight)
        if self.win_rate is not None and not 0.0 <= self.win_rate <= 1.0:
            raise UsageError(
                f"win_rate={self.win_rate} is no win rate",
                why="it must be between 0 and 1, or None when it is not known",
                fix="look for a match without games where it was computed",
            )
        if self.win_rate is not None and self.weight == 0:
            raise UsageError(
                f"win_rate={self.win_rate} of games without weight",
                why="it tells nothing without how much it is worth",
                fix="give the number of games as weight, if all are of this moment",
            )
        if self.elo_trend is not None and not math.isfinite(self.elo_trend):
            raise UsageError(
                f"elo_trend={self.elo_trend} is no trend", why="it must be finite", fix="leave it out"
            )


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of a key when something is decided on it.

    Attributes:
        games: of its data, ever.
        games_trained_on: as many as there were when the last training that succeeded began.
        models: how many it has.
        last_trained: when a training last succeeded, seconds since 1970; None: never.
        last_attempt: when one last began or ended, however.
        failures: in a row.
        moves_per_game: mean of the games, None while they were not counted.
    """

    games: int = 0
    games_trained_on: int = 0
    models: int = 0
    last_trained: float | None = None
    last_attempt: float | None = None
    failures: int = 0
    moves_per_game: float | None = None
    recent: Recent = Recent()

    def __post_init__(self) -> None:
        for name in ("games", "games_trained_on", "models", "failures"):
            checked_number(name, getattr(self, name), whole=True)
        for name in ("last_trained", "last_attempt", "moves_per_game"):
            if getattr(self, name) is not None:
                checked_number(name, getattr(self, name))

    @property
    def new_games(self) -> int:
        """Since the last training that succeeded; 0 when data was deleted since."""
        return max(0, self.games - self.games_trained_on)


@dataclass(frozen=True, slots=True)
class Factor:
    """One reason for a weight: what was found, what it was compared with, and what it adds."""

    name: str
    found: str
    rule: str
    adds: float


@dataclass(frozen=True, slots=True)
class Weight:
    """How often a key is played, beside keys of weight 1; `factors` are all that could apply, with 0 if they do not."""

    weight: float
    factors: tuple[Factor, ...]


def recent_results(results: Sequence[MatchResult], settings: RecentConfig, *, now: float) -> Recent:
    """Return what `results`, in any order, come to at `now`."""
    checked_number("now", now)
    half_life = 60.0 * settings.half_life_minutes
    ages = [max(0.0, now - result.time) for result in results]
    kept = sorted(
        ((age, result) for age, result in zip(ages, results, strict=True) if age <= HALF_LIVES * half_life),
        key=lambda each: -each[0],
    )
    weights = [result.games * 0.5 ** (age / half_life) for age, result in kept]
    total = sum(weights)
    score = sum(
        weight * result.score / result.games for weight, (_, result) in zip(weights, kept, strict=True)
    )
    ahead = max((result.time - now for result in results), default=0.0)
    trend = _elo_trend(
        [(weight, result) for weight, (_, result) in zip(weights, kept, strict=True)], settings
    )
    return Recent(
        games=sum(result.games for _, result in kept),
        weight=total,
        win_rate=min(1.0, score / total) if total >= settings.least_games else None,
        elo_trend=trend,
        momentum=_momentum(trend, settings),
        notes=(f"results are dated up to {ahead:.0f} s ahead; they count as of now",)
        if ahead > SKEW_SECONDS
        else (),
    )


def weigh(facts: KeyFacts, settings: CurriculumConfig, *, now: float) -> Weight:
    """Return how often a key is played, with every reason."""
    checked_number("now", now)
    factors = (*_of_win_rate(facts, settings), *_of_models(facts, settings, now), *_of_elo(facts, settings))
    weight = 1.0 + sum(factor.adds for factor in factors)
    return Weight(round(min(max(weight, settings.least_weight), settings.most_weight), 3), factors)


def shares(weights: Mapping[Key, float], games: int, *, least: int = 1) -> dict[Key, int]:
    """Return how many of `games` each key gets: in proportion to its weight, at least `least`, exactly `games` in all.

    What is left over by rounding down goes to the largest remainders (Hamilton's method), of equal ones to the heavier
    key and then to the first by name.

    Raises:
        UsageError: when a weight is not positive, or `games` are fewer than `least` for each.
    """
    checked_number("games", games, whole=True)
    checked_number("least", least, whole=True)
    for key, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise UsageError(
                f"{key} has the weight {weight}",
                why="a weight is positive and finite",
                fix="leave the key out",
            )
    if not weights or games < least * len(weights):
        raise UsageError(
            f"{games} games cannot be shared among {len(weights)} keys",
            why=f"each is to have {least} at least" if weights else "there is no key",
            fix=f"ask for {least * len(weights)} games, or give least=0" if weights else "give one",
        )
    # Fractions: floats would now and then round a quota below the whole number that it is.
    open_keys, left = {key: Fraction(weight) for key, weight in weights.items()}, games
    every = sum(open_keys.values())
    while short := [key for key, weight in open_keys.items() if left * weight < least * every]:
        for key in short:
            every -= open_keys.pop(key)
        left -= least * len(short)
    quotas = {key: left * weight / every for key, weight in open_keys.items()}
    given = {key: math.floor(quota) for key, quota in quotas.items()}
    first = sorted(quotas, key=lambda key: (given[key] - quotas[key], -open_keys[key], key))
    for key in first[: left - sum(given.values())]:
        given[key] += 1
    return {key: given.get(key, least) for key in weights}


def age_seconds(then: float | None, now: float) -> float | None:
    """Return how long ago `then` was; 0 when it is still to come, None when it never was."""
    return None if then is None else max(0.0, now - then)


def _elo_trend(rated: Sequence[tuple[float, MatchResult]], settings: RecentConfig) -> float | None:
    """Return the mean Elo of the newer half of the weight less that of the older; `rated` is in order of time.

    The result in the middle counts to both sides by the parts of its weight that lie there.
    """
    known = [(weight, result.elo, result.games) for weight, result in rated if result.elo is not None]
    if len(known) < 2 or sum(games for *_, games in known) < settings.trend_games:
        return None
    ends = list(accumulate(weight for weight, *_ in known))
    half = ends[-1] / 2
    middle = min(bisect_right(ends, half), len(known) - 1)
    before = half - (ends[middle] - known[middle][0])
    older = sum(weight * elo for weight, elo, _ in known[:middle]) + before * known[middle][1]
    newer = sum(weight * elo for weight, elo, _ in known) - older
    return (newer - older) / half if half > 0 else None


def _momentum(trend: float | None, settings: RecentConfig) -> Momentum:
    if trend is None:
        return "unknown"
    rising: tuple[tuple[float, Momentum], ...] = (
        (settings.accelerating_elo, "accelerating"),
        (settings.improving_elo, "improving"),
        (settings.stable_elo, "stable"),
    )
    for least, name in rising:
        if trend >= least:
            return name
    return "regressing" if trend <= -settings.stable_elo else "plateau"


def _of_win_rate(facts: KeyFacts, settings: CurriculumConfig) -> tuple[Factor, Factor]:
    rate = facts.recent.win_rate
    found = "unknown" if rate is None else f"{rate:.1%} of {facts.recent.games} games"
    low = rate is not None and rate < settings.low_win_rate
    high = rate is not None and rate > settings.high_win_rate
    below, above = f"below {settings.low_win_rate:.0%}", f"above {settings.high_win_rate:.0%}"
    return (
        Factor("low win rate", found, below, settings.low_win_rate_weight if low else 0.0),
        Factor("high win rate", found, above, -settings.high_win_rate_weight if high else 0.0),
    )


def _of_models(facts: KeyFacts, settings: CurriculumConfig, now: float) -> tuple[Factor, Factor]:
    """A key without a model is not stale as well: it has nothing that could be."""
    age = age_seconds(facts.last_trained, now)
    hours = math.inf if age is None else age / 3600
    stale = facts.models > 0 and hours > settings.stale_hours
    trained = "never trained" if age is None else f"trained {hours:.1f} h ago"
    rule = f"more than {settings.stale_hours:g} h, with a model"
    return (
        Factor(
            "no model",
            f"{facts.models} models",
            "0 models",
            0.0 if facts.models else settings.no_model_weight,
        ),
        Factor("stale", trained, rule, settings.stale_weight if stale else 0.0),
    )


def _of_elo(facts: KeyFacts, settings: CurriculumConfig) -> tuple[Factor, Factor]:
    trend, momentum = facts.recent.elo_trend, facts.recent.momentum
    found = "unknown" if trend is None else f"{trend:+.1f} Elo"
    falls = trend is not None and trend < -settings.regression_elo
    climbs = {"accelerating": settings.accelerating_weight, "improving": settings.improving_weight}
    rule = f"below {-settings.regression_elo:+g} Elo"
    return (
        Factor("Elo regression", found, rule, settings.regression_weight if falls else 0.0),
        Factor("momentum", momentum, "accelerating or improving", climbs.get(momentum, 0.0)),
    )
