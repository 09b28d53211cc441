"""A Forge daemon as it is published: one command a connection, which the daemon closes afterwards.

`ForgeClient` works with every daemon. A daemon that keeps connections open is served by `engines.forge_extension`, with
the same requests and outcomes.

A daemon runs a fixed number of connections at a time (ten) and lets others wait without a word, those that ask for its
status too. So a game's deadline counts from the moment it is asked for and has to include that wait.
"""

import socket
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from engines.errors import EngineFault, unexpected
from engines.forge_decisions import Choice, Decision
from engines.forge_protocol import STATUS_LINES, GameInProgress, GameRequest, Outcome, Status, read_status
from engines.lines import MAX_LINE_BYTES, LineReader, LineWriter

Finished: TypeAlias = tuple[int, Outcome | EngineFault]
"""The place of a game among those that were asked for, and how it ended."""
END_SECONDS = 0.2
"""That the end of a connection is waited for behind a result, in which nothing more may come."""
Batch: TypeAlias = Generator[Finished, None, None]
"""The ends of several games, each once, as they come. Closed early, it gives up those that have not ended."""


class Decider(Protocol):
    """Who decides in the mode "interact"."""

    def __call__(self, game: int, decision: Decision) -> Choice:
        """Return the choice of `decision.seat` in the game at place `game` of those that were asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a daemon listens."""

    port: int
    host: str = "127.0.0.1"

    def __str__(self) -> str:
        return f"daemon {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a daemon is waited for, and how long its lines may be.

    Attributes:
        connect_seconds: until it accepts.
        status_seconds: until it has told its status.
        slack_seconds: beyond a game's own limit until its result has come, with the wait for its turn.
        line_bytes: of one line. In the modes that tell decisions, one on a board of a hundred cards may need more.
    """

    connect_seconds: float = 5.0
    status_seconds: float = 5.0
    slack_seconds: float = 30.0
    line_bytes: int = MAX_LINE_BYTES


class Connection:
    """An open connection to a daemon, line by line. Not for several threads at once."""

    def __init__(self, endpoint: Endpoint, deadline: float, *, line_bytes: int = MAX_LINE_BYTES) -> None:
        """Connect. Raises EngineFault: `died` when nobody listens, `timeout`."""
        self.engine = str(endpoint)
        try:
            wait = max(0.001, deadline - time.monotonic())
            self._socket = socket.create_connection((endpoint.host, endpoint.port), timeout=wait)
        except TimeoutError as error:
            raise EngineFault("timeout", self.engine, why="it did not accept a connection in time") from error
        except OSError as error:
            raise EngineFault("died", self.engine, why=f"nobody listens there: {error}") from error
        # A line is sent when it is whole; to wait for company would cost 40 ms a decision.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = LineReader(self._socket.fileno(), self.engine, max_bytes=line_bytes)
        self._writer = LineWriter(self._socket.fileno(), self.engine)

    def send(self, lines: list[str], deadline: float) -> None:
        self._writer.write_lines(lines, deadline)

    def receive(self, deadline: float) -> str | None:
        return self._reader.read_line(deadline)

    def is_quiet(self) -> bool:
        """Whether nothing has come that was not read, and the daemon has not closed."""
        return not self._reader.has_more()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ForgeClient:
    """Commands to one daemon, each over a connection of its own. Any number of threads may use it.

    Args:
        endpoint: where it listens.
        limits: how long it is waited for.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits | None = None) -> None:
        self.endpoint = endpoint
        self._limits = limits or Limits()

    def status(self) -> Status:
        """Ask for its status. Raises EngineFault."""
        deadline = time.monotonic() + self._limits.status_seconds
        with self._asked("STATUS", deadline) as connection:
            lines = [self._line(connection, deadline, "its status") for _ in range(STATUS_LINES)]
            return read_status(lines, connection.engine)

    def play(self, request: GameRequest, decide: Decider | None = None, *, place: int = 0) -> Outcome:
        """Play one game.

        Args:
            request: which game.
            decide: chooses in the mode "interact".
            place: by which `decide` knows the game.

        Raises:
            EngineFault: the game is lost, and may be asked for again unless it was `refused`.
            UsageError: when `decide` chose what may not be chosen; the game is given up.
        """
        game = GameInProgress(request, str(self.endpoint))
        deadline = time.monotonic() + request.game_seconds + self._limits.slack_seconds
        with self._asked(request.line(), deadline) as connection:
            while game.outcome is None:
                decision = game.take(self._line(connection, deadline, "a result"))
                if decision is not None:
                    reply = game.answer(decision, chosen(decide, place, decision))
                    connection.send([] if reply is None else [reply], deadline)
            if not (game.outcome.timed_out or game.outcome.error):  # of such a game decisions may still come
                _read_to_the_end(connection, game)
            return game.outcome

    def play_batch(self, requests: Sequence[GameRequest], decide: Decider | None = None) -> Batch:
        """Play games one after another; yield each one's place and its outcome or what it was lost by, once.

        After a fault other than a refusal those that are left are not played, and not yielded.
        """
        for place, request in enumerate(requests):
            try:
                yield place, self.play(request, decide, place=place)
            except EngineFault as fault:
                yield place, fault
                if fault.kind != "refused":
                    return

    @contextmanager
    def _asked(self, command: str, deadline: float) -> Iterator[Connection]:
        connect_by = min(deadline, time.monotonic() + self._limits.connect_seconds)
        with Connection(self.endpoint, connect_by, line_bytes=self._limits.line_bytes) as connection:
            connection.send([command], deadline)
            yield connection

    @staticmethod
    def _line(connection: Connection, deadline: float, expected: str) -> str:
        line = connection.receive(deadline)
        if line is None:
            raise unexpected(connection.engine, None, expected=expected)
        return line


def _read_to_the_end(connection: Connection, game: GameInProgress) -> None:
    """See that nothing stands behind a result. Raises EngineFault: `protocol` when something does."""
    try:
        line = connection.receive(time.monotonic() + END_SECONDS)
    except EngineFault as fault:
        if fault.kind in ("timeout", "closed"):  # however it ends, the result was whole
            return
        raise
    if line is not None:
        game.take(line)


def chosen(decide: Decider | None, game: int, decision: Decision) -> Choice:
    """Ask `decide`. Raises ValueError when there is nobody to decide."""
    if decide is None:
        raise ValueError("a game in the mode 'interact' needs somebody who decides")
    return decide(game, decision)
