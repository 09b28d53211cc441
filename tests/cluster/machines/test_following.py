"""Machines that join, leave, drain and fail: what a program does about it, without any Ray."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorUnschedulableError

from cluster.machines.following import (
    LEAVE_SECONDS,
    START_SECONDS,
)
from cluster.machines.roster import (
    AGAIN_AFTER_FAILURES_SECONDS,
    AGAIN_SECONDS,
    GREETING_SECONDS,
)
from cluster.on_ray.checkout import Code
from configs.scale import Scale
from core.errors import ClusterError
from tests.cluster.changing_cluster import FAR, GPU, OURS, Run
from tests.cluster.fake_ray import Reference, remote_error


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path / "run", monkeypatch)


def test_a_machine_that_joins_gets_its_share_once_it_has_told_that_its_code_is_ours(run: Run) -> None:
    run.steps(1)
    run.ray.join(FAR, tamen="spot")
    run.steps()

    assert run.on(FAR) == {"actor": 2, "inference": 2}
    assert run.on("") == {"store": 1, "replay": 1, "learner": 1, "inference": 1, "actor": 1, "evaluator": 1}
    assert run.said == ["machine host (fafafa) with 4 cores joins: 2 actors, 2 servers"]
    actor = run.some("actor", FAR)
    assert actor.handle.run.calls == 1
    given = actor.handle.given
    assert [name.rpartition("/")[2] for name in given.asks["replay"]] == ["replay"]
    assert given.config.inference.max_batch_rows == OURS.batch_rows
    assert given.folder.called == "run"


def test_numbers_are_given_once_only(run: Run) -> None:
    for _ in range(3):
        run.ray.join(FAR)
        run.steps()
        run.ray.machines.pop(FAR)
        run.steps()
    run.ray.join(FAR)
    run.steps()

    assert {part.name for part in run.program.parts.values() if part.node == FAR} == {
        "actor-7",
        "actor-8",
        "inference-7",
        "inference-8",
    }


def test_a_machine_that_leaves_takes_its_parts_along_and_fails_nothing(run: Run) -> None:
    run.ray.join(FAR)
    run.steps()
    run.program.collect_stats(timeout_seconds=0.0)
    actor = run.some("actor", FAR)
    actor.running = Reference(ActorUnschedulableError("the node is gone"))
    for _ in range(30):
        run.program.supervise()
        actor.handle.stats.answer = ActorUnschedulableError("the node is gone")
        run.program.collect_stats(timeout_seconds=0.0)
    run.ray.machines.pop(FAR)
    run.steps()

    assert run.on(FAR) == {}
    assert actor.restarts == 0
    assert run.said[1:] == [
        "machine host (fafafa) has left: with it 2 actors and 2 servers and some 32 games"
    ]
    assert run.following.stats()["games_lost"] == 32
    assert run.program.given_up == {}


def test_an_actor_that_was_restarted_hears_of_the_servers_again(run: Run) -> None:
    run.ray.join(GPU, gpus=1)
    run.steps(4)
    actor = run.some("actor", "")
    run.program._plan_restart(actor, "it was killed", run.ray.clock())
    run.steps(1)

    assert len(actor.handle.told) == 2
    assert actor.handle.told[0] == actor.handle.told[1]


def test_other_code_is_refused_once_and_taken_when_it_has_been_brought_in_line(run: Run) -> None:
    other = Code("0123", OURS.code.versions)
    run.ray.join(FAR)
    run.ray.greetings[FAR] = replace(OURS, code=other)
    run.steps(3)
    run.steps(3, seconds=AGAIN_SECONDS)

    assert run.on(FAR) == {}
    assert run.ray.asked[FAR] >= 2
    (said,) = run.said
    assert said.startswith(
        "machine host (fafafa) is not used: it runs other code: other sources: their digest is 0123"
    )
    (refused,) = [each for each in run.following.standings({}) if each.state == "not used"]
    assert "0123" in refused.why
    del run.ray.greetings[FAR]
    run.steps(3, seconds=AGAIN_SECONDS)
    assert run.on(FAR) == {"actor": 2, "inference": 2}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, f"no process there has answered for {GREETING_SECONDS:.0f} s"),
        (remote_error(ModuleNotFoundError("No module named 'cluster'")), "No module named 'cluster'"),
    ],
    ids=["silent", "no checkout"],
)
def test_a_machine_where_nobody_can_greet_is_not_used(run: Run, answer: Any, why: str) -> None:
    run.ray.join(FAR)
    run.ray.greetings[FAR] = answer
    run.steps(round(GREETING_SECONDS / 9) + 2, seconds=9.0)

    (said,) = run.said
    assert said.startswith("machine host (fafafa) is not used: it cannot take part: ")
    assert why in said
    assert run.on(FAR) == {}


def test_a_greeting_is_not_late_because_the_driver_was_stopped(run: Run) -> None:
    run.ray.join(FAR)
    run.ray.greetings[FAR] = None
    run.steps(1)
    run.steps(2, seconds=GREETING_SECONDS + 1)

    assert run.said == []


def test_what_keeps_failing_elsewhere_costs_that_machine_and_not_the_run(run: Run) -> None:
    run.ray.join(FAR)
    run.steps()
    actor = run.some("actor", FAR)
    for _ in range(13):
        run.program._plan_restart(actor, "no memory", run.ray.clock())
    run.steps(1)

    assert run.on(FAR) == {}
    assert any(
        "is not used: actor-1 keeps failing: it failed 12 times in 300 s: no memory" in each
        for each in run.said
    )
    run.steps(2, seconds=AGAIN_AFTER_FAILURES_SECONDS)
    assert run.on(FAR) == {"actor": 2, "inference": 2}


def test_what_keeps_failing_at_home_ends_the_run(run: Run) -> None:
    actor = run.some("actor", "")
    for _ in range(actor.policy.max_failures):
        run.program._plan_restart(actor, "no memory", run.ray.clock())
    with pytest.raises(ClusterError, match="keeps failing"):
        run.program._plan_restart(actor, "no memory", run.ray.clock())


def test_what_does_not_start_is_told_with_what_it_asks_for(run: Run) -> None:
    run.ray.join(GPU, gpus=1)
    run.steps()
    for part in run.program.parts.values():
        part.heard_at = run.ray.clock() if part.role != "inference" else None
    run.steps(1, seconds=START_SECONDS + 1)

    assert run.on(GPU) == {}
    assert any(
        "inference-1 does not start: it asks for 1 GPU, and has not answered for 150 s" in each
        for each in run.said
    )


def test_what_does_not_start_at_home_is_told_and_goes_on_waiting(run: Run) -> None:
    run.steps(1)
    for part in run.program.parts.values():
        part.heard_at = run.ray.clock() if part.role != "inference" else None
    run.steps(3, seconds=START_SECONDS + 1)

    (said,) = run.said
    assert said.startswith("inference does not start: it asks for no more than a process")
    assert run.on("")["inference"] == 1


def test_a_machine_that_is_drained_delivers_and_gets_nothing_new(run: Run) -> None:
    run.ray.join(FAR)
    run.steps()
    actor = run.some("actor", FAR)
    run.draining.add(FAR)
    run.steps(1)
    assert run.on(FAR) == {"inference": 2}
    assert (actor.handle.leave.calls, actor.handle.stop.calls) == (1, 0)
    assert "(fafafa) is to leave" in run.said[-1]

    run.left_games = 3
    run.let_stop()
    run.steps()
    run.program.supervise()
    assert not any(part.node == FAR for part in run.program.parts.values())
    run.ray.machines.pop(FAR)
    run.steps()
    assert run.said[-1] == "machine host (fafafa) has left"
    assert run.following.stats()["games_lost"] == 2 * 3  # as both actors told


def test_an_actor_that_does_not_stop_is_ended_after_a_while(run: Run) -> None:
    run.following.scale = Scale(actors_per_machine={"home": 0})
    run.steps(1)
    actor = run.some("actor", "")
    assert actor.leaves_by == run.ray.clock() + LEAVE_SECONDS
    run.program.supervise()
    assert actor.handle not in run.ray.killed
    assert run.following.stats()["games_lost"] == 0
    run.ray.now += LEAVE_SECONDS
    run.program.supervise()
    assert actor.handle in run.ray.killed
    assert run.following.stats()["games_lost"] == 16  # it has not told, so what it told last counts


def test_the_scale_of_a_run_that_goes_on_counts_on_all_machines(run: Run) -> None:
    run.ray.join(FAR)
    run.steps()
    run.following.scale = Scale(actors_per_machine=3, servers_per_machine={"others": 1})
    run.steps()
    assert run.on("")["actor"] == run.on(FAR)["actor"] == 3
    assert run.on(FAR)["inference"] == 1

    run.following.scale = Scale(servers_per_machine=3)
    run.steps()
    assert run.on("")["inference"] == run.on(FAR)["inference"] == 3
    assert len(run.some("evaluator", "").handle.told[-1]) == 3

    run.following.scale = Scale(actors_per_machine={"home": 1, "others": 2})
    run.steps()
    assert (run.on("")["actor"], run.on(FAR)["actor"]) == (1, 2)
    assert run.on(FAR)["inference"] == 3  # an actor that delivers may still ask them
    run.let_stop()
    run.steps()
    assert run.on(FAR) == {"actor": 2, "inference": 2}


def test_where_nobody_is_to_play_that_is_told_once(run: Run) -> None:
    run.following.scale = Scale(actors_per_machine={"home": 0})
    run.steps(3)

    assert run.said == ["nobody plays: actors.count gives no machine an actor (taking part: 1)"]


def test_a_machine_that_is_labelled_so_is_left_alone(run: Run) -> None:
    run.ray.join(FAR, tamen="no")
    run.steps(3)

    assert run.ray.asked[FAR] == 0
    assert run.on(FAR) == {}
    home, aside = run.following.standings({})
    assert (home.state, aside.state, aside.why) == ("home", "not used", "it has the label tamen=no")


def test_a_machine_without_a_core_for_ray_is_shown_as_not_used(run: Run) -> None:
    run.ray.join(FAR, cpus=0)
    run.steps(2)

    (aside,) = run.following.standings({})[1:]
    assert (aside.state, aside.why) == ("not used", "Ray may use less than one core there")


def test_gpus_that_no_driver_finds_do_not_count(run: Run) -> None:
    run.ray.greetings[GPU] = replace(OURS, gpus=0)
    run.ray.join(GPU, cpus=4, gpus=1)
    run.steps(3)

    assert run.on(GPU)["actor"] == 2
    assert all(part.num_gpus == 0 for part in run.program.parts.values() if part.node == GPU)
    (told,) = [line for line in run.said if "GPUs" in line]
    assert told.endswith("counts as one with 0 GPUs: Ray has 1 there, CUDA's driver finds 0")


def test_how_a_machine_stands_is_what_its_own_parts_did(run: Run) -> None:
    run.ray.join(FAR, tamen="spot")
    run.steps()
    actors = [part.name for part in run.program.parts.values() if (part.role, part.node) == ("actor", FAR)]
    before = {name: {"games": 10, "process_seconds": 1.0} for name in actors}
    after = {name: {"games": 20, "process_seconds": 2.0} for name in actors}
    run.following.standings(before)
    run.ray.now += 5.0
    run.program._spares.ready = {"": 1, FAR: 2}.get  # type: ignore[method-assign, assignment]
    home, far = run.following.standings(after)

    assert (home.state, home.actors, home.servers) == ("home", 1, 1)
    assert (home.spares, far.spares, run.following.stats()["spares"]) == (1, 2, 3)
    assert (far.state, far.host, far.labels, far.actors) == ("playing", "host", {"tamen": "spot"}, 2)
    assert far.games_per_hour == pytest.approx(2 * 10 / 5 * 3600, rel=0.01)
    assert far.busy_share == pytest.approx(2 * 1.0 / 5 / 4, rel=0.01)


def test_the_games_of_an_actor_that_died_are_lost_but_for_those_that_the_next_goes_on_with(run: Run) -> None:
    actor = run.some("actor", "")

    def tell(**stats: int | None) -> tuple[int, int]:
        actor.handle.stats.answer = stats
        run.program.collect_stats(timeout_seconds=0.0)
        run.program.collect_stats(timeout_seconds=0.0)
        told = run.following.stats()
        return told["games_lost"], told["games_taken_over"]

    assert tell(pid=2, games_at_stake=5, games_taken_over=None) == (0, 0)  # it has not looked yet
    assert tell(pid=2, games_at_stake=12, games_taken_over=12) == (4, 12)
    assert tell(pid=2, games_at_stake=15, games_taken_over=12) == (4, 12)
    assert tell(pid=3, games_at_stake=0, games_taken_over=None) == (4, 12)
    assert tell(pid=4, games_at_stake=0, games_taken_over=None) == (4, 12)
    assert tell(pid=4, games_at_stake=20, games_taken_over=20) == (4, 32)  # some that it never told of
    assert tell(pid=5, games_at_stake=7, games_taken_over=0) == (24, 32)


def test_of_many_parts_those_are_asked_first_that_were_asked_longest_ago(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.on_ray.program.MOST_QUESTIONS", 2)
    before = {part.name: part.handle.stats.calls for part in run.program.parts.values()}
    for _ in range(3):
        run.ray.now += 1.0
        run.program.collect_stats(timeout_seconds=0.0)

    assert len(before) == 6
    assert all(part.handle.stats.calls == before[part.name] + 1 for part in run.program.parts.values())
