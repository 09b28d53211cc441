"""When which fault comes in `tamen bench recovery`, how long each took to be got over, and what the numbers make."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["actor", "node"]
IN_TEN = 10
"""Faults of which one takes a whole machine."""
_FIRST_OF_TEN, _LAST_OF_TEN = 1, 8
"""Between the two a machine is killed, so that two such faults are never neighbours."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to happen.

    Attributes:
        at: seconds since all played.
        lot: in [0, 1), by which one of those that are there is chosen.
    """

    at: float
    kind: Kind
    lot: float


def schedule(seconds: float, every: float, *, seed: int) -> tuple[Fault, ...]:
    """Return a fault for each `every` seconds of `seconds`, none in the last `every`; one of each ten takes a machine.

    Where there are fewer than ten, one of them does all the same.
    """
    luck = random.Random(seed)
    count = max(0, math.floor(round(seconds / every, 6)) - 1)
    nodes = {first + luck.randint(_FIRST_OF_TEN, _LAST_OF_TEN) for first in range(0, count, IN_TEN)} & set(
        range(count)
    )
    if count and not nodes:
        nodes = {luck.randrange(count)}
    return tuple(
        Fault(every * (number + 1), "node" if number in nodes else "actor", luck.random())
        for number in range(count)
    )


@dataclass(slots=True)
class Recovery:
    """A fault that came, and what became of it.

    Attributes:
        due, at: seconds since all played, as planned and as it was.
        victim: name of the actor, or id of the machine.
        seconds: from the kill until an actor of the same name plays again; of a machine until its parts are dropped
            and all others have played on. None when the run ended before.
        replaced_seconds: of a machine, from the kill until as many actors play on the machine that came in its place.
        overtaken: whether the actor's machine was killed before it played again, so that nobody restarts it.
    """

    kind: Kind
    due: float
    at: float
    victim: str
    seconds: float | None = None
    replaced_seconds: float | None = None
    overtaken: bool = False

    @property
    def over(self) -> bool:
        return self.seconds is not None and (self.kind == "actor" or self.replaced_seconds is not None)

    def as_numbers(self) -> dict[str, Any]:
        """Return it for JSON."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "due": self.due,
            "at": _rounded(self.at),
            "victim": self.victim,
            "seconds": _rounded(self.seconds),
            "overtaken": self.overtaken,
        }
        return told | ({"replaced_seconds": _rounded(self.replaced_seconds)} if self.kind == "node" else {})


def percentile(numbers: Sequence[float], share: float) -> float | None:
    """Return the smallest of `numbers` that at least `share` of them do not exceed (nearest rank); None of none."""
    if not numbers:
        return None
    return sorted(numbers)[max(0, math.ceil(round(share * len(numbers), 9)) - 1)]


def seconds_of(recoveries: Sequence[dict[str, Any]], *, kind: Kind | None = None) -> list[float]:
    """Return how long each took that was got over, of one kind or (None) of both."""
    return [
        each["seconds"] for each in recoveries if kind in (None, each["kind"]) and each["seconds"] is not None
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
