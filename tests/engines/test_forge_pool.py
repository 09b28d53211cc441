"""Sessions are few for each daemon, sound when they are lent, and spread over those that answer."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from engines.errors import EngineFault
from engines.forge_client import Endpoint, ForgeClient, Limits
from engines.forge_extension import GREETING, ForgeConnection
from engines.forge_pool import FIRST_REST_SECONDS, LONGEST_REST_SECONDS, ForgePool, Session
from engines.forge_protocol import GameRequest, Outcome
from tests.engines.scripted_daemon import Script, Talk, scripted

REQUEST = GameRequest(("red.dck", "blue.dck"), game_seconds=1)
LIMITS = Limits(connect_seconds=5.0, status_seconds=2.0, slack_seconds=1.0)


class Clock:
    """Seconds that pass when a test lets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Daemon:
    """Plays by the extension, or as a stock daemon, and counts its connections. `bad` games are answered nonsense."""

    def __init__(self, *, stock: bool = False) -> None:
        self.stock = stock
        self.bad = 0
        self.dead_status = False
        self.connections = 0
        self.statuses = 0
        self.closes_after_a_game = False

    def script(self, talk: Talk) -> None:
        self.connections += 1
        if self.stock:
            line = talk.hear() or ""
            talk.say(self._line() if line.startswith("NEWGAME") else "ERROR: Unknown command")
            return
        assert talk.hear() == GREETING
        talk.say(f"{GREETING} games=2 waiting=8")
        while (line := talk.hear()) is not None:
            tag, _, command = line.partition(" ")
            if command == "STATUS":
                self.statuses += 1
                if self.dead_status:
                    return
                facts = (
                    "  Active games: 0",
                    "  Total games played: 7",
                    "  Memory: 1MB / 2MB",
                    "  Max concurrent: 2",
                )
                talk.say(f"{tag} X STATUS", *(f"{tag} {fact}" for fact in facts))
            else:
                talk.say(f"{tag} {self._line()}")
                if self.closes_after_a_game:
                    return

    def _line(self) -> str:
        self.bad -= 1
        return "nonsense" if self.bad >= 0 else "GAME_RESULT: Draw in 1ms"


@contextmanager
def pool_of(
    *scripts: Script, clock: Clock | None = None, dead: int = 0
) -> Iterator[tuple[ForgePool, list[Endpoint]]]:
    """A pool over scripted daemons, and `dead` endpoints before them where nobody listens."""
    with ExitStack() as stack:
        endpoints = [stack.enter_context(scripted(script)) for script in scripts]
        for _ in range(dead):
            with scripted(Talk.be_silent) as gone:
                endpoints.insert(0, gone)
        pool = ForgePool(endpoints, limits=LIMITS, check_after_seconds=30.0, clock=clock or time.monotonic)
        stack.callback(pool.close)
        yield pool, endpoints


def play(session: Session, games: int = 1) -> list[str]:
    ends = [end for _, end in session.play_batch([REQUEST] * games)]
    return ["played" if isinstance(end, Outcome) else end.kind for end in ends]


def test_one_connection_serves_session_after_session() -> None:
    daemon = Daemon()
    with pool_of(daemon.script) as (pool, _):
        for _ in range(5):
            with pool.session(5) as session:
                assert play(session, 3) == ["played"] * 3
                assert isinstance(session.player, ForgeConnection)
        assert (daemon.connections, pool.counts.opened, pool.counts.dropped) == (1, 1, 0)


def test_a_third_session_waits_until_one_of_two_is_given_back() -> None:
    daemon = Daemon()
    got = threading.Event()

    def third(pool: ForgePool) -> None:
        with pool.session(20) as session:
            assert play(session) == ["played"]
            got.set()

    with pool_of(daemon.script) as (pool, _), ExitStack() as lent:
        lent.enter_context(pool.session(5))
        with pool.session(5):
            with pytest.raises(EngineFault, match="in time") as caught, pool.session(0.05):
                pass
            assert "2 sessions lent" in caught.value.why
            waiting = threading.Thread(target=third, args=(pool,))
            waiting.start()
            assert not got.is_set()
        assert got.wait(20)
        waiting.join(20)
        assert daemon.connections == 2


def test_sessions_are_spread_over_the_daemons() -> None:
    with pool_of(*(Daemon().script for _ in range(3))) as (pool, endpoints), ExitStack() as lent:
        first = [lent.enter_context(pool.session(5)).endpoint for _ in range(3)]
        second = [lent.enter_context(pool.session(5)).endpoint for _ in range(3)]
    assert set(first) == set(second) == set(endpoints)


