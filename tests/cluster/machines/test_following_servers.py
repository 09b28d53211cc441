"""Who asks which servers while machines with servers, on GPUs too, come and go: without any Ray."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from cluster.machines.following import OWN_SERVERS_SECONDS, START_SECONDS, TOLD_AFTER_LOOKS
from cluster.machines.roster import AGAIN_AFTER_FAILURES_SECONDS, check_gpus_of_home, free_resources
from cluster.machines.warming import WARM_UP_SECONDS
from cluster.on_ray.part import Part
from configs.scale import Scale
from core.errors import ClusterError
from tests.cluster.changing_cluster import FAR, GPU, HERE, Run
from tests.cluster.fake_ray import FakeMethod, remote_error


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path / "run", monkeypatch)


def parts(run: Run, role: str, id: str) -> list[Part]:
    return [part for part in run.program.parts.values() if (part.role, part.node) == (role, id)]


def let_begin(run: Run, id: str) -> None:
    """Keep the servers on a machine from having a process, as those have none that ask for what is not free."""
    for part in parts(run, "inference", id):
        part.handle.stats, part.handle.warm_up = FakeMethod(None), FakeMethod(None)
        part.asked, part.heard_at = None, None


def test_whoever_asks_hears_of_servers_that_come_and_go_and_where_they_are(run: Run) -> None:
    run.ray.join(GPU, gpus=1)
    run.steps(2)
    at_home, far = run.some("actor", ""), run.some("actor", GPU)
    assert (at_home.handle.told, far.handle.told) == ([], [])
    assert run.asked_by(at_home) == ["inference"]
    assert run.asked_by(far) == ["inference"]  # until its own has begun

    run.steps(2)
    (told,) = at_home.handle.told
    assert [(name.rpartition("/")[2], node) for name, node in told] == [
        ("inference", HERE),
        ("inference-1", GPU),
    ]
    assert run.some("evaluator", "").handle.told == far.handle.told == [told]
    assert far.given.servers == told  # with which a spare of its machine begins

    run.ray.machines.pop(GPU)
    run.steps()
    assert run.asked_by(at_home) == ["inference"]


def test_of_many_actors_that_join_most_wait_for_their_own_servers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.machines.following.MEANWHILE_ACTORS", 1)
    run.ray.join(FAR)
    run.ray.join(GPU)
    run.steps(2)
    actors = [*parts(run, "actor", FAR), *parts(run, "actor", GPU)]
    assert [run.asked_by(actor) for actor in actors] == [["inference"], [], [], []]
    let_begin(run, FAR)
    run.following.scale = Scale(actors_per_machine={"home": 1, "others": 3})
    run.steps(1)
    assert run.asked_by(parts(run, "actor", FAR)[-1]) == []  # the one place is taken still

    run.steps(2)
    assert all(len(run.asked_by(actor)) == 3 for actor in parts(run, "actor", GPU))


def test_nobody_is_sent_to_a_server_that_has_not_begun(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.machines.following.MEANWHILE_ACTORS", 0)
    run.steps(2)
    run.ray.join(GPU, gpus=1)
    run.steps(2)
    let_begin(run, GPU)
    run.steps(int(OWN_SERVERS_SECONDS) + 2, seconds=1.0)

    at_home, far = run.some("actor", ""), run.some("actor", GPU)
    assert at_home.handle.told == []
    assert run.asked_by(far) == ["inference"]  # it has waited for long enough

    (server,) = parts(run, "inference", GPU)
    server.handle.stats.answer, server.asked = {"pid": 1}, None
    run.steps(2)
    run.steps(2, seconds=WARM_UP_SECONDS)
    assert run.asked_by(at_home) == run.asked_by(far) == ["inference", "inference-1"]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [(None, WARM_UP_SECONDS), (remote_error(ValueError("no model")), 0.0)],
    ids=["it takes long", "it cannot"],
)
def test_a_server_is_asked_once_it_has_met_the_model_or_failed_to(
    run: Run, answer: Any, seconds: float
) -> None:
    run.ray.join(FAR)
    run.steps(2)
    for server in parts(run, "inference", FAR):
        server.handle.warm_up.answer = answer
    actor = run.some("actor", FAR)
    if seconds:
        run.steps(2)
        assert "inference-1" not in run.asked_by(actor)
    run.steps(3, seconds=seconds + 1.1)

    assert run.asked_by(actor) == ["inference", "inference-1", "inference-2"]


def test_a_server_that_dies_while_it_meets_the_model_does_so_again(run: Run) -> None:
    run.ray.join(FAR)
    run.steps(2)
    for server in parts(run, "inference", FAR):
        server.handle.warm_up.answer = ActorUnavailableError("it is being restarted", None)
    run.steps(5)
    actor = run.some("actor", FAR)
    assert run.asked_by(actor) == ["inference"]
    for server in parts(run, "inference", FAR):
        server.handle.warm_up.answer = True
    run.steps(3)

    assert run.asked_by(actor) == ["inference", "inference-1", "inference-2"]


def test_more_servers_on_a_gpu_take_the_place_of_those_that_hold_too_much_of_it(run: Run) -> None:
    run.ray.join(GPU, gpus=1)
    run.steps(4)
    (first,) = parts(run, "inference", GPU)
    run.following.scale = Scale(servers_per_machine={"gpu": 2})
    run.steps(1)
    run.program.supervise()

    assert first.handle in run.ray.killed
    assert run.asked_by(run.some("actor", GPU)) == ["inference"]
    run.steps(4)
    assert [part.num_gpus for part in parts(run, "inference", GPU)] == [0.5, 0.5]
    assert len(run.asked_by(run.some("actor", GPU))) == 3

    run.following.scale = Scale(servers_per_machine={"gpu": 1})
    for _ in range(2):
        run.let_stop()  # of an actor that left for the second server
        run.steps(1)
    run.let_stop()
    (left,) = parts(run, "inference", GPU)
    run.following.scale = Scale(servers_per_machine={"gpu": 2})
    run.steps(2)
    assert left in parts(run, "inference", GPU)  # it holds no more than it may
    assert [part.num_gpus for part in parts(run, "inference", GPU)] == [0.5, 0.5]


def test_servers_at_home_leave_the_learner_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", monkeypatch, gpus=1)
    assert [run.some(role, "").num_gpus for role in ("learner", "inference")] == [0.5, 0.5]
    run.following.scale = Scale(servers_per_machine=3)
    run.steps(4)
    run.program.supervise()

    shares = [part.num_gpus for part in parts(run, "inference", "")]
    assert shares == pytest.approx([0.5 / 3] * 3)
    assert len(run.asked_by(run.some("actor", ""))) == 3


def test_machines_give_up_their_servers_once_one_on_a_gpu_has_answered(run: Run) -> None:
    run.ray.join(FAR)
    run.steps(4)
    assert run.on(FAR) == {"actor": 2, "inference": 2}
    run.ray.join(GPU, gpus=1)
    run.steps(2)
    let_begin(run, GPU)
    run.steps(int(START_SECONDS) + 2, seconds=1.0)

    assert run.on(GPU) == {}
    assert run.on(FAR) == {"actor": 2, "inference": 2}  # another run holds that GPU
    assert not any(part.leaves_by for part in parts(run, "actor", FAR))


def test_a_gpu_that_works_is_counted_and_is_not_any_more_once_its_machine_leaves(run: Run) -> None:
    run.ray.join(FAR)
    run.ray.join(GPU, gpus=1)
    run.steps(6)
    assert run.on(FAR) == {"actor": 4}
    run.draining.add(GPU)
    run.steps(1)

    assert run.on(FAR) == {"actor": 2, "inference": 2}


def test_a_machine_that_fails_again_is_refused_for_twice_as_long(run: Run) -> None:
    def fail() -> None:
        for part in parts(run, "actor", FAR)[:1]:
            for _ in range(13):
                run.program._plan_restart(part, "no memory", run.ray.clock())
        run.steps(1)

    run.ray.join(FAR)
    run.steps(2)
    for refused in (1, 2, 4):
        fail()
        run.let_stop()
        run.steps(1, seconds=refused * AGAIN_AFTER_FAILURES_SECONDS - 10)
        run.steps(2)
        assert run.on(FAR) == {}, refused
        run.steps(3, seconds=5.0)
        assert run.on(FAR) == {"actor": 2, "inference": 2}, refused
    run.steps(1, seconds=9 * AGAIN_AFTER_FAILURES_SECONDS)  # for long it is of use
    fail()
    run.let_stop()
    run.steps(3, seconds=AGAIN_AFTER_FAILURES_SECONDS)
    assert run.on(FAR) == {"actor": 2, "inference": 2}


def test_of_a_machine_that_is_given_up_those_who_play_may_play_out_what_is_in_play(run: Run) -> None:
    run.ray.join(FAR)
    run.steps(3)
    failed, other = parts(run, "actor", FAR)
    failed.running = None
    run.program.given_up[FAR] = ClusterError("it keeps dying", why="no memory", fix="none")
    run.steps(1)

    assert (failed.handle in run.ray.killed, other.handle in run.ray.killed) == (True, False)
    assert other.handle.leave.calls == 1
    assert run.asked_by(other) == ["inference"]
    assert "1 actor may play out what is in play" in run.said[-1]


def test_home_that_is_drained_lets_the_run_save_and_stop_once(run: Run) -> None:
    run.ray.join(FAR)
    run.steps(2)
    run.draining.add(HERE)
    run.steps(3)

    assert run.stops == 1
    assert sum("where the run's folder is" in each for each in run.said) == 1
    assert run.on("")["inference"] == run.on("")["actor"] == 1
    assert run.on(FAR) == {"actor": 2, "inference": 2}


def test_while_ray_cannot_tell_of_machines_all_stays_as_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.ray.join(FAR)
    run.steps(3)
    before = dict(run.program.parts)

    def fails(*_: Any) -> Any:
        raise RuntimeError("failed to get all node info")

    with monkeypatch.context() as broken:
        broken.setattr(run.ray, "nodes", fails)
        run.steps(TOLD_AFTER_LOOKS - 1)
        assert not any("machines are left as they are" in each for each in run.said)
        run.steps(3)
    with monkeypatch.context() as broken:
        broken.setattr("cluster.machines.roster.draining", fails)
        run.steps(2)
    assert run.program.parts == before
    (said,) = [each for each in run.said if "machines are left as they are" in each]
    assert said.endswith("RuntimeError: failed to get all node info")
    run.ray.machines.pop(FAR)
    run.steps(1)
    assert run.on(FAR) == {}


def test_what_is_free_on_a_machine_is_only_told_where_ray_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise RuntimeError("the head is overloaded")

    monkeypatch.setattr("ray._private.state.state", SimpleNamespace(available_resources_per_node=fails))
    assert free_resources(FAR) == "unknown"


def test_gpus_at_home_that_ray_does_not_have_are_told_at_once(run: Run) -> None:
    check_gpus_of_home(0.0, 2)
    with pytest.raises(ClusterError, match="counts 0 GPUs on this machine, and the run asks") as caught:
        check_gpus_of_home(1.5, 2)
    assert "--num-gpus=2" in caught.value.fix

    run.ray.join(HERE, gpus=1)
    check_gpus_of_home(3 * (1 / 3), 2)
    with pytest.raises(ClusterError, match="counts 1 GPUs"):
        check_gpus_of_home(1.5, 2)
