"""Actors that wait for another to die: when they are made, and who takes them, without any Ray."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from cluster.on_ray.actors import Assignment
from cluster.on_ray.client import NamedServer
from cluster.on_ray.part import AT_HOME, Part
from cluster.on_ray.program import RayProgram
from cluster.on_ray.spares import (
    GIVEN_UP_SECONDS,
    LOOK_SECONDS,
    QUIET_SECONDS,
    REFILL_SECONDS,
    REFUSED_SECONDS,
    Spare,
    Spares,
)
from cluster.run.program import Program
from cluster.run.run_folder import RunFolder
from core.restarts import RestartPolicy
from tests.cluster.fake_ray import FakeMethod, FakeRay, Reference
from tests.cluster.on_ray.test_ray_program import DIED, FakeHandle, not_made
from tests.cluster.tiny import tiny_config

FAR = "fafafa"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    for module in ("client", "program", "spares"):
        monkeypatch.setattr(f"cluster.on_ray.{module}.ray", fake)
    return fake


def an_actor(name: str, node: str = AT_HOME) -> Part:
    """Return an actor that plays, and has answered."""
    part = Part(name, "actor", FakeHandle(), loops=True, node=node)
    part.run()
    part.answered({"pid": 1, "moves": 1}, 0.0)
    return part


class Kept:
    """Spares of some actors, as time passes.

    Attributes:
        made: all that were ever begun, with the actor that each is like.
        said: what the driver was told.
    """

    def __init__(self, *actors: Part, wanted: int = 1, answer: Any = MappingProxyType({"pid": 2})) -> None:
        self.actors = list(actors)
        self.answer = answer
        self.made: list[tuple[Part, Spare]] = []
        self.said: list[str] = []
        self.now = 0.0
        self.spares = Spares(wanted, self._make, report=self.said.append)

    def _make(self, part: Part) -> Spare:
        handle = FakeHandle()
        handle.stats = FakeMethod(self.answer)
        self.made.append((part, Spare(handle, f"spare-{len(self.made)}")))
        return self.made[-1][1]

    def pass_by(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1.0
            self.spares.keep(self.actors, self.now)


def test_a_spare_is_made_on_each_machine_once_its_actors_have_played_for_a_while(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"), an_actor("actor-1"), an_actor("actor-2", FAR))
    kept.pass_by(QUIET_SECONDS)
    assert kept.made == []
    kept.pass_by(30)

    assert [part.node for part, _ in kept.made] == [AT_HOME, FAR]
    assert (kept.spares.ready(AT_HOME), kept.spares.ready(FAR)) == (1, 1)


def test_nothing_is_begun_beside_an_actor_that_begins_itself(ray: FakeRay) -> None:
    beginner = an_actor("actor-0")
    beginner.stats = {}
    kept = Kept(beginner)
    kept.pass_by(3 * QUIET_SECONDS)
    assert kept.made == []

    beginner.answered({"pid": 1, "moves": 0}, kept.now)
    kept.pass_by(3 * QUIET_SECONDS)
    assert kept.made == []

    beginner.answered({"pid": 1, "moves": 1}, kept.now)
    kept.pass_by(QUIET_SECONDS + 2)
    assert len(kept.made) == 1


def test_where_none_are_wanted_none_are_made(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"), wanted=0)
    kept.pass_by(5 * QUIET_SECONDS)

    assert kept.made == []
    assert kept.spares.take(AT_HOME) is None


def test_a_spare_that_was_taken_is_replaced_and_given_to_nobody_else(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"))
    kept.pass_by(2 * QUIET_SECONDS)
    taken = kept.spares.take(AT_HOME)
    assert taken is not None
    assert kept.spares.take(AT_HOME) is None
    # Who it plays in the place of has answered already, and is set going.
    kept.actors[0].running, reference = None, kept.actors[0].running
    kept.pass_by(5)
    assert len(kept.made) == 1
    kept.actors[0].running = reference
    kept.pass_by(REFILL_SECONDS + 3)

    assert kept.spares.take(AT_HOME) not in (None, taken)
    assert ray.killed == []


def test_a_spare_that_has_not_answered_is_not_taken(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"), answer=None)
    kept.pass_by(3 * QUIET_SECONDS)

    assert len(kept.made) == 1
    assert kept.spares.ready(AT_HOME) == 0
    assert kept.spares.take(AT_HOME) is None


def test_spares_end_with_the_last_actor_of_their_machine(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"), an_actor("actor-1", FAR))
    kept.pass_by(2 * QUIET_SECONDS)
    far = kept.made[1][1]
    kept.actors[1].leaves_by = 100.0
    kept.pass_by(1)
    assert ray.killed == [far.handle]

    kept.spares.end()
    assert ray.killed == [far.handle, kept.made[0][1].handle]


def test_spares_that_die_are_made_again_ever_more_seldom_and_in_the_end_not_for_ten_minutes(
    ray: FakeRay,
) -> None:
    kept = Kept(an_actor("actor-0"), answer=DIED)
    most = RestartPolicy().max_failures + 1
    kept.pass_by(2 * most * (QUIET_SECONDS + LOOK_SECONDS))

    assert len(kept.made) == len(ray.killed) == most
    (said,) = kept.said
    assert "no spare actors at home for 10 min" in said
    assert kept.spares.ready(AT_HOME) == 0

    kept.answer = {"pid": 2}
    kept.pass_by(GIVEN_UP_SECONDS)
    assert kept.spares.ready(AT_HOME) == 1


def test_where_a_spare_refuses_to_begin_that_is_told_once_and_tried_seldom(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"), answer=not_made("the checkout was changed\n  why: test\n  do:  wait"))
    kept.pass_by(QUIET_SECONDS + 2 * LOOK_SECONDS)
    assert len(kept.made) == 1
    kept.pass_by(3 * REFUSED_SECONDS)

    assert len(kept.made) in (3, 4)
    (said,) = kept.said
    assert said.startswith(
        "no spare actors at home: the spare actor cannot be made: the checkout was changed"
    )
    kept.answer = {"pid": 2}
    kept.pass_by(REFUSED_SECONDS + 2 * LOOK_SECONDS)
    assert kept.spares.ready(AT_HOME) == 1


class Played:
    """A program of one actor, which has a spare.

    Attributes:
        said: what the driver was told.
    """

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.part = an_actor("actor")
        self.dead = self.part.handle
        run = RunFolder(folder)
        self.part.given = Assignment(tiny_config(), run, 0, {}, True)
        self.program = RayProgram(tiny_config(), run, Program(()), report=self.said.append)
        self.program.parts["actor"] = self.part
        self.waits = Spare(FakeHandle(pid=2), "run/actor-1", ready=True)
        self.program._spares.take = lambda node: self.waits if node == AT_HOME else None  # type: ignore[method-assign]

    def loop_ends(self, answer: Any) -> None:
        self.part.running = Reference(answer)
        self.program.supervise()

    def dies_and_a_spare_answers(self) -> None:
        self.loop_ends(DIED)
        self.program.supervise()


def test_a_spare_plays_at_once_in_the_place_of_an_actor_that_died(ray: FakeRay, tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.part.servers = (NamedServer("a server", "here"),)
    played.loop_ends(DIED)
    assert played.part.restart_at is None  # its machine may be gone as well
    played.program.supervise()

    assert played.part.handle is played.waits.handle
    assert played.part.ray_name == "run/actor-1"
    assert played.part.restart_at is not None
    assert played.part.servers is None  # it is told again of those that it should ask
    assert ray.killed == [played.dead]
    assert played.said == [
        "actor died (worker exit type SYSTEM_ERROR); a spare plays in its place, actor-1 in Ray's logs"
    ]

    played.part.restart_at = 0.0
    played.program.supervise()
    assert played.waits.handle.run.calls == 1


def test_a_death_that_a_spare_makes_good_is_counted_once(ray: FakeRay, tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.loop_ends(DIED)
    for _ in range(3):
        played.program.collect_stats(timeout_seconds=0.0)

    assert played.part.restarts == 1
    assert played.part.stats["pid"] == 2
    assert len(played.said) == 1


def test_a_spare_that_went_with_the_machine_is_no_second_death(ray: FakeRay, tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.waits.handle.stats = FakeMethod(DIED)
    played.loop_ends(DIED)
    for _ in range(3):
        played.program.supervise()

    assert played.part.restarts == 0
    assert played.said == []


def test_an_actor_that_could_not_be_made_is_no_death_that_a_spare_makes_good(
    ray: FakeRay, tmp_path: Path
) -> None:
    played = Played(tmp_path)
    with pytest.raises(Exception, match="actor cannot be made"):
        played.loop_ends(not_made("a card is missing\n  why: test\n  do:  wait"))

    assert played.part.handle is played.dead


def without_a_spare(played: Played, *begun: Any) -> None:
    """Let no spare wait; who begins in an actor's place is next of `begun`, which raises where that is an error."""
    heirs = iter(begun)

    def begin(part: Part) -> Spare:
        if isinstance(heir := next(heirs), Exception):
            raise heir
        return Spare(heir, "run/actor-9")

    played.program._spares.take = lambda node: None  # type: ignore[method-assign]
    played.program._spare = begin  # type: ignore[method-assign]


