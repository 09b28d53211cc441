"""Machines that their cloud takes away: what a program does about it, without any Ray."""

from pathlib import Path

import pytest
from ray.exceptions import ActorUnschedulableError

from cluster.machines.following import (
    GONE_BEFORE_SECONDS,
    QUIET_SECONDS,
)
from cluster.machines.spot import LOOK_SECONDS, Told
from cluster.machines.spot_watches import DOUBTED_SECONDS
from tests.cluster.changing_cluster import FAR, GPU, Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path / "run", monkeypatch)


def test_a_machine_that_its_cloud_takes_away_delivers_in_time_and_is_drained(run: Run) -> None:
    run.ray.join(FAR, 4, 0, **{"ray.io/market-type": "spot"})
    run.steps(3)
    actor = run.some("actor", FAR)
    (home, far) = run.following.standings({})
    assert (home.watched_by, far.watched_by, far.leaves_in_seconds) == ("", "aws", None)

    run.ray.watchers[FAR].look.answer = Told("aws", leaves_in_seconds=20.0, what="terminate")
    run.steps(1, seconds=LOOK_SECONDS)  # it is asked
    run.steps(1)  # and its answer is taken

    assert run.said[-1] == (
        "machine host (fafafa) is to leave in 20 s (AWS says 'terminate'): its actors play their games out"
    )
    assert run.drained == [(FAR, 20.0, "AWS: terminate")]
    assert run.on(FAR) == {"inference": 2}
    assert (actor.handle.leave.calls, actor.handle.stop.calls) == (1, 0)
    assert actor.leaves_by == run.ray.clock() + 20.0 - GONE_BEFORE_SECONDS
    _, far = run.following.standings({})
    assert far.state == "leaving"
    assert far.leaves_in_seconds == 20.0
    assert run.following.stats()["spot_notices"] == 1
    assert run.ray.watchers[FAR] in run.ray.killed  # nothing of ours keeps Ray there

    run.let_stop()
    run.steps()
    run.program.supervise()
    assert not any(part.node == FAR for part in run.program.parts.values())


def test_a_machine_that_comes_in_the_place_of_one_that_was_taken_away_plays(run: Run) -> None:
    run.ray.join(FAR, tamen="spot")
    run.steps()
    run.ray.watchers[FAR].look.answer = Told("gcp", leaves_in_seconds=25.0, what="preempted")
    run.steps(2, seconds=LOOK_SECONDS)
    run.let_stop()
    run.ray.machines.pop(FAR)
    run.ray.join(GPU, tamen="spot")
    run.steps(3)

    assert run.on(GPU) == {"actor": 2, "inference": 2}
    assert run.following.stats()["games_lost"] == 0
    assert set(run.ray.watchers) == {FAR, GPU}


def test_what_a_cloud_only_fears_is_told_once_and_changes_nothing(run: Run) -> None:
    run.ray.join(FAR, tamen="spot")
    run.steps()
    run.ray.watchers[FAR].look.answer = Told("aws", at_risk=True)
    run.steps(4, seconds=LOOK_SECONDS)

    assert run.said.count("machine host (fafafa) may be taken away soon, says AWS") == 1
    assert run.on(FAR) == {"actor": 2, "inference": 2}
    assert run.drained == []


def test_a_watcher_that_dies_is_asked_again_and_machines_that_stay_are_not_watched(run: Run) -> None:
    run.ray.join(FAR, tamen="spot")
    run.ray.join(GPU, gpus=1)
    run.steps()
    assert set(run.ray.watchers) == {FAR}
    look = run.ray.watchers[FAR].look
    look.answer = ActorUnschedulableError("no process")
    run.steps(3, seconds=LOOK_SECONDS)
    look.answer = Told("azure", leaves_in_seconds=30.0, what="Preempt")
    run.steps(2, seconds=LOOK_SECONDS)

    assert len(run.drained) == 1


def test_a_machine_that_was_not_taken_away_is_used_again(run: Run) -> None:
    run.ray.join(FAR, tamen="spot")
    run.steps()
    watched = run.ray.watchers[FAR].look
    watched.answer = Told("aws", leaves_in_seconds=20.0, what="stop")
    run.steps(2, seconds=LOOK_SECONDS)
    run.let_stop()
    run.steps(1, seconds=20.0 + DOUBTED_SECONDS - 1.0)
    assert run.on(FAR) == {}
    assert run.ray.watchers[FAR].look is watched

    run.ray.told = Told("aws", leaves_in_seconds=0.0, what="stop")
    run.steps(2, seconds=LOOK_SECONDS)  # a new watcher is asked, which sees the notice still
    assert run.ray.watchers[FAR].look.calls == 1
    assert run.on(FAR) == {}
    run.ray.told = Told("aws")
    run.steps(5, seconds=DOUBTED_SECONDS)

    assert run.on(FAR) == {"actor": 2, "inference": 2}
    assert len(run.drained) == run.following.stats()["spot_notices"] == 1
    assert run.said.count("machine host (fafafa) was not taken away, and no notice is left") == 1
    run.ray.watchers[FAR].look.answer = Told("aws", leaves_in_seconds=20.0, what="terminate")
    run.steps(2, seconds=LOOK_SECONDS)
    assert len(run.drained) == run.following.stats()["spot_notices"] == 2


def test_an_actor_counts_as_playing_while_it_answers(run: Run) -> None:
    run.steps(4)
    assert run.following.stats()["effective_ratio"] == 1.0
    for _ in range(20):
        run.ray.now += QUIET_SECONDS / 4
        run.following.step()
    assert run.following.stats()["effective_ratio"] < 0.5
