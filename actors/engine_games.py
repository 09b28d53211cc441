"""Plays the games of a book on the daemons of a machine: as fast as these can, and whatever they do.

    games = EngineGames(book, "here", config, endpoints=lambda: [Endpoint(17171)])
    games.run()                     # until every game is finished or set aside, or until `stop`

A thread for each place at a daemon lends a session, takes tickets, plays them and puts down what became of them. The
thread that has called `run` brings that to the book and fetches tickets, a moment's work in advance. When what is put
down is not fetched, players wait; so nothing piles up.

A daemon that failed is left alone for a moment (`engines.forge_pool`), and is then asked for one game alone until that
ends well. A game that hangs fails alone. When a connection breaks, the games fail that the daemon can have been
playing; those that waited behind them go back as they were.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from configs.engines import GamesConfig
from core.metrics import Metrics, NoMetrics
from engines.book import MOST_TICKETS
from engines.errors import EngineFault
from engines.forge_client import Decider, Endpoint, Limits
from engines.forge_decisions import Choice, Decision
from engines.forge_extension import ForgeConnection
from engines.forge_pool import ForgePool, Session
from engines.forge_protocol import GameRequest, Mode, Outcome
from engines.lines import MAX_LINE_BYTES
from engines.tickets import End, Exchange, Failed, Played, Returned, Ticket
from engines.timings import MOST_SECONDS, Ending, EngineRecorder
from engines.watched_games import FOLDER, game_line, write_shard

TICK_SECONDS = 0.2
"""After which results are brought to the book, however few they are."""
DRY_SECONDS = 0.25
"""Before a book that had too few tickets is asked for more."""
BATCH_SECONDS = 0.25
"""That a batch of an automatic size takes its daemon."""
MOST_BATCH = 256
SESSION_SECONDS = 1.0
"""That a player waits for a session before it looks whether there is still something to do."""
HOLD_SECONDS = 60.0
"""That a ticket may be held beside the time that games take."""
SHARD_BYTES = 32 << 20
"""Of decisions, after which a file is written however few games it has."""
DECISION_BYTES = 1 << 20
"""Of a line that tells a decision: on a board of a hundred cards it has more than other lines may have."""
MOST_ENDS = 4096
"""Put down and not yet fetched, beyond which players wait."""
MOST_END_BYTES = 64 << 20
"""Of the decisions of these, beyond which they wait as well."""
NO_METRICS = NoMetrics()


class Book(Protocol):
    """Where tickets come from; see `engines.book.GameBook`."""

    def enter(self, holder: str) -> None:
        """Begin anew under this name."""
        ...

    def exchange(
        self, holder: str, number: int, ends: Sequence[End], *, want: int, hold_seconds: float
    ) -> Exchange:
        """Bring what became of tickets, and fetch others."""
        ...


class EngineGames:
    """See the module.

    Args:
        book: whose games are played.
        holder: its name there; unlike those of all others.
        config: how games are asked for.
        endpoints: where daemons serve at the moment; asked several times a second.
        complain: is told of a daemon that has no place left where a game does not hang, or where one after the other
            hangs.
        mode: what the daemons are to tell. In "observe" and "interact" decisions are kept, in `folder`.
        decide: chooses in the mode "interact", by the number of the game.
        folder: of the run.
        metrics: of games.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        book: Book,
        holder: str,
        config: GamesConfig,
        *,
        endpoints: Callable[[], Sequence[Endpoint]],
        complain: Callable[[Endpoint], None] = lambda endpoint: None,
        mode: Mode = "result",
        decide: Decider | None = None,
        folder: Path | None = None,
        metrics: Metrics = NO_METRICS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._holder, self._config = book, holder, config
        self._endpoints, self._decide = endpoints, decide
        self._mode: Mode = mode
        self._shelf = _Shelf(folder, holder, config, clock) if folder and mode != "result" else None
        self._recorder = EngineRecorder(metrics)
        self._clock = clock
        line_bytes = MAX_LINE_BYTES if mode == "result" else DECISION_BYTES
        limits = Limits(slack_seconds=config.slack_seconds, line_bytes=line_bytes)
        self._pool = ForgePool([], per_endpoint=config.connections, limits=limits, complain=complain)
        self._threads: list[threading.Thread] = []
        self._exchanges = 0
        self._is_over = False
        self._dry_until = 0.0
        self._lock = threading.Lock()
        """Guards what follows."""
        self._news = threading.Condition(self._lock)
        """For the thread of `run`: tickets run low, much was put down, or a player has ended its batch."""
        self._supply = threading.Condition(self._lock)
        """For players: there are tickets, or room for what becomes of them."""
        self._tickets: deque[Ticket] = deque()
        self._ends: list[tuple[End, bytes]] = []
        self._end_bytes = 0
        self._playing = 0
        self._stop_by = math.inf
        self._problem: BaseException | None = None
        self._paces: dict[Endpoint, float] = {}
        self._shaky: set[Endpoint] = set()
        self._serving, self._batch = 0, 1
        self._played, self._busy_seconds = 0, 0.0
        self._faults: Counter[str] = Counter()
        self._unplayable = ""
        self._began: float | None = None

    def run(self) -> None:
        """Play until every game of the book is finished or set aside, or until `stop`. To be called once.

        Raises:
            UsageError: when `decide` chose what may not be chosen.
            TamenError: when the book cannot be reached, or does not take what is brought.
        """
        self._began = self._clock()
        self._book.enter(self._holder)
        try:
            while not self._is_over and not self.is_stopping():
                self._follow_endpoints()
                self._wait(TICK_SECONDS)
                self._exchange()
            self.stop(0.0 if self._is_over else self._config.stop_seconds)
            self._finish()
        finally:
            self.stop(0.0)
            self._pool.close()
        if self._problem is not None:
            raise self._problem

    def stop(self, seconds: float | None = None) -> None:
        """Take no more tickets; games in play have some seconds to end, as configured if it is not said."""
        with self._lock:
            by = self._clock() + (self._config.stop_seconds if seconds is None else seconds)
            self._stop_by = min(self._stop_by, by)
            self._news.notify_all()
            self._supply.notify_all()

    def is_stopping(self) -> bool:
        return self._stop_by < math.inf

    def stats(self) -> dict[str, Any]:
        """Return what it did so far.

        Returns:
            played; faults, by kind; playing, sessions in use now; endpoints; unplayable: why none of the daemons that
            serve can be played with, "" where one can; busy_share: of the time that there were places at daemons, in
            which games were in play there.
        """
        with self._lock:
            elapsed = 0.0 if self._began is None else self._clock() - self._began
            places = len(self._threads)
            return {
                "played": self._played,
                "faults": dict(self._faults),
                "playing": self._playing,
                "endpoints": self._serving,
                "unplayable": self._unplayable if self._serving and not self._playing else "",
                "busy_share": min(1.0, self._busy_seconds / (elapsed * places))
                if elapsed and places
                else None,
            }

    # The thread of `run`.

    def _follow_endpoints(self) -> None:
        """Play where daemons serve now, with a thread for each place there."""
        endpoints = list(dict.fromkeys(self._endpoints()))
        self._pool.set_endpoints(endpoints)
        with self._lock:
            self._serving = len(endpoints)
        for _ in range(len(endpoints) * self._config.connections - len(self._threads)):
            thread = threading.Thread(target=self._play_on, name="engine games", daemon=True)
            with self._lock:
                self._threads.append(thread)
            thread.start()

    def _wait(self, seconds: float) -> None:
        """Wait until tickets run low, or there is much or the last to bring, at most for some seconds."""
        with self._lock:
            until = self._clock() + seconds
            while not self.is_stopping() and not self._is_full(0.5):
                if self._ends and self._is_idle():
                    return
                now = self._clock()
                is_low = self._is_low()
                if now >= until or (is_low and now >= self._dry_until):
                    return
                self._news.wait((min(until, self._dry_until) if is_low else until) - now)

    def _is_full(self, share: float = 1.0) -> bool:
        """Whether a share of what may be put down lies there."""
        return len(self._ends) >= share * MOST_ENDS or self._end_bytes >= share * MOST_END_BYTES

    def _is_idle(self) -> bool:
        return not (self._tickets or self._playing)

    def _is_low(self) -> bool:
        return 2 * len(self._tickets) < self._stock()

    def _stock(self) -> int:
        """Return how many tickets are to lie ready: for each player two batches, while it plays another."""
        return min(MOST_TICKETS, 2 * len(self._threads) * self._batch)

    def _exchange(self, *, is_last: bool = False) -> None:
        """Bring what was put down, and fetch tickets."""
        with self._lock:
            put_down, self._ends, self._end_bytes = self._ends, [], 0
            may_ask = not self.is_stopping() and self._clock() >= self._dry_until
            want = max(0, self._stock() - len(self._tickets)) if may_ask else 0
            is_idle = is_last or self._is_idle()
            self._supply.notify_all()
        ends = (
            [end for end, _ in put_down]
            if self._shelf is None
            else self._shelf.through(put_down, at_once=is_idle)
        )
        if not ends and not want:
            return
        self._exchanges += 1
        games_at_once = math.ceil(self._batch / max(1, self._config.connections))
        hold = HOLD_SECONDS + 2 * games_at_once * (self._config.game_seconds + self._config.slack_seconds)
        got = self._book.exchange(self._holder, self._exchanges, ends, want=want, hold_seconds=hold)
        self._is_over = got.is_over
        if want and not got.tickets:
            self._dry_until = self._clock() + DRY_SECONDS
        with self._lock:
            self._tickets.extend(got.tickets)
            self._supply.notify_all()

    def _finish(self) -> None:
        """Wait for the games in play, as long as they may take, and bring back all there is."""
        with self._lock:
            self._ends += [(Returned(ticket.number, ticket.attempt), b"") for ticket in self._tickets]
            self._tickets.clear()
            while self._playing and (left := self._stop_by - self._clock()) > 0:
                self._news.wait(left)
        self._exchange(is_last=True)

    # The threads of players.

    def _play_on(self) -> None:
        try:
            while self._wait_for_tickets():
                try:
                    with self._pool.session(SESSION_SECONDS) as session:
                        self._unplayable = ""
                        if batch := self._take(session):
                            self._play(session, batch)
                except EngineFault as fault:  # no session was free; none is raised while games are played
                    self._unplayable = fault.why
        except BaseException as problem:
            with self._lock:
                self._problem = self._problem or problem
            self.stop(0.0)

    def _wait_for_tickets(self) -> bool:
        """Wait until there are tickets, and room for what becomes of them; False when it is to stop."""
        with self._lock:
            while not self.is_stopping():
                if self._tickets and not self._is_full():
                    return True
                self._supply.wait(SESSION_SECONDS)
            return False

    def _take(self, session: Session) -> list[Ticket]:
        """Take a batch of tickets: at most a share of what there is, so that all come to the end at the same time."""
        with self._lock:
            if self.is_stopping():
                return []
            in_time = math.ceil(self._paces.get(session.endpoint, 0.0) * BATCH_SECONDS)
            size = self._batch_size(session, in_time)
            share = math.ceil(len(self._tickets) / len(self._threads))
            batch = [self._tickets.popleft() for _ in range(min(size, share))]
            self._batch = max(self._batch, size, min(MOST_BATCH, in_time))
            self._playing += bool(batch)
            if self._is_low():
                self._news.notify()
            return batch

    def _batch_size(self, session: Session, in_time: int) -> int:
        """Return how many games are asked for; `in_time` end in BATCH_SECONDS."""
        # Where each game has a connection of its own, those behind the first would only wait.
        if session.endpoint in self._shaky or not isinstance(session.player, ForgeConnection):
            return 1
        if self._config.batch != "auto":
            return self._config.batch
        return min(MOST_BATCH, max(session.player.games, in_time))

    def _play(self, session: Session, batch: list[Ticket]) -> None:
        """Play a batch, and put down what became of each of its tickets."""
        left = dict(enumerate(batch))
        began, played = self._clock(), 0
        decide = None if self._decide is None else _by_number(self._decide, batch)
        try:
            requests = [self._request(ticket) for ticket in batch]
            with closing(session.play_batch(requests, decide)) as ends:
                for place, end in ends:
                    ticket, after = left.pop(place), self._clock() - began
                    if isinstance(end, Outcome):
                        played += 1
                        self._put_down(ticket, end, after)
                    else:
                        self._put_down_failed(ticket, end)
                    if self._clock() > self._stop_by:
                        break
        finally:
            seconds = self._clock() - began
            with self._lock:
                self._ends += [(Returned(ticket.number, ticket.attempt), b"") for ticket in left.values()]
                self._playing -= 1
                self._busy_seconds += seconds
                self._note_session(session, played / seconds if seconds else 0.0)
                if self.is_stopping() or self._is_idle():
                    self._news.notify()

    def _note_session(self, session: Session, pace: float) -> None:
        """Remember how fast a daemon is, and whether it can be trusted."""
        if session.has_failed:
            self._shaky.add(session.endpoint)
            self._paces.pop(session.endpoint, None)
        elif session.ended_well:
            self._shaky.discard(session.endpoint)
            self._paces[session.endpoint] = pace

    def _request(self, ticket: Ticket) -> GameRequest:
        return GameRequest(
            ticket.decks,
            mode=self._mode,
            game_seconds=self._config.game_seconds,
            decision_seconds=self._config.decision_seconds,
            seed=ticket.seed,
            quiet=False,
            extra=self._config.extra,
        )

    def _put_down(self, ticket: Ticket, outcome: Outcome, after: float) -> None:
        """Note a game whose end came `after` some seconds."""
        if outcome.error is not None:
            why = f"it says that the game broke: {outcome.error[:200]}"
            self._put_down_failed(ticket, EngineFault("refused", "the daemon", why=why))
            return
        ending = _ending(outcome)
        # A daemon's word for how long it took counts as far as that can be.
        seconds = min(outcome.milliseconds / 1000, after, MOST_SECONDS)
        line = game_line(ticket, outcome) if self._shelf is not None else b""
        self._recorder.game_finished(ending, seconds)
        with self._lock:
            while line and self._is_full() and not self.is_stopping():
                self._supply.wait(SESSION_SECONDS)
            self._played += 1
            self._append(Played(ticket.number, ticket.attempt, ending, seconds), line)

    def _put_down_failed(self, ticket: Ticket, fault: EngineFault) -> None:
        why = f"{fault.what}: {fault.why}" + (f"; {fault.fix}" if fault.is_final else "")
        with self._lock:
            self._faults[fault.kind] += 1
            self._append(Failed(ticket.number, ticket.attempt, fault.kind, why, fault.is_final), b"")

    def _append(self, end: End, line: bytes) -> None:
        self._ends.append((end, line))
        self._end_bytes += len(line)
        if self._is_full(0.5):
            self._news.notify()


