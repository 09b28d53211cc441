"""Whether a champion gives way to the one before it.

Weights do not change, so a champion whose ratings fell has not become worse. It was promoted at the moment at which its
games said enough, and luck has a part in when that is: its rating then is too high on average, and that of one who is
no stronger much too high. Or a machine, or the luck of later games, made the difference. So a fall is a suspicion,
however it is measured, and the question is another one: is the one before stronger?

Only games of champion and the one before can answer that, with openings that had no part in the promotion. All of them
since then are put to a sequential test of "as strong as the one before" against "weaker by `max_elo_fall`", which may
be asked after every watch. A champion that is as strong is rolled back with a probability of about `error`, however
often it is watched, and nothing is lost by that. One that is stronger is so with error^(1 + 2 gain / max_elo_fall),
by Wald's approximation: 1 in 400 at 15 Elo, 1 in 160,000 at 45, with the defaults; that a fall must be suspected too
makes it rarer still.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from configs.promotion import PromotionConfig
from control.model_cards import Elo
from control.sequential import PairCounts, Sprt, check_range

Watch: TypeAlias = Literal["keep", "roll back", "unknown"]

EVEN = 0.5
"""The score against the one before that a champion must not miss: it was promoted for being stronger."""


@dataclass(frozen=True, slots=True)
class RollbackRules:
    """When a champion is suspected to be weaker than the one before it, and when that is shown.

    Attributes:
        max_elo_fall: of the mean of its last `last_ratings` ratings, if more than luck; and how much weaker it must be
            for the test to find it for sure.
        sharp_elo_fall: of each of the last `in_a_row` ratings.
        max_score_fall: of each of the last `in_a_row` scores against the one before, in points per game below half.
        error: of the test, of either kind.

    Raises:
        UsageError: when a number is out of its range.
    """

    max_elo_fall: float = 30.0
    last_ratings: int = 10
    sharp_elo_fall: float = 50.0
    max_score_fall: float = 0.10
    in_a_row: int = 3
    error: float = 0.05

    def __post_init__(self) -> None:
        check_range("max_elo_fall", self.max_elo_fall, 0.0, 1000.0)
        check_range("sharp_elo_fall", self.sharp_elo_fall, 0.0, 1000.0, ends=True)
        check_range("max_score_fall", self.max_score_fall, 0.0, 1.0, ends=True)
        check_range("last_ratings", self.last_ratings, 1, 10_000)
        check_range("in_a_row", self.in_a_row, 1, self.last_ratings)
        check_range("error", self.error, 0.0, 0.5)

    @staticmethod
    def of(config: PromotionConfig) -> "RollbackRules":
        """Return those of the settings."""
        return RollbackRules(
            max_elo_fall=config.max_elo_fall,
            last_ratings=config.last_ratings,
            sharp_elo_fall=config.sharp_elo_fall,
            max_score_fall=config.max_score_fall,
            in_a_row=config.in_a_row,
            error=config.error,
        )

    @property
    def test(self) -> Sprt:
        """The test of the games against the one before; it rejects a champion that is weaker."""
        return Sprt(-self.max_elo_fall, 0.0, self.error, self.error)


@dataclass(frozen=True, slots=True)
class Regression:
    """Whether a champion is to be rolled back, and why, with every number."""

    verdict: Watch
    why: str


def judge_regression(
    rules: RollbackRules, ratings: Sequence[Elo], watches: Sequence[PairCounts], *, baseline: Elo | None
) -> Regression:
    """Say whether a champion is to be rolled back; what was not measured says nothing.

    Args:
        ratings: of the games of each watch alone, since its promotion, the oldest first.
        watches: its pairs of games against the one before, of each watch, likewise.
        baseline: its rating at its promotion.
    """
    told: list[str] = []
    falls: list[str] = []
    rated = baseline is not None and len(ratings) >= rules.in_a_row
    if baseline is None or not rated:
        had = "none from before its promotion" if baseline is None else f"{len(ratings)} since"
        told.append(f"ratings say nothing: {had}, wanted are one and {rules.in_a_row}")
    else:
        told.append(_fall_of_mean(rules, ratings[-rules.last_ratings :], baseline, falls))
        newest = [each.rating - baseline.rating for each in ratings[-rules.in_a_row :]]
        told.append(f"the last {len(newest)} ratings {_listed(newest, '+.0f')} from {baseline.rating:+.0f}")
        if max(newest) < -rules.sharp_elo_fall:
            falls.append(f"each rating fell by more than {rules.sharp_elo_fall:g}")
    scored = len(watches) >= rules.in_a_row
    if not scored:
        told.append(f"scores say nothing: {len(watches)} of {rules.in_a_row}")
    else:
        apart = [watch.score - EVEN for watch in watches[-rules.in_a_row :]]
        told.append(f"the last {len(apart)} scores {_listed(apart, '+.1%')} from {EVEN:.0%}")
        if max(apart) < -rules.max_score_fall:
            falls.append(f"each score fell by more than {rules.max_score_fall:.0%}")
    if not falls:
        verdict: Watch = "keep" if rated or scored else "unknown"
        return Regression(verdict, f"{verdict}: {'; '.join(told)}")
    met = sum(watches, PairCounts())
    measured = "; ".join([_told(rules.test, met), *told])
    fell = ", and ".join(falls)
    if rules.test.verdict(met) == "reject":
        return Regression("roll back", f"roll back: {fell}, and the one before is stronger: {measured}")
    return Regression(
        "keep", f"keep: {fell}, but it is not shown that the one before is stronger: {measured}"
    )


def _told(test: Sprt, met: PairCounts) -> str:
    if not met.pairs:
        return "the two have not met since"
    return (
        f"of {met.pairs} pairs {'-'.join(map(str, met.counts))} {met.score:.1%} are the champion's,"
        f" log likelihood ratio {test.log_ratio(met):+.2f} of Elo {test.elo1:g} over {test.elo0:g}, decided at"
        f" {test.bounds.low:.2f}"
    )


def _fall_of_mean(rules: RollbackRules, ratings: Sequence[Elo], baseline: Elo, falls: list[str]) -> str:
    """Return what is told of the mean of `ratings`; note its fall in `falls` if there is one.

    It counts when the whole of the pooled interval lies below the baseline: single ratings of few games vary by more
    than `max_elo_fall`.
    """
    games = sum(each.games for each in ratings)
    mean = sum(each.rating * each.games for each in ratings) / games
    widths = [(each.high - each.low) / 2 * each.games / games for each in ratings]
    luck = math.hypot((baseline.high - baseline.low) / 2, *widths)
    fall = baseline.rating - mean
    if fall > rules.max_elo_fall and fall > luck:
        falls.append(f"the mean of ratings fell by more than {rules.max_elo_fall:g} and more than luck")
    return (
        f"the mean of {len(ratings)} ratings of {games} games is {mean:+.0f}, {fall:.0f} below the"
        f" {baseline.rating:+.0f} at its promotion, where luck is ±{luck:.0f}"
    )


def _listed(values: Sequence[float], form: str) -> str:
    return "/".join(format(value, form) for value in values)
