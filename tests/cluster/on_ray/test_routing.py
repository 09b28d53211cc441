"""Where a request goes: home, unless another server would answer sooner."""

from collections import Counter
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.on_ray.routing import (
    FIRST_PROBATION_SECONDS,
    LONGEST_PROBATION_SECONDS,
    STREAMS_KEPT,
    Located,
    Router,
    Server,
)

HERE, THERE = "here", "there"
ROWS = 10
STREAMS = 4


def a_router(*nodes: str, first_home: int = 0) -> Router:
    """Return a router on the node `HERE` whose servers are on `nodes`."""
    servers = [Located(f"server {number}", node) for number, node in enumerate(nodes)]
    return Router(servers, node=HERE, first_home=first_home)


def here(*handles: str) -> list[Located]:
    """Return servers on the node `HERE`."""
    return [Located(handle, HERE) for handle in handles]


def chosen(router: Router, stream: int = 0, rows: int = ROWS, *, now: float = 0.0) -> int:
    """Return the number of the server that a request would be sent to."""
    return router.servers.index(asked(router, stream, rows, now=now))


def asked(router: Router, stream: int = 0, rows: int = ROWS, *, now: float = 0.0) -> Server:
    """Return the server that a request would be sent to; there is one."""
    server = router.choose(stream, rows, now=now)
    assert server is not None
    return server


def homes(router: Router, streams: int) -> list[int]:
    """Return where the first streams of an idle client go."""
    return [chosen(router, stream) for stream in range(streams)]


class Case(NamedTuple):
    """What a client of four streams sees when the first of them, at home at the first near server, sends 10 rows."""

    nodes: tuple[str, ...]
    owes: tuple[int, ...]
    on_probation: tuple[int, ...]
    goes_to: int


