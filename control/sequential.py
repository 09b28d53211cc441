"""When a match has said enough: a sequential test on pairs of games, and Wilson's bound at a few planned looks.

The independent thing is the pair: an opening that two players play from both sides. Its score is the mean of the
first player's points, 0, ¼, ½, ¾ or 1 (the pentanomial model of fishtest): a lopsided opening makes its two games
differ without saying anything about the players. Elo is the logistic scale, on which 400 are odds of ten to one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

from core.errors import UsageError
from core.ratings import Interval, score_interval

Verdict: TypeAlias = Literal["accept", "reject", "play on"]

PAIR_SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)
_ELO_PER_LOGIT = 400.0 / math.log(10.0)
_NEVER_SEEN = 1e-3
_MAX_ELO = 1000.0
_STEPS = 60


def score_from_elo(elo: float) -> float:
    """Return the points per game that one who is `elo` stronger may expect."""
    return 1.0 / (1.0 + math.exp(-elo / _ELO_PER_LOGIT))


def check_range(name: str, value: float, low: float, high: float, *, ends: bool = False) -> None:
    """Raise UsageError unless `value` is between `low` and `high`: NaN never is. Whole bounds include themselves."""
    whole = isinstance(low, int)
    fits = low <= value <= high if ends or whole else low < value < high
    if not fits or (whole and type(value) is not int):
        raise UsageError(
            f"{name}={value} is out of range",
            why=f"it must be {'a whole number ' if whole else ''}{'from' if ends or whole else 'between'} {low:g}"
            f" {'to' if ends or whole else 'and'} {high:g}",
            fix="give a number of that range",
        )


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many pairs ended with a score of 0, ¼, ½, ¾ and 1 of the first player.

    Raises:
        UsageError: when they are not five whole numbers of at least 0.
    """

    counts: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)

    def __post_init__(self) -> None:
        given = tuple(self.counts)
        if len(given) != len(PAIR_SCORES) or any(type(count) is not int or count < 0 for count in given):
            raise UsageError(
                f"{self.counts} are no counts of pairs",
                why="they are five whole numbers from 0: of pairs that scored 0, ¼, ½, ¾ and 1",
                fix="count the pairs of the match with PairCounts.of_scores",
            )

    @staticmethod
    def of_scores(scores: Iterable[float]) -> "PairCounts":
        """Count the mean points of pairs. Raises UsageError when one is not 0, ¼, ½, ¾ or 1."""
        counts = dict.fromkeys(PAIR_SCORES, 0)
        for score in scores:
            if score not in counts:
                raise UsageError(
                    f"{score} is no score of a pair",
                    why="it is the mean of two games of 0, ½ or 1 points: 0, 0.25, 0.5, 0.75 or 1",
                    fix="give one score for both games of an opening",
                )
            counts[score] += 1
        low, quarter, half, most, high = counts.values()
        return PairCounts((low, quarter, half, most, high))

    def __add__(self, other: "PairCounts") -> "PairCounts":
        a, b, c, d, e = (mine + its for mine, its in zip(self.counts, other.counts, strict=True))
        return PairCounts((a, b, c, d, e))

    @property
    def pairs(self) -> int:
        return sum(self.counts)

    @property
    def points(self) -> float:
        """Sum of the scores of the pairs: half of what the games gave."""
        return sum(score * count for score, count in zip(PAIR_SCORES, self.counts, strict=True))

    @property
    def score(self) -> float:
        """Points per game; nan without pairs."""
        return self.points / self.pairs if self.pairs else math.nan

    def interval(self, *, confidence: float = 0.95) -> Interval:
        """Return the interval of the score; (0, 1) without pairs."""
        scores = [s for s, count in zip(PAIR_SCORES, self.counts, strict=True) for _ in range(count)]
        return score_interval(scores, confidence=confidence)


@dataclass(frozen=True, slots=True)
class Sprt:
    """The sequential probability ratio test of "no more than `elo0` stronger" against "at least `elo1`".

    Wald (1945): it may be asked after every pair. With the bounds log(β/(1-α)) and log((1-β)/α) a player of `elo0` is
    accepted with a probability of about `alpha`, at most α/(1-β), and one of `elo1` rejected with about `beta`.
    The ratio is the generalised one of fishtest (Van den Bergh, "The generalized sequential probability ratio test"):
    of the likeliest distributions of the five scores whose means are those of `elo0` and `elo1`. A score never seen
    counts as a thousandth of a pair, as there.

    Raises:
        UsageError: when `elo0` is not below `elo1`, one is beyond ±1000, or an error is not within (0, ½).
    """

    elo0: float = 0.0
    elo1: float = 35.0
    alpha: float = 0.05
    beta: float = 0.05

    def __post_init__(self) -> None:
        # Written so that NaN fails too.
        if not -_MAX_ELO <= self.elo0 < self.elo1 <= _MAX_ELO:
            raise UsageError(
                f"a test of elo0={self.elo0} against elo1={self.elo1} cannot be made",
                why=f"elo0 must be below elo1, both within ±{_MAX_ELO:.0f}",
                fix="take for example elo0=0 and elo1=35",
            )
        check_range("alpha", self.alpha, 0.0, 0.5)
        check_range("beta", self.beta, 0.0, 0.5)

    @property
    def bounds(self) -> Interval:
        """Return the ratios at which it rejects and accepts."""
        low = math.log(self.beta / (1 - self.alpha))
        return Interval(low, math.log((1 - self.beta) / self.alpha))

    def log_ratio(self, pairs: PairCounts) -> float:
        """Return the logarithm of the likelihood of "elo1" over that of "elo0"; 0 without pairs."""
        if not pairs.pairs:
            return 0.0
        counts = [count or _NEVER_SEEN for count in pairs.counts]
        total = sum(counts)
        shares = [count / total for count in counts]
        under0, under1 = (_divisors(shares, score_from_elo(elo)) for elo in (self.elo0, self.elo1))
        return sum(n * math.log(d0 / d1) for n, d0, d1 in zip(counts, under0, under1, strict=True))

    def verdict(self, pairs: PairCounts) -> Verdict:
        low, high = self.bounds
        ratio = self.log_ratio(pairs)
        return "accept" if ratio >= high else "reject" if ratio <= low else "play on"

    def missing_pairs(self, pairs: PairCounts) -> int:
        """Return how many more pairs it would take if they went on as before; as many again when nothing speaks."""
        ratio = self.log_ratio(pairs)
        low, high = self.bounds
        if abs(ratio) < 1e-9:
            return pairs.pairs
        return max(0, math.ceil(pairs.pairs * ((high if ratio > 0 else low) / ratio - 1)))


