"""A candidate is promoted when its games show enough, never for want of knowing."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.autopilot import CONTROL, ControlConfig
from configs.promotion import PromotionConfig
from control.keys import Key
from control.model_cards import Elo, Match
from control.promotion import (
    RANDOM,
    TIERS,
    Decision,
    Promoter,
    PromotionRules,
    Rung,
    Tier,
    judge,
    rating_of,
)
from control.registry import ModelRegistry
from control.registry_tables import AliasMovedError
from control.sequential import PairCounts, Sprt, WilsonBound, score_from_elo
from core.errors import UsageError

KEY, WHO = Key("hex5"), "a test"
NOW_PLAYED, BEFORE = "simulations=16 opening_plies=2", "simulations=64 opening_plies=2"
NONE = PairCounts()
STRONG, EVEN, WEAK = (
    PairCounts((5, 0, 40, 0, 60)),
    PairCounts((25, 0, 50, 0, 25)),
    PairCounts((60, 0, 40, 0, 5)),
)
ALONE = PromotionRules(ladder=())
COUNTS = st.tuples(*[st.integers(0, 150)] * 5).map(PairCounts)


def elo(rating: float, *, games: int = 100, reach: float = 40.0) -> Elo:
    return Elo(rating, rating - reach, rating + reach, games)


def against(champion: PairCounts, rules: PromotionRules = ALONE, **given: Elo | None) -> Decision:
    return judge(rules, "v2", "v1", {"v1": champion}, **given)


def test_the_test_decides_and_tells_its_numbers() -> None:
    assert [against(counts).verdict for counts in (STRONG, EVEN, WEAK)] == ["accept", "play on", "reject"]
    why = against(STRONG).why
    wanted = [
        "accept",
        "76.2% against v1",
        "105 pairs 5-0-40-0-60",
        f"{Sprt().log_ratio(STRONG):+.2f}",
        "Elo 35 over 0",
        "-2.94",
        "2.94",
    ]
    assert [each for each in wanted if each not in why] == [], why


def test_who_is_not_met_is_met_first() -> None:
    decision = judge(PromotionRules(min_pairs=25), "v2", "v1", {})
    assert decision.verdict == "play on"
    assert decision.next_pairs == {"v1": 25, RANDOM: 25}
    some = judge(PromotionRules(min_pairs=25), "v2", "v1", {"v1": PairCounts((0, 0, 0, 0, 10))})
    assert some.next_pairs == {"v1": 15, RANDOM: 25}


def test_few_games_decide_nothing_however_they_went() -> None:
    few = PairCounts((0, 0, 0, 0, 40))
    assert against(few, PromotionRules(ladder=(), min_pairs=40)).verdict == "accept"
    assert against(few, PromotionRules(ladder=(), min_pairs=41)).verdict == "play on"


def test_what_is_not_shown_when_all_pairs_are_played_is_rejected() -> None:
    rules = PromotionRules(ladder=(), max_pairs=100)
    assert against(EVEN, rules).verdict == "reject"
    assert "still open after all 100 pairs" in against(EVEN, rules).why
    decision = against(PairCounts((24, 0, 50, 0, 25)), rules)
    assert (decision.verdict, decision.next_pairs) == ("play on", {"v1": 1})


@given(COUNTS, st.integers(1, 50), st.integers(50, 400), st.booleans())
def test_playing_on_leads_to_an_end(counts: PairCounts, first: int, last: int, wilson: bool) -> None:
    rules = PromotionRules(WilsonBound() if wilson else Sprt(), (Rung(RANDOM, 0.64),), 0.05, first, last)
    decision = judge(rules, "v2", "v1", {"v1": counts, RANDOM: counts})
    assert (decision.verdict == "play on") == bool(decision.next_pairs)
    for more in decision.next_pairs.values():
        assert 1 <= more <= last - counts.pairs
    if counts.pairs >= last:
        assert decision.verdict != "play on"


@pytest.mark.parametrize("test", [Sprt(0, 60), WilsonBound(0.5)], ids=["sprt", "wilson"])
def test_a_match_that_is_played_as_told_ends_and_is_seldom_wrong(test: Sprt | WilsonBound) -> None:
    rules = PromotionRules(test, ladder=(), min_pairs=16, max_pairs=256)
    wrong = {}
    for strength, error in ((0.0, "accept"), (100.0, "reject")):
        rng, wrong[error] = np.random.default_rng(5), 0
        for _ in range(300):
            met, decision = NONE, against(NONE, rules)
            while decision.verdict == "play on":
                games = rng.random((decision.next_pairs["v1"], 2)) < score_from_elo(strength)
                met += PairCounts.of_scores(games.mean(axis=1))
                decision = against(met, rules)
            wrong[error] += decision.verdict == error
            assert met.pairs <= 256
    noise = 3 * math.sqrt(0.05 * 0.95 / 300)
    assert wrong["accept"] / 300 <= 0.053 + noise
    assert wrong["reject"] / 300 <= 0.053 + noise


def test_one_rung_that_is_missed_is_enough_to_be_rejected() -> None:
    rules = PromotionRules(ladder=(Rung(RANDOM, 0.64), Rung("mcts:100", 0.4)), min_pairs=25)
    clean = PairCounts((0, 0, 0, 0, 25))
    met = {"v1": STRONG, RANDOM: clean, "mcts:100": clean}
    assert judge(rules, "v2", "v1", met).verdict == "accept"
    assert judge(rules, "v2", "v1", met | {"mcts:100": PairCounts((24, 0, 0, 0, 1))}).verdict == "reject"
    open_ = judge(rules, "v2", "v1", met | {"mcts:100": PairCounts((10, 0, 5, 0, 10))})
    assert (open_.verdict, open_.next_pairs) == ("play on", {"mcts:100": 25})
    assert judge(rules, "v2", "v1", met | {"v1": EVEN}).next_pairs.keys() == {"v1"}


def test_without_a_champion_the_ladder_decides_and_without_either_nobody() -> None:
    rules = PromotionRules(min_pairs=25, tier=TIERS["D1"])
    assert judge(rules, "v1", None, {RANDOM: PairCounts((0, 0, 0, 0, 25))}).verdict == "accept"
    assert judge(rules, "v1", None, {RANDOM: PairCounts((24, 0, 0, 0, 1))}).verdict == "reject"
    with pytest.raises(UsageError, match="no champion yet, and the ladder is empty"):
        judge(ALONE, "v1", None, {})


def test_the_tiers_are_those_of_the_table() -> None:
    table = [(tier.min_score, tier.min_games, tier.min_elo_gain) for tier in TIERS.values()]
    assert list(TIERS) == [f"D{n}" for n in range(1, 10)]
    assert [row[0] for row in table] == [0.55, 0.55, 0.55, 0.55, 0.57, 0.57, 0.58, 0.58, 0.60]
    assert [row[1] for row in table] == [50, 50, 75, 100, 100, 150, 150, 200, 200]
    assert [row[2] for row in table] == [10, 10, 15, 20, 25, 30, 35, 40, 50]


@pytest.mark.parametrize(
    ("mine", "theirs", "verdict"),
    [
        (elo(250), elo(200), "accept"),
        (elo(249), elo(200), "reject"),
        (None, elo(200), "reject"),
        (elo(250), None, "reject"),
        (None, None, "reject"),
    ],
)
def test_a_tier_asks_for_a_gain_and_a_missing_elo_never_passes(
    mine: Elo | None, theirs: Elo | None, verdict: str
) -> None:
    decision = against(STRONG, PromotionRules(ladder=(), tier=TIERS["D9"]), elo=mine, champion_elo=theirs)
    assert decision.verdict == verdict
    assert ("has no Elo" in decision.why) == (mine is None or theirs is None)


def test_a_tier_asks_for_games_and_for_a_share_of_the_points() -> None:
    known = {"elo": elo(300), "champion_elo": elo(200)}
    clean = PairCounts((0, 0, 0, 0, 50))
    few = against(clean, PromotionRules(ladder=(), tier=Tier(0.55, 120, 0.0)), **known)
    assert (few.verdict, few.next_pairs) == ("play on", {"v1": 10})
    narrow = PairCounts((200, 0, 0, 0, 260))  # 56.5 %
    assert against(narrow, PromotionRules(ladder=(), tier=Tier(0.55, 120, 0.0)), **known).verdict == "accept"
    assert against(narrow, PromotionRules(ladder=(), tier=Tier(0.57, 120, 0.0)), **known).verdict == "reject"


@pytest.mark.parametrize(
    "make",
    [
        lambda: PromotionRules(alpha=0.6),
        lambda: PromotionRules(alpha=math.nan),
        lambda: PromotionRules(min_pairs=0),
        lambda: PromotionRules(min_pairs=10, max_pairs=5),
        lambda: PromotionRules(max_pairs=10.5),  # pyright: ignore[reportArgumentType]
        lambda: PromotionRules(ladder=(Rung("a"), Rung("a"))),
        lambda: PromotionRules(max_pairs=99, tier=TIERS["D9"]),
        lambda: Rung("random", math.nan),
        lambda: Rung(" "),
        lambda: Tier(1.0, 50, 10),
        lambda: Tier(0.55, -50, 10),
        lambda: Tier(0.55, 50, math.nan),
        lambda: Tier(0.55, 50, -10),
    ],
)
def test_rules_that_cannot_be_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # pyright: ignore[reportCallIssue]


# Below: with a registry.


@pytest.fixture
def promoter(tmp_path: Path) -> Iterator[Promoter]:
    registry = ModelRegistry(tmp_path / "runs", clock=lambda: 1.8e9)
    yield Promoter(registry, PromotionRules(min_pairs=25), WHO, NOW_PLAYED)
    registry.close()


def add(promoter: Promoter, number: int) -> str:
    file = promoter.registry.folder.parent / f"{number}.safetensors"
    file.write_bytes(b"%d" % number)
    return promoter.registry.register(KEY, file, config={}, metrics={}, who=WHO)


def play(
    promoter: Promoter,
    model: str,
    opponent: str,
    counts: PairCounts,
    *,
    first_pair: int = 0,
    conditions: str = NOW_PLAYED,
) -> None:
    draws = counts.counts[1] + counts.counts[3]
    promoter.registry.record(Match(model, opponent, counts, draws, conditions, 1, first_pair, 1.8e9))


def test_a_model_goes_from_candidate_to_champion_by_its_recorded_games(promoter: Promoter) -> None:
    registry, first = promoter.registry, add(promoter, 1)
    promoter.propose(first, "trained")
    assert registry.alias(KEY, "candidate") == first
    assert promoter.settle(first).next_pairs == {RANDOM: 25}
    assert registry.find(first).stage == "staging"
    play(promoter, first, RANDOM, PairCounts((0, 0, 2, 0, 23)))
    promoter.rate(first)
    assert promoter.settle(first).verdict == "accept"
    assert registry.alias(KEY, "champion") == first
    second = add(promoter, 2)
    play(promoter, second, RANDOM, PairCounts((0, 0, 0, 0, 25)))
    play(promoter, second, first, PairCounts((10, 5, 30, 5, 12)))
    assert promoter.settle(second).next_pairs.keys() == {first}
    play(promoter, second, first, PairCounts((0, 0, 20, 10, 60)), first_pair=62)
    rated = promoter.rate(second)
    champion = registry.find(first).elo
    assert rated is not None
    assert champion is not None
    assert rated.rating > champion.rating
    decision = promoter.settle(second)
    assert (decision.verdict, registry.alias(KEY, "champion")) == ("accept", second)
    assert registry.history(KEY)[-1].why == decision.why
    moves = registry.history()
    promoter.propose(second, "trained, said again after a crash")
    assert promoter.settle(second).verdict == "accept"
    assert registry.history() == moves


def test_who_is_rejected_stays_so(promoter: Promoter) -> None:
    model = add(promoter, 1)
    play(promoter, model, RANDOM, PairCounts((20, 0, 0, 0, 5)))
    assert promoter.settle(model).verdict == "reject"
    assert promoter.registry.find(model).stage == "rejected"
    moves = promoter.registry.history()
    assert promoter.settle("hex5_2p@latest").verdict == "reject"
    assert promoter.registry.history() == moves
    assert moves[-1].why.startswith("reject: 20.0% against random in 25 pairs 20-0-0-0-5")


def test_games_against_the_champion_before_do_not_count(promoter: Promoter) -> None:
    registry = promoter.registry
    old, new, candidate = (add(promoter, n) for n in range(3))
    for model in (old, new):
        registry.promote(model, expected=registry.alias(KEY, "champion"), who=WHO, why="better")
    play(promoter, candidate, RANDOM, PairCounts((0, 0, 0, 0, 25)))
    play(promoter, candidate, old, PairCounts((0, 0, 0, 0, 100)))
    decision = promoter.settle(candidate)
    assert (decision.champion, decision.verdict, decision.next_pairs) == (new, "play on", {new: 25})
    with pytest.raises(AliasMovedError):
        registry.promote(candidate, expected=old, who=WHO, why="decided before")


def test_a_rating_needs_an_opponent_whose_rating_is_known(promoter: Promoter) -> None:
    one, two = add(promoter, 1), add(promoter, 2)
    play(promoter, two, one, EVEN)
    assert promoter.rate(two) is None
    assert promoter.registry.ratings(two) == []
    promoter.registry.rate(one, elo(150), conditions=NOW_PLAYED)
    rated = promoter.rate(two)
    assert rated is not None
    assert rated.rating == pytest.approx(150, abs=0.01)
    assert rating_of({}, {}) is None


def test_games_under_other_conditions_say_nothing(promoter: Promoter) -> None:
    registry, model = promoter.registry, add(promoter, 1)
    play(promoter, model, RANDOM, PairCounts((0, 0, 0, 0, 25)), conditions=BEFORE)
    decision = promoter.settle(model)
    assert (decision.verdict, decision.next_pairs, promoter.estimate(model)) == (
        "play on",
        {RANDOM: 25},
        None,
    )
    assert registry.next_pair(model, RANDOM, 1, NOW_PLAYED) == 0
    play(promoter, model, RANDOM, PairCounts((20, 0, 0, 0, 5)))
    assert promoter.meetings(model) == {RANDOM: PairCounts((20, 0, 0, 0, 5))}
    assert promoter.settle(model).verdict == "reject"
    earlier = Promoter(registry, promoter.rules, WHO, BEFORE)
    assert earlier.meetings(model) == {RANDOM: PairCounts((0, 0, 0, 0, 25))}


def test_a_tier_is_reached_by_what_a_candidate_has_played(promoter: Promoter) -> None:
    registry, champion, candidate = promoter.registry, add(promoter, 1), add(promoter, 2)
    registry.rate(champion, elo(100), conditions=NOW_PLAYED)
    registry.promote(champion, expected=None, who=WHO, why="first")
    rules = PromotionRules(WilsonBound(), ladder=(), min_pairs=25, tier=TIERS["D4"])
    strict = Promoter(registry, rules, WHO, NOW_PLAYED)
    play(promoter, candidate, champion, PairCounts((0, 0, 0, 0, 25)))
    assert strict.settle(candidate).next_pairs == {champion: 25}
    play(promoter, candidate, champion, PairCounts((0, 0, 0, 0, 25)), first_pair=25)
    decision = strict.settle(candidate)
    assert (decision.verdict, registry.alias(KEY, "champion")) == ("accept", candidate)
    assert "of 100 games by its tier with 55.0% and a gain of 20 Elo" in decision.why


def test_the_settings_say_the_rules() -> None:
    config = PromotionConfig(tier="D4", ladder=("random", "mcts:100"), ladder_score=0.6, error=0.01)
    rules = PromotionRules.of(config)
    assert (rules.test, rules.alpha, rules.tier) == (Sprt(0.0, 60.0, 0.01, 0.01), 0.01, TIERS["D4"])
    assert rules.ladder == (Rung("random", 0.6), Rung("mcts:100", 0.6))
    assert (rules.min_pairs, rules.max_pairs) == (25, 200)
    wilson = PromotionRules.of(PromotionConfig(test="wilson", min_score=0.55))
    assert wilson.test == WilsonBound(0.55, 0.05)
    named = PromotionConfig.model_fields["tier"].annotation
    assert {each for part in get_args(named) for each in get_args(part)} == set(TIERS)


@pytest.mark.parametrize(
    ("given", "mentions"),
    [
        ("tier=D10", "D1 or D2"),
        ("test=coin", "sprt or wilson"),
        ("error=0.5", "less than 0.5"),
        ("elo_gain=0", "more than 0"),
        ("elo_gain=.nan", "more than 0"),
        ("min_score=1", "less than 1"),
        ("min_pairs=201", "max_pairs to at least 201"),
        ("ladder=[random,random]", "twice"),
        ("ladder=['']", "a list"),
        ("watch_minutes=0", "more than 0"),
        ("watch_pairs=0", "at least 1"),
        ("max_elo_fall=0", "more than 0"),
        ("max_score_fall=1.5", "at most 1"),
        ("in_a_row=11", "last_ratings to at least 11"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_three_lines(given: str, mentions: str) -> None:
    with pytest.raises(UsageError) as caught:
        CONTROL.override(ControlConfig(), [f"promotion.{given}"])
    lines = str(caught.value).splitlines()
    assert (len(lines), mentions in str(caught.value)) == (3, True), str(caught.value)


def test_a_tier_of_more_games_than_are_played_is_refused() -> None:
    config = CONTROL.override(ControlConfig(), ["promotion.tier=D9", "promotion.max_pairs=99"])
    with pytest.raises(UsageError, match="can never be played"):
        PromotionRules.of(config.promotion)
