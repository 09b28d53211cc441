"""Connections to a Forge daemon that stay open and carry many games at once, for daemons that offer that.

The extension, for authors of daemons. It changes nothing of the protocol in `engines.forge_protocol` but who may speak
when. A client that would use it says `HELLO tamen/1` as its first line. A daemon that does not know that answers
`ERROR: Unknown command`, as for every other word, and closes. One that does answers

    HELLO tamen/1 games=<n> waiting=<m>

and keeps the connection open: it plays up to n games of all its connections at a time, and holds up to m commands of
this one, played or waiting; to one too many it answers ERROR. From then on each line, either way, is `@<id> <line>`: a
line of the protocol before which stands the id of the command that it belongs to.

    @1 NEWGAME red.dck blue.dck -q -s 11        client
    @2 NEWGAME red.dck blue.dck -q -s 12        client: a batch is any number of commands, sent without waiting
    @2 GAME_RESULT: Ai(1)-Red won in 4ms        daemon: in any order
    @1 GAME_RESULT: Draw in 9ms
    @3 NEWGAME red.dck blue.dck -q -i
    @3 DECISION:{…}                             daemon
    @3 0                                        client: the reply to a decision
    @4 STATUS                                   answered at once, whatever is played: five lines

The client chooses the ids: whole numbers from 1 to 999999999, each greater than those before on the connection. A
command is over with GAME_RESULT, with ERROR instead of its first line, or with the fifth line of its status. What a
client sends with the id of a command that is over is a reply that came too late; the daemon passes over it. Games
begin in the order in which they were asked for. Either side may close the connection, and its games are given up. A
daemon breaks the protocol with a line without an id, with the id of no command that is on its way, or by closing while
one is.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.errors import EngineFault, unexpected
from engines.forge_client import Batch, Connection, Decider, Endpoint, Finished, Limits, chosen
from engines.forge_protocol import STATUS_LINES, GameInProgress, GameRequest, Status, read_status
from engines.turns import Turns

GREETING = "HELLO tamen/1"
_HELLO = re.compile(r"HELLO tamen/1 games=([1-9][0-9]{0,3}) waiting=([1-9][0-9]{0,5})")
_TAGGED = re.compile(r"@([1-9][0-9]{0,8}) (.*)", re.DOTALL)
_LAST_ID = 999_999_999
LOOK_SECONDS = 1.0
"""Between two looks for games that hang; a connection may be waiting for its turn behind another's games."""


@dataclass(slots=True, eq=False)
class _Flight:
    """A game that a daemon was asked for and has not ended; once it has begun it may take `seconds`."""

    place: int
    game: GameInProgress
    seconds: float


