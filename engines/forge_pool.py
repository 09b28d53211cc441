"""Sessions with daemons, lent to whoever plays: few for each daemon, kept open where it offers that, and checked.

    pool = ForgePool([Endpoint(17171), Endpoint(17172)])
    with pool.session(wait_seconds=60) as session:
        for place, end in session.play_batch(requests):
            …

A session stands for one of an endpoint's places. Where the daemon keeps connections open it has one of them, which goes
back into the pool; else each game connects anew. What has failed is dropped, and its endpoint is left alone for a
moment, for longer each time until a game ends well there. What lay idle for long is asked for its status before it is
lent.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from engines.errors import EngineFault
from engines.forge_client import Batch, Decider, Endpoint, ForgeClient, Limits
from engines.forge_extension import ForgeConnection
from engines.forge_protocol import GameRequest
from engines.turns import Turns

PER_ENDPOINT = 2
"""While one session's result is read the daemon plays for the other."""
STOCK_HANGS = 3
"""Games in a row without a result, after which a daemon is complained of that does not say how many places it has."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.1, 10.0
_TICK_SECONDS = 0.2
"""The longest wait for a place before a look at whether a rest has ended."""


@dataclass(slots=True)
class PoolCounts:
    """What a pool did so far.

    Attributes:
        opened: connections that stay open.
        dropped: of those, after a fault or because the daemon had closed them.
        checks: of idle ones, by their status.
        stock: sessions with daemons that do not keep connections open.
        unreachable: attempts to get a session where no daemon answered.
    """

    opened: int = 0
    dropped: int = 0
    checks: int = 0
    stock: int = 0
    unreachable: int = 0


@dataclass(slots=True)
class _Place:
    """An endpoint, as the pool sees it.

    Attributes:
        idle: connections, each with the time of its last use.
        hangs: of a daemon that does not keep connections open, games in a row that hung.
    """

    endpoint: Endpoint
    turns: Turns = field(default_factory=Turns)
    lent: int = 0
    idle: list[tuple[float, ForgeConnection]] = field(default_factory=list)
    stock_since: float | None = None
    rest_until: float = 0.0
    rests: int = 0
    hangs: int = 0
    last_lent: int = 0


class Session:
    """One place at a daemon. Not for several threads at once."""

    def __init__(self, endpoint: Endpoint, player: ForgeClient | ForgeConnection) -> None:
        self.endpoint = endpoint
        self.player = player
        self.ended_well = False
        self.has_failed = False
        self.has_hung = False

    def play_batch(self, requests: Sequence[GameRequest], decide: Decider | None = None) -> Batch:
        """Play games; yield each one's place among `requests` and its outcome or fault, once, in any order.

        Those are left out that had not begun when the connection broke.

        Args:
            requests: the games.
            decide: chooses in the mode "interact".

        Raises:
            UsageError: when `decide` chose what may not be chosen.
        """
        told = 0
        with closing(self.player.play_batch(requests, decide)) as batch:
            for place, end in batch:
                told += 1
                if not isinstance(end, EngineFault):
                    self.ended_well = True
                elif end.kind != "refused":
                    self.has_failed = True
                    self.has_hung = self.has_hung or end.kind == "timeout"
                yield place, end
        self.has_failed = self.has_failed or told < len(requests)


class ForgePool:
    """Lends sessions. Any number of threads may use it.

    Args:
        endpoints: where daemons listen; see `set_endpoints`.
        per_endpoint: sessions at one of them at a time.
        limits: how long daemons are waited for.
        check_after_seconds: idle for so long, a connection is checked before it is lent; and a daemon that did not
            offer to keep connections open is asked again.
        complain: is told of a daemon all of whose places are taken by games that hang, or that lets one after the
            other hang.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        per_endpoint: int = PER_ENDPOINT,
        limits: Limits | None = None,
        check_after_seconds: float = 30.0,
        complain: Callable[[Endpoint], None] = lambda endpoint: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = PoolCounts()
        self._per_endpoint = per_endpoint
        self._limits = limits or Limits()
        self._check_after = check_after_seconds
        self._complain = complain
        self._clock = clock
        self._changed = threading.Condition()
        self._places: dict[Endpoint, _Place] = {}
        self._lendings = 0
        self._fault: EngineFault | None = None
        """Why the last session could not be had; None when one has been since."""
        self.set_endpoints(endpoints)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Lend at these from now on. Sessions elsewhere that are lent go on; their connections are then closed."""
        with self._changed:
            wanted = list(endpoints)
            gone = [place for endpoint, place in self._places.items() if endpoint not in wanted]
            self._places = {endpoint: self._places.get(endpoint) or _Place(endpoint) for endpoint in wanted}
            self._changed.notify_all()
        for place in gone:
            self._empty(place)

    @contextmanager
    def session(self, wait_seconds: float) -> Iterator[Session]:
        """Lend a session at the endpoint with the fewest.

        Raises:
            EngineFault: `timeout` when within `wait_seconds` no place was free at a daemon that answers.
        """
        place, session = self._lent(self._clock() + wait_seconds)
        try:
            yield session
        finally:
            self._give_back(place, session)
            self._complain_if_hung(place)

    def close(self) -> None:
        """Close what is idle, and lend nothing more."""
        self.set_endpoints([])

    def _lent(self, deadline: float) -> tuple[_Place, Session]:
        while True:
            place = self._free_place(deadline)
            try:
                session = Session(place.endpoint, self._player(place))
                self._fault = None
                return place, session
            except EngineFault as fault:
                with self._changed:
                    self._fault = fault
                    self.counts.unreachable += 1
                    place.hangs += place.hangs > 0 and fault.kind == "timeout"
                    self._rest(place)
                    self._free(place)
                self._complain_if_hung(place)
            except BaseException:
                with self._changed:
                    self._free(place)
                raise

    def _free_place(self, deadline: float) -> _Place:
        """Wait for a place, and take it."""
        with self._changed:
            while True:
                now = self._clock()
                free = [
                    place
                    for place in self._places.values()
                    if place.lent < self._per_endpoint and place.rest_until <= now
                ]
                if free:
                    place = min(free, key=lambda place: (place.lent, place.last_lent))
                    self._lendings += 1
                    place.lent, place.last_lent = place.lent + 1, self._lendings
                    return place
                if now >= deadline:
                    raise self._none_free()
                self._changed.wait(min(_TICK_SECONDS, deadline - now))

    def _none_free(self) -> EngineFault:
        lent = sum(place.lent for place in self._places.values())
        why = f"no place was free at {len(self._places)} daemons, with {lent} sessions lent"
        if self._fault is not None:
            why += f"; the last that was asked: {self._fault.what}, {self._fault.why}"
        return EngineFault(
            "timeout", "the pool of daemons", why=why, fix="start more daemons, or wait for longer"
        )

    def _player(self, place: _Place) -> ForgeClient | ForgeConnection:
        """Return an idle connection that is sound, a new one, or a client that connects for each game."""
        while (connection := self._take_idle(place)) is not None:
            if connection.is_broken:
                with self._changed:
                    self.counts.dropped += 1
                continue
            return connection
        stock_since = place.stock_since
        if stock_since is None or self._clock() - stock_since >= self._check_after:
            connection = ForgeConnection.opened(place.endpoint, self._limits, place.turns)
            with self._changed:
                place.stock_since = None if connection else self._clock()
                self.counts.opened += connection is not None
            if connection is not None:
                return connection
        with self._changed:
            self.counts.stock += 1
        return ForgeClient(place.endpoint, self._limits)

    def _take_idle(self, place: _Place) -> ForgeConnection | None:
        """Take the connection that was used last; it is closed when it is not sound."""
        with self._changed:
            if not place.idle:
                return None
            used, connection = place.idle.pop()
        if not connection.is_quiet():
            connection.close()
        elif self._clock() - used >= self._check_after:
            with self._changed:
                self.counts.checks += 1
            with suppress(EngineFault):  # it closes itself then
                connection.status()
        return connection

    def _give_back(self, place: _Place, session: Session) -> None:
        connection = session.player if isinstance(session.player, ForgeConnection) else None
        with self._changed:
            self._free(place)
            if session.ended_well:
                place.hangs = 0
            elif session.has_hung and connection is None:
                place.hangs += 1
            if session.has_failed:
                self._rest(place)
            elif session.ended_well:
                place.rests = 0
            is_sound = connection is not None and connection.is_quiet()
            if connection is not None and not is_sound:
                self.counts.dropped += 1
            elif connection is not None and self._places.get(place.endpoint) is place:
                place.idle.append((self._clock(), connection))
                return
        if connection is not None:
            connection.close()

    def _complain_if_hung(self, place: _Place) -> None:
        if place.hangs >= STOCK_HANGS or (place.turns.is_spent() and self._has_lost_its_places(place)):
            place.hangs = 0
            self._complain(place.endpoint)

    def _has_lost_its_places(self, place: _Place) -> bool:
        try:
            active_games = ForgeClient(place.endpoint, self._limits).status().active_games
        except EngineFault:  # who keeps it alive asks as well
            return False
        return place.turns.settle(active_games)

    def _free(self, place: _Place) -> None:
        place.lent -= 1
        self._changed.notify()

    def _rest(self, place: _Place) -> None:
        """Leave an endpoint alone for a moment, and find out anew who listens there."""
        seconds = min(FIRST_REST_SECONDS * 2**place.rests, LONGEST_REST_SECONDS)
        place.rest_until = self._clock() + seconds
        place.rests = min(place.rests + 1, 10)
        place.stock_since = None

    def _empty(self, place: _Place) -> None:
        with self._changed:
            idle, place.idle = place.idle, []
        for _, connection in idle:
            connection.close()
