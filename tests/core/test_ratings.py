"""Scores, Elo and their intervals against published constants, identities and simulated matches."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ratings import elo_from_score, elo_interval, score_interval, wilson_interval

PAIR_SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), max_size=60)


@pytest.mark.parametrize(
    ("score", "elo"),
    [(0.5, 0.0), (0.75, 190.848502), (0.64, 99.950989), (10 / 11, 400.0), (0.25, -190.848502)],
)
def test_scores_stand_where_the_logistic_table_puts_them(score, elo):
    assert elo_from_score(score) == pytest.approx(elo, abs=1e-6)


def test_a_clean_score_is_infinite_elo():
    assert elo_from_score(1.0) == math.inf
    assert elo_from_score(0.0) == -math.inf


@pytest.mark.parametrize(
    ("points", "games", "low", "high"),
    [
        # R 4.3, prop.test(x, n, correct = FALSE)$conf.int
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (50, 100, 0.4038315, 0.5961685),
    ],
)
def test_wilson_gives_the_intervals_of_the_textbook(points, games, low, high):
    assert wilson_interval(points, games) == pytest.approx((low, high), abs=1e-6)


def test_wilson_without_games_knows_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(PAIR_SCORES)
def test_an_interval_holds_its_score_and_mirrors_when_the_players_change_places(scores):
    low, high = score_interval(scores)
    mirrored = score_interval([1 - score for score in scores])

    assert 0.0 <= low < high <= 1.0
    if scores:
        assert low - 1e-12 <= sum(scores) / len(scores) <= high + 1e-12
    assert mirrored == pytest.approx((1 - high, 1 - low))


@given(st.integers(1, 30))
def test_equal_scores_do_not_claim_certainty(count):
    low, high = score_interval([0.5] * count)
    assert low < 0.5 < high

    clean = score_interval([1.0] * count)
    assert clean == pytest.approx(wilson_interval(count, count))
    assert elo_interval([1.0] * count)[1] == math.inf


def test_games_without_draws_have_wilsons_own_interval():
    scores = [1.0] * 60 + [0.0] * 40
    assert score_interval(scores) == pytest.approx(wilson_interval(60, 100))


def simulated_pairs(rng, *, count: int, edge: float, lopsidedness: float) -> tuple[np.ndarray, np.ndarray]:
    """Play pairs whose opening favours one colour by ±lopsidedness logits; return (pair means, points)."""
    opening = rng.choice([-lopsidedness, lopsidedness], size=count)
    chances = [1 / (1 + np.exp(-(edge + sign * opening))) for sign in (1, -1)]
    games = np.stack([rng.random(count) < chance for chance in chances], axis=1).astype(float)
    return games.mean(axis=1), games.ravel()


@pytest.mark.parametrize("lopsidedness", [0.0, 3.0])
@pytest.mark.parametrize("edge", [0.0, 0.5])
def test_the_interval_of_pairs_holds_the_truth_as_often_as_it_says(edge, lopsidedness):
    rng = np.random.default_rng(5)
    chances = [1 / (1 + math.exp(-(edge + sign * lopsidedness))) for sign in (1, -1)]
    truth = sum(chances) / 2
    hits = 0
    for _ in range(1000):
        pairs, _ = simulated_pairs(rng, count=60, edge=edge, lopsidedness=lopsidedness)
        low, high = score_interval(list(pairs))
        hits += low <= truth <= high
    assert 0.93 <= hits / 1000 <= 0.985


def test_pairs_tell_more_than_their_games_when_openings_are_lopsided():
    pairs, games = simulated_pairs(np.random.default_rng(1), count=400, edge=0.3, lopsidedness=3.0)

    narrow = score_interval(list(pairs))
    wide = score_interval(list(games))

    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