class ForgeConnection:
    """A connection that stays open, to a daemon that offers it. Not for several threads at once.

    After a fault it is broken: `is_broken` tells, and nothing is asked over it again.

    Args:
        turns: of the games of this daemon, over all connections to it.

    Attributes:
        games: that the daemon plays at a time.
        waiting: commands that it holds for this connection.
    """

    def __init__(
        self, connection: Connection, limits: Limits, turns: Turns, *, games: int, waiting: int
    ) -> None:
        self.games = games
        self.waiting = waiting
        self.is_broken = False
        self._connection = connection
        self._limits = limits
        self._turns = turns
        self._last_id = 0
        self._flights: dict[int, _Flight] = {}
        self._hung: dict[int, _Flight] = {}
        """Games that nobody waits for any longer, though the daemon may still play them."""
        self._look_at = 0.0
        turns.set_places(games)

    @classmethod
    def opened(
        cls, endpoint: Endpoint, limits: Limits | None = None, turns: Turns | None = None
    ) -> "ForgeConnection | None":
        """Connect, and find out whether the daemon offers the extension; None when it does not.

        Args:
            endpoint: where it listens.
            limits: how long it is waited for.
            turns: see the class; None when this is the only connection.

        Raises:
            EngineFault: when there is no daemon, or it answers neither yes nor no.
        """
        limits = limits or Limits()
        connect_by = time.monotonic() + limits.connect_seconds
        connection = Connection(endpoint, connect_by, line_bytes=limits.line_bytes)
        try:
            deadline = time.monotonic() + limits.status_seconds
            connection.send([GREETING], deadline)
            answer = connection.receive(deadline)
            if answer is not None and (found := _HELLO.fullmatch(answer)) is not None:
                return cls(connection, limits, turns or Turns(), games=int(found[1]), waiting=int(found[2]))
            # Some close without a word when they are told what they do not know.
            if answer is not None and not answer.startswith("ERROR:"):
                raise unexpected(str(endpoint), answer, expected="HELLO or ERROR")
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def close(self) -> None:
        """Close it; the daemon gives its games up."""
        self.is_broken = True
        self._connection.close()
        self._turns.given_up([*self._flights.values(), *self._hung.values()], time.monotonic())

    def is_quiet(self) -> bool:
        """Whether it may be used, as far as is seen without asking: unbroken, no game on its way, nothing unread."""
        return not (self.is_broken or self._flights or self._hung) and self._connection.is_quiet()

    def status(self) -> Status:
        """Ask for its status. Raises EngineFault."""
        deadline = time.monotonic() + self._limits.status_seconds
        try:
            (tag,) = self._take_ids(1)
            self._send([tag], ["STATUS"], deadline)
            lines = [self._expect(tag, deadline) for _ in range(STATUS_LINES)]
            return read_status(lines, self._connection.engine)
        except BaseException:
            self.close()
            raise

    def play_batch(self, requests: Sequence[GameRequest], decide: Decider | None = None) -> Batch:
        """Play games, as many at once as the daemon holds; yield each one's place, and its outcome or its fault, once.

        A game that is refused, or that has no result in its time after it can have begun, is yielded with its fault,
        and the others go on. Any other fault breaks the connection: it is yielded for each game that can have begun,
        and those that still waited for their turn are not yielded. When it is closed early, so is the connection.

        Raises:
            UsageError: when `decide` chose what may not be chosen; the connection is closed.
        """
        sent, self._look_at = 0, 0.0
        try:
            while sent < len(requests) or self._flights:
                more = requests[sent : sent + max(0, self.waiting - len(self._flights) - len(self._hung))]
                self._launch(more, sent)
                sent += len(more)
                if (now := time.monotonic()) >= self._look_at:
                    yield from self._look(now)
                if self._flights:
                    yield from self._next(decide)
        except EngineFault as fault:
            lost = [
                flight.place for flight in self._flights.values() if self._turns.began(flight) is not None
            ]
            self.close()
            for place in lost:
                yield place, fault
        finally:
            if self._flights or self._hung:
                self.close()

    def _launch(self, requests: Sequence[GameRequest], place: int) -> None:
        """Ask for games, the first of which is at `place`."""
        if not requests:
            return
        now = time.monotonic()
        flights = [
            _Flight(
                place + offset,
                GameInProgress(request, self._connection.engine),
                request.game_seconds + self._limits.slack_seconds,
            )
            for offset, request in enumerate(requests)
        ]
        tags = self._take_ids(len(requests))
        self._flights.update(zip(tags, flights, strict=True))
        self._turns.asked(flights, now)
        self._send(tags, [request.line() for request in requests], now + self._limits.slack_seconds)

    def _look(self, now: float) -> Iterator[Finished]:
        """Yield the games that hang.

        Raises:
            EngineFault: when none of the others can begin any more.
        """
        self._look_at = now + LOOK_SECONDS
        overdue: list[int] = []
        for tag, flight in self._flights.items():
            if (began := self._turns.began(flight)) is None:
                continue
            if (deadline := began + flight.seconds) <= now:
                overdue.append(tag)
            else:
                self._look_at = min(self._look_at, deadline)
        for tag in overdue:
            flight = self._hung[tag] = self._flights.pop(tag)
            self._turns.hung(flight)
            why = f"no result came within {flight.seconds:g} s, while games beside it may go on"
            yield flight.place, EngineFault("timeout", self._connection.engine, why=why)
        if self._turns.is_stuck() or len(self._hung) >= self.waiting:
            raise EngineFault(
                "timeout", self._connection.engine, why=f"all {self.games} games that it plays at a time hang"
            )

    def _next(self, decide: Decider | None) -> Iterator[Finished]:
        """Take one line, if one comes until it is time to look; yield the game that it ends, if it does."""
        try:
            tag, line = self._receive(self._look_at)
        except EngineFault as fault:
            if fault.kind != "timeout":
                raise
            return
        if (flight := self._flights.get(tag)) is None:
            self._pass_over(tag, line)
            return
        try:
            decision = flight.game.take(line)
        except EngineFault as fault:
            if fault.kind != "refused":
                raise
            self._end(tag)
            yield flight.place, fault
            return
        if decision is not None:
            reply = flight.game.answer(decision, chosen(decide, flight.place, decision))
            if reply is not None:
                self._send([tag], [reply], time.monotonic() + self._limits.slack_seconds)
        if flight.game.outcome is not None:
            self._end(tag)
            yield flight.place, flight.game.outcome

    def _end(self, tag: int) -> None:
        flight = self._flights.pop(tag)
        self._turns.ended(flight, time.monotonic(), seconds=flight.seconds)

    def _pass_over(self, tag: int, line: str) -> None:
        """Take a line of a game that nobody waits for any longer."""
        if (flight := self._hung.get(tag)) is None:
            expected = f"a line of the commands {sorted(self._flights)[:5]}"
            raise unexpected(self._connection.engine, f"@{tag} {line}", expected=expected)
        if line.startswith(("GAME_RESULT:", "ERROR:")):
            del self._hung[tag]
            self._turns.ended(flight, time.monotonic(), seconds=flight.seconds)

    def _take_ids(self, count: int) -> list[int]:
        if self._last_id + count > _LAST_ID:
            raise EngineFault("closed", self._connection.engine, why="the connection has used up its ids")
        first = self._last_id + 1
        self._last_id += count
        return list(range(first, first + count))

    def _send(self, tags: list[int], lines: list[str], deadline: float) -> None:
        """Send lines in one go, each with its id."""
        self._connection.send([f"@{tag} {line}" for tag, line in zip(tags, lines, strict=True)], deadline)

    def _receive(self, deadline: float) -> tuple[int, str]:
        line = self._connection.receive(deadline)
        if line is None or (found := _TAGGED.fullmatch(line)) is None:
            raise unexpected(self._connection.engine, line, expected="a line with the id of a command")
        return int(found[1]), found[2]

    def _expect(self, tag: int, deadline: float) -> str:
        came, line = self._receive(deadline)
        if came != tag:
            raise unexpected(
                self._connection.engine, f"@{came} {line}", expected=f"a line of the command {tag}"
            )
        return line
