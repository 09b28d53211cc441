"""Every game is somewhere and finishes once, through failures, lost answers and books that are opened again."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.errors import UsageError
from core.metrics import NoMetrics
from engines import book as book_module
from engines.book import GameBook, Plan
from engines.journal import read_journal
from engines.terms import Terms
from engines.tickets import Exchange, Failed, Played, Returned, Ticket

PLAN = Plan(games=12, decks=("red", "blue"), tries=3)


class Clock:
    """Seconds that pass when a test lets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Numbered:
    """A holder, which counts its exchanges."""

    def __init__(self, book: GameBook, name: str = "here") -> None:
        self.book, self.name, self.number = book, name, 0
        book.enter(name)

    def give(self, *ends: Played | Failed | Returned, want: int = 0, hold: float = 60.0) -> Exchange:
        self.number += 1
        return self.book.exchange(self.name, self.number, ends, want=want, hold_seconds=hold)

    def take(self, count: int, hold: float = 60.0) -> tuple[Ticket, ...]:
        return self.give(want=count, hold=hold).tickets


def played(ticket: Ticket) -> Played:
    return Played(ticket.number, ticket.attempt, "first", 0.5)


def failed(ticket: Ticket, why: str = "gone") -> Failed:
    return Failed(ticket.number, ticket.attempt, "died", why)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[GameBook]:
    with GameBook(tmp_path, PLAN, clock=clock) as book:
        yield book


def test_each_pair_of_decks_meets_in_turn_with_a_seed_of_its_own(book: GameBook) -> None:
    tickets = Numbered(book).take(4)
    assert [ticket.decks for ticket in tickets] == [("red", "blue"), ("blue", "red")] * 2
    assert len({ticket.seed for ticket in tickets}) == 4
    assert all(0 <= ticket.seed < 2**63 for ticket in tickets)


def test_one_deck_meets_itself(tmp_path: Path) -> None:
    with GameBook(tmp_path, Plan(games=1, decks=("red",))) as book:
        assert Numbered(book).take(1)[0].decks == ("red", "red")


def test_a_result_that_comes_twice_counts_once(book: GameBook) -> None:
    holder = Numbered(book)
    (ticket,) = holder.take(1)
    holder.give(played(ticket), played(ticket))
    holder.give(played(ticket))
    stats = book.stats()
    assert (stats["finished"], stats["duplicates"]) == (1, 2)


def test_an_answer_that_was_lost_is_given_again_and_counts_once(book: GameBook) -> None:
    holder = Numbered(book)
    (ticket,) = holder.take(1)
    first = book.exchange("here", 2, [played(ticket)], want=3, hold_seconds=60)
    assert book.exchange("here", 2, [played(ticket)], want=3, hold_seconds=60) == first
    stats = book.stats()
    assert (stats["finished"], stats["out"], stats["duplicates"]) == (1, 3, 0)


def test_what_fails_is_tried_again_and_set_aside_with_its_last_reason(book: GameBook) -> None:
    holder = Numbered(book)
    for attempt in (1, 2, 3):
        (ticket,) = holder.take(1)
        assert (ticket.number, ticket.attempt) == (0, attempt)
        holder.give(failed(ticket, why=f"reason {attempt}"))
    stats = book.stats()
    assert (stats["retried"], stats["set_aside_by"]) == ({"died": 2}, {"died": 1})
    assert (stats["whys"], stats["set_aside_in_a_row"]) == ({"died": "reason 3"}, 1)
    assert holder.take(1)[0].number == 1


def test_a_ticket_that_is_overdue_goes_to_another_and_the_first_result_counts(
    book: GameBook, clock: Clock
) -> None:
    slow, quick = Numbered(book, "slow"), Numbered(book, "quick")
    (first,) = slow.take(1, hold=10.0)
    clock.now += 11.0
    (second,) = quick.take(1)
    assert (second.number, second.attempt) == (0, 2)
    slow.give(failed(first))
    assert book.stats()["late"] == 1
    slow.give(played(first))
    quick.give(played(second))
    stats = book.stats()
    assert (stats["finished"], stats["duplicates"], stats["retried"]) == (1, 1, {"timeout": 1})


