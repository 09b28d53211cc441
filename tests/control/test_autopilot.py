"""The autopilot goes round: it plays, trains what calls for it, once, and what was left unfinished first."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control import fencing
from control.autopilot import MOST_FAILURES
from control.keys import Key
from control.trainings import lock_of
from core.errors import UsageError
from tests.control.rig import KEY, OTHER, Rig, rig_at


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rig_at(tmp_path) as made:
        yield made


def test_the_first_model_is_trained_from_untrained_games_and_becomes_champion(rig: Rig) -> None:
    (result,) = rig.round()
    assert (result.key, result.success, result.model_id, result.promoted) == (KEY, True, "hex5_2p-v1", True)
    assert rig.stages.done[:3] == [
        "play hex5_2p untrained in reign 0",
        "export hex5_2p",
        "fit hex5_2p from None",
    ]
    assert set(result.made) == {"parent", "export", "fit", "register", "evaluate"}
    elo = rig.memory.registry.find("hex5_2p@champion").elo
    assert elo is not None
    assert elo.rating > 100
    (state,) = rig.memory.monitor.report().keys
    assert (state.record.models, state.record.games) == (1, 120)


def test_the_champion_plays_and_is_the_parent_of_the_next(rig: Rig) -> None:
    rig.round()
    rig.stages.done.clear()
    (result,) = rig.round()
    assert rig.stages.done[:3] == [
        "play hex5_2p hex5_2p-v1 in reign 1",
        "export hex5_2p",
        "fit hex5_2p from hex5_2p-v1",
    ]
    assert "meet hex5_2p hex5_2p-v1" in rig.stages.done
    model = rig.memory.registry.find("hex5_2p@champion")
    assert (model.id, model.parent, result.promoted) == ("hex5_2p-v2", "hex5_2p-v1", True)


def test_one_that_is_no_stronger_does_not_become_champion(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.round()
    monkeypatch.setattr("tests.control.rig.strength", lambda model: 1)
    (result,) = rig.round()
    assert (result.success, result.promoted) == (True, False)
    assert rig.memory.registry.alias(KEY, "champion") == "hex5_2p-v1"
    assert rig.memory.registry.find("hex5_2p-v2").stage == "rejected"


def test_nothing_is_trained_before_its_signals_call_for_it(rig: Rig) -> None:
    rig.round()
    rig.stages.play = lambda *args: None  # type: ignore[method-assign] # nobody plays, so nothing is new
    assert rig.round() == []


def test_a_failure_is_told_counted_and_leaves_the_others_alone(tmp_path: Path) -> None:
    with rig_at(tmp_path, KEY, OTHER) as rig:
        rig.stages.broken = f"fit {KEY}"
        results = {result.key: result for result in rig.round()}
        assert not results[KEY].success
        assert results[OTHER].promoted
        assert "the machine failed" in results[KEY].message
        alerts = rig.memory.monitor.report().active_alerts
        assert [(alert.key, alert.severity) for alert in alerts] == [(KEY, "warning")]
        rig.stages.broken = None
        assert KEY in {result.key for result in rig.round() if result.success}
        assert not rig.memory.monitor.report().active_alerts


def test_what_a_dead_process_left_is_gone_on_with_first_and_done_once(tmp_path: Path) -> None:
    with rig_at(tmp_path) as first:
        first.stages.played[KEY] = 200

        class Killed(BaseException):
            """As if the process were gone: nothing is tidied up."""

        def die(*args: Any, **given: Any) -> Any:
            raise Killed

        first.stages.fit = die  # type: ignore[method-assign]
        with pytest.raises(Killed):
            first.round()
    with rig_at(tmp_path) as second:
        second.stages.played[KEY] = 200
        result = second.round()[0]
        assert (result.model_id, result.promoted) == ("hex5_2p-v1", True)
        assert second.stages.done[0] == "fit hex5_2p from None"
        assert (
            "export hex5_2p"
            not in second.stages.done[: second.stages.done.index("play hex5_2p hex5_2p-v1 in reign 1")]
        )
        assert len(second.memory.registry.models(KEY)) == 1 + (len(second.memory.trainings.newest(9)) - 1)


def test_a_key_that_another_trains_is_left_to_it(rig: Rig, tmp_path: Path) -> None:
    with rig.memory.lock(lock_of(KEY)):
        assert rig.round() == []
    assert any("another trains it" in line for line in rig.said)
    assert rig.round()[0].success


@pytest.mark.parametrize("keys", [(KEY, KEY)])
def test_keys_are_given_once(tmp_path: Path, keys: tuple[Key, ...]) -> None:
    with pytest.raises(UsageError, match="given twice"):
        Rig(tmp_path, *keys)


def test_one_that_is_asked_to_stop_leaves_no_failure_behind(rig: Rig) -> None:
    class AskedToStop(Exception):
        pass

    def stop(*args: Any, **given: Any) -> Any:
        raise AskedToStop

    rig.stages.fit = stop  # type: ignore[method-assign]
    with pytest.raises(AskedToStop):
        rig.round()
    (state,) = rig.memory.monitor.report().keys
    assert (state.record.training, state.record.failures) == (None, 0)
    assert len(rig.memory.trainings.under_way()) == 1


def test_a_pause_is_of_the_training_that_is_named(rig: Rig) -> None:
    monitor = rig.memory.monitor
    monitor.record_training_start(KEY, "first")
    monitor.record_training_pause(KEY, "another")
    assert monitor.report().keys[0].record.training is not None
    monitor.record_training_pause(KEY, "first")
    assert monitor.report().keys[0].record.training is None


def test_a_stage_that_failed_is_tried_again_and_given_up_after_some_times(rig: Rig) -> None:
    rig.stages.broken = f"fit {KEY}"
    for _ in range(MOST_FAILURES):
        if rig.memory.trainings.newest(9) and rig.memory.trainings.get(1).ended:
            break
        rig.round()
    assert rig.memory.trainings.get(1).success is False
    assert rig.database.read("SELECT failures FROM trainings WHERE number = 1")[0][0] == MOST_FAILURES
    rig.stages.broken = None
    assert any(result.success for result in rig.round())


def test_who_loses_the_lock_leaves_the_training_and_its_records_to_the_other(rig: Rig) -> None:
    name, fence = lock_of(KEY), fencing.Fence(rig.database)

    def lose(*args: Any, **given: Any) -> Any:
        fence.outrun(name)  # another has been given the lock
        return {"model": "", "config": {}, "metrics": {}}

    rig.stages.fit = lose  # type: ignore[method-assign]
    assert rig.round() == []
    assert any("left to another" in line for line in rig.said)
    assert len(rig.memory.trainings.under_way()) == 1
    (state,) = rig.memory.monitor.report().keys
    assert state.record.failures == 0


def test_what_only_a_training_needed_is_removed_at_its_end(rig: Rig) -> None:
    rig.round()
    assert rig.stages.tidied == [1]


def test_a_tier_that_cannot_be_reached_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can never be played"):
        Rig(tmp_path, settings=("promotion.tier=D9", "promotion.max_pairs=99"))


def test_a_result_tells_how_long_its_stages_took(rig: Rig) -> None:
    (result,) = rig.round()
    times = (result.export_seconds, result.training_seconds, result.evaluation_seconds)
    assert times == tuple(result.made[stage]["seconds"] for stage in ("export", "fit", "evaluate"))
    told = json.loads(json.dumps(result.as_json()))
    assert (told["key"], told["success"], told["model_id"]) == ("hex5_2p", True, "hex5_2p-v1")
    assert (told["promoted"], told["export_seconds"]) == (True, times[0])


def test_a_result_of_what_failed_tells_so_and_no_times_of_what_was_not_done(rig: Rig) -> None:
    rig.stages.broken = "fit"
    results = [result for _ in range(MOST_FAILURES) for result in rig.round()][:MOST_FAILURES]
    assert [result.success for result in results] == [None] * (MOST_FAILURES - 1) + [False]
    assert results[-1].export_seconds is not None
    assert (results[-1].training_seconds, results[-1].evaluation_seconds) == (None, None)
    assert (results[-1].model_id, results[-1].promoted) == (None, False)
    assert results[-1].message.startswith("the machine failed: a test had it so; none")


def test_what_fails_all_the_time_is_said_once(rig: Rig) -> None:
    rig.stages.broken = "play"
    for _ in range(3):
        rig.round()
    assert sum("no games" in line for line in rig.said) == 1
    rig.stages.broken = None
    rig.round()
    rig.stages.broken = "play"
    rig.round()
    assert sum("no games" in line for line in rig.said) == 2


def test_a_stage_that_was_killed_once_is_done_again_in_the_next_round_and_then_after_a_rest(
    tmp_path: Path,
) -> None:
    with rig_at(
        tmp_path, settings=("triggers.min_interval_minutes=2", "triggers.longest_interval_minutes=60")
    ) as rig:
        rig.stages.broken = "fit"
        assert [result.success for result in rig.round()] == [None]
        assert [result.success for result in rig.round()] == [None]
        assert rig.round() == []  # it rests
        rig.stages.broken = None
        rig.later(61)
        assert [result.success for result in rig.round()] == [True]
        assert rig.memory.trainings.newest(9)[0].number == 1
