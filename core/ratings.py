"""How strong, and how sure: scores and Elo differences with confidence intervals. Pure statistics.

A win is 1 point, a draw ½, a loss 0; a score is points per game, in [0, 1]. Elo is the logistic scale, on
which 400 are odds of ten to one. Intervals are two-sided at `confidence`.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

_ELO_PER_LOGIT = 400.0 / math.log(10.0)


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def elo_from_score(score: float) -> float:
    """Return the Elo difference at which `score` is expected; -inf at 0 and inf at 1."""
    if score <= 0.0:
        return -math.inf
    if score >= 1.0:
        return math.inf
    return _ELO_PER_LOGIT * math.log(score / (1.0 - score))


def wilson_interval(points: float, games: float, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval (1927) of `points` / `games`; (0, 1) without games.

    Draws enter as half points, which is cautious: they vary less than the wins and losses that Wilson
    assumes. `games` may be fractional, an effective number of games.
    """
    if games <= 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    score = points / games
    centre = (score + z * z / (2 * games)) / (1 + z * z / games)
    spread = math.sqrt(score * (1 - score) / games + (z / (2 * games)) ** 2)
    reach = z / (1 + z * z / games) * spread
    # At a clean score the formula gives the end itself, up to rounding.
    return Interval(0.0 if points <= 0 else centre - reach, 1.0 if points >= games else centre + reach)


def score_interval(scores: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of independent `scores`, each in [0, 1]; (0, 1) without any.

    Where an opening is played twice with colours swapped, the independent thing is the pair: give pair means
    (0, ¼, ½, ¾, 1: the pentanomial model of fishtest), for a lopsided opening makes its two games differ
    without saying anything about the players. Otherwise give game points (the trinomial model).

    Method: Wilson's interval with the number of coin flips whose mean would vary as the mean of `scores`
    does. The variance is estimated with one more observation that is half a win and half a loss, so that
    scores that are all equal do not claim certainty.
    """
    if not scores:
        return Interval(0.0, 1.0)
    count = len(scores)
    mean = (sum(scores) + 0.5) / (count + 1)
    variance = (sum(score * score for score in scores) + 0.5) / (count + 1) - mean * mean
    flips = count * mean * (1 - mean) / variance
    return wilson_interval(sum(scores) / count * flips, flips, confidence=confidence)


def elo_interval(scores: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Return the Elo differences at the ends of `score_interval`; infinite where 0 or 1 is one."""
    low, high = score_interval(scores, confidence=confidence)
    return Interval(elo_from_score(low), elo_from_score(high))
