"""The reference daemon in a real JVM: its game, both modes of decisions, its connections, and all it can do wrong."""

import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import EngineFault
from engines.forge_client import Connection, Endpoint, ForgeClient, Limits
from engines.forge_decisions import KINDS, Choice, Decision, options
from engines.forge_extension import ForgeConnection
from engines.forge_pool import ForgePool
from engines.forge_protocol import GameRequest, Outcome
from engines.reference.compile import compiled
from tests.engines.reference_daemon import JAVA, PATIENCE_SECONDS, reference_daemon

pytestmark = pytest.mark.system

DECKS = ("aggro", "control")
DECK = "[metadata]\nName=Elfen & {Ähren}\n[Main]\n20 Field\n20 Scout\n[Sideboard]\n3 Ogre\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decks")
    (path / "scouts.dck").write_text(DECK)
    (path / "unknown.dck").write_text(DECK.replace("Scout", "Elf"))
    (path / "nameless.dck").write_text(DECK.replace("Name=", "Title="))
    (path / "latin.dck").write_bytes(DECK.encode("latin-1"))
    return path


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[Endpoint]:
    with reference_daemon(folder=folder) as (endpoint, _):
        yield endpoint


@pytest.fixture
def client(endpoint: Endpoint) -> ForgeClient:
    return ForgeClient(endpoint)


@pytest.fixture
def connection(endpoint: Endpoint) -> Iterator[ForgeConnection]:
    connection = ForgeConnection.opened(endpoint)
    assert connection is not None
    yield connection
    connection.close()


def soon() -> float:
    return time.monotonic() + PATIENCE_SECONDS