def test_a_holder_that_begins_anew_has_lost_what_it_had_and_nobody_has_tried_it(book: GameBook) -> None:
    first = Numbered(book, "one").take(2)
    Numbered(book, "two").take(1)
    again = Numbered(book, "one")
    stats = book.stats()
    assert (stats["out"], stats["lost"], stats["retried"]) == (1, 2, {})
    assert again.take(2) == first


def test_what_was_lost_alone_was_tried(book: GameBook) -> None:
    Numbered(book).take(1)
    assert [(ticket.number, ticket.attempt) for ticket in Numbered(book).take(1)] == [(0, 2)]
    assert book.stats()["retried"] == {"died": 1}


@pytest.mark.parametrize("holders", [1, 2])
def test_a_game_that_kills_whoever_plays_it_is_set_aside_and_no_other(tmp_path: Path, holders: int) -> None:
    """Whoever holds the killer begins anew before it has brought anything of what it took."""
    killer, lives = 321, 0
    with GameBook(tmp_path, Plan(games=1000, decks=("red",), tries=3)) as book:
        players = [Numbered(book, f"holder {number}") for number in range(holders)]
        is_over = False
        while not is_over:
            for place, player in enumerate(players):
                tickets = player.take(500)
                if any(ticket.number == killer for ticket in tickets):
                    lives += 1
                    players[place] = Numbered(book, player.name)
                else:
                    is_over = player.give(*map(played, tickets)).is_over
        stats = book.stats()
    assert (stats["finished"], stats["set_aside_by"], stats["retried"]) == (999, {"died": 1}, {"died": 2})
    assert [entry["game"] for entry in read_journal(tmp_path / "games.jsonl") if "aside" in entry] == [killer]
    assert lives == 6  # lost among 500, 256 and 16, and three times alone


def test_what_is_lost_among_others_when_its_time_is_over_goes_back(book: GameBook, clock: Clock) -> None:
    silent = Numbered(book, "silent")
    first = silent.take(3, hold=10.0)
    clock.now += 11.0
    assert Numbered(book, "other").take(3) == first
    assert (book.stats()["lost"], book.stats()["retried"]) == (3, {})


def test_what_cannot_be_played_is_set_aside_at_once(book: GameBook) -> None:
    holder = Numbered(book)
    first, second, third = holder.take(3)
    holder.give(Failed(first.number, 1, "refused", "no such deck", is_final=True))
    stats = book.stats()
    assert (stats["set_aside_by"], stats["retried"], stats["all_refused"]) == ({"refused": 1}, {}, False)
    holder.give(Failed(second.number, 1, "refused", "no such deck", is_final=True))
    assert book.stats()["all_refused"]  # red was refused against blue, and blue against red
    holder.give(played(third))
    assert not book.stats()["all_refused"]


def test_what_was_not_used_is_no_try(book: GameBook) -> None:
    holder = Numbered(book)
    (ticket,) = holder.take(1)
    holder.give(Returned(ticket.number, ticket.attempt))
    assert holder.take(1) == (ticket,)


def test_what_is_over_is_told(book: GameBook) -> None:
    holder = Numbered(book)
    tickets: list[Ticket] = []
    while len(tickets) < PLAN.games:
        tickets += holder.take(100)
    assert not holder.give(*map(played, tickets[1:])).is_over
    assert holder.give(played(tickets[0])).is_over


def test_towards_the_end_there_is_something_for_every_holder(book: GameBook) -> None:
    one, two = Numbered(book, "one"), Numbered(book, "two")
    two.take(1)
    assert len(one.take(100)) < PLAN.games - 1
    assert two.take(100)


def test_a_book_of_other_games_is_not_opened(tmp_path: Path) -> None:
    GameBook(tmp_path, PLAN).close()
    for other in (Plan(games=12, decks=("red",)), Plan(games=12, decks=("red", "blue"), seed=1)):
        with pytest.raises(UsageError, match="has other games"):
            GameBook(tmp_path, other)