def test_a_broken_connection_is_dropped_and_a_new_one_made() -> None:
    daemon, clock = Daemon(), Clock()
    daemon.bad = 1
    with pool_of(daemon.script, clock=clock) as (pool, _):
        with pool.session(5) as session:
            assert play(session) == ["protocol"]
        clock.now += FIRST_REST_SECONDS
        with pool.session(5) as session:
            assert play(session) == ["played"]
        assert (daemon.connections, pool.counts.opened, pool.counts.dropped) == (2, 2, 1)


def test_a_connection_that_the_daemon_closed_meanwhile_is_not_lent() -> None:
    daemon = Daemon()
    daemon.closes_after_a_game = True
    with pool_of(daemon.script) as (pool, _):
        with pool.session(5) as session:
            first = session.player
            assert play(session) == ["played"]
        assert isinstance(first, ForgeConnection)
        while first.is_quiet():  # until its end has come; the test's own limit bounds it
            pass
        daemon.closes_after_a_game = False
        with pool.session(5) as session:
            assert session.player is not first
            assert play(session) == ["played"]
        assert pool.counts.dropped == 1


def test_a_connection_that_lay_idle_is_asked_for_its_status() -> None:
    daemon, clock = Daemon(), Clock()
    with pool_of(daemon.script, clock=clock) as (pool, _):
        for seconds, statuses, connections in ((0, 0, 1), (29, 0, 1), (30, 1, 1)):
            clock.now += seconds
            with pool.session(5) as session:
                assert play(session) == ["played"]
            assert (daemon.statuses, daemon.connections) == (statuses, connections)
        clock.now += 30
        daemon.dead_status = True
        with pool.session(5) as session:
            assert play(session) == ["played"]
        assert (daemon.connections, pool.counts.dropped, pool.counts.checks) == (2, 1, 2)


def test_a_daemon_that_is_gone_is_passed_over_and_told_when_there_is_no_other() -> None:
    with pool_of(Daemon().script, dead=2) as (pool, endpoints):
        for _ in range(4):
            with pool.session(5) as session:
                assert session.endpoint == endpoints[2]
        assert pool.counts.unreachable >= 2
        pool.set_endpoints(endpoints[:2])
        with pytest.raises(EngineFault) as caught, pool.session(0.3):
            pass
        assert caught.value.kind == "timeout"
        assert "is not running" in caught.value.why


def test_rests_grow_with_each_failure_and_end_with_a_game_that_ends_well() -> None:
    daemon, clock = Daemon(), Clock()
    daemon.bad = 10
    with pool_of(daemon.script, clock=clock) as (pool, _):
        rest = FIRST_REST_SECONDS
        for _ in range(10):
            with pool.session(0) as session:
                assert play(session) == ["protocol"]
            clock.now += rest - 0.001
            with pytest.raises(EngineFault), pool.session(0):
                pass
            clock.now += 0.002
            rest = min(2 * rest, LONGEST_REST_SECONDS)
        assert rest == LONGEST_REST_SECONDS
        with pool.session(0) as session:
            assert play(session) == ["played"]
        daemon.bad = 1
        with pool.session(0) as session:
            assert play(session) == ["protocol"]
        clock.now += FIRST_REST_SECONDS
        with pool.session(0) as session:
            assert play(session) == ["played"]


def test_a_stock_daemon_is_played_with_and_asked_again_later() -> None:
    daemon, clock = Daemon(stock=True), Clock()
    with pool_of(daemon.script, clock=clock) as (pool, _):
        for connections in (3, 5):  # it is asked once what it offers; each game is a connection
            with pool.session(5) as session:
                assert isinstance(session.player, ForgeClient)
                assert play(session, 2) == ["played", "played"]
            assert daemon.connections == connections
        assert pool.counts.stock == 2
        daemon.stock = False  # another was started there
        clock.now += 30
        with pool.session(5) as session:
            assert isinstance(session.player, ForgeConnection)
            assert play(session) == ["played"]


def test_a_stock_daemon_that_fails_is_left_alone_for_a_moment() -> None:
    daemon, clock = Daemon(stock=True), Clock()
    daemon.bad = 1
    with pool_of(daemon.script, clock=clock) as (pool, _):
        with pool.session(5) as session:
            assert play(session) == ["protocol"]
        with pytest.raises(EngineFault), pool.session(0):
            pass


