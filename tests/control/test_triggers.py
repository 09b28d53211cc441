"""When a key is trained: each signal at its threshold, what holds it back, and the limit across keys."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.control import DECISIONS, DecisionsConfig, TriggersConfig
from control.curriculum import KeyFacts, Momentum, Recent
from control.keys import Key
from control.triggers import Decision, decide, decide_all
from core.errors import UsageError

NOW = 1_000_000.0
HOUR, MINUTE = 3600.0, 60.0
SETTINGS = TriggersConfig()
QUIET = KeyFacts(
    games=1000, games_trained_on=1000, models=5, last_trained=NOW - HOUR, last_attempt=NOW - HOUR
)
"""Nothing is reason enough."""


def with_new(games: int, facts: KeyFacts = QUIET) -> KeyFacts:
    return replace(facts, games=facts.games_trained_on + games)


def old(hours: float, facts: KeyFacts = QUIET) -> KeyFacts:
    return replace(facts, last_trained=NOW - hours * HOUR, last_attempt=NOW - hours * HOUR)


def winning(share: float, games: int, facts: KeyFacts = QUIET) -> KeyFacts:
    return replace(facts, recent=Recent(games=games, weight=games, win_rate=share))


def decided(facts: KeyFacts, settings: TriggersConfig = SETTINGS) -> tuple[bool, str]:
    decision = decide(facts, settings, now=NOW)
    return decision.should_train, decision.rule


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (QUIET, (False, "none")),
        (with_new(499), (False, "none")),
        (with_new(500), (True, "data_freshness")),
        (old(6, with_new(149)), (False, "none")),
        (old(6, with_new(150)), (True, "model_staleness")),
        (old(5.99, with_new(150)), (False, "none")),
        (winning(0.40, 300, with_new(50)), (True, "performance_regression")),
        (winning(0.40, 300, with_new(49)), (False, "none")),
        (winning(0.40, 200, with_new(50)), (False, "none")),  # as so few games may by chance
        (winning(0.45, 10**9, with_new(50)), (False, "none")),
        (winning(0.0, 20, with_new(50)), (True, "performance_regression")),
        (KeyFacts(games=49), (False, "none")),
        (KeyFacts(games=50), (True, "bootstrap")),
        (KeyFacts(games=150, models=1), (True, "model_staleness")),  # as old as can be
    ],
)
def test_each_rule_at_its_threshold(facts: KeyFacts, expected: tuple[bool, str]) -> None:
    assert decided(facts) == expected


def test_without_sigmas_a_win_rate_is_compared_as_it_is() -> None:
    bare = TriggersConfig(win_rate_sigmas=0)
    assert decided(winning(0.449, 10, with_new(50)), bare) == (True, "performance_regression")
    assert decided(winning(0.45, 10, with_new(50)), bare) == (False, "none")


def test_scores_are_told_under_their_names_and_weigh_in_the_priority() -> None:
    facts = winning(0.36, 100, old(3, with_new(400)))
    decision = decide(facts, SETTINGS, now=NOW)

    assert dict(decision.signal_scores) == {
        "data_freshness": pytest.approx(0.8),
        "model_staleness": pytest.approx(0.5),
        "performance_regression": pytest.approx(0.2),
    }
    assert decision.priority == pytest.approx(1.0 * 0.8 + 0.8 * 0.5 + 1.5 * 0.2)
    assert decide(KeyFacts(games=50), SETTINGS, now=NOW).priority == 10.0


def test_the_reason_has_the_numbers() -> None:
    assert decide(with_new(612), SETTINGS, now=NOW).reason == "612 new games are at least 500"
    assert "13.0 min are left of the 20.0 min" in decide(old(7 / 60, with_new(612)), SETTINGS, now=NOW).reason


@pytest.mark.parametrize(
    ("momentum", "enough"),
    [("accelerating", 75), ("improving", 150), ("stable", 300), ("plateau", 500), ("regressing", 500)],
)
def test_fewer_new_games_are_enough_while_elo_climbs(momentum: Momentum, enough: int) -> None:
    facts = replace(QUIET, recent=Recent(games=50, weight=50, momentum=momentum))
    assert decided(with_new(enough - 1, facts)) == (False, "none")
    assert decided(with_new(enough, facts)) == (True, "data_freshness")
    assert decide(facts, SETTINGS, now=NOW).limits.freshness_games == enough


@pytest.mark.parametrize(
    ("failures", "minutes"), [(0, 20), (1, 40), (2, 80), (4, 320), (5, 360), (1000, 360)]
)
def test_the_interval_holds_and_grows_with_failures(failures: int, minutes: float) -> None:
    held = replace(with_new(900), failures=failures, last_attempt=NOW - minutes * MINUTE + 1)
    passed = replace(held, last_attempt=NOW - minutes * MINUTE)
    assert decided(held) == (False, "interval")
    assert decide(held, SETTINGS, now=NOW).limits.wait_seconds == pytest.approx(1)
    assert decided(passed) == (True, "data_freshness")


def test_the_interval_holds_back_a_first_model_too() -> None:
    assert decided(KeyFacts(games=5000, failures=1, last_attempt=NOW - MINUTE)) == (False, "interval")


def test_what_is_trained_is_not_trained_again() -> None:
    assert decide(with_new(900), SETTINGS, now=NOW, training=True).rule == "training"


def test_a_record_a_little_ahead_counts_as_of_now_and_is_said() -> None:
    facts = replace(with_new(900), last_trained=NOW + 5 * MINUTE, last_attempt=NOW + 5 * MINUTE)
    decision = decide(facts, SETTINGS, now=NOW)
    assert (decision.rule, decision.limits.wait_seconds) == ("interval", 20 * MINUTE)
    assert decision.signal_scores["model_staleness"] == 0
    assert len(decision.notes) == 2
    assert "5.0 min ahead" in decision.notes[0]


def test_a_clock_that_was_a_year_ahead_does_not_stop_training_for_a_year() -> None:
    ahead = NOW + 365 * 24 * HOUR
    facts = replace(with_new(900), last_trained=ahead, last_attempt=ahead)
    assert decided(facts) == (True, "data_freshness")


def test_data_that_is_gone_is_said_and_nothing_is_new() -> None:
    decision = decide(replace(QUIET, games=400), SETTINGS, now=NOW)
    assert decision.notes == ("600 of the games trained on are gone",)
    assert decision.signal_scores["data_freshness"] == 0


@pytest.mark.parametrize("now", [math.nan, math.inf, -1.0])
def test_no_time_is_refused(now: float) -> None:
    with pytest.raises(UsageError):
        decide(QUIET, SETTINGS, now=now)


@pytest.mark.parametrize(
    "setting",
    [
        "triggers.freshness_games=-5",
        "triggers.freshness_games=0",
        "triggers.staleness_hours=-1",
        "triggers.staleness_hours=.nan",
        "triggers.min_win_rate=0",
        "triggers.min_win_rate=.nan",
        "triggers.max_concurrent=0",
        "triggers.longest_interval_minutes=10",
        "triggers.stable_share=0.1",
        "triggers.bootstrap_priority=2",
        "recent.stable_elo=30",
        "curriculum.low_win_rate=0.9",
        "curriculum.least_weight=1.5",
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        DECISIONS.override(DecisionsConfig(), [setting])


def test_no_section_has_more_settings_than_one_sees_at_a_glance() -> None:
    sections = DecisionsConfig().model_dump()
    assert {name for name, section in sections.items() if len(section) > 20} == set()
    with pytest.raises(ValidationError):
        TriggersConfig.model_validate({"no_such": 1})


A, B, C, D = Key("a"), Key("b"), Key("c"), Key("d")


def rules(decisions: dict[Key, Decision]) -> dict[Key, str]:
    return {key: decision.rule for key, decision in decisions.items()}


def test_the_most_urgent_get_the_places_that_are_left() -> None:
    facts = {A: with_new(500), B: KeyFacts(games=60), C: old(3, with_new(700)), D: QUIET}
    decisions = decide_all(facts, [Key("elsewhere")], SETTINGS, now=NOW)

    assert [key for key, decision in decisions.items() if decision.should_train] == [B, C]
    assert rules(decisions) == {A: "limit", B: "bootstrap", C: "data_freshness", D: "none"}
    assert decisions[A].reason == (
        "500 new games are at least 500; but max_concurrent=3 are taken by b_2p, c_2p, elsewhere_2p;"
        " it is number 1 of who waits"
    )


def test_of_equal_keys_the_one_that_waited_longest_goes_first() -> None:
    one = TriggersConfig(max_concurrent=1)
    facts = {A: old(7, with_new(500)), B: old(9, with_new(500)), C: old(8, with_new(500))}
    assert rules(decide_all(facts, [], one, now=NOW)) == {A: "limit", B: "data_freshness", C: "limit"}


def test_more_running_than_allowed_leaves_no_place() -> None:
    running = [Key(f"r{k}") for k in range(5)]
    assert rules(decide_all({A: with_new(900)}, running, SETTINGS, now=NOW)) == {A: "limit"}


counts = st.integers(0, 2000)
times = st.none() | st.floats(0, 2 * NOW)


@given(
    st.lists(
        st.builds(
            KeyFacts,
            games=counts,
            games_trained_on=counts,
            models=st.integers(0, 3),
            last_trained=times,
            last_attempt=times,
            failures=st.integers(0, 5),
            recent=st.builds(
                Recent, games=counts, weight=st.floats(1, 2000), win_rate=st.none() | st.floats(0, 1)
            ),
        ),
        max_size=12,
    ),
    st.sets(st.integers(0, 14), max_size=5),
    st.integers(1, 4),
)
def test_the_limit_holds_and_the_places_go_by_priority(
    known: list[KeyFacts], busy: set[int], most: int
) -> None:
    facts = {Key(f"k{k:02}"): each for k, each in enumerate(known)}
    running = {Key(f"k{k:02}") for k in busy}
    decisions = decide_all(facts, running, TriggersConfig(max_concurrent=most), now=NOW)

    chosen = {key for key, decision in decisions.items() if decision.should_train}
    waiting = {key for key, decision in decisions.items() if decision.rule == "limit"}
    assert len(chosen) <= max(0, most - len(running))
    assert not chosen & running
    if waiting:
        assert len(chosen) == max(0, most - len(running))
        assert all(
            decisions[one].priority >= decisions[other].priority for one in chosen for other in waiting
        )
    for decision in decisions.values():
        assert all(0 <= score <= 1 for score in decision.signal_scores.values())
