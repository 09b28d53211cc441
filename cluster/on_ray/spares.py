"""Processes that have loaded all that an actor needs, and wait on its machine for one to die.

A process that begins takes two seconds of a core until it plays, and on a busy machine several times as long by the
clock. One that waits costs its memory alone.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError

from cluster.on_ray.client import Handle, get, in_one_line
from cluster.on_ray.part import Part, cannot_be_made
from core.restarts import RestartPolicy

QUIET_SECONDS = 10.0
"""That the actors of a machine that joined have been there for, before a spare is made: its beginning takes a core."""
REFILL_SECONDS = 1.0
"""The same after a spare has taken a place and moved: the next one takes as much whenever it begins, and may be wanted
soon."""
REFUSED_SECONDS = 60.0
"""After which another is made where one refused to begin."""
GIVEN_UP_SECONDS = 600.0
"""The same where they kept dying."""
STEP_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""Between two questions to a spare whether it is there."""


@dataclass(slots=True)
class Spare:
    """An actor without games.

    Attributes:
        asked, asked_at: the question on its way whether it is there.
        ready: whether it has answered.
    """

    handle: Handle
    ray_name: str
    asked: Any = None
    asked_at: float = -math.inf
    ready: bool = False


@dataclass(slots=True)
class _Place:
    """The spares of one machine, when the next may be made, and why none could be, as a person was told.

    Attributes:
        had_any: whether one was ever begun.
    """

    next_at: float
    had_any: bool = False
    waiting: list[Spare] = field(default_factory=list)
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    told: str = ""


class Spares:
    """Keeps spares on each machine where actors play, as far as it is quiet there.

    Args:
        wanted: on each machine.
        make: begins one on the machine of an actor, to be as that one is.
        report: told in one line when a machine is to have no more of them, for they keep dying.
    """

    def __init__(self, wanted: int, make: Callable[[Part], Spare], *, report: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._make = make
        self._report = report
        self._places: dict[str, _Place] = {}
        self._next_step = -math.inf

    def keep(self, parts: Iterable[Part], now: float) -> None:
        """Bring the spares in line with who plays at `now` (monotonic seconds), one step a second."""
        if now < self._next_step:
            return
        self._next_step = now + STEP_SECONDS
        actors: dict[str, list[Part]] = {}
        for part in parts if self._wanted else ():
            if part.role == "actor" and part.leaves_by is None:
                actors.setdefault(part.node, []).append(part)
        for node in [node for node in self._places if node not in actors]:
            self._end(self._places.pop(node).waiting)
        for node, there in actors.items():
            place = self._places.setdefault(node, _Place(now + QUIET_SECONDS))
            if not all(_plays(part) for part in there):
                rest = REFILL_SECONDS if place.had_any else QUIET_SECONDS
                place.next_at = max(place.next_at, now + rest)
            for spare in list(place.waiting):
                self._look_after(spare, place, _called(node), now)
            all_ready = all(spare.ready for spare in place.waiting)
            if len(place.waiting) < self._wanted and all_ready and now >= place.next_at:
                self._begin(place, there[0], now)

    def take(self, node: str) -> Spare | None:
        """Return a spare of a machine, which is one no more; None when none is ready."""
        place = self._places.get(node)
        spare = next((spare for spare in place.waiting if spare.ready), None) if place else None
        if place and spare:
            place.waiting.remove(spare)
        return spare

    def ready(self, node: str) -> int:
        """Return how many could play at once."""
        return sum(spare.ready for spare in self._places[node].waiting) if node in self._places else 0

    def end(self) -> None:
        """End all of them."""
        for place in self._places.values():
            self._end(place.waiting)
        self._places.clear()

    def _begin(self, place: _Place, like: Part, now: float) -> None:
        try:
            place.waiting.append(self._make(like))
            place.had_any = True
        except Exception as error:  # Ray raises a dozen kinds while its head is overloaded or away
            self._put_off(place, _called(like.node), error, now)

    def _look_after(self, spare: Spare, place: _Place, machine: str, now: float) -> None:
        if spare.asked is None:
            if now - spare.asked_at >= LOOK_SECONDS:
                spare.asked, spare.asked_at = spare.handle.stats.remote(), now
            return
        if not ray.wait([spare.asked], timeout=0)[0]:
            return
        asked, spare.asked = spare.asked, None
        try:
            get(asked, timeout_seconds=1.0)
            spare.ready = True
        except Exception as error:  # whatever it is: the next one may do better, and else there is none
            self._end([spare])
            place.waiting.remove(spare)
            if isinstance(error, RayActorError) and error.actor_init_failed:
                self._put_off(place, machine, cannot_be_made("spare actor", error), now)
                return
            delay = place.policy.failed(now)
            place.next_at = now + (GIVEN_UP_SECONDS if delay is None else max(QUIET_SECONDS, delay))
            if delay is None:
                place.policy = RestartPolicy()
                minutes = GIVEN_UP_SECONDS / 60
                self._report(
                    f"no spare actors {machine} for {minutes:.0f} min, they keep dying: {in_one_line(error)}"
                )

    def _put_off(self, place: _Place, machine: str, error: Exception, now: float) -> None:
        """Make no spare for a while: Ray is busy, or the checkout was changed, say. Tell why once."""
        place.next_at = now + REFUSED_SECONDS
        if str(error) != place.told:
            place.told = str(error)
            self._report(f"no spare actors {machine}: {in_one_line(error)}\n{error}")

    @staticmethod
    def _end(spares: Iterable[Spare]) -> None:
        for spare in spares:
            ray.kill(spare.handle)


def _plays(part: Part) -> bool:
    return part.running is not None and part.stats.get("moves", 0) > 0


def _called(node: str) -> str:
    return f"on machine {node[:6]}" if node else "at home"