def test_a_refused_game_is_no_reason_to_rest() -> None:
    def refusing(talk: Talk) -> None:
        talk.hear()
        talk.say(f"{GREETING} games=1 waiting=1")
        for tag in (1, 2):
            talk.hear()
            talk.say(f"@{tag} ERROR: Could not load deck: red.dck")

    with pool_of(refusing, clock=Clock()) as (pool, _):
        for _ in range(2):
            with pool.session(0) as session:
                assert play(session) == ["refused"]


def test_a_session_that_is_left_with_games_on_their_way_leaves_no_connection_behind() -> None:
    daemon = Daemon()
    with pool_of(daemon.script) as (pool, _):
        with pool.session(5) as session:
            batch = session.play_batch([REQUEST] * 3)
            next(batch)
        with pool.session(5) as session:
            assert play(session) == ["played"]
        assert (daemon.connections, pool.counts.dropped) == (2, 1)
        batch.close()


def test_endpoints_come_and_go() -> None:
    first, second = Daemon(), Daemon()
    with pool_of(first.script, second.script) as (pool, (one, two)):
        pool.set_endpoints([one])
        with pool.session(5) as kept, pool.session(5):
            assert kept.endpoint == one
            pool.set_endpoints([two])
            with pool.session(5) as session:
                assert session.endpoint == two
            assert play(kept) == ["played"]  # what is lent goes on
        assert isinstance(kept.player, ForgeConnection)
        assert kept.player.is_broken  # and is closed when it is given back
        pool.close()
        with pytest.raises(EngineFault), pool.session(0):
            pass


def test_a_daemon_with_as_many_games_that_hang_as_places_is_complained_about() -> None:
    active = 0

    def script(talk: Talk) -> None:
        if talk.hear() == GREETING:
            talk.say(f"{GREETING} games=2 waiting=8")
            talk.be_silent()
        facts = (
            f"  Active games: {active}",
            "  Total games played: 7",
            "  Memory: 1MB / 2MB",
            "  Max concurrent: 2",
        )
        talk.say("X STATUS", *facts)

    complaints: list[Endpoint] = []
    with scripted(script) as endpoint:
        limits = Limits(slack_seconds=-0.9)
        pool = ForgePool([endpoint], limits=limits, per_endpoint=1, complain=complaints.append)

        def play_two() -> None:
            for _ in range(2):  # it plays two at a time
                with pool.session(20) as session:
                    assert play(session) == ["timeout"]

        play_two()
        assert complaints == []  # it has given them up when their connections were closed
        active = 2
        play_two()
        assert complaints == [endpoint]
        pool.close()


def test_a_daemon_that_answers_nothing_after_a_game_that_hung_is_complained_about() -> None:
    heard: list[str] = []

    def script(talk: Talk) -> None:
        heard.append(talk.hear() or "")
        if heard == [GREETING]:
            talk.say("ERROR: Unknown command")
        else:
            talk.be_silent()

    complaints: list[Endpoint] = []
    with scripted(script) as endpoint:
        limits = Limits(status_seconds=0.1, slack_seconds=-0.9)
        pool = ForgePool([endpoint], limits=limits, complain=complaints.append)
        with pool.session(20) as session:
            assert play(session) == ["timeout"]
        assert complaints == []
        with pytest.raises(EngineFault, match="in time"), pool.session(2):
            pass
        pool.close()
    assert complaints[:1] == [endpoint]
    assert heard[1:4] == [REQUEST.line(), GREETING, GREETING]


def test_many_threads_never_hold_more_than_their_number() -> None:
    daemons = [Daemon() for _ in range(2)]
    held, most, lock = 0, 0, threading.Lock()
    games: list[str] = []

    def work(pool: ForgePool) -> None:
        nonlocal held, most
        for _ in range(10):
            with pool.session(30) as session:
                with lock:
                    held += 1
                    most = max(most, held)
                ends = play(session, 2)
                with lock:
                    held -= 1
                    games.extend(ends)

    with pool_of(*(daemon.script for daemon in daemons)) as (pool, _):
        workers = [threading.Thread(target=work, args=(pool,)) for _ in range(10)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    assert games == ["played"] * 200
    assert most <= 4
    assert all(daemon.connections <= 2 for daemon in daemons)
