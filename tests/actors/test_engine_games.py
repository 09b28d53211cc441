"""Games are played on whatever daemons there are, and each becomes what the book is told of it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actors import engine_games
from actors.engine_games import EngineGames
from configs.engines import GamesConfig
from core.errors import UsageError
from engines.book import GameBook, Plan
from engines.forge_client import Endpoint
from engines.forge_decisions import Choice, Decision
from engines.forge_extension import GREETING
from engines.journal import read_journal
from engines.tickets import End, Exchange
from engines.watched_games import counted_games, read_shard
from tests.engines.scripted_daemon import Talk, scripted

PATIENCE_SECONDS = 30.0
CONFIG = GamesConfig(game_seconds=1, slack_seconds=1.0, tries=3, stop_seconds=5.0, shard_seconds=0.2)
DRAW = "GAME_RESULT: Draw in 1ms"
DECISION = (
    'DECISION:{"decision_type":"confirm_action","decision_id":0,"player":"%s(1)-Red","turn":1,"phase":"MAIN1",'
    '"game_state":{"players":[]}%s}'
)


class Daemon:
    """Keeps connections open and answers each game by `answer`; None ends the connection."""

    def __init__(self, answer: Callable[[str], list[str] | None] = lambda command: [DRAW]) -> None:
        self.answer = answer
        self.batches: list[int] = []
        self.commands: list[str] = []
        self.open = 0
        self.most_open = 0
        self._lock = threading.Lock()

    def script(self, talk: Talk) -> None:
        assert talk.hear() == GREETING
        talk.say(f"{GREETING} games=2 waiting=64")
        with self._lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            while (line := talk.hear()) is not None:
                tag, _, command = line.partition(" ")
                with self._lock:
                    self.commands.append(command)
                lines = self.answer(command)
                if lines is None:
                    return
                talk.say(*(f"{tag} {line}" for line in lines))
        finally:
            with self._lock:
                self.open -= 1


def stock(talk: Talk) -> None:
    """A daemon that takes one command a connection."""
    line = talk.hear() or ""
    talk.say(DRAW if line.startswith("NEWGAME") else "ERROR: Unknown command")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run(
    folder: Path,
    endpoints: Callable[[], Sequence[Endpoint]],
    *,
    games: int,
    config: GamesConfig = CONFIG,
    **given: Any,
) -> tuple[dict[str, Any], EngineGames]:
    """Play `games`, within the patience; return the book's counts."""
    plan = Plan(games=games, decks=("red", "blue"), mode=given.get("mode", "result"), tries=config.tries)
    with GameBook(folder, plan) as book:
        player = EngineGames(book, "here", config, endpoints=endpoints, folder=folder, **given)
        late = threading.Timer(PATIENCE_SECONDS, player.stop, (0.0,))
        late.start()
        try:
            player.run()
        finally:
            late.cancel()
        return book.stats(), player


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_journal(folder / "games.jsonl"))[1:]


def test_all_games_are_played_over_two_connections_each(tmp_path: Path, stack: ExitStack) -> None:
    daemons = [Daemon(), Daemon()]
    endpoints = [stack.enter_context(scripted(daemon.script)) for daemon in daemons]
    stats, player = run(tmp_path, lambda: endpoints, games=300)
    assert (stats["finished"], stats["retried"], stats["duplicates"]) == (300, {}, 0)
    assert sorted(line["game"] for line in lines_of(tmp_path)) == list(range(300))
    assert all(0 < daemon.most_open <= 2 and daemon.commands for daemon in daemons)
    assert player.stats()["played"] == 300
    seeds = {command.split("-s ")[1] for daemon in daemons for command in daemon.commands}
    assert len(seeds) == 300


@pytest.mark.parametrize("batch", ["auto", 16])
def test_a_stock_daemon_that_is_killed_costs_the_games_in_play_alone(
    tmp_path: Path, stack: ExitStack, batch: Any
) -> None:
    killed = threading.Event()
    commands: list[str] = []

    def script(talk: Talk) -> None:
        line = talk.hear() or ""
        commands.append(line)
        if killed.is_set() or len(commands) > 60:
            killed.set()  # whoever asks hears nothing from now on
        elif line.startswith("NEWGAME"):
            talk.say(DRAW)
        else:
            talk.say("ERROR: Unknown command")

    endpoints = [stack.enter_context(scripted(each)) for each in (script, stock)]
    config = CONFIG.model_copy(update={"batch": batch})
    stats, _ = run(
        tmp_path, lambda: endpoints[:1] if not killed.is_set() else endpoints[1:], games=200, config=config
    )
    assert (stats["finished"], stats["set_aside"]) == (200, 0)
    assert sum(stats["retried"].values()) <= 2