def test_there_may_be_more_games_but_not_fewer_than_were_played(tmp_path: Path) -> None:
    with GameBook(tmp_path, PLAN) as book:
        holder = Numbered(book)
        holder.give(*map(played, holder.take(3)))
    (tmp_path / "book.json").unlink()
    with pytest.raises(UsageError, match="fewer than were played"):
        GameBook(tmp_path, Plan(games=2, decks=PLAN.decks))
    with GameBook(tmp_path, Plan(games=20, decks=PLAN.decks)) as book:
        assert book.stats()["waiting"] == 17
    with pytest.raises(UsageError, match="fewer than were played"):
        GameBook(tmp_path, Plan(games=2, decks=PLAN.decks))


def test_a_snapshot_is_taken_now_and_then_and_may_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "SNAPSHOT_BYTES", 200)
    with GameBook(tmp_path, PLAN) as book:
        holder = Numbered(book)
        for _ in range(6):
            holder.give(*map(played, holder.take(1)))
        assert (tmp_path / "book.json").exists()
    stats = book.stats()
    for damage in (lambda path: None, lambda path: path.write_bytes(b"x"), lambda path: path.unlink()):
        damage(tmp_path / "book.json")
        with GameBook(tmp_path, PLAN) as again:
            assert again.stats()["endings"] == stats["endings"]
            assert again.stats()["p95_s"] == stats["p95_s"]


def test_monitoring_hears_of_games_tried_again_and_set_aside(tmp_path: Path) -> None:
    heard: list[tuple[str, dict[str, str]]] = []

    class Heard(NoMetrics):
        def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
            heard.append((name, tags))

    plan = Plan(games=1, decks=("red",), tries=2)
    with GameBook(tmp_path, plan, metrics=Heard()) as book:
        holder = Numbered(book)
        for _ in range(2):
            holder.give(*map(failed, holder.take(1)))
    assert heard == [
        ("tamen_engine_retries_total", {"reason": "died"}),
        ("tamen_engine_games_set_aside_total", {"reason": "died"}),
    ]


def terms(program: str = "cards", **changes: Any) -> Terms:
    return replace(Terms(program, f"digest of {program}", (), 120, 5), **changes)


def test_a_book_tells_when_its_games_are_played_otherwise(tmp_path: Path) -> None:
    with GameBook(tmp_path, replace(PLAN, terms=terms())) as book:
        holder = Numbered(book)
        holder.give(*map(played, holder.take(5)))
        assert book.stats()["changes"] == []
    GameBook(tmp_path, replace(PLAN, terms=terms())).close()
    with GameBook(tmp_path, replace(PLAN, terms=terms("other", game_seconds=60))) as book:
        (change,) = book.stats()["changes"]
    assert change.startswith("after 5 games: program cards, then other;")
    assert "game_seconds 120, then 60" in change
    assert "decision" not in change
    (tmp_path / "book.json").unlink()
    with GameBook(tmp_path, replace(PLAN, terms=terms(extra=("-x",)))) as book:
        assert book.stats()["changes"][0] == change
        assert len(book.stats()["changes"]) == 2
        assert book.stats()["finished"] == 5


def test_a_book_from_before_terms_were_told_goes_on(tmp_path: Path) -> None:
    with GameBook(tmp_path, PLAN) as book:
        holder = Numbered(book)
        holder.give(*map(played, holder.take(5)))
    with GameBook(tmp_path, replace(PLAN, terms=terms())) as book:
        assert (book.stats()["finished"], book.stats()["changes"]) == (5, [])