ALONE, TWO, NEAR_AND_FAR, MOST_FAR = (HERE,), (HERE, HERE), (THERE, HERE, HERE), (HERE, THERE, THERE)
CASES = {
    "one server, whatever it owes": Case(ALONE, (900,), (), 0),
    "one server, though it fails": Case(ALONE, (0,), (0,), 0),
    "home": Case(TWO, (0, 0), (), 0),
    "home, though it owes a little more": Case(TWO, (9, 0), (), 0),
    "home, which owes less": Case(TWO, (0, 9), (), 0),
    "spilled: home owes a request more": Case(TWO, (10, 0), (), 1),
    "spilled to the one that owes least": Case((HERE,) * 4, (40, 20, 10, 30), (), 2),
    "spilled: home is on probation": Case(TWO, (0, 900), (0,), 1),
    "home, for the other is on probation": Case(TWO, (900, 0), (1,), 0),
    "home, when all are on probation": Case(TWO, (9, 0), (0, 1), 0),
    "spilled, when all are on probation and home owes more": Case(TWO, (10, 0), (0, 1), 1),
    "home, though a far one owes less": Case(NEAR_AND_FAR, (0, 39, 39), (), 1),
    "near, for the far one does not owe so much less": Case(NEAR_AND_FAR, (0, 59, 39), (), 2),
    "far, when each near one owes a request of every stream more": Case(NEAR_AND_FAR, (0, 40, 50), (), 0),
    "near, when home is on probation": Case(NEAR_AND_FAR, (0, 0, 39), (1,), 2),
    "far, when all near ones are on probation": Case(NEAR_AND_FAR, (900, 0, 0), (1, 2), 0),
    "near, when the far one is on probation": Case(NEAR_AND_FAR, (0, 900, 900), (0,), 1),
    "near, when all are on probation": Case(NEAR_AND_FAR, (0, 0, 0), (0, 1, 2), 1),
    "far, to the one that owes least": Case(MOST_FAR, (0, 20, 10), (0,), 2),
    "home, when all are far": Case((THERE, THERE), (9, 0), (), 0),
    "spilled, when all are far": Case((THERE, THERE), (10, 0), (), 1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_request_goes(case: Case) -> None:
    router = a_router(*case.nodes)
    home, *_ = homes(router, STREAMS)
    for number, server in enumerate(router.servers):
        server.outstanding_rows = case.owes[number]
        if number in case.on_probation:
            server.failed(0.0)

    assert chosen(router) == case.goes_to
    assert router.spilled_requests == (case.goes_to != home)


def test_of_servers_that_stay_everything_is_remembered_when_others_come_and_go() -> None:
    router = a_router(HERE, HERE, THERE)
    first, second, _ = router.servers
    first.failed(0.0)
    second.outstanding_rows = 7
    router.meet([*here("server 1"), Located("server 3", THERE), *here("server 0")])

    assert [server.handle for server in router.servers] == ["server 1", "server 3", "server 0"]
    assert router.servers[0] is second
    assert router.servers[2] is first
    assert (router.servers[1].node, router.servers[1].outstanding_rows) == (THERE, 0)


def test_a_stream_returns_home_when_that_owes_little_again() -> None:
    router = a_router(HERE, HERE)
    went = []
    for router.servers[0].outstanding_rows in (0, ROWS, ROWS - 1):
        went.append(chosen(router))

    assert went == [0, 1, 0]
    assert router.spilled_requests == 1


def test_a_stream_returns_home_as_soon_as_its_probation_ends() -> None:
    router = a_router(HERE, HERE)
    router.servers[0].failed(100.0)
    ends = 100.0 + FIRST_PROBATION_SECONDS

    assert [chosen(router, now=now) for now in (100.0, ends - 0.01, ends)] == [1, 1, 0]


def test_a_probation_doubles_up_to_its_longest_and_ends_with_an_answer() -> None:
    server, lasted, now = Server("server", HERE), [], 0.0
    for _ in range(9):
        server.failed(now)
        server.failed(now)  # what was sent before tells nothing new
        lasted.append(server.probation_ends - now)
        now = server.probation_ends
    server.answered()
    server.failed(now)

    assert lasted == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] + [LONGEST_PROBATION_SECONDS] * 3
    assert server.probation_ends - now == FIRST_PROBATION_SECONDS


def test_a_far_server_that_comes_draws_nobody_from_near_ones_before_it_has_ever_answered() -> None:
    router = a_router(HERE, HERE)
    assert homes(router, 4) == [0, 1, 0, 1]
    router.meet([*here("server 0", "server 1"), Located("far", THERE)])
    assert homes(router, 5) == [0, 1, 0, 1, 0]


def test_a_near_server_that_comes_is_the_home_of_all_who_had_only_far_ones() -> None:
    router = a_router(THERE, THERE)
    assert homes(router, 2) == [0, 1]
    router.meet([Located("server 0", THERE), Located("server 1", THERE), *here("near")])
    assert homes(router, 2) == [2, 2]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_the_streams_of_all_clients_are_shared_out_evenly(
    clients: int, streams: int, near: int, far: int
) -> None:
    nodes = (THERE,) * far + (HERE,) * near
    at_home = Counter(
        server
        for client in range(clients)
        for server in homes(a_router(*nodes, first_home=client * streams), streams)
    )

    counts = [at_home[server] for server in range(far, far + near)]
    assert sum(counts) == clients * streams
    assert max(counts) - min(counts) <= 1


class Clients:
    """All clients of a node, each with some streams; what they do together is what counts."""

    def __init__(self, clients: int, streams: int, servers: list[str]) -> None:
        self._streams = streams
        self._routers = [
            Router(here(*servers), node=HERE, first_home=client * streams) for client in range(clients)
        ]

    def meet(self, servers: list[str]) -> None:
        for router in self._routers:
            router.meet(here(*servers))

    def homes(self) -> list[str]:
        """Return the home of each stream, of one client after the other."""
        chosen = [
            router.choose(stream, ROWS, now=0.0)
            for router in self._routers
            for stream in range(self._streams)
        ]
        return [server.handle for server in chosen if server is not None]


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4), st.data())
def test_a_server_that_comes_takes_its_share_and_nobody_else_moves(
    servers: int, clients: int, streams: int, data: st.DataObject
) -> None:
    names = [f"server {number}" for number in range(servers)]
    team = Clients(clients, streams, names)
    before = team.homes()
    place = data.draw(st.integers(0, servers))
    team.meet([*names[:place], "new", *names[place:]])
    after = team.homes()
    counts = [after.count(name) for name in (*names, "new")]

    assert all(now in (then, "new") for then, now in zip(before, after, strict=True))
    assert max(counts) - min(counts) <= 2
    if place == servers:  # as it does, unless parts are named anew
        team.meet(names)
        assert team.homes() == before


@given(st.integers(2, 9), st.integers(1, 12), st.integers(1, 4), st.data())
def test_of_a_server_that_leaves_the_streams_go_round_and_nobody_else_moves(
    servers: int, clients: int, streams: int, data: st.DataObject
) -> None:
    names = [f"server {number}" for number in range(servers)]
    team = Clients(clients, streams, names)
    before, gone = team.homes(), data.draw(st.sampled_from(names))
    team.meet([name for name in names if name != gone])
    after = team.homes()
    counts = [after.count(name) for name in names if name != gone]

    assert all(then in (now, gone) for then, now in zip(before, after, strict=True))
    assert gone not in after
    assert max(counts) - min(counts) <= 2


@given(st.lists(st.sets(st.sampled_from("abcdefgh")), min_size=1, max_size=12))
def test_only_those_move_whose_server_has_left_or_who_move_to_one_that_has_come(
    changes: list[set[str]],
) -> None:
    team, there, before = Clients(20, 4, []), set(), []
    for servers in changes:
        team.meet(sorted(servers))
        after = team.homes()
        if servers:
            assert len(after) == 80
            assert set(after) <= servers
            moved = [(then, now) for then, now in zip(before, after, strict=False) if then != now]
            assert all(then not in servers or now not in there for then, now in moved)
        before, there = after, servers


