"""Scores, Elo and their intervals against published constants, identities and simulated matches."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ratings import (
    bradley_terry,
    elo_from_score,
    elo_interval,
    score_from_elo,
    score_interval,
    wilson_interval,
)

PAIR_SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), max_size=60)


@pytest.mark.parametrize(
    ("score", "elo"),
    [(0.5, 0.0), (0.75, 190.848502), (0.64, 99.950989), (10 / 11, 400.0), (0.25, -190.848502)],
)
def test_scores_stand_where_the_logistic_table_puts_them(score, elo):
    assert elo_from_score(score) == pytest.approx(elo, abs=1e-6)
    assert score_from_elo(elo) == pytest.approx(score, abs=1e-8)


def test_a_clean_score_is_infinite_elo():
    assert elo_from_score(1.0) == math.inf
    assert elo_from_score(0.0) == -math.inf
    assert score_from_elo(1e6) == 1.0


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


def table_from(elo: list[float], games: int) -> np.ndarray:
    """Return the points of a round robin in which everybody scores exactly what was expected."""
    ratings = np.array(elo)
    points = games * np.vectorize(score_from_elo)(ratings[:, None] - ratings[None, :])
    np.fill_diagonal(points, 0.0)
    return points


def test_a_table_of_expected_scores_gives_back_the_ratings_behind_it():
    truth = [0.0, 150.0, -80.0, 400.0]

    ratings = bradley_terry(table_from(truth, games=100_000), anchor=0)

    assert ratings.elo == pytest.approx(truth, abs=0.1)
    assert ratings.low[0] == ratings.high[0] == 0.0


def test_without_an_anchor_the_mean_of_the_table_is_zero():
    ratings = bradley_terry(table_from([0.0, 300.0, 30.0], games=50))
    assert ratings.elo.sum() == pytest.approx(0.0, abs=1e-9)


def test_two_players_are_rated_as_their_score_says():
    points = np.array([[0.0, 75.0], [25.0, 0.0]])

    ratings = bradley_terry(points, anchor=1, prior_games=1e-6)

    assert ratings.elo[0] == pytest.approx(190.8485, abs=1e-3)
    # The delta method on 100 coin flips: 1.96 · (400 / ln 10) / sqrt(100 · 0.75 · 0.25).
    assert ratings.high[0] - ratings.elo[0] == pytest.approx(
        1.959964 * 173.71779 / math.sqrt(18.75), rel=1e-4
    )


def test_the_intervals_of_a_table_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(11)
    truth = np.array([0.0, 100.0, 250.0, -120.0])
    hits = np.zeros(4)
    for _ in range(300):
        points = np.zeros((4, 4))
        for i in range(4):
            for j in range(i):
                points[i, j] = rng.binomial(40, score_from_elo(truth[i] - truth[j]))
                points[j, i] = 40 - points[i, j]
        ratings = bradley_terry(points, anchor=0)
        hits += (ratings.low <= truth) & (truth <= ratings.high)
    assert (hits[1:] / 300 > 0.91).all()
    assert (hits[1:] / 300 < 0.99).all()


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_any_table_has_finite_ratings_at_which_the_posterior_is_flat(players, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 2, (players, players)) * rng.integers(0, 2000, (players, players)).astype(float)
    np.fill_diagonal(points, 0.0)

    ratings = bradley_terry(points, prior_games=0.5)

    assert np.isfinite(ratings.elo).all()
    assert (ratings.low <= ratings.elo).all()
    assert (ratings.elo <= ratings.high).all()
    expected = np.vectorize(score_from_elo)(ratings.elo[:, None] - ratings.elo[None, :])
    surplus = points - (points + points.T) * expected
    # What the players' surpluses do not cancel is held by the prior, which pulls with less than half a game.
    assert np.abs(surplus.sum(axis=1)).max() <= 0.25 + 1e-6


def test_a_table_of_few_upsets_and_thousands_of_games_is_rated_too():
    # Newton's full steps run away from this one.
    points = np.zeros((5, 5))
    points[1, [0, 4]] = 75, 1
    points[2, [0, 3]] = 6, 3254
    points[3, 0] = 83
    points[4, 2] = 13

    ratings = bradley_terry(points, prior_games=0.1)

    assert np.isfinite(ratings.elo).all()
    assert ratings.elo.argsort().tolist() == [0, 3, 2, 4, 1]


def test_a_player_who_won_everything_is_rated_higher_the_more_she_played():
    few = bradley_terry(np.array([[0.0, 4.0], [0.0, 0.0]]), anchor=1)
    many = bradley_terry(np.array([[0.0, 400.0], [0.0, 0.0]]), anchor=1)

    assert 0.0 < few.elo[0] < many.elo[0] < 3000.0
