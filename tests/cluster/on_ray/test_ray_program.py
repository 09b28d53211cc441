"""How the driver sees its parts: what each of their states is left by, and which failure ends what, without any Ray."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from cluster.monitoring.observer import Observer
from cluster.on_ray.program import Part, RayProgram
from cluster.run.program import Program
from cluster.run.run_folder import RunFolder
from cluster.training.train import run_engine
from core.errors import ClusterError, DataError
from tests.cluster.fake_engine import FakeEngine
from tests.cluster.fake_ray import FakeMethod, FakeRay, Reference, remote_error
from tests.cluster.tiny import tiny_config, tiny_run

DIED = ActorUnavailableError("The actor is unavailable: worker exit type SYSTEM_ERROR", None)
BAD = DataError("none of the 3 checkpoints can be read", why="they are damaged", fix="move them away")


class FakeHandle:
    """An actor of which the answer to everything is known."""

    def __init__(self, pid: int = 1) -> None:
        self.run = FakeMethod(None)
        self.stats = FakeMethod({"pid": pid})
        self.newest_version = FakeMethod(0)
        self.warm_up = FakeMethod(True)
        self.leave = FakeMethod(None)


def a_part(*, loops: bool = True) -> Part:
    """Return a part of process 1 that has answered once, and whose loop, if it has one, is working."""
    part = Part("part", "role", FakeHandle(), loops)
    if loops:
        part.run()
    assert part.answered({"pid": 1}, 0.0) is None
    return part


def test_a_working_part_that_answers_is_not_back_from_anything() -> None:
    part = a_part()

    assert part.answered({"pid": 1, "games": 3}, 1.0) is None
    assert part.stats == {"pid": 1, "games": 3}


def test_a_loop_that_was_lost_is_back_with_the_first_answer_and_works_when_run() -> None:
    part = a_part()
    part.lose("it was killed", 1.0, killed=False)
    assert (part.running, part.asked) == (None, None)

    assert part.answered({"pid": 2}, 2.0) == "it was killed"
    assert part.answered({"pid": 2}, 3.0) is None
    part.restart_at = 4.0
    part.run()
    assert part.restart_at is None
    assert part.running is not None


def test_a_question_that_was_asked_before_a_loss_tells_nothing() -> None:
    part = a_part()
    part.ask(1.0)
    before = part.asked
    part.lose("it was killed", 1.0, killed=False)
    part.ask(2.0)

    assert part.asked not in (before, None)


def test_a_process_that_was_killed_is_not_taken_for_its_successor() -> None:
    part = a_part()
    part.lose("it failed", 1.0, killed=True)

    assert part.answered({"pid": 1}, 1.1) is None
    assert part.lost == "it failed"
    assert part.answered({"pid": 2}, 2.0) == "it failed"


def test_a_process_that_was_only_out_of_reach_runs_again() -> None:
    part = a_part()
    part.lose("out of reach", 1.0, killed=False)

    assert part.answered({"pid": 1}, 2.0) == "out of reach"


def test_a_part_that_only_answers_is_back_when_another_process_answers() -> None:
    part = a_part(loops=False)
    part.missed("no memory", 1.0)

    assert part.answered({"pid": 2}, 2.0) == "no memory"


def test_a_cause_is_told_for_one_death_only() -> None:
    part = a_part(loops=False)
    part.missed("out of reach", 1.0)
    assert part.answered({"pid": 1}, 2.0) is None

    assert part.answered({"pid": 2}, 100.0) == ""


def test_a_part_that_is_killed_and_never_comes_back_is_given_up() -> None:
    part = a_part()
    part.lose("it failed", 1.0, killed=True)
    for second in range(2, 102):
        part.answered({"pid": 1}, float(second))

    assert part.attendance.given_up(102.0)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr("cluster.on_ray.client.ray", fake)
    monkeypatch.setattr("cluster.on_ray.program.ray", fake)
    return fake


class Watched:
    """A program of one part.

    Attributes:
        said: what the driver was told.
    """

    def __init__(self, folder: Path, *, loops: bool = True) -> None:
        self.said: list[str] = []
        self.part = a_part(loops=loops)
        self.program = RayProgram(tiny_config(), RunFolder(folder), Program(()), report=self.said.append)
        self.program.parts["part"] = self.part

    def loop_ends(self, answer: Any) -> None:
        self.part.running = Reference(answer)
        self.program.supervise()

    def answers(self, answer: Any) -> None:
        self.part.handle.stats.answer = answer
        self.program.collect_stats(timeout_seconds=0.0)


def test_a_failure_that_no_restart_mends_ends_the_run_with_its_own_words(
    ray: FakeRay, tmp_path: Path
) -> None:
    watched = Watched(tmp_path / "run")
    engine, config = FakeEngine(), tiny_config()
    engine.meanwhile = lambda number: watched.loop_ends(remote_error(BAD))
    run = tiny_run(tmp_path / "run", config)
    with pytest.raises(DataError) as caught:
        run_engine(engine, Observer("run", config), config, run, plain=True, metrics_port=None)

    assert type(caught.value) is DataError
    assert (caught.value.what, caught.value.why) == (BAD.what, BAD.why)
    assert caught.value.fix == f"{BAD.fix}; what led to it is in {run.log_file}"
    assert len(str(caught.value).splitlines()) == 3
    assert 'File "part.py", line 1, in run' in run.log_file.read_text()
    assert engine.stopped == 1


def test_a_failure_that_nobody_foresaw_costs_the_part_one_restart(ray: FakeRay, tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.loop_ends(remote_error(ZeroDivisionError("by zero")))
    assert ray.killed == [watched.part.handle]
    first_line, _, traceback = watched.said[0].partition("\n")
    assert first_line == "part failed: ZeroDivisionError: by zero"
    assert 'File "part.py", line 1, in run' in traceback

    watched.answers({"pid": 1})
    assert (watched.part.restarts, watched.part.restart_at) == (0, None)
    for _ in range(2):
        watched.answers({"pid": 2})
    assert watched.part.restarts == 1
    assert watched.part.restart_at is not None
    assert watched.said[1:] == ["part died (ZeroDivisionError: by zero); it is back"]


def test_a_part_that_says_itself_that_it_is_broken_is_replaced_once(ray: FakeRay, tmp_path: Path) -> None:
    watched = Watched(tmp_path, loops=False)
    broken = remote_error(ClusterError("the serving thread has died", why="test", fix="none"))
    for _ in range(3):
        watched.answers(broken)
    assert ray.killed == [watched.part.handle]
    for _ in range(3):
        watched.answers({"pid": 2})

    assert watched.part.restarts == 1
    assert watched.said[1:] == ["part died (the serving thread has died: test); it is back"]


def test_a_part_that_dies_is_counted_once(ray: FakeRay, tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.answers(DIED)
    watched.loop_ends(DIED)
    for _ in range(3):
        watched.answers({"pid": 2})

    assert ray.killed == []
    assert watched.said == ["part died (worker exit type SYSTEM_ERROR); it is back"]
    assert watched.part.restarts == 1


def test_a_part_that_was_lost_is_back_without_anybody_looking_at_its_counters(
    ray: FakeRay, tmp_path: Path
) -> None:
    watched = Watched(tmp_path)
    watched.part.handle.stats.answer = {"pid": 2}
    watched.loop_ends(DIED)
    assert watched.part.restart_at is None
    watched.program.supervise()

    assert watched.part.restart_at is not None
    assert watched.said == ["part died (worker exit type SYSTEM_ERROR); it is back"]


class Starting:
    """A program that starts: its store has weights, its server answers as it is told to.

    Attributes:
        actor: the one part whose loop waits to be set going.
    """

    def __init__(self, folder: Path, *, warmed: Any) -> None:
        self.said: list[str] = []
        self.program = RayProgram(tiny_config(), RunFolder(folder), Program(()), report=self.said.append)
        store, server, self.actor = FakeHandle(), FakeHandle(), FakeHandle()
        server.warm_up = self.warm_up = FakeMethod(warmed)
        for role, handle in (("store", store), ("inference", server), ("actor", self.actor)):
            self.program.parts[role] = Part(role, role, handle, loops=role == "actor")


@pytest.mark.parametrize("warmed", [True, None, DIED], ids=["met", "does not answer", "died"])
def test_servers_meet_the_model_before_the_games_begin(ray: FakeRay, tmp_path: Path, warmed: Any) -> None:
    starting = Starting(tmp_path, warmed=warmed)
    starting.program.start()

    assert (starting.warm_up.calls, starting.actor.run.calls) == (1, 1)
    assert starting.said == []


def test_a_damaged_file_of_the_machine_is_told_when_a_program_starts(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "machine.json"
    file.write_text("{")
    monkeypatch.setenv("TAMEN_MACHINE_FILE", str(file))
    starting = Starting(tmp_path, warmed=True)
    starting.program.start()

    (said,) = starting.said
    assert str(file) in said
    assert starting.actor.run.calls == 1


def not_made(error: str) -> ActorDiedError:
    """Return what Ray raises of an actor whose constructor has raised."""
    traceback = f"ray::Part.__init__()\n{error}"
    raised = RayTaskError(
        "__init__", traceback, RuntimeError(error), proctitle="ray::Part", pid=1, ip="127.0.0.1"
    )
    return ActorDiedError(raised)


def test_code_that_has_changed_is_why_a_part_at_home_cannot_be_made_whatever_it_raises(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    monkeypatch.setattr(
        "cluster.on_ray.program.changed_since",
        lambda code: ClusterError("it was changed", why="test", fix="none"),
    )
    with pytest.raises(ClusterError, match="it was changed"):
        watched.answers(not_made("SyntaxError: half a line"))


def test_elsewhere_it_is_its_machine_that_is_of_no_use(ray: FakeRay, tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.part.node = "far"
    watched.answers(not_made("the checkout was changed\n  why: test\n  do:  bring it back"))

    error = watched.program.given_up["far"]
    assert (error.why, error.fix) == ("the checkout was changed; why: test", "bring it back")


def test_a_driver_that_was_stopped_does_not_judge_by_that_time(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, now = Watched(tmp_path), [1000.0]
    monkeypatch.setattr("cluster.on_ray.program.time", SimpleNamespace(monotonic=lambda: now[0]))
    watched.part.handle.stats.answer = None
    watched.part.made_at = 1000.0
    watched.part.lose("it was killed", now[0], killed=False)
    watched.program.supervise()
    now[0] += 500.0
    watched.program.supervise()
    assert watched.part.made_at == 1500.0

    for _ in range(11):
        now[0] += 9.0
        watched.program.supervise()
    now[0] += 9.0
    with pytest.raises(ClusterError, match="keeps dying"):
        watched.program.supervise()


def test_what_a_part_told_last_is_among_the_counters_once_after_it_has_left(
    ray: FakeRay, tmp_path: Path
) -> None:
    watched = Watched(tmp_path)
    watched.part.leave(1e9, 0.0)
    watched.loop_ends({"pid": 1, "moves": 77, "games_at_stake": 3})

    assert watched.program.parts == {}
    assert watched.program.collect_stats(timeout_seconds=0.0) == {
        "part": {"pid": 1, "moves": 77, "games_at_stake": 3, "restarts": 0}
    }
    assert watched.program.collect_stats(timeout_seconds=0.0) == {}
    assert watched.program.games_lost == 3
