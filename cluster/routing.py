"""Which of several inference servers a request goes to: its home, unless another would answer sooner.

A server's cache remembers the games that it has seen, so requests of the same games go to the same server. Nothing here
knows Ray; time is an argument.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

FIRST_PROBATION_SECONDS = 0.5
LONGEST_PROBATION_SECONDS = 30.0
STREAMS_KEPT = 64
"""Streams that keep their homes; an evaluator begins a new one with each version that it meets."""

_outstanding = attrgetter("outstanding_rows")


@dataclass(slots=True, eq=False)
class Server:
    """A server as one client sees it: where it is, what it owes, and whether it is on probation.

    One that fails is passed over while another will do: for half a second, then for twice as long each time it fails
    again, until it answers. Otherwise a server that fails at once would owe the least and be sent everything.

    Attributes:
        handle: what the client reaches it by.
        node: where it was when it answered last; None before that.
        outstanding_rows: of this client, sent and not answered.
    """

    handle: Any
    node: str | None = None
    outstanding_rows: int = 0
    probation_seconds: float = 0.0
    probation_ends: float = 0.0

    def failed(self, now: float) -> None:
        if now >= self.probation_ends:  # else what failed was sent before, and tells nothing new
            self.probation_seconds = min(
                max(2 * self.probation_seconds, FIRST_PROBATION_SECONDS), LONGEST_PROBATION_SECONDS
            )
            self.probation_ends = now + self.probation_seconds

    def answered(self, node: str) -> None:
        self.node = node
        self.probation_seconds = self.probation_ends = 0.0


class Router:
    """Chooses a server for each request of one client: the first of these that will do.

    1. The home of its stream, unless it is on probation, or owes as many rows more than another near server as the
       request has: a cache that knows none of its positions costs no more.
    2. The near server that owes least.
    3. The server that owes least.

    No near server will do while all of them are on probation, or owe so much more than a far one that every stream of
    the client could have sent a request of this size. Probation does not count while all servers are on it.

    A near server is on the client's node; one that has not answered yet counts as near, and all do when none is near.
    Homes go round the near servers in the order in which streams are first seen.

    Args:
        handles: of the servers, in the same order for all clients.
        node: where the client is.
        first_home: number of the client's first stream among those of all clients of its node.

    Attributes:
        spilled_requests: how many were sent to another server than their home.
    """

    def __init__(self, handles: Sequence[Any], *, node: str, first_home: int = 0) -> None:
        self.servers = [Server(handle) for handle in handles]
        self._node = node
        self._next_place = first_home
        self._places: OrderedDict[Hashable, int] = OrderedDict()
        self.spilled_requests = 0

    def meet(self, handles: Sequence[Any]) -> None:
        """Choose among these from now on; of those that were there before everything is remembered."""
        known = {server.handle: server for server in self.servers}
        self.servers = [known.get(handle) or Server(handle) for handle in handles]

    def choose(self, stream: Hashable, rows: int, *, now: float) -> Server:
        """Return where a request of `rows` rows is to be sent, and count it if that is not its home.

        Args:
            stream: whose positions it asks about.
            now: monotonic seconds, as `Server.failed` is told them.
        """
        near = [server for server in self.servers if server.node in (None, self._node)] or self.servers
        home = near[self._place(stream) % len(near)]
        chosen = self._first_that_will_do(home, near, rows, now)
        self.spilled_requests += chosen is not home
        return chosen

    def _first_that_will_do(self, home: Server, near: list[Server], rows: int, now: float) -> Server:
        sound = [server for server in self.servers if now >= server.probation_ends] or self.servers
        least = min(sound, key=_outstanding)
        sound_near = [server for server in near if server in sound]
        if not sound_near:
            return least
        least_near = min(sound_near, key=_outstanding)
        # In step, a client has a request of each other stream on its way, which is less: they never push it away.
        if least_near.outstanding_rows - least.outstanding_rows >= rows * len(self._places):
            return least
        if home in sound_near and home.outstanding_rows - least_near.outstanding_rows < rows:
            return home
        return least_near

    def _place(self, stream: Hashable) -> int:
        """Return the number of a stream; one that was forgotten is given a new one."""
        if stream not in self._places:
            self._places[stream] = self._next_place
            self._next_place += 1
        self._places.move_to_end(stream)
        while len(self._places) > STREAMS_KEPT:
            self._places.popitem(last=False)
        return self._places[stream]