class _Shelf:
    """Holds finished games back until their decisions are on the disk."""

    def __init__(self, folder: Path, holder: str, config: GamesConfig, clock: Callable[[], float]) -> None:
        self._folder, self._config, self._clock = folder, config, clock
        self._prefix = f"{holder}-{time.time_ns():x}"
        self._number = 0
        self._held: list[Played] = []
        self._lines: list[bytes] = []
        self._bytes = 0
        self._since = 0.0

    def through(self, put_down: list[tuple[End, bytes]], *, at_once: bool) -> list[End]:
        """Take what was put down; return what may be brought to the book now, all of it `at_once`. Raises OSError."""
        ends: list[End] = []
        for end, line in put_down:
            if not isinstance(end, Played):
                ends.append(end)
                continue
            if not self._held:
                self._since = self._clock()
            self._held.append(end)
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._held) >= self._config.shard_games or self._bytes >= SHARD_BYTES:
                ends += self._write()
        if self._held and (at_once or self._clock() - self._since >= self._config.shard_seconds):
            ends += self._write()
        return ends

    def _write(self) -> list[End]:
        name = f"{self._prefix}-{self._number:06}"
        try:
            write_shard(self._folder, name, self._lines)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder / FOLDER)) from error
        self._number += 1
        ends: list[End] = [
            Played(end.number, end.attempt, end.ending, end.seconds, record=name) for end in self._held
        ]
        self._held, self._lines, self._bytes = [], [], 0
        return ends


def _ending(outcome: Outcome) -> Ending:
    if outcome.winner is not None:
        return "first" if outcome.winner == 0 else "second"
    return "broken off" if outcome.timed_out else "draw"


def _by_number(decide: Decider, batch: list[Ticket]) -> Decider:
    def by_number(game: int, decision: Decision) -> Choice:
        return decide(batch[game].number, decision)

    return by_number
