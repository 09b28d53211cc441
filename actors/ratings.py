"""How strong, and how sure: scores and Elo differences with confidence intervals. Pure statistics.

A win is 1 point, a draw ½, a loss 0; a score is points per game, in [0, 1]. Elo is the logistic scale, on
which 400 are odds of ten to one. Intervals are two-sided at `confidence`.

`N` players of a table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

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


def score_from_elo(difference: float) -> float:
    """Return the expected score of a player who is `difference` Elo stronger."""
    return 0.5 * (1.0 + math.tanh(0.5 * difference / _ELO_PER_LOGIT))


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


@dataclass(frozen=True, slots=True)
class Ratings:
    """Elo of the players of a table.

    Attributes:
        elo: float64 [N].
        low, high: float64 [N], ends of each player's interval, relative to the table's zero.
    """

    elo: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bradley_terry(
    points: np.ndarray, *, anchor: int | None = None, prior_games: float = 1.0, confidence: float = 0.95
) -> Ratings:
    """Rate all players of a table at once (Bradley & Terry 1952), by maximum a posteriori.

    The prior is `prior_games` games, half won and half lost, of each player against a phantom in the middle
    of the table: it keeps the rating of a player who won or lost everything finite, and joins players who
    never met. The intervals come from the Fisher information at the optimum (Laplace's approximation), draws
    as half a win and half a loss, which is cautious.

    Args:
        points: float [N, N], points[i, j] is what i scored in games against j; the diagonal is 0.
        anchor: the player whose rating is the table's zero; None: the mean of all is.
        prior_games: weight of the prior, above 0.
        confidence: of the intervals.
    """
    games = points + points.T
    logits = np.zeros(len(points))
    for _ in range(_NEWTON_STEPS):
        gradient, information = _slope(logits, points, games, prior_games)
        step = np.linalg.solve(information, gradient)
        # From far away a full Newton step overshoots; within about one logit the likelihood is tame.
        logits += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < _TOLERANCE_LOGITS:
            break
    _, information = _slope(logits, points, games, prior_games)

    zero = np.full(len(points), 1 / len(points)) if anchor is None else np.eye(len(points))[anchor]
    relative = np.eye(len(points)) - zero
    elo = _ELO_PER_LOGIT * (relative @ logits)
    covariance = relative @ np.linalg.inv(information) @ relative.T
    deviation = _ELO_PER_LOGIT * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
    return Ratings(elo, elo - reach, elo + reach)


_NEWTON_STEPS = 200
_TOLERANCE_LOGITS = 1e-8


def _slope(
    logits: np.ndarray, points: np.ndarray, games: np.ndarray, prior_games: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient [N] of the log-posterior in `logits` [N], and minus its Hessian [N, N]."""
    expected = 1 / (1 + np.exp(logits[None, :] - logits[:, None]))
    phantom = 1 / (1 + np.exp(-logits))
    gradient = (points - games * expected).sum(axis=1) + prior_games * (0.5 - phantom)
    weight = games * expected * (1 - expected)
    information = np.diag(weight.sum(axis=1) + prior_games * phantom * (1 - phantom)) - weight
    return gradient, information
