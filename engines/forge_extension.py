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
client sends with the id of a command that is over is a reply that came too late; the daemon passes over it. Either
side may close the connection, and its games are given up. A daemon breaks the protocol with a line without an id, with
the id of no command that is on its way, or by closing while one is.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.errors import EngineFault, unexpected
from engines.forge_client import Batch, Connection, Decider, Endpoint, Finished, Limits, chosen
from engines.forge_protocol import STATUS_LINES, GameInProgress, GameRequest, Status, read_status

GREETING = "HELLO tamen/1"
_HELLO = re.compile(r"HELLO tamen/1 games=([1-9][0-9]{0,3}) waiting=([1-9][0-9]{0,5})")
_TAGGED = re.compile(r"@([1-9][0-9]{0,8}) (.*)", re.DOTALL)
_LAST_ID = 999_999_999


@dataclass(slots=True)
class _Flight:
    """A game that a daemon was asked for and has not ended; it may take `seconds`."""

    place: int
    game: GameInProgress
    seconds: float


class ForgeConnection:
    """A connection that stays open, to a daemon that offers it. Not for several threads at once.

    After a fault it is broken: `is_broken` tells, and nothing is asked over it again.

    Attributes:
        games: that the daemon plays at a time.
        waiting: commands that it holds for this connection.
    """

    def __init__(self, connection: Connection, limits: Limits, *, games: int, waiting: int) -> None:
        self.games = games
        self.waiting = waiting
        self.is_broken = False
        self._connection = connection
        self._limits = limits
        self._last_id = 0
        self._flights: dict[int, _Flight] = {}

    @classmethod
    def opened(cls, endpoint: Endpoint, limits: Limits | None = None) -> "ForgeConnection | None":
        """Connect, and find out whether the daemon offers the extension; None when it does not.

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
                return cls(connection, limits, games=int(found[1]), waiting=int(found[2]))
            if answer is None or not answer.startswith("ERROR:"):
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

    def is_quiet(self) -> bool:
        """Whether it may be used, as far as is seen without asking: unbroken, no game on its way, nothing unread."""
        return not self.is_broken and not self._flights and self._connection.is_quiet()

    def status(self) -> Status:
        """Ask for its status. Raises EngineFault."""
        deadline = time.monotonic() + self._limits.status_seconds
        try:
            tag = self._send(["STATUS"], deadline)[0]
            lines = [self._expect(tag, deadline) for _ in range(STATUS_LINES)]
            return read_status(lines, self._connection.engine)
        except BaseException:
            self.close()
            raise

    def play_batch(self, requests: Sequence[GameRequest], decide: Decider | None = None) -> Batch:
        """Play games, as many at once as the daemon holds; yield each one's place, and its outcome or its fault, once.

        A game that is refused is yielded with its fault, and the others go on. Any other fault breaks the connection,
        and is yielded for each game that had not ended. When it is closed early, so is the connection.

        Raises:
            UsageError: when `decide` chose what may not be chosen; the connection is closed.
        """
        sent = 0
        try:
            while sent < len(requests) or self._flights:
                more = requests[sent : sent + self.waiting - len(self._flights)]
                self._launch(more, sent)
                sent += len(more)
                yield from self._next(decide)
        except EngineFault as fault:
            self.close()
            lost = sorted(flight.place for flight in self._flights.values())
            for place in [*lost, *range(sent, len(requests))]:
                yield place, fault
        finally:
            if self._flights:
                self.close()

    def _launch(self, requests: Sequence[GameRequest], place: int) -> None:
        """Ask for games, the first of which is at `place`."""
        tags = self._send(
            [request.line() for request in requests], time.monotonic() + self._limits.slack_seconds
        )
        for offset, (tag, request) in enumerate(zip(tags, requests, strict=True)):
            game = GameInProgress(request, self._connection.engine)
            self._flights[tag] = _Flight(
                place + offset, game, request.game_seconds + self._limits.slack_seconds
            )

    def _next(self, decide: Decider | None) -> Iterator[Finished]:
        """Take one line; yield the game that it ends, if it does."""
        # One of them is being played, and none may last longer than this.
        deadline = time.monotonic() + max(flight.seconds for flight in self._flights.values())
        tag, line = self._receive(deadline)
        if (flight := self._flights.get(tag)) is None:
            expected = f"a line of the commands {sorted(self._flights)[:5]}"
            raise unexpected(self._connection.engine, f"@{tag} {line}", expected=expected)
        try:
            decision = flight.game.take(line)
        except EngineFault as fault:
            if fault.kind != "refused":
                raise
            del self._flights[tag]
            yield flight.place, fault
            return
        if decision is not None:
            reply = flight.game.answer(decision, chosen(decide, flight.place, decision))
            self._connection.send([] if reply is None else [f"@{tag} {reply}"], deadline)
        if flight.game.outcome is not None:
            del self._flights[tag]
            yield flight.place, flight.game.outcome

    def _send(self, commands: list[str], deadline: float) -> list[int]:
        """Send commands in one go, and return their ids."""
        if self._last_id + len(commands) > _LAST_ID:
            raise EngineFault("closed", self._connection.engine, why="the connection has used up its ids")
        tags = [self._last_id + 1 + offset for offset in range(len(commands))]
        self._last_id += len(commands)
        self._connection.send(
            [f"@{tag} {command}" for tag, command in zip(tags, commands, strict=True)], deadline
        )
        return tags

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
