"""Candidates are settled once whatever dies, and a champion that was promoted by luck gives way to the one before."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control import fencing
from control.keys import Key
from control.model_cards import Elo
from control.trainings import lock_of
from tests.control.registered import add, reign
from tests.control.rig import KEY, Rig, rig_at

CONDITIONS = "simulations=16 opening_plies=2"
FIRST, SECOND = "hex5_2p-v1", "hex5_2p-v2"


class Killed(BaseException):
    """As if the process were gone: nothing is tidied up."""


def die(*args: Any, **given: Any) -> Any:
    raise Killed


def crown(rig: Rig, *strengths: int) -> list[str]:
    """Make champions one after the other, whatever they are worth; nobody plays, so nothing is trained."""
    registry = rig.memory.registry
    rig.stages.play = lambda *args: None  # type: ignore[method-assign]
    models = [add(registry, strength) for strength in strengths]
    for number, model in enumerate(models):
        rating = 100.0 * (number + 1)
        registry.rate(model, Elo(rating, rating - 40, rating + 40, 100), conditions=CONDITIONS)
        reign(registry, model)
    return models


def rounds(rig: Rig, count: int, *, minutes: float = 61.0) -> None:
    for _ in range(count):
        rig.later(minutes)
        rig.round()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rig_at(tmp_path) as made:
        yield made


def test_a_champion_that_was_promoted_by_luck_gives_way_after_three_watches(rig: Rig) -> None:
    one, lucky = crown(rig, 5, 3)
    registry = rig.memory.registry
    rounds(rig, 2)
    assert registry.alias(KEY, "champion") == lucky
    rounds(rig, 1)
    assert registry.alias(KEY, "champion") == one
    assert any(line.startswith(f"{KEY}: {lucky} gives way to {one}, roll back: ") for line in rig.said)
    assert [rating.stage for rating in registry.ratings(lucky)] == ["development", *["production"] * 3]
    # It is noted as what it was: lost games, and Elo that fell.
    (state,) = rig.memory.monitor.report().keys
    facts = rig.autopilot._facts()[KEY]
    assert (state.record.win_rate, facts.recent.win_rate, facts.recent.games) == (0.0, 0.0, 100)
    # The one before plays, in a reign of its own, and is the parent of the next.
    del rig.stages.play
    rig.stages.done.clear()
    (result,) = rig.round()
    assert rig.stages.done[0] == f"play {KEY} {one} in reign 3"
    assert f"fit {KEY} from {one}" in rig.stages.done
    assert registry.find(result.model_id or "").parent == one
    proposed = [move for move in registry.history(model=lucky) if move.what == "candidate"]
    assert (registry.find(lucky).stage, proposed) == ("archived", [])


def test_a_champion_that_is_stronger_stays(rig: Rig) -> None:
    *_, champion = crown(rig, 3, 5)
    rounds(rig, 12)
    assert rig.memory.registry.alias(KEY, "champion") == champion
    assert len([line for line in rig.said if "has met" in line]) == 12


def test_the_games_of_a_watch_have_openings_of_their_own(rig: Rig) -> None:
    one, champion = crown(rig, 3, 5)
    rounds(rig, 3)
    against = [pairs for _, opponent, pairs in rig.stages.openings if opponent == one]
    assert against == [range(0, 50), range(50, 100), range(100, 150)]
    assert {opponent for _, opponent, _ in rig.stages.openings} == {one, "random"}
    assert {match.conditions for match in rig.memory.registry.matches(champion)} == {CONDITIONS}


def test_a_champion_is_watched_only_so_often(rig: Rig) -> None:
    crown(rig, 3, 5)
    rounds(rig, 1)
    rounds(rig, 5, minutes=10.0)
    assert len(rig.stages.openings) == 2
    rounds(rig, 1, minutes=10.0)
    assert len(rig.stages.openings) == 4


@pytest.mark.parametrize(
    ("strengths", "settings"), [((3, 5), ("promotion.watch_minutes=null",)), ((3,), ()), ((), ())]
)
def test_who_is_not_to_be_watched_is_left_alone(
    tmp_path: Path, strengths: tuple[int, ...], settings: tuple[str, ...]
) -> None:
    with rig_at(tmp_path, settings=settings) as rig:
        crown(rig, *strengths)
        rounds(rig, 3)
        assert rig.stages.openings == []


def test_a_clock_that_went_ahead_does_not_keep_a_champion_from_being_watched(rig: Rig) -> None:
    crown(rig, 3, 5)
    rounds(rig, 1, minutes=1e6)
    assert len(rig.stages.openings) == 2
    rounds(rig, 1, minutes=-1e6)
    assert len(rig.stages.openings) == 4


def test_a_key_that_is_trained_is_not_watched(rig: Rig) -> None:
    crown(rig, 5, 3)
    with rig.memory.lock(lock_of(KEY)):
        rounds(rig, 1)
    assert rig.stages.openings == []


def test_a_key_whose_training_was_left_unfinished_and_rests_is_not_watched(tmp_path: Path) -> None:
    rest = ("triggers.min_interval_minutes=20", "triggers.longest_interval_minutes=600")
    with rig_at(tmp_path, settings=rest) as rig:
        crown(rig, 5, 3)
        rig.later(61.0)
        lock, journal = rig.memory.lock(lock_of(KEY)), rig.memory.journal
        with lock:
            training = rig.memory.trainings.begin(KEY, lock.token, reason="a test")
            journal.start_training(KEY, owner="x", most=3, now=rig.now)
            journal.pause_training(KEY, owner="x", now=rig.now, failed=True)
        rig.round()
        assert (rig.memory.trainings.under_way(), rig.stages.openings) == ([training], [])


def test_who_loses_the_lock_while_watching_rolls_nobody_back(rig: Rig) -> None:
    _, champion = crown(rig, 5, 3)
    rounds(rig, 2)
    fence, meet, done = fencing.Fence(rig.database), rig.stages.meet, threading.Event()

    def lose(*args: Any, **given: Any) -> Any:
        if not done.is_set():
            fence.outrun(lock_of(KEY))  # another has been given the lock
            rig.stages.lost = lambda: True
            done.set()
        return meet(*args, **given)

    rig.stages.meet = lose  # type: ignore[method-assign]
    rounds(rig, 1)
    assert any("was not watched" in line for line in rig.said)
    assert rig.memory.registry.alias(KEY, "champion") == champion
    assert len(rig.memory.registry.ratings(champion)) == 3


def test_a_watch_that_fails_is_told_and_not_tried_each_round(rig: Rig) -> None:
    crown(rig, 3, 5)
    rig.stages.broken = "meet"
    rounds(rig, 1)
    rounds(rig, 3, minutes=5.0)
    assert len([line for line in rig.said if "was not watched: the machine failed" in line]) == 1
    rig.stages.broken = None
    rounds(rig, 1)
    assert len(rig.stages.openings) == 2


def noted(rig: Rig) -> list[tuple[int, int]]:
    rows = rig.database.read("SELECT wins, losses FROM journal_results ORDER BY number")
    return [(row["wins"], row["losses"]) for row in rows]


def kill(rig: Rig, when: str) -> None:
    """Let the process die at a moment of the evaluation."""
    registry, promote = rig.memory.registry, rig.memory.registry.promote

    def promote_and_die(*args: Any, **given: Any) -> None:
        promote(*args, **given)
        raise Killed

    if when == "before the note":
        rig.memory.journal.record_result = die  # type: ignore[method-assign]
    elif when == "after the note":
        rig.memory.monitor.record_win_rate = die  # type: ignore[method-assign]
    else:
        registry.promote = die if when == "before the promotion" else promote_and_die  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "when", ["before the note", "after the note", "before the promotion", "after the promotion"]
)
def test_a_candidate_is_noted_once_against_whom_it_met_wherever_the_process_dies(
    tmp_path: Path, when: str
) -> None:
    with rig_at(tmp_path) as first:
        first.round()
        kill(first, when)
        with pytest.raises(Killed):
            first.round()
    with rig_at(tmp_path) as second:
        met = second.memory.registry.matches(SECOND, FIRST)
        second.stages.play = lambda *args: None  # type: ignore[method-assign]
        (result,) = second.round()
        assert (result.model_id, result.promoted) == (SECOND, True)
        assert second.memory.registry.matches(SECOND, FIRST) == met
        assert noted(second) == [(sum(match.games for match in met), 0)]


def test_a_candidate_whose_champion_was_replaced_at_the_last_moment_meets_the_new_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = crown(rig, 1)
    registry = rig.memory.registry
    other, candidate = add(registry, 2), add(registry, 3)
    evaluation = rig.autopilot._evaluation  # pyright: ignore[reportPrivateUsage]
    note = rig.memory.monitor.record_win_rate

    def replace_champion(key: Key, win_rate: float) -> None:
        note(key, win_rate)
        if registry.alias(KEY, "champion") == first:
            reign(registry, other)

    monkeypatch.setattr(rig.memory.monitor, "record_win_rate", replace_champion)
    told = evaluation.settle(KEY, candidate)
    assert (told["verdict"], registry.alias(KEY, "champion")) == ("accept", candidate)
    assert {match.opponent for match in registry.matches(candidate)} == {first, other, "random"}