@dataclass(frozen=True, slots=True)
class WilsonBound:
    """Accept when the lower bound of the score is above `min_score`, reject when the upper one is below.

    Who looks at an interval until it suits him is wrong more often than it says. So looks are planned: after
    `first`, 2·first, 4·first … and at last `last` pairs. Each has an equal part of `alpha` on each side
    (Bonferroni), so all together are wrong with a probability of at most about `alpha`.

    Raises:
        UsageError: when `min_score` is not within (0, 1), or `alpha` not within (0, ½).
    """

    min_score: float = 0.5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.min_score < 1.0:
            raise UsageError(
                f"min_score={self.min_score} cannot be tested",
                why="a score is points per game, and only what is between 0 and 1 can be passed or missed",
                fix="take 0.5 for: stronger than the other",
            )
        check_range("alpha", self.alpha, 0.0, 0.5)

    def interval(self, pairs: PairCounts, *, first: int, last: int) -> Interval:
        """Return the interval of the score that one of the planned looks is judged by."""
        return pairs.interval(confidence=1 - 2 * self.alpha / len(planned_looks(first, last)))

    def verdict(self, pairs: PairCounts, *, first: int, last: int) -> Verdict:
        """Return the verdict of a look; "play on" at any other number of pairs, and where it stays open."""
        if pairs.pairs < last and pairs.pairs not in planned_looks(first, last):
            return "play on"
        low, high = self.interval(pairs, first=first, last=last)
        return "accept" if low > self.min_score else "reject" if high < self.min_score else "play on"


def planned_looks(first: int, last: int) -> list[int]:
    """Return after how many pairs is looked: first, 2·first, 4·first … below `last`, and `last`."""
    looks = []
    while first < last:
        looks.append(first)
        first *= 2
    return [*looks, last]


def elo_of_meetings(
    meetings: Mapping[str, PairCounts], anchors: Mapping[str, float], *, confidence: float = 0.95
) -> tuple[float, Interval, int] | None:
    """Return the likeliest Elo of one who met opponents of known Elo, its interval, and how many games tell it.

    Opponents that are not in `anchors` do not count; None when nobody is left. One more game, half won and half lost
    against each of them, keeps a clean score finite. The interval is that of independent games (Fisher's information),
    which is cautious: draws vary less, and pairs of the same opening less too.
    """
    met = [(anchors[name], pairs) for name, pairs in meetings.items() if name in anchors and pairs.pairs]
    if not met:
        return None
    games = sum(2 * pairs.pairs for _, pairs in met)
    points = sum(2 * pairs.points + 0.5 for _, pairs in met)
    low, high = min(elo for elo, _ in met) - 4000, max(elo for elo, _ in met) + 4000
    for _ in range(_STEPS):
        middle = (low + high) / 2
        expected = sum((2 * pairs.pairs + 1) * score_from_elo(middle - elo) for elo, pairs in met)
        low, high = (middle, high) if expected < points else (low, middle)
    elo = (low + high) / 2
    chances = [(pairs.pairs, score_from_elo(elo - other)) for other, pairs in met]
    information = sum((2 * count + 1) * chance * (1 - chance) for count, chance in chances)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * _ELO_PER_LOGIT / math.sqrt(information)
    return elo, Interval(elo - reach, elo + reach), games


def _divisors(shares: Sequence[float], mean: float) -> list[float]:
    """Return d such that shares / d is the likeliest distribution over PAIR_SCORES that has this mean.

    By Lagrange d = 1 + x·(score - mean), where x makes the mean right; what is sought for falls with x.
    """
    low, high = -1.0 / (1.0 - mean), 1.0 / mean
    apart = [score - mean for score in PAIR_SCORES]
    for _ in range(_STEPS):
        x = (low + high) / 2
        excess = sum(share * each / (1 + x * each) for share, each in zip(shares, apart, strict=True))
        low, high = (x, high) if excess > 0 else (low, x)
    x = (low + high) / 2
    return [1 + x * each for each in apart]