@pytest.mark.parametrize("decks", [(), ("red blue",), ("red\n",), ("-x",)])
def test_decks_that_no_daemon_can_be_told_are_refused(decks: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Plan(games=1, decks=decks)


class BookMachine(RuleBasedStateMachine):
    """A book beside a plain account of what it was told; it is closed, or left as a crash leaves it, at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.book = GameBook(self.folder, PLAN, clock=self.clock)
        self.held: dict[str, list[Ticket]] = {"one": [], "two": []}
        self.numbers = {"one": 0, "two": 0}
        self.finished: set[int] = set()
        self.aside: set[int] = set()

    @initialize()
    def enter(self) -> None:
        for name in self.held:
            self.book.enter(name)

    def teardown(self) -> None:
        self.book.close()
        shutil.rmtree(self.folder)

    def exchange(self, name: str, ends: list[Any], want: int) -> None:
        self.numbers[name] += 1
        got = self.book.exchange(name, self.numbers[name], ends, want=want, hold_seconds=30.0)
        for ticket in got.tickets:
            assert ticket.number not in self.finished | self.aside
            self.held[name].append(ticket)
        assert self.book.exchange(name, self.numbers[name], ends, want=want, hold_seconds=30.0) is got

    @rule(name=st.sampled_from(["one", "two"]), want=st.integers(0, 5))
    def take(self, name: str, want: int) -> None:
        self.exchange(name, [], want)

    @rule(name=st.sampled_from(["one", "two"]), data=st.data(), again=st.booleans())
    def bring(self, name: str, data: st.DataObject, again: bool) -> None:
        count = data.draw(st.integers(0, len(self.held[name])))
        ends: list[Any] = []
        for ticket in self.held[name][:count]:
            how = data.draw(
                st.sampled_from([played, failed, lambda ticket: Returned(ticket.number, ticket.attempt)])
            )
            ends.append(how(ticket))
            if isinstance(ends[-1], Played) and ticket.number not in self.aside:
                self.finished.add(ticket.number)
        if not again:
            del self.held[name][:count]
        self.exchange(name, ends, 0)
        self.note_aside()

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.book.stats()
        self.note_aside()

    @rule(name=st.sampled_from(["one", "two"]), forgets=st.booleans())
    def begin_anew(self, name: str, forgets: bool) -> None:
        """A holder is started again; what its last life had sent may still come."""
        self.book.enter(name)
        if forgets:
            self.held[name].clear()
        self.note_aside()

    @rule(torn=st.binary(max_size=30).filter(lambda data: b"\n" not in data), keeps_snapshot=st.booleans())
    def crash(self, torn: bytes, keeps_snapshot: bool) -> None:
        """The process ends without a word, perhaps inside a line, and the book is opened again."""
        self.book._journal.close()
        with (self.folder / "games.jsonl").open("ab") as file:
            file.write(torn)
        if not keeps_snapshot:
            (self.folder / "book.json").unlink(missing_ok=True)
        self.book = GameBook(self.folder, PLAN, clock=self.clock)

    @rule()
    def reopen(self) -> None:
        self.book.close()
        self.book = GameBook(self.folder, PLAN, clock=self.clock)

    def note_aside(self) -> None:
        """Take in what the journal says was set aside: who was overdue is the book's to know."""
        self.aside |= {
            entry["game"] for entry in read_journal(self.folder / "games.jsonl") if "aside" in entry
        }

    @invariant()
    def all_games_are_somewhere(self) -> None:
        stats = self.book.stats()
        self.note_aside()
        parts = (stats["finished"], stats["set_aside"], stats["waiting"], stats["out"])
        assert sum(parts) == PLAN.games
        assert min(parts) >= 0
        assert (stats["finished"], stats["set_aside"]) == (len(self.finished), len(self.aside))
        assert stats["out"] == len(self.book._out) == self.book._held.total()
        assert min(self.book._held.values(), default=0) >= 0

    @invariant()
    def each_game_is_finished_or_set_aside_once(self) -> None:
        lines = [
            entry
            for entry in read_journal(self.folder / "games.jsonl")
            if "ending" in entry or "aside" in entry
        ]
        numbers = [entry["game"] for entry in lines]
        assert len(numbers) == len(set(numbers))
        assert {entry["game"] for entry in lines if "ending" in entry} == self.finished

    @precondition(lambda self: self.book.stats()["waiting"])
    @rule()
    def what_waits_can_be_had(self) -> None:
        self.exchange("one", [], 1)


BookMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestBook = BookMachine.TestCase