def test_where_no_spare_waits_another_process_begins(ray: FakeRay, tmp_path: Path) -> None:
    played, heir = Played(tmp_path), FakeHandle(pid=2)
    without_a_spare(played, heir)
    played.dies_and_a_spare_answers()

    assert (played.part.handle, ray.killed) == (heir, [played.dead])
    assert played.said == [
        "actor died (worker exit type SYSTEM_ERROR); another process plays in its place, actor-9 in Ray's logs"
    ]


def test_another_process_is_begun_until_one_plays(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("cluster.on_ray.program.time", SimpleNamespace(monotonic=lambda: now[0]))
    played, dead, heir = Played(tmp_path), FakeHandle(), FakeHandle(pid=3)
    dead.stats = FakeMethod(DIED)
    without_a_spare(played, RuntimeError("the head is away"), dead, heir)
    played.dead.stats = FakeMethod(DIED)
    played.loop_ends(DIED)
    for _ in range(3):
        now[0] += 0.5
        played.program.supervise()
    assert played.part.handle is dead  # not more often than every two seconds
    for _ in range(6):
        now[0] += 0.5
        played.program.supervise()

    assert (played.part.handle, played.part.restarts) == (heir, 1)


def test_where_ray_is_too_busy_to_make_a_spare_the_run_goes_on_without(ray: FakeRay) -> None:
    kept = Kept(an_actor("actor-0"))
    make, kept.spares._make = kept.spares._make, lambda part: 1 / 0  # type: ignore[assignment, return-value]
    kept.pass_by(QUIET_SECONDS + 2)
    (said,) = kept.said
    assert "division by zero" in said

    kept.spares._make = make
    kept.pass_by(REFUSED_SECONDS + 2 * LOOK_SECONDS)
    assert kept.spares.ready(AT_HOME) == 1


def test_actors_that_die_whoever_takes_their_place_end_the_run(ray: FakeRay, tmp_path: Path) -> None:
    played = Played(tmp_path)
    for _ in range(played.part.policy.max_failures):
        played.waits = replace(played.waits, handle=FakeHandle())
        played.dies_and_a_spare_answers()
    with pytest.raises(Exception, match="actor keeps failing"):
        played.dies_and_a_spare_answers()
