"""The sequential test and Wilson's bound err as seldom as they say; intervals and Elo are those of the textbooks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from control.sequential import (
    PAIR_SCORES,
    PairCounts,
    Sprt,
    WilsonBound,
    elo_of_meetings,
    planned_looks,
    score_from_elo,
)
from core.errors import UsageError
from core.ratings import elo_from_score, wilson_interval

COUNTS = st.tuples(*[st.integers(0, 200)] * 5).map(PairCounts)
MATCHES = 1000
"""Simulated at each strength; three standard deviations of a share of 5 % are then 2.1 %."""


def pairs(rng: np.random.Generator, *, elo: float, count: int, lopsided: float, draws: float) -> np.ndarray:
    """Play pairs whose opening is worth ±lopsided Elo to one colour, with a share of the rest drawn; mean scores."""
    opening = rng.choice([-lopsided, lopsided], size=count)
    points = []
    for side in (1, -1):
        chance = 1 / (1 + 10 ** (-(elo + side * opening) / 400))
        drawn = draws * np.minimum(chance, 1 - chance)
        luck = rng.random(count)
        points.append(np.where(luck < chance - drawn, 1.0, np.where(luck < chance + drawn, 0.5, 0.0)))
    return (points[0] + points[1]) / 2


def expected_score(elo: float, lopsided: float) -> float:
    return (score_from_elo(elo + lopsided) + score_from_elo(elo - lopsided)) / 2


@pytest.mark.parametrize(
    ("lopsided", "draws"), [(0.0, 0.0), (300.0, 0.0), (0.0, 0.4)], ids=["plain", "lopsided", "drawish"]
)
def test_the_sequential_test_errs_as_seldom_as_it_says(lopsided: float, draws: float) -> None:
    # What the players' strength comes to with these openings is what the test is about.
    truth = (0.0, elo_from_score(expected_score(100.0, lopsided)))
    test = Sprt(truth[0], truth[1], alpha=0.05, beta=0.10)
    wrong = dict.fromkeys(("accept", "reject"), 0)
    for elo, error in ((0.0, "accept"), (100.0, "reject")):
        rng = np.random.default_rng(7)
        for _ in range(MATCHES):
            counts, verdict = PairCounts(), "play on"
            while verdict == "play on":
                counts += PairCounts.of_scores(pairs(rng, elo=elo, count=8, lopsided=lopsided, draws=draws))
                verdict = test.verdict(counts)
                assert counts.pairs < 2000
            wrong[error] += verdict == error
    noise = 3 * math.sqrt(0.05 * 0.95 / MATCHES)
    assert wrong["accept"] / MATCHES <= 0.05 / 0.90 + noise
    assert wrong["reject"] / MATCHES <= 0.10 / 0.95 + 3 * math.sqrt(0.1 * 0.9 / MATCHES)
    # It does not buy that by never deciding: it errs, and more often than a test of a tenth of these errors would.
    assert wrong["accept"] / MATCHES > 0.005
    assert wrong["reject"] / MATCHES > 0.010


def test_planned_looks_keep_the_promise_that_looking_all_the_time_breaks() -> None:
    bound, first, last = WilsonBound(0.5, alpha=0.05), 16, 256
    rng = np.random.default_rng(3)
    planned = eager = 0
    for _ in range(MATCHES):
        scores = pairs(rng, elo=0.0, count=last, lopsided=0.0, draws=0.3)
        at_looks = [PairCounts.of_scores(scores[:n]) for n in planned_looks(first, last)]
        verdicts = [bound.verdict(counts, first=first, last=last) for counts in at_looks]
        planned += next((each for each in verdicts if each != "play on"), "") == "accept"
        eager += any(
            PairCounts.of_scores(scores[:n]).interval(confidence=0.90).low > 0.5
            for n in range(first, last + 1, 4)
        )
    noise = 3 * math.sqrt(0.05 * 0.95 / MATCHES)
    assert 0.005 < planned / MATCHES <= 0.05 + noise
    assert eager / MATCHES > 0.05 + 2 * noise


def test_between_planned_looks_nothing_is_decided() -> None:
    bound = WilsonBound(0.5)
    assert planned_looks(16, 100) == [16, 32, 64, 100]
    assert planned_looks(7, 7) == [7]
    verdicts = {n: bound.verdict(PairCounts((0, 0, 0, 0, n)), first=16, last=100) for n in (15, 16, 17, 63)}
    assert verdicts == {15: "play on", 16: "accept", 17: "play on", 63: "play on"}
    assert bound.verdict(PairCounts((40, 0, 0, 0, 0)), first=10, last=30) == "reject"


@pytest.mark.parametrize(
    ("wins", "games", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17,
        # table I, method 3 (the score method without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(wins: int, games: int, low: float, high: float) -> None:
    assert wilson_interval(wins, games) == pytest.approx((low, high), abs=5e-5)
    # Pairs that are all won or lost are coin flips.
    coins = PairCounts((games - wins, 0, 0, 0, wins)).interval()
    assert coins == pytest.approx((low, high), abs=5e-5 if wins else 0.03)


@pytest.mark.parametrize(
    # The logistic scale: 400 points are ten to one. The rest is 400 · log10(s / (1 - s)).
    ("score", "elo"),
    [(0.5, 0.0), (10 / 11, 400.0), (0.75, 190.848502), (0.64, 99.950989), (0.55, 34.860070)],
)
def test_elo_and_score_are_two_ways_to_say_one_thing(score: float, elo: float) -> None:
    assert elo_from_score(score) == pytest.approx(elo, abs=1e-6)
    assert score_from_elo(elo) == pytest.approx(score, abs=1e-9)


@given(st.floats(-2000, 2000))
def test_elo_survives_the_way_there_and_back(elo: float) -> None:
    assert elo_from_score(score_from_elo(elo)) == pytest.approx(elo, abs=1e-6)


def test_a_clean_score_is_infinite_elo() -> None:
    assert (elo_from_score(0.0), elo_from_score(1.0)) == (-math.inf, math.inf)


def test_without_draws_or_splits_the_ratio_is_walds_own() -> None:
    s0, s1 = score_from_elo(0), score_from_elo(35)
    wald = 150 * math.log(s1 / s0) + 50 * math.log((1 - s1) / (1 - s0))
    assert Sprt(0, 35).log_ratio(PairCounts((50, 0, 0, 0, 150))) == pytest.approx(wald, abs=0.01)
    assert Sprt(0, 35).bounds == pytest.approx((-2.944439, 2.944439), abs=1e-6)  # log(19)


@pytest.mark.parametrize("counts", [(10, 25, 60, 35, 20), (300, 200, 700, 250, 400), (3, 0, 5, 1, 9)])
def test_the_ratio_is_that_of_the_likeliest_distributions(counts: tuple[int, int, int, int, int]) -> None:
    def likelihood(mean: float) -> float:
        total = sum(counts)
        found = optimize.minimize(
            lambda p: (
                -sum(n / total * math.log(max(each, 1e-300)) for n, each in zip(counts, p, strict=True))
            ),
            np.full(5, 0.2),
            bounds=[(1e-12, 1)] * 5,
            constraints=[
                {"type": "eq", "fun": lambda p: sum(p) - 1},
                {"type": "eq", "fun": lambda p: np.dot(p, PAIR_SCORES) - mean},
            ],
            options={"maxiter": 1000, "ftol": 1e-13},
        )
        assert np.dot(found.x, PAIR_SCORES) == pytest.approx(mean, abs=1e-6)
        assert sum(found.x) == pytest.approx(1.0, abs=1e-6)
        return -found.fun * total

    wanted = likelihood(score_from_elo(40)) - likelihood(score_from_elo(-10))
    # A score never seen counts as a thousandth of a pair, which is what may differ.
    assert Sprt(-10, 40).log_ratio(PairCounts(counts)) == pytest.approx(wanted, abs=0.01)


@given(COUNTS)
def test_the_ratio_changes_its_sign_with_the_sides(counts: PairCounts) -> None:
    low, quarter, half, most, high = counts.counts
    mirrored = PairCounts((high, most, half, quarter, low))
    assert Sprt(-20, 20).log_ratio(mirrored) == pytest.approx(-Sprt(-20, 20).log_ratio(counts), abs=1e-6)
    assert counts.score + mirrored.score == pytest.approx(1.0) or not counts.pairs


@given(COUNTS, COUNTS)
def test_counts_add_up_and_hold_their_interval(one: PairCounts, other: PairCounts) -> None:
    both = one + other
    assert both.pairs == one.pairs + other.pairs
    assert both.points == pytest.approx(one.points + other.points)
    low, high = both.interval()
    assert 0 <= low <= high <= 1
    assert not both.pairs or low - 1e-12 <= both.score <= high + 1e-12
    spread = [
        score for score, count in zip(PAIR_SCORES, both.counts, strict=True) for score in [score] * count
    ]
    assert PairCounts.of_scores(spread) == both


def test_clean_scores_do_not_decide_before_there_are_enough_of_them() -> None:
    test = Sprt(0, 35)
    assert test.verdict(PairCounts((0, 0, 0, 0, 10))) == "play on"
    assert test.verdict(PairCounts((0, 0, 0, 0, 40))) == "accept"
    assert test.verdict(PairCounts()) == "play on"


def test_what_is_missing_is_what_it_would_take_at_this_pace() -> None:
    test, counts = Sprt(0, 35), (10, 20, 50, 30, 20)
    played = PairCounts(counts)
    share = (played.pairs + test.missing_pairs(played)) / played.pairs
    assert 1 < share < 8
    verdicts = []
    for times in (math.floor(share), math.ceil(share)):
        low, quarter, half, most, high = (count * times for count in counts)
        verdicts.append(test.verdict(PairCounts((low, quarter, half, most, high))))
    assert verdicts == ["play on", "accept"]


def test_a_rating_is_right_as_often_as_its_interval_says() -> None:
    rng, anchors, hits = np.random.default_rng(11), {"random": 0.0, "v1": 150.0, "v2": 230.0}, 0
    for _ in range(400):
        met = {
            name: PairCounts.of_scores(pairs(rng, elo=180 - elo, count=40, lopsided=0.0, draws=0.0))
            for name, elo in anchors.items()
        }
        found = elo_of_meetings(met, anchors)
        assert found is not None
        _, (low, high), games = found
        hits += low <= 180 <= high
        assert games == 240
    assert 0.91 <= hits / 400 <= 0.99


def test_a_rating_stays_finite_after_a_clean_score_and_needs_somebody_known() -> None:
    clean = elo_of_meetings({"random": PairCounts((0, 0, 0, 0, 50))}, {"random": 0.0})
    assert clean is not None
    assert clean[0] == pytest.approx(elo_from_score(100.5 / 101), abs=1e-3)
    assert clean[1].low < clean[0] < clean[1].high < math.inf
    assert elo_of_meetings({"stranger": PairCounts((1, 0, 0, 0, 1))}, {"random": 0.0}) is None
    assert elo_of_meetings({"random": PairCounts()}, {"random": 0.0}) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sprt(10, 10),
        lambda: Sprt(math.nan, 10),
        lambda: Sprt(0, 2000),
        lambda: Sprt(alpha=0),
        lambda: Sprt(beta=math.nan),
        lambda: Sprt(beta=0.5),
        lambda: WilsonBound(1.0),
        lambda: WilsonBound(math.nan),
        lambda: WilsonBound(0.5, alpha=-0.1),
        lambda: PairCounts((1, 2, 3, 4, -1)),
        lambda: PairCounts((1, 2, 3, 4)),  # pyright: ignore[reportArgumentType]
        lambda: PairCounts((1.5, 0, 0, 0, 0)),  # pyright: ignore[reportArgumentType]
        lambda: PairCounts.of_scores([0.3]),
        lambda: PairCounts.of_scores([math.nan]),
    ],
)
def test_numbers_that_cannot_be_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # pyright: ignore[reportCallIssue]