def test_a_client_that_knows_no_server_has_none_to_choose() -> None:
    router = Router([], node=HERE)
    assert router.choose(0, ROWS, now=0.0) is None
    router.meet(here("server"))
    assert chosen(router) == 0
    router.meet([])
    assert router.choose(0, ROWS, now=0.0) is None
    router.meet(here("other"))
    assert chosen(router) == 0
    assert router.spilled_requests == 0


def test_streams_that_are_seen_no_more_are_forgotten_and_no_others() -> None:
    router = a_router(HERE, HERE, HERE)
    for version in range(1, 10 * STREAMS_KEPT):
        assert chosen(router, stream=0) == 0
        chosen(router, stream=version)

    assert len(router._homes) == STREAMS_KEPT


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 2), st.data())
def test_a_client_in_step_never_leaves_home(streams: int, near: int, far: int, data: st.DataObject) -> None:
    router = a_router(*(THERE,) * far, *(HERE,) * near)
    at = {}
    for stream in [*range(streams), *data.draw(st.lists(st.integers(0, streams - 1), max_size=40))]:
        if stream in at:
            at[stream].outstanding_rows -= ROWS
        at[stream] = asked(router, stream)
        at[stream].outstanding_rows += ROWS

    assert router.spilled_requests == 0
    assert all(server.outstanding_rows == 0 for server in router.servers[:far])


@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 100))
def test_a_burst_of_one_stream_goes_to_all_servers_and_to_the_near_ones_first(
    near: int, far: int, requests: int
) -> None:
    router = a_router(*(HERE,) * near, *(THERE,) * far)
    for _ in range(requests):
        asked(router).outstanding_rows += ROWS

    owed = [server.outstanding_rows for server in router.servers]
    assert max(owed) - min(owed) <= ROWS
    assert owed == sorted(owed, reverse=True)


class Life:
    """A client whose servers do what a test draws; every choice is held against the rules.

    Attributes:
        sent: server and rows of each request that was not answered.
    """

    def __init__(self, nodes: list[str]) -> None:
        self.router = a_router(*nodes)
        self.now = 0.0
        self.streams: set[int] = set()
        self.sent: list[tuple[Server, int]] = []

    def send(self, stream: int, rows: int) -> None:
        self.streams.add(stream)
        server = asked(self.router, stream, rows, now=self.now)
        self._check(server, rows)
        server.outstanding_rows += rows
        self.sent.append((server, rows))

    def end(self, which: int, fails: bool) -> None:
        """Let a request that is on its way fail, or be answered."""
        if self.sent:
            server, rows = self.sent.pop(which % len(self.sent))
            server.outstanding_rows -= rows
            if fails:
                server.failed(self.now)
            else:
                server.answered()

    def on_probation(self, server: Server) -> bool:
        return self.now < server.probation_ends

    def near(self) -> list[Server]:
        return [one for one in self.router.servers if one.node == HERE] or self.router.servers

    def _check(self, server: Server, rows: int) -> None:
        assert not self.on_probation(server) or all(map(self.on_probation, self.router.servers))
        others = [one for one in self.near() if self.on_probation(one) <= self.on_probation(server)]
        if server in self.near():
            assert server.outstanding_rows - min(one.outstanding_rows for one in others) < rows
        else:
            bound = rows * len(self.streams)
            assert all(one.outstanding_rows - server.outstanding_rows >= bound for one in others)


def sends() -> st.SearchStrategy[tuple[str, int, int]]:
    return st.tuples(st.just("send"), st.integers(0, 5), st.integers(1, 40))


def ends() -> st.SearchStrategy[tuple[str, int, bool]]:
    return st.tuples(st.just("end"), st.integers(0, 99), st.booleans())


def waits() -> st.SearchStrategy[tuple[str, float]]:
    return st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 10.0]))


@given(
    st.lists(st.sampled_from([HERE, THERE]), min_size=1, max_size=4),
    st.lists(st.one_of(sends(), ends(), waits()), max_size=60),
)
def test_whatever_servers_do_the_rules_hold_and_everyone_is_at_home_in_the_end(
    nodes: list[str], events: list[tuple]
) -> None:
    life = Life(nodes)
    for what, *how in events:
        if what == "send":
            life.send(*how)
        elif what == "end":
            life.end(*how)
        else:
            life.now += how[0]
    while life.sent:
        life.end(0, fails=False)
    life.now += LONGEST_PROBATION_SECONDS
    spilled = life.router.spilled_requests
    went = {asked(life.router, stream, now=life.now) for stream in life.streams}

    assert life.router.spilled_requests == spilled
    assert went <= set(life.near())
    assert all(node == HERE for node in nodes) <= (len(went) == min(len(life.near()), len(life.streams)))


def test_no_server_on_probation_is_chosen_while_another_is_not() -> None:
    for nodes, failing in product(product([HERE, THERE], repeat=3), product([False, True], repeat=3)):
        router = a_router(*nodes)
        for server, fails in zip(router.servers, failing, strict=True):
            if fails:
                server.failed(0.0)
        for stream in range(6):
            server = asked(router, stream, now=0.1)
            server.outstanding_rows += 25
            assert all(failing) or not failing[router.servers.index(server)]
