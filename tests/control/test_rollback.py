"""A champion gives way when the one before it is shown to be stronger, and hardly ever because of luck."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.promotion import PromotionConfig
from control.model_cards import Elo, Match
from control.promotion import Promoter, PromotionRules, judge, rating_of
from control.registry import ModelRegistry
from control.rollback import RollbackRules, judge_regression
from control.sequential import PairCounts, Sprt, score_from_elo
from core.errors import UsageError
from tests.control.registered import KEY, WHO, add, reign

CONDITIONS = "simulations=16 opening_plies=2"
RULES = RollbackRules()
LOST, EVEN, WON = PairCounts((30, 0, 0, 0, 20)), PairCounts((25, 0, 0, 0, 25)), PairCounts((20, 0, 0, 0, 30))
"""Fifty pairs of which the champion took 40, 50 and 60 %."""


def elo(rating: float, *, games: int = 100, reach: float = 40.0) -> Elo:
    return Elo(rating, rating - reach, rating + reach, games)


def judged(
    ratings: list[Elo], watches: list[PairCounts], baseline: Elo | None, rules: RollbackRules = RULES
) -> str:
    return judge_regression(rules, ratings, watches, baseline=baseline).verdict


def test_a_fall_beyond_luck_is_rolled_back_and_one_within_it_is_not() -> None:
    before, lost = elo(200, reach=15), [LOST] * 10
    sure = judge_regression(RULES, [elo(165, reach=30)] * 10, lost, baseline=before)
    assert sure.verdict == "roll back"
    assert "the mean of 10 ratings of 1000 games is +165, 35 below the +200" in sure.why
    even = [EVEN] * 10
    assert judged([elo(165, reach=120)] * 10, even, before) == "keep"
    assert judged([elo(171, reach=10)] * 10, even, before) == "keep"
    # Only the last ten count.
    assert judged([elo(0)] * 5 + [elo(200)] * 10, even, before) == "keep"


def test_a_sharp_fall_counts_when_it_is_seen_in_a_row() -> None:
    before, noisy, lost = elo(200), 200.0, [LOST] * 10
    row = [elo(200, reach=noisy)] * 7 + [elo(149, reach=noisy)] * 3
    assert judged(row, lost, before) == "roll back"
    assert judged([*row[:-2], elo(151, reach=noisy), row[-1]], lost, before) == "keep"


def test_points_that_are_missed_in_a_row_count_without_any_rating() -> None:
    worse = PairCounts((17, 0, 28, 0, 5))
    fallen = judge_regression(RULES, [], [worse] * 3, baseline=None)
    assert fallen.verdict == "roll back"
    assert "-12.0%/-12.0%/-12.0% from 50%" in fallen.why
    assert "of 150 pairs 51-0-84-0-15 38.0% are the champion's" in fallen.why
    assert judged([], [worse] * 2, None) == "unknown"
    assert judged([], [worse, worse, LOST], None) == "keep"  # the last one missed just 10 %


def test_no_fall_is_reason_enough_while_the_one_before_is_not_shown_to_be_stronger() -> None:
    fallen, before = [elo(0, reach=5)] * 10, elo(200, reach=5)
    for watches in ([], [WON] * 10, [EVEN] * 10):
        kept = judge_regression(RULES, fallen, watches, baseline=before)
        assert (kept.verdict, "but it is not shown that the one before is stronger" in kept.why) == (
            "keep",
            True,
        )
    assert judged(fallen, [LOST] * 10, before) == "roll back"


def test_what_was_not_measured_says_nothing() -> None:
    assert judged([elo(0)] * 9, [], None) == "unknown"
    assert judged([elo(0)] * 2, [LOST] * 2, elo(200)) == "unknown"
    assert judged([], [], elo(200)) == "unknown"


@pytest.mark.parametrize(
    "given",
    [
        {"max_elo_fall": -1},
        {"max_elo_fall": 0.0},
        {"sharp_elo_fall": math.nan},
        {"max_score_fall": 1.5},
        {"last_ratings": 2, "in_a_row": 3},
        {"in_a_row": 0},
        {"error": 0.5},
    ],
)
def test_rules_that_cannot_be_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RollbackRules(**given)  # pyright: ignore[reportArgumentType]


def test_the_settings_say_the_rules() -> None:
    assert RollbackRules.of(PromotionConfig()) == RULES
    config = PromotionConfig(
        max_elo_fall=1, last_ratings=9, sharp_elo_fall=2, max_score_fall=0.3, in_a_row=4, error=0.2
    )
    assert RollbackRules.of(config) == RollbackRules(1, 9, 2, 0.3, 4, 0.2)
    assert RollbackRules.of(config).test == Sprt(-1.0, 0.0, 0.2, 0.2)


def played(rng: np.random.Generator, gain: float, pairs: int) -> PairCounts:
    """Play pairs of one who is `gain` stronger, whose openings are worth 60 Elo to one side."""
    openings = rng.choice([-60.0, 60.0], size=pairs)
    chances = np.array([[score_from_elo(gain + side * each) for each in openings] for side in (1, -1)])
    return PairCounts.of_scores((rng.random(chances.shape) < chances).mean(axis=0))


def rated(met: PairCounts) -> Elo:
    found = rating_of({"before": met}, {"before": 500.0})
    assert found is not None
    return found


def promoted(rng: np.random.Generator, gain: float) -> Elo | None:
    """Return the rating with which one who is `gain` stronger is promoted; None when it is not."""
    rules, met = PromotionRules.of(PromotionConfig(ladder=())), PairCounts()
    while (decision := judge(rules, "candidate", "before", {"before": met})).verdict == "play on":
        met += played(rng, gain, decision.next_pairs["before"])
    return rated(met) if decision.verdict == "accept" else None


def watches_until_rolled_back(
    rng: np.random.Generator, gain: float, baseline: Elo, *, most: int
) -> int | None:
    watches: list[PairCounts] = []
    ratings: list[Elo] = []
    for number in range(1, most + 1):
        watches.append(played(rng, gain, 50))
        ratings.append(rated(watches[-1]))
        if judged(ratings, watches, baseline) == "roll back":
            return number
    return None


@pytest.mark.parametrize("gain", [30.0, 60.0])
def test_a_champion_that_is_stronger_is_kept_however_often_it_is_watched(gain: float) -> None:
    rng, champions = np.random.default_rng(5), []
    while len(champions) < 30:
        if (baseline := promoted(rng, gain)) is not None:
            champions.append(baseline)
    # They were promoted with ratings that are too high: a fall alone would roll them back.
    assert np.mean([each.rating for each in champions]) > 500 + gain + 10
    assert [watches_until_rolled_back(rng, gain, each, most=40) for each in champions] == [None] * 30


def test_one_that_is_as_strong_is_rolled_back_as_seldom_as_the_error_says() -> None:
    rng, champions = np.random.default_rng(6), 60
    wrong = sum(watches_until_rolled_back(rng, 0.0, elo(600), most=40) is not None for _ in range(champions))
    assert wrong / champions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / champions)


@pytest.mark.parametrize(("gain", "most"), [(-100.0, 8), (-50.0, 30)])
def test_one_that_was_promoted_by_luck_is_found(gain: float, most: int) -> None:
    rng = np.random.default_rng(7)
    found = [watches_until_rolled_back(rng, gain, elo(560, reach=80), most=most) for _ in range(30)]
    assert sum(each is not None for each in found) >= 25
    assert min(each for each in found if each) >= RULES.in_a_row


# Below: with a registry.


@pytest.fixture
def promoter(tmp_path: Path) -> Iterator[Promoter]:
    registry = ModelRegistry(tmp_path / "runs", clock=lambda: 1.8e9)
    yield Promoter(registry, PromotionRules(min_pairs=25), WHO, CONDITIONS)
    registry.close()


def watched(promoter: Promoter, champion: str, before: str, counts: PairCounts, rating: float) -> str:
    registry = promoter.registry
    first = registry.next_pair(champion, before, 1, CONDITIONS)
    registry.record(Match(champion, before, counts, 0, CONDITIONS, 1, first, 1.8e9))
    registry.rate(champion, elo(rating, reach=30), conditions=promoter.conditions)
    return promoter.watch(KEY, RULES).verdict


def test_a_champion_that_loses_gives_way_to_the_one_before(promoter: Promoter) -> None:
    registry = promoter.registry
    assert promoter.watch(KEY, RULES).verdict == "unknown"
    one, two = add(registry, 1), add(registry, 2)
    for model in (one, two):
        registry.rate(model, elo(200, reach=15), conditions=CONDITIONS)
        reign(registry, model)
    assert promoter.watch(KEY, RULES).verdict == "unknown"
    # The rating and the games from before its promotion are not one of the three.
    assert [watched(promoter, two, one, EVEN, 210) for _ in range(3)] == ["unknown", "unknown", "keep"]
    verdicts = [watched(promoter, two, one, LOST, 120) for _ in range(10)]
    last = verdicts.index("roll back")
    assert set(verdicts[:last]) == {"keep"}
    assert registry.alias(KEY, "champion") == one
    assert registry.find(two).stage == "archived"
    rollback = next(move for move in reversed(registry.history(KEY)) if move.act == "rollback")
    assert rollback.why.startswith("roll back: ")
    assert promoter.watch(KEY, RULES).why == "keep, for there is none before it"


def test_games_and_ratings_under_other_conditions_do_not_count(promoter: Promoter) -> None:
    registry = promoter.registry
    one, two = add(registry, 1), add(registry, 2)
    for model in (one, two):
        registry.rate(model, elo(200, reach=15), conditions=CONDITIONS)
        reign(registry, model)
    others = Promoter(registry, promoter.rules, WHO, "simulations=64 opening_plies=2")
    for _ in range(10):
        assert watched(others, two, one, LOST, 120) == "unknown"
    assert promoter.watch(KEY, RULES).verdict == "keep"
