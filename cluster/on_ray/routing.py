"""Which of several inference servers a request goes to: its home, unless another would answer sooner.

A server's cache remembers the games that it has seen, so requests of the same games go to the same server. Nothing here
knows Ray; time is an argument.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

FIRST_PROBATION_SECONDS = 0.5
LONGEST_PROBATION_SECONDS = 30.0
STREAMS_KEPT = 64
"""Streams that keep their homes; an evaluator begins a new one with each version that it meets."""

_outstanding = attrgetter("outstanding_rows")


class Located(NamedTuple):
    """A server that may be asked.

    Attributes:
        handle: what a client reaches it by.
        node: where it is; it stays there.
    """

    handle: Any
    node: str


@dataclass(slots=True, eq=False)
class Server:
    """A server as one client sees it: where it is, what it owes, and whether it is on probation.

    One that fails is passed over while another will do: for half a second, then for twice as long each time it fails
    again, until it answers. Otherwise a server that fails at once would owe the least and be sent everything.

    Attributes:
        handle: what the client reaches it by.
        node: where it is.
        outstanding_rows: of this client, sent and not answered.
    """

    handle: Any
    node: str
    outstanding_rows: int = 0
    probation_seconds: float = 0.0
    probation_ends: float = 0.0

    def failed(self, now: float) -> None:
        if now >= self.probation_ends:  # else what failed was sent before, and tells nothing new
            self.probation_seconds = min(
                max(2 * self.probation_seconds, FIRST_PROBATION_SECONDS), LONGEST_PROBATION_SECONDS
            )
            self.probation_ends = now + self.probation_seconds

    def answered(self) -> None:
        self.probation_seconds = self.probation_ends = 0.0


class _Home(NamedTuple):
    """Where a stream is at home.

    Attributes:
        server: None while there was none.
        turn: the stream's number among those of all clients that are at home there, as far as one client can tell.
    """

    server: Server | None
    turn: int


class Router:
    """Chooses a server for each request of one client: the first of these that will do.

    1. The home of its stream, unless it is on probation, or owes as many rows more than another near server as the
       request has: a cache that knows none of its positions costs no more.
    2. The near server that owes least.
    3. The server that owes least.

    No near server will do while all of them are on probation, or owe so much more than a far one that every stream of
    the client could have sent a request of this size. Probation does not count while all servers are on it.

    A near server is on the client's node; all count as near when none is.
    Homes go round the near servers in the order in which streams are first seen. When a server comes to n near ones,
    one in n+1 streams of each moves to it; when one leaves, its streams go round those that stay. All others keep
    their caches. Clients need not talk about it: of the streams at a server each knows which turn its own have.

    Args:
        servers: in the same order for all clients; none of them means that nobody can be asked.
        node: where the client is.
        first_home: number of the client's first stream among those of all clients of its node.

    Attributes:
        spilled_requests: how many were sent to another server than their home.
    """

    def __init__(self, servers: Sequence[Located], *, node: str, first_home: int = 0) -> None:
        self.servers = [Server(*server) for server in servers]
        self._node = node
        self._next_place = first_home
        self._near: list[Server] = []
        self._homes: OrderedDict[Hashable, _Home] = OrderedDict()
        self.spilled_requests = 0

    def meet(self, servers: Sequence[Located]) -> None:
        """Choose among these from now on; of those that were there before everything is remembered."""
        known = {server.handle: server for server in self.servers}
        self.servers = [known.get(server.handle) or Server(*server) for server in servers]

    def choose(self, stream: Hashable, rows: int, *, now: float) -> Server | None:
        """Return where a request of `rows` rows is to be sent, and count it if that is not its home.

        None when no server is known.

        Args:
            stream: whose positions it asks about.
            now: monotonic seconds, as `Server.failed` is told them.
        """
        near = [server for server in self.servers if server.node == self._node] or self.servers
        if near != self._near:
            self._move_homes(near)
        if not near:
            return None
        home = self._home(stream)
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
        if least_near.outstanding_rows - least.outstanding_rows >= rows * len(self._homes):
            return least
        if home in sound_near and home.outstanding_rows - least_near.outstanding_rows < rows:
            return home
        return least_near

    def _home(self, stream: Hashable) -> Server:
        """Return the home of a stream; one that was forgotten is given a new one. Some server is near."""
        home, _ = self._homes.get(stream, (None, 0))
        if home is None:
            turn, place = divmod(self._next_place, len(self._near))
            self._next_place += 1
            home = self._near[place]
            self._homes[stream] = _Home(home, turn)
        self._homes.move_to_end(stream)
        while len(self._homes) > STREAMS_KEPT:
            self._homes.popitem(last=False)
        return home

    def _move_homes(self, near: list[Server]) -> None:
        """Let those leave that are not near any more, then let the new ones come, one after the other."""
        there = self._near
        for left in [server for server in there if server not in near]:
            number, there = there.index(left), [server for server in there if server is not left]
            for stream, (home, turn) in self._homes.items():
                self._homes[stream] = _without(home, turn, left, number, there)
        for came in [server for server in near if server not in there]:
            for stream, (home, turn) in self._homes.items():
                self._homes[stream] = _with(home, turn, came, there)
            there = [*there, came]
        self._near = near


def _without(home: Server | None, turn: int, left: Server, number: int, stay: list[Server]) -> _Home:
    """Return where a stream is at home once `left`, the server of this number, has gone: of its streams every one goes
    to the next of those that stay, where it has its turn after as many of those that were there.
    """
    if not stay:
        return _Home(None, turn)
    rounds = turn // len(stay)
    if home is not left:
        return _Home(home, turn + rounds)
    return _Home(stay[(turn + number) % len(stay)], rounds * (len(stay) + 1) + len(stay))


def _with(home: Server | None, turn: int, came: Server, there: list[Server]) -> _Home:
    """Return where a stream is at home once `came` is there too: of each of n servers it takes one stream in n+1."""
    if home is None:
        return _Home(came, turn)
    number = there.index(home)
    taken_before, place = divmod(turn + number, len(there) + 1)
    if place == len(there):
        return _Home(came, taken_before * len(there) + number)
    return _Home(home, turn - taken_before)