def test_a_stock_daemon_whose_games_hang_is_complained_of(tmp_path: Path, stack: ExitStack) -> None:
    complaints: list[Endpoint] = []

    def hang(talk: Talk) -> None:
        if (talk.hear() or "").startswith("NEWGAME"):
            talk.be_silent()
        talk.say("ERROR: Unknown command")

    endpoints = [stack.enter_context(scripted(script)) for script in (hang, stock)]
    config = CONFIG.model_copy(update={"slack_seconds": 0.1, "tries": 20})
    stats, _ = run(
        tmp_path,
        lambda: endpoints[:1] if not complaints else endpoints[1:],
        games=20,
        config=config,
        complain=complaints.append,
    )
    assert (stats["finished"], set(complaints)) == (20, {endpoints[0]})
    assert stats["retried"].keys() == {"timeout"}
    assert 3 <= stats["retried"]["timeout"] <= 4


def test_the_result_of_another_game_is_known_by_its_decks(tmp_path: Path, stack: ExitStack) -> None:
    def script(talk: Talk) -> None:
        line = (talk.hear() or "").split()
        if line[0] != "NEWGAME":
            talk.say("ERROR: Unknown command")
        elif "-q" in line:
            talk.say("GAME_RESULT: Ai(1)-Green won in 1ms")
        else:
            talk.say(f"SEED: {line[line.index('-s') + 1]}", "GAME_START: Red vs Blue")
            talk.say("GAME_RESULT: Ai(1)-Green won in 1ms")

    endpoint = stack.enter_context(scripted(script))
    stats, _ = run(tmp_path, lambda: [endpoint], games=2)
    assert (stats["finished"], stats["set_aside_by"]) == (0, {"protocol": 2})
    assert "Green" in stats["whys"]["protocol"]


def test_a_stock_daemon_is_played_with_as_well(tmp_path: Path, stack: ExitStack) -> None:
    endpoint = stack.enter_context(scripted(stock))
    stats, _ = run(tmp_path, lambda: [endpoint], games=20)
    assert (stats["finished"], stats["endings"]) == (20, {"draw": 20})


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        (["GAME_RESULT: Ai(1)-Red won in 3ms"], "first"),
        (["GAME_RESULT: Ai(2)-Blue won in 3ms"], "second"),
        ([DRAW], "draw"),
        (["GAME_TIMEOUT: too long", DRAW], "broken off"),
    ],
)
def test_endings_are_told(tmp_path: Path, stack: ExitStack, line: list[str], ending: str) -> None:
    endpoint = stack.enter_context(scripted(Daemon(lambda command: line).script))
    stats, _ = run(tmp_path, lambda: [endpoint], games=2)
    assert stats["endings"] == {ending: 2}


def test_games_that_cannot_be_had_are_set_aside_and_the_others_go_on(
    tmp_path: Path, stack: ExitStack
) -> None:
    def answer(command: str) -> list[str]:
        if command.startswith("NEWGAME red"):
            return ["ERROR: Could not load deck: red"]
        return ["GAME_ERROR: out of cards", DRAW] if command.startswith("NEWGAME green") else [DRAW]

    endpoint = stack.enter_context(scripted(Daemon(answer).script))
    stats, _ = run(tmp_path, lambda: [endpoint], games=10)
    assert (stats["finished"], stats["set_aside_by"], stats["retried"]) == (
        5,
        {"refused": 5},
        {},
    )
    assert "'Could not load deck: red'; give the path of a .dck file" in stats["whys"]["refused"]
    assert not stats["all_refused"]


def test_what_a_daemon_refuses_for_a_reason_of_its_own_is_tried_again(
    tmp_path: Path, stack: ExitStack
) -> None:
    endpoint = stack.enter_context(scripted(Daemon(lambda command: ["ERROR: not now"]).script))
    stats, _ = run(tmp_path, lambda: [endpoint], games=1)
    assert (stats["retried"], stats["set_aside_by"]) == ({"refused": 2}, {"refused": 1})


def test_a_game_that_broke_in_the_daemon_has_failed(tmp_path: Path, stack: ExitStack) -> None:
    endpoint = stack.enter_context(scripted(Daemon(lambda command: ["GAME_ERROR: no card", DRAW]).script))
    stats, _ = run(tmp_path, lambda: [endpoint], games=1)
    assert (stats["finished"], stats["set_aside_by"]) == (0, {"refused": 1})
    assert "no card" in stats["whys"]["refused"]


