"""Servers that begin and are not asked yet: whoever is sent to one without a process waits until it has one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray

from cluster.on_ray.client import LOST, get
from cluster.on_ray.part import Part

WARM_UP_SECONDS = 60.0
"""After which a server that has answered is asked, whether or not it has met the model."""


@dataclass(slots=True)
class _Warming:
    """The call on its way, and since when its server was there."""

    reference: Any
    since: float | None = None


class Warming:
    """Lets each server meet the model, and knows which may be asked: those that have.

    What fails then is told when it fails again. A server that is restarted stays one that may be asked: its clients
    turn to others meanwhile.

    Args:
        warm: servers that may be asked already.
    """

    def __init__(self, warm: Iterable[Part]) -> None:
        self._warm = {part.name for part in warm}
        self._on_way: dict[str, _Warming] = {}

    def is_over(self, server: Part) -> bool:
        """Whether a server may be asked."""
        return server.name in self._warm

    def step(self, servers: Iterable[Part], now: float) -> None:
        """Begin with those that have come, look after the others; `servers` are all that there are. Never waits."""
        there = {server.name: server for server in servers}
        self._warm &= there.keys()
        for name in self._on_way.keys() - there.keys():
            del self._on_way[name]
        for name in there.keys() - self._warm:
            self._look_after(there[name], now)

    def _look_after(self, server: Part, now: float) -> None:
        warming = self._on_way.get(server.name)
        if warming is None:
            warming = self._on_way[server.name] = _Warming(server.handle.warm_up.remote())
        if warming.since is None and server.heard_at is not None:
            warming.since = now
        answered = bool(ray.wait([warming.reference], timeout=0)[0])
        late = warming.since is not None and now - warming.since > WARM_UP_SECONDS
        if answered and _is_lost(warming.reference):
            del self._on_way[server.name]  # its next process is asked the same
        elif answered or late:
            self._warm.add(server.name)
            del self._on_way[server.name]


def _is_lost(answered: Any) -> bool:
    try:
        get(answered, timeout_seconds=1.0)
    except LOST:
        return True
    except Exception:  # it is there, if only to say that it cannot: those who ask are told the same
        return False
    return False
