"""What is told when new weights do not reach who plays, or rows come too late."""

from typing import Any

from cluster.monitoring.lag import STALE_SECONDS, TELL_SECONDS, LagWatch
from cluster.monitoring.observer import Observer
from tests.cluster.tiny import tiny_config


def stats(*, dropped: int = 0, newest: int = 0, held: int | None = 0) -> dict[str, dict[str, Any]]:
    return {"learner": {"rows_too_old": dropped, "version": newest}, "inference-0": {"version": held}}


def test_rows_that_were_dropped_are_told_with_the_bound_and_not_at_every_look() -> None:
    watch = LagWatch(8)
    assert watch.take(stats(dropped=500), 0.0) == [], "an earlier life of the run dropped them"

    (told,) = watch.take(stats(dropped=1532), 1.0)
    assert told.startswith("learner: dropped 1,032 rows that were older than learner.max_lag_versions=8")
    assert watch.take(stats(dropped=1600), 2.0) == []
    (told,) = watch.take(stats(dropped=1700), 1.0 + TELL_SECONDS)
    assert "dropped 168 rows" in told
    assert watch.take(stats(dropped=1700), 1000.0) == []


def test_a_learner_that_remembers_fewer_after_a_restart_is_counted_from_there() -> None:
    watch = LagWatch(8)
    watch.take(stats(dropped=0), 0.0)
    watch.take(stats(dropped=100), 1.0)
    assert watch.take(stats(dropped=40), 50.0) == []
    (told,) = watch.take(stats(dropped=60), 100.0)
    assert "dropped 20 rows" in told


def test_a_server_that_keeps_old_weights_is_told_again_and_again() -> None:
    watch = LagWatch(8)
    assert watch.take(stats(newest=3, held=3), 0.0) == []
    assert watch.take(stats(newest=3, held=3), 10 * STALE_SECONDS) == [], "nothing new to be had"

    began = 10 * STALE_SECONDS
    told = [watch.take(stats(newest=4 + k, held=3), began + k) for k in range(1, int(2 * STALE_SECONDS) + 1)]
    assert [k for k, texts in enumerate(told, 1) if texts] == [STALE_SECONDS, 2 * STALE_SECONDS]
    assert told[59] == ["inference-0 has answered with version 3 for 60 s, although version 64 is out"]


def test_a_server_that_is_always_a_little_behind_is_not() -> None:
    watch = LagWatch(8)
    assert not [k for k in range(1000) if watch.take(stats(newest=k + 2, held=k), float(k))]


def test_a_server_that_nobody_has_asked_and_a_run_that_is_starting_are_not() -> None:
    watch = LagWatch(8)
    assert not [k for k in range(200) if watch.take(stats(newest=k, held=None), float(k))]
    assert watch.take({}, 300.0) == []


def test_servers_that_left_are_forgotten() -> None:
    watch = LagWatch(8)
    for k in range(1000):
        assert watch.take({"learner": {"version": 5}, f"inference-{k}": {"version": 2}}, float(k)) == []

    assert list(watch._behind) == ["inference-999"]


def test_what_the_watch_finds_reaches_the_panel_and_the_log() -> None:
    observer, log = Observer("run", tiny_config()), list[str]()
    observer.log_to(log.append)
    for second in range(int(STALE_SECONDS) + 2):
        picture = observer.take(stats(newest=5, held=2), elapsed_seconds=float(second))
    assert log == ["inference-0 has answered with version 2 for 60 s, although version 5 is out"]
    assert picture.events[-1].text == log[0]