@pytest.mark.parametrize("connections", [1, 2])
def test_a_daemon_that_breaks_now_and_then_costs_tries_of_the_games_it_may_have_played(
    tmp_path: Path, stack: ExitStack, connections: int
) -> None:
    count = iter(range(10**6))

    def answer(command: str) -> list[str] | None:
        return None if next(count) % 40 == 39 else [DRAW]

    daemon = Daemon(answer)
    endpoint = stack.enter_context(scripted(daemon.script))
    config = CONFIG.model_copy(update={"batch": 16, "connections": connections})
    stats, _ = run(tmp_path, lambda: [endpoint], games=100, config=config)
    breaks = sum(stats["retried"].values())
    assert (stats["finished"], stats["set_aside"], stats["duplicates"]) == (100, 0, 0)
    # The daemon says that it plays two at a time. Where one connection breaks, both may be on the other.
    assert 2 - connections <= breaks <= 2 * (len(daemon.commands) // 40)
    assert set(stats["retried"]) <= {"closed"}


def test_a_daemon_that_always_breaks_is_left_alone_while_another_plays(
    tmp_path: Path, stack: ExitStack
) -> None:
    bad, good = Daemon(lambda command: ["nonsense"]), Daemon()
    endpoints = [stack.enter_context(scripted(daemon.script)) for daemon in (bad, good)]
    stats, _ = run(tmp_path, lambda: endpoints, games=400)
    assert stats["finished"] + stats["set_aside"] == 400
    assert stats["finished"] >= 395
    assert set(stats["retried"]) == {"protocol"}
    assert len(good.commands) > 10 * len(bad.commands)


def test_a_hanging_game_is_given_up_and_played_elsewhere(tmp_path: Path, stack: ExitStack) -> None:
    hung: list[str] = []

    def hang(talk: Talk) -> None:
        if talk.hear() != GREETING:
            return  # it does not tell its status either
        talk.say(f"{GREETING} games=1 waiting=4")
        hung.append(talk.hear() or "")
        talk.be_silent()

    endpoints = [stack.enter_context(scripted(script)) for script in (hang, Daemon().script)]
    stats, _ = run(tmp_path, lambda: endpoints, games=50)
    assert (stats["finished"], stats["set_aside"]) == (50, 0)
    # It says that it plays one at a time: what it was asked for over another connection may not have begun.
    assert stats["retried"].keys() == {"timeout"}
    assert 1 <= stats["retried"]["timeout"] <= len(hung)


def test_daemons_may_come_and_go(tmp_path: Path, stack: ExitStack) -> None:
    first, second = Daemon(), Daemon()
    one, two = (stack.enter_context(scripted(daemon.script)) for daemon in (first, second))

    def endpoints() -> list[Endpoint]:
        if not first.commands:
            return [one]
        return [two] if len(first.commands) >= 20 else [one, two]

    stats, _ = run(tmp_path, endpoints, games=2000)
    assert stats["finished"] == 2000
    assert len(second.commands) > len(first.commands)


def test_it_waits_for_the_first_daemon(tmp_path: Path, stack: ExitStack) -> None:
    endpoint = stack.enter_context(scripted(Daemon().script))
    asked = iter(range(10**6))
    stats, _ = run(tmp_path, lambda: [endpoint] if next(asked) > 3 else [], games=5)
    assert stats["finished"] == 5


def test_a_stop_lets_games_end_and_brings_back_the_rest(tmp_path: Path, stack: ExitStack) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def answer(command: str) -> list[str]:
        begun.set()
        assert may_end.wait(PATIENCE_SECONDS)
        return [DRAW]

    endpoint = stack.enter_context(scripted(Daemon(answer).script))
    with GameBook(tmp_path, Plan(games=100, decks=("red",))) as book:
        player = EngineGames(book, "here", CONFIG, endpoints=lambda: [endpoint])
        thread = threading.Thread(target=player.run)
        thread.start()
        assert begun.wait(PATIENCE_SECONDS)
        player.stop()
        may_end.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        stats = book.stats()
    assert stats["out"] == 0
    assert stats["retried"] == {}
    assert 1 <= stats["finished"] < 100
    assert stats["waiting"] == 100 - stats["finished"]
    again, _ = run(tmp_path / "again", lambda: [endpoint], games=3)
    assert again["finished"] == 3


class SlowBook:
    """A book that takes its time with what is brought, once it has given out some tickets."""

    def __init__(self, book: GameBook, may_go_on: threading.Event, tickets: int = 0) -> None:
        self.book, self.may_go_on = book, may_go_on
        self.left = tickets
        self.brought = threading.Event()

    def enter(self, holder: str) -> None:
        self.book.enter(holder)

    def exchange(
        self, holder: str, number: int, ends: Sequence[End], *, want: int, hold_seconds: float
    ) -> Exchange:
        if ends and self.left <= 0:
            self.brought.set()
            assert self.may_go_on.wait(PATIENCE_SECONDS)
        got = self.book.exchange(holder, number, ends, want=want, hold_seconds=hold_seconds)
        self.left -= len(got.tickets)
        return got


def test_players_wait_when_the_book_does_not_take_what_they_bring(tmp_path: Path, stack: ExitStack) -> None:
    daemon = Daemon()
    endpoint = stack.enter_context(scripted(daemon.script))
    may_go_on = threading.Event()
    with GameBook(tmp_path, Plan(games=50_000, decks=("red",))) as inner:
        book = SlowBook(inner, may_go_on)
        player = EngineGames(book, "here", CONFIG, endpoints=lambda: [endpoint])
        thread = threading.Thread(target=player.run)
        thread.start()
        assert book.brought.wait(PATIENCE_SECONDS)
        deadline, before = time.monotonic() + PATIENCE_SECONDS, -1
        while before != (before := player.stats()["played"]) and time.monotonic() < deadline:
            time.sleep(0.3)  # until two looks in a row find the same
        assert before < 5_000
        player.stop()
        may_go_on.set()
        thread.join(PATIENCE_SECONDS)
        assert inner.stats()["finished"] >= before


def test_players_wait_when_decisions_that_nobody_takes_need_much_room(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_games, "MOST_END_BYTES", 20_000)
    lines = [DECISION % ("AiObs", f',"ai_choice":true,"message":"{"x" * 1000}"'), DRAW]
    endpoint = stack.enter_context(scripted(Daemon(lambda command: lines).script))
    may_go_on = threading.Event()
    with GameBook(tmp_path, Plan(games=300, decks=("red",), mode="observe")) as inner:
        book = SlowBook(inner, may_go_on, tickets=200)
        config = CONFIG.model_copy(update={"shard_games": 1, "batch": 64})
        given = {"endpoints": lambda: [endpoint], "mode": "observe", "folder": tmp_path}
        player = EngineGames(book, "here", config, **given)
        thread = threading.Thread(target=player.run)
        thread.start()
        assert book.brought.wait(PATIENCE_SECONDS)
        deadline, before = time.monotonic() + PATIENCE_SECONDS, -1
        while before != (before := player.stats()["played"]) and time.monotonic() < deadline:
            time.sleep(0.3)  # until two looks in a row find the same
        # Some 20,000 bytes are with the book, as many wait; what was played before the book stood still is more.
        assert before <= 120
        may_go_on.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        assert inner.stats()["finished"] == 300


def test_decisions_are_kept_and_counted_once_a_game(tmp_path: Path, stack: ExitStack) -> None:
    lines = [DECISION % ("AiObs", ',"ai_choice":true'), DRAW]
    endpoint = stack.enter_context(scripted(Daemon(lambda command: lines).script))
    config = CONFIG.model_copy(update={"shard_games": 8})
    stats, _ = run(tmp_path, lambda: [endpoint], games=30, config=config, mode="observe")
    assert stats["finished"] == 30
    games = dict(counted_games(tmp_path))
    assert sorted(games) == list(range(30))
    assert all(outcome.decisions[0].choice is True for outcome in games.values())
    records = {line["record"] for line in lines_of(tmp_path)}
    assert len(records) >= 2
    assert sum(len(list(read_shard(tmp_path, record))) for record in records) == 30


def test_who_decides_is_asked_by_the_number_of_the_game(tmp_path: Path, stack: ExitStack) -> None:
    asked: list[int] = []

    def script(talk: Talk) -> None:
        assert talk.hear() == GREETING
        talk.say(f"{GREETING} games=1 waiting=4")
        while (line := talk.hear()) is not None:
            tag = line.partition(" ")[0]
            talk.say(f"{tag} {DECISION % ('Agent', '')}")
            assert talk.hear() == f"{tag} y"
            talk.say(f"{tag} {DRAW}")

    def decide(game: int, decision: Decision) -> Choice:
        asked.append(game)
        return True

    config = CONFIG.model_copy(update={"batch": 1})
    endpoint = stack.enter_context(scripted(script))
    stats, _ = run(tmp_path, lambda: [endpoint], games=6, config=config, mode="interact", decide=decide)
    assert stats["finished"] == 6
    assert sorted(asked) == list(range(6))


def test_a_player_that_chooses_what_it_may_not_ends_the_run(tmp_path: Path, stack: ExitStack) -> None:
    endpoint = stack.enter_context(scripted(Daemon(lambda command: [DECISION % ("Agent", "")]).script))
    with pytest.raises(UsageError, match="is no choice"):
        run(tmp_path, lambda: [endpoint], games=2, mode="interact", decide=lambda game, decision: 7)
