"""How often a key is played: recent results, the weight that they make, and games in proportion to it."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.control import CurriculumConfig, RecentConfig
from control.curriculum import (
    HALF_LIVES,
    KeyFacts,
    MatchResult,
    Momentum,
    Recent,
    recent_results,
    shares,
    weigh,
)
from control.keys import Key
from core.errors import UsageError

NOW = 1_000_000.0
HOUR = 3600.0
SETTINGS, RECENT = CurriculumConfig(), RecentConfig()
A, B, C = Key("a"), Key("b"), Key("c")
TRAINED = KeyFacts(models=1, last_trained=NOW - HOUR)


def won(share: float, *, games: int = 100) -> Recent:
    return Recent(games=games, weight=games, win_rate=share)


def climbs(elo: float, momentum: Momentum = "unknown") -> Recent:
    return Recent(games=100, weight=100, elo_trend=elo, momentum=momentum)


@pytest.mark.parametrize(
    ("facts", "weight", "applies"),
    [
        (TRAINED, 1.0, None),
        (KeyFacts(models=1, last_trained=NOW, recent=won(0.54)), 1.4, "low win rate"),
        (KeyFacts(models=1, last_trained=NOW, recent=won(0.55)), 1.0, None),
        (KeyFacts(models=1, last_trained=NOW, recent=won(0.70)), 1.0, None),
        (KeyFacts(models=1, last_trained=NOW, recent=won(0.71)), 0.7, "high win rate"),
        (KeyFacts(), 1.5, "no model"),
        (KeyFacts(models=1, last_trained=NOW, recent=climbs(-21)), 1.2, "Elo regression"),
        (KeyFacts(models=1, last_trained=NOW, recent=climbs(-20)), 1.0, None),
        (KeyFacts(models=1, last_trained=NOW - 6.1 * HOUR), 1.1, "stale"),
        (KeyFacts(models=1, last_trained=NOW - 6 * HOUR), 1.0, None),
        (KeyFacts(models=1), 1.1, "stale"),
        (KeyFacts(models=1, last_trained=NOW, recent=climbs(30, "accelerating")), 1.3, "momentum"),
        (KeyFacts(models=1, last_trained=NOW, recent=climbs(13, "improving")), 1.15, "momentum"),
        (KeyFacts(models=1, last_trained=NOW, recent=climbs(6, "stable")), 1.0, None),
    ],
)
def test_each_factor_adds_what_it_should_and_says_so(
    facts: KeyFacts, weight: float, applies: str | None
) -> None:
    found = weigh(facts, SETTINGS, now=NOW)

    assert found.weight == pytest.approx(weight)
    assert [factor.name for factor in found.factors if factor.adds] == ([applies] if applies else [])
    assert 1 + sum(factor.adds for factor in found.factors) == pytest.approx(weight)


def test_factors_add_up_and_stay_between_the_bounds() -> None:
    worst = KeyFacts(recent=Recent(games=50, weight=50, win_rate=0.1, elo_trend=-50, momentum="regressing"))
    assert weigh(worst, SETTINGS, now=NOW).weight == 2.0  # 1 + 0.4 + 0.5 + 0.2 is 2.1
    best = KeyFacts(models=1, last_trained=NOW, recent=won(0.9))
    assert weigh(best, CurriculumConfig(high_win_rate_weight=0.8), now=NOW).weight == 0.5


def test_a_training_from_the_future_counts_as_of_now() -> None:
    assert weigh(KeyFacts(models=1, last_trained=NOW + 9 * HOUR), SETTINGS, now=NOW).weight == 1.0


def test_a_result_counts_half_after_each_half_life() -> None:
    results = [MatchResult(NOW, wins=10), MatchResult(NOW - HOUR, losses=20)]
    recent = recent_results(results, RECENT, now=NOW)

    assert (recent.games, recent.weight) == (30, pytest.approx(20))
    assert recent.win_rate == pytest.approx(0.5)


def test_draws_count_half() -> None:
    recent = recent_results([MatchResult(NOW, wins=4, draws=4, losses=2)], RECENT, now=NOW)
    assert recent.win_rate == pytest.approx(0.6)


def test_a_win_rate_of_few_or_old_games_is_not_known() -> None:
    assert recent_results([], RECENT, now=NOW) == Recent()
    assert recent_results([MatchResult(NOW, wins=9)], RECENT, now=NOW).win_rate is None
    assert recent_results([MatchResult(NOW, wins=10)], RECENT, now=NOW).win_rate == 1.0
    old = recent_results([MatchResult(NOW - HOUR, wins=19)], RECENT, now=NOW)
    assert (old.games, old.win_rate) == (19, None)


def test_very_old_games_are_not_looked_at() -> None:
    old = MatchResult(NOW - HALF_LIVES * HOUR - 1, wins=1_000_000)
    assert recent_results([old], RECENT, now=NOW) == Recent()


def test_results_from_the_future_count_as_of_now_and_are_said() -> None:
    recent = recent_results([MatchResult(NOW + HOUR, wins=10), MatchResult(NOW, losses=10)], RECENT, now=NOW)
    assert (recent.weight, recent.win_rate) == (20, 0.5)
    assert recent.notes == ("results are dated up to 3600 s ahead; they count as of now",)


def test_the_trend_is_the_newer_half_less_the_older() -> None:
    forever = RecentConfig(half_life_minutes=1e9)
    results = [MatchResult(NOW - k, wins=1, elo=1500 - 10 * k) for k in range(10)]
    recent = recent_results(list(reversed(results)), forever, now=NOW)
    assert recent.elo_trend == pytest.approx(50, rel=1e-6)  # 1480 less 1430
    assert recent.momentum == "accelerating"


def test_the_result_in_the_middle_counts_to_both_halves() -> None:
    forever = RecentConfig(half_life_minutes=1e9)
    results = [MatchResult(NOW - k, wins=4, elo=elo) for k, elo in enumerate((1600, 1500, 1400))]
    trend = recent_results(results, forever, now=NOW).elo_trend
    assert trend == pytest.approx((4 * 1600 + 2 * 1500) / 6 - (4 * 1400 + 2 * 1500) / 6, rel=1e-6)


def test_the_trend_of_one_match_or_few_games_is_not_known() -> None:
    one = [MatchResult(NOW, wins=100, elo=1500), MatchResult(NOW - 1, wins=100)]
    few = [MatchResult(NOW - k, wins=1, elo=1500) for k in range(9)]
    assert recent_results(one, RECENT, now=NOW).elo_trend is None
    assert recent_results(few, RECENT, now=NOW).momentum == "unknown"


@pytest.mark.parametrize(
    ("change", "momentum"),
    [
        (25, "accelerating"),
        (24, "improving"),
        (12, "improving"),
        (11, "stable"),
        (5, "stable"),
        (4, "plateau"),
        (0, "plateau"),
        (-4, "plateau"),
        (-5, "regressing"),
        (-90, "regressing"),
    ],
)
def test_momentum_is_told_by_how_much_elo_climbs(change: float, momentum: Momentum) -> None:
    results = [MatchResult(NOW, wins=10, elo=1500 + change), MatchResult(NOW, wins=10, elo=1500)]
    results.sort(key=lambda result: result.elo or 0)  # of equal times the order given is that of play
    assert recent_results(results if change > 0 else results[::-1], RECENT, now=NOW).momentum == momentum


@given(
    st.lists(
        st.builds(
            MatchResult,
            time=st.floats(0, 2 * NOW),
            wins=st.integers(0, 50),
            draws=st.integers(1, 50),
            losses=st.integers(0, 50),
            elo=st.none() | st.floats(-4000, 4000),
        ),
        max_size=30,
    )
)
def test_whatever_the_results_they_come_to_something_in_range(results: list[MatchResult]) -> None:
    recent = recent_results(results, RECENT, now=NOW)
    assert recent.weight <= recent.games + 1e-6
    assert recent.win_rate is None or 0 <= recent.win_rate <= 1
    assert recent.elo_trend is None or abs(recent.elo_trend) <= 8000 + 1e-6
    facts = KeyFacts(models=1, recent=recent)
    assert 0.5 <= weigh(facts, SETTINGS, now=NOW).weight <= 2.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: MatchResult(NOW),
        lambda: MatchResult(NOW, wins=-1),
        lambda: MatchResult(NOW, wins=1.5),  # pyright: ignore[reportArgumentType]
        lambda: MatchResult(NOW, wins=2**63),
        lambda: MatchResult(NOW, wins=10**400),
        lambda: MatchResult(math.nan, wins=1),
        lambda: MatchResult(NOW, wins=1, elo=math.nan),
        lambda: Recent(win_rate=math.nan, weight=1),
        lambda: Recent(win_rate=1.1, weight=1),
        lambda: Recent(win_rate=0.5),
        lambda: Recent(elo_trend=math.inf),
        lambda: KeyFacts(games=-1),
        lambda: KeyFacts(last_trained=math.nan),
        lambda: weigh(KeyFacts(), SETTINGS, now=math.nan),
        lambda: recent_results([], RECENT, now=math.inf),
    ],
)
def test_numbers_that_are_none_are_refused_at_the_door(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # pyright: ignore[reportCallIssue]


def test_games_are_shared_in_proportion() -> None:
    assert shares({A: 1.0, B: 2.0, C: 0.5}, 700) == {A: 200, B: 400, C: 100}
    assert shares({A: 1.0, B: 1.0, C: 1.0}, 100) == {A: 34, B: 33, C: 33}


def test_no_key_is_left_without_games_unless_that_is_asked_for() -> None:
    light = {A: 2.0, B: 0.001, C: 2.0}
    assert shares(light, 10) == {A: 5, B: 1, C: 4}
    assert shares(light, 10, least=0) == {A: 5, B: 0, C: 5}


@pytest.mark.parametrize(
    ("weights", "games"),
    [({}, 5), ({A: 1.0, B: 1.0}, 1), ({A: 0.0}, 5), ({A: -1.0}, 5), ({A: math.nan}, 5), ({A: 1.0}, -1)],
)
def test_what_cannot_be_shared_is_refused(weights: dict[Key, float], games: int) -> None:
    with pytest.raises(UsageError):
        shares(weights, games)


@given(
    st.lists(st.floats(0.5, 2.0) | st.sampled_from([0.5, 1.0, 0.1, 2.0]), min_size=1, max_size=40),
    st.integers(0, 5000),
    st.integers(0, 3),
)
def test_shares_are_exact_fair_and_never_less_than_the_least(
    numbers: list[float], more: int, least: int
) -> None:
    weights = {Key(f"g{k:02}"): weight for k, weight in enumerate(numbers)}
    games = least * len(weights) + more
    given_games = shares(weights, games, least=least)

    assert sum(given_games.values()) == games
    assert min(given_games.values()) >= least
    ranked = sorted(weights, key=lambda key: weights[key])
    for light, heavy in pairwise(ranked):
        if weights[light] < weights[heavy]:
            assert given_games[light] <= given_games[heavy]
    quotas = {key: games * weight / sum(numbers) for key, weight in weights.items()}
    if min(quotas.values()) >= least:
        assert all(abs(given_games[key] - quotas[key]) < 1 + 1e-9 for key in weights)