class RandomPlayer:
    """Chooses anything that a decision allows, and checks what it is shown."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)

    def __call__(self, game: int, decision: Decision) -> Choice:
        hands = [set(player) >= {"hand"} for player in decision.state["players"]]
        assert hands == [decision.seat == 0, decision.seat == 1]
        mine = decision.state["players"][decision.seat]
        assert len(mine["hand"]) == mine["hand_size"]
        offered, details = options(decision), decision.details
        if decision.kind in ("choose_action", "choose_ability", "choose_entity"):
            return self._random.choice(offered)
        if decision.kind == "declare_blockers":
            attackers = [attacker["index"] for attacker in details["attackers"]]
            return tuple(
                (blocker, self._random.choice(attackers)) for blocker in self._some(offered, 0, len(offered))
            )
        if decision.kind == "declare_attackers":
            return self._some(offered, 0, len(offered))
        if decision.kind == "choose_cards":
            return self._some(offered, details["min"], details["max"])
        return (
            self._random.randint(0, 4) if decision.kind == "announce_value" else self._random.random() < 0.5
        )

    def _some(self, offered: tuple[int, ...], least: int, most: int) -> tuple[int, ...]:
        return tuple(self._random.sample(offered, self._random.randint(least, most)))


def played(end: Outcome | EngineFault) -> Outcome:
    assert isinstance(end, Outcome), end
    return replace(end, milliseconds=0)


def requests(count: int, *extra: str, **fields: object) -> list[GameRequest]:
    return [GameRequest(DECKS, seed=seed, extra=extra, **fields) for seed in range(count)]  # type: ignore[arg-type]


def test_a_seed_is_one_game_alone_and_beside_others(client: ForgeClient, connection: ForgeConnection) -> None:
    wanted = requests(40)
    alone = [played(end) for _, end in client.play_batch(wanted)]
    beside = {place: played(end) for place, end in connection.play_batch(wanted)}
    assert [beside[place] for place in range(40)] == alone
    assert len({outcome.winner for outcome in alone}) > 1


def test_games_with_all_their_lines_are_the_same(client: ForgeClient) -> None:
    for quiet, loud in zip(requests(10), requests(10, quiet=False), strict=True):
        assert played(client.play(quiet)) == played(client.play(loud))
    assert client.play(GameRequest(DECKS, quiet=False)).seed is not None


def test_to_watch_a_game_does_not_change_it(client: ForgeClient) -> None:
    for plain, watched in zip(requests(20), requests(20, mode="observe"), strict=True):
        outcome = client.play(watched)
        assert outcome.winner == client.play(plain).winner
        assert {decision.kind for decision in outcome.decisions} >= {"choose_action"}
        for decision in outcome.decisions:
            assert decision.choice is not None
            assert all("hand" not in player for player in decision.state["players"])
        for seat in (0, 1):
            numbers = [decision.number for decision in outcome.decisions if decision.seat == seat]
            assert numbers == list(range(len(numbers)))


def test_every_kind_of_decision_occurs_and_every_choice_is_taken(client: ForgeClient) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(60):
        outcome = client.play(GameRequest(("control", "control"), "interact", seed=seed), RandomPlayer(seed))
        kinds.update(decision.kind for decision in outcome.decisions)
        assert not outcome.timed_out
        assert outcome.error is None
    assert set(kinds) == set(KINDS)


def test_the_same_choices_make_the_same_game(client: ForgeClient) -> None:
    request = GameRequest(DECKS, "interact", seed=5)
    first, again = (client.play(request, RandomPlayer(3)) for _ in range(2))
    assert played(first) == played(again)


def test_many_games_are_decided_over_one_connection(client: ForgeClient, connection: ForgeConnection) -> None:
    wanted = requests(12, mode="interact")
    players = [RandomPlayer(place) for place in range(12)]
    ends = list(connection.play_batch(wanted, lambda game, decision: players[game](game, decision)))
    assert sorted(place for place, _ in ends) == list(range(12))
    for place, end in ends:
        assert played(end) == played(client.play(wanted[place], RandomPlayer(place)))


def test_its_ai_beats_a_random_player_in_either_seat(connection: ForgeConnection) -> None:
    for seat in (1, 2):
        ends = connection.play_batch(requests(100, "-x", f"random={seat}"))
        wins = Counter(played(end).winner for _, end in ends)
        assert wins[2 - seat] >= 80


def test_a_deck_is_found_by_path_by_file_and_by_name(client: ForgeClient, folder: Path) -> None:
    for deck in ("scouts.dck", str(folder / "scouts.dck"), "aggro"):
        outcome = client.play(GameRequest((deck, "control"), quiet=False, seed=1))
        assert outcome.winner in (0, 1)


@pytest.mark.parametrize(
    "deck", ["nobody", "nobody.dck", "unknown.dck", "nameless.dck", "latin.dck", "/dev/zero.dck"]
)
def test_a_deck_that_is_not_there_or_no_deck_is_refused(client: ForgeClient, deck: str) -> None:
    with pytest.raises(EngineFault, match="refused") as caught:
        client.play(GameRequest(("aggro", deck)))
    assert deck in caught.value.why
    assert ".dck" in caught.value.fix


def test_a_game_over_its_time_is_a_draw(client: ForgeClient) -> None:
    outcome = client.play(GameRequest(DECKS, game_seconds=1, extra=("-x", "wait=60000")))
    assert outcome.timed_out
    assert outcome.winner is None
    assert outcome.milliseconds >= 1000


def test_the_status_counts_games_also_while_all_threads_play(folder: Path) -> None:
    with reference_daemon("--threads", "1", folder=folder) as (endpoint, _):
        connection, client = ForgeConnection.opened(endpoint), ForgeClient(endpoint)
        assert connection is not None
        assert connection.games == 1
        assert played(dict(connection.play_batch(requests(3)))[2]) is not None
        assert (connection.status().games_played, client.status().active_games) == (3, 0)
        with Connection(endpoint, soon()) as raw:
            raw.send(["HELLO tamen/1", "@1 NEWGAME aggro control -q -x wait=60000"], soon())
            while client.status().active_games == 0:
                pass
            assert client.status().max_concurrent == 1
        while client.status().active_games:  # the client is gone, and its game is given up
            pass
        connection.close()


def test_it_ends_when_it_is_told_to_and_plays_its_games_first(folder: Path) -> None:
    with reference_daemon(folder=folder) as (endpoint, process):
        ends: list[Outcome] = []
        client = ForgeClient(endpoint)
        request = GameRequest(DECKS, extra=("-x", "wait=300"))
        player = threading.Thread(target=lambda: ends.append(client.play(request)))
        player.start()
        while client.status().active_games == 0:
            pass
        deadline = time.monotonic() + PATIENCE_SECONDS
        with Connection(endpoint, deadline) as connection:
            connection.send(["SHUTDOWN"], deadline)
            assert "ERROR" not in (connection.receive(deadline) or "ERROR")
        Connection(endpoint, deadline).close()  # it looks whether it is to end when one comes
        player.join(PATIENCE_SECONDS)
        assert process.wait(PATIENCE_SECONDS) == 0
        assert len(ends) == 1
        with pytest.raises(EngineFault, match="is not running"):
            client.status()


FAULTS = {
    "garbage": "garbled",
    "endless": "too long",
    "midline": "closed",
    "close": "closed",
    "lie": "protocol",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_it_can_do_wrong_is_seen_by_both_clients(endpoint: Endpoint, fault: str) -> None:
    connection = ForgeConnection.opened(endpoint)
    assert connection is not None
    for player in (ForgeClient(endpoint), connection):
        ((_, end),) = player.play_batch(requests(1, "-x", f"fault={fault}"))
        assert isinstance(end, EngineFault)
        assert end.kind == FAULTS[fault]
    assert connection.is_broken


def test_a_result_that_comes_twice_counts_once(endpoint: Endpoint) -> None:
    connection = ForgeConnection.opened(endpoint)
    assert connection is not None
    wanted = [*requests(1, "-x", "fault=twice"), *requests(3, "-x", "wait=200")]
    ends = list(connection.play_batch(wanted))
    assert sorted(place for place, _ in ends) == [0, 1, 2, 3]
    assert [place for place, end in ends if isinstance(end, Outcome)] == [0]


def test_a_game_that_hangs_is_given_up_and_leaves_the_daemon_well(endpoint: Endpoint) -> None:
    connection = ForgeConnection.opened(endpoint, Limits(slack_seconds=0.5))
    assert connection is not None
    wanted = [*requests(1, "-x", "fault=hang", game_seconds=1), *requests(3)]
    kinds = {place: getattr(end, "kind", "played") for place, end in connection.play_batch(wanted)}
    assert kinds == {0: "timeout", 1: "played", 2: "played", 3: "played"}
    client = ForgeClient(endpoint)
    while client.status().active_games:  # it notices that the connection is closed
        pass
    assert played(client.play(GameRequest(DECKS, seed=1))) is not None


def test_a_daemon_that_freezes_or_crashes_is_told_by_its_status(folder: Path) -> None:
    limits = Limits(status_seconds=0.5, slack_seconds=-0.5)
    with reference_daemon(folder=folder) as (endpoint, process):
        client = ForgeClient(endpoint, limits)
        assert client.status().active_games == 0
        with pytest.raises(EngineFault):
            client.play(GameRequest(DECKS, game_seconds=1, extra=("-x", "fault=freeze")))
        with pytest.raises(EngineFault) as caught:
            client.status()
        assert caught.value.kind == "timeout"
        assert process.poll() is None
    with reference_daemon("--fault", "crash", "--every", "3", folder=folder) as (endpoint, process):
        client = ForgeClient(endpoint)
        ends = [getattr(end, "kind", "played") for _, end in client.play_batch(requests(3))]
        assert ends == ["played", "played", "closed"]
        assert process.wait(PATIENCE_SECONDS) == 3
        with pytest.raises(EngineFault) as caught:
            client.status()
        assert caught.value.kind == "died"


def test_a_pool_plays_on_while_one_daemon_answers_garbage_now_and_then(folder: Path) -> None:
    ended: Counter[int] = Counter()
    faults: Counter[str] = Counter()
    with (
        reference_daemon("--fault", "garbage", "--every", "7", folder=folder) as (bad, _),
        reference_daemon(folder=folder) as (good, _),
    ):
        pool = ForgePool([bad, good])
        left = list(range(100))
        while left:
            with pool.session(30) as session:
                batch, left = left[:10], left[10:]
                for place, end in session.play_batch([GameRequest(DECKS, seed=seed) for seed in batch]):
                    if isinstance(end, EngineFault):
                        faults[end.kind] += 1
                        left.append(batch[place])
                    else:
                        ended[batch[place]] += 1
        pool.close()
    assert ended == Counter(range(100))
    assert faults["garbled"] > 0


def test_a_bad_line_on_an_open_connection_closes_it_and_no_other(
    endpoint: Endpoint, client: ForgeClient
) -> None:
    for line in ("NEWGAME aggro control -q", "@0 STATUS", "@x STATUS", "@1"):
        with Connection(endpoint, soon()) as raw:
            raw.send(["HELLO tamen/1", line], soon())
            assert (raw.receive(soon()) or "").startswith("HELLO tamen/1")
            assert (raw.receive(soon()) or "").startswith("ERROR")
            assert raw.receive(soon()) is None
    assert client.status().active_games == 0


@pytest.mark.parametrize("options_of", ["-c x", "-s", "-x burn=1", "-x fault=love", "--fast", ""])
def test_a_bad_command_is_told(endpoint: Endpoint, options_of: str) -> None:
    with Connection(endpoint, soon()) as raw:
        raw.send([f"NEWGAME aggro{' control ' + options_of if options_of else ''}"], soon())
        assert (raw.receive(soon()) or "").startswith("ERROR: Usage")
        assert raw.receive(soon()) is None


@pytest.mark.parametrize(
    "arguments", [["daemon", "--port", "3"], ["daemon", "-p", "x"], [], ["bench", "--fault", "x"]]
)
def test_bad_flags_are_refused(arguments: list[str]) -> None:
    command = [*JAVA, "-jar", str(compiled()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_its_capacity_is_measured_without_a_socket_and_in_the_same_jvm(endpoint: Endpoint) -> None:
    command = [*JAVA, "-jar", str(compiled()), "bench", "--games", "8", "--threads", "2", "--wait-ms", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    with Connection(endpoint, soon()) as raw:
        raw.send(["BENCH 20 -x wait=50"], soon())
        line = raw.receive(soon()) or ""
    for printed, threads, games in ((done.stdout, 2, 8), (line.removeprefix("BENCH_RESULT: "), 10, 20)):
        result = json.loads(printed)
        assert (result["threads"], result["games"], result["wait_ms"]) == (threads, games, 50)
        assert 0 < result["games_per_s"] <= threads / 0.05


def test_it_keeps_and_takes_as_much_memory_as_it_is_told_to(folder: Path) -> None:
    with reference_daemon("--live-mb", "60", "--allocate-mb", "100", folder=folder) as (endpoint, _):
        client = ForgeClient(endpoint)
        assert client.status().memory_used >= 60
        for outcome in (client.play(request) for request in requests(5)):  # twice the heap in all
            assert outcome.error is None
        assert 60 <= client.status().memory_used <= 256
