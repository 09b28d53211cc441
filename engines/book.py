"""The games of a run and what becomes of each, so that none is lost and none counts twice.

    with GameBook(folder, plan) as book:
        tickets = book.exchange("here", 1, [], want=8, hold_seconds=60).tickets
        …                                   # play them
        book.exchange("here", 2, [Played(tickets[0].number, …)], want=1, hold_seconds=60)

A game is a ticket: waiting, then out with a holder until a deadline, then finished; or it has failed, and waits again
until its tries are used up and it is set aside. One that is lost with its holder has cost no try, unless it was alone
(`engines.losses`). Each step after which something must not be forgotten is a line in `games.jsonl`, on the disk before
it is acknowledged; there results can be read. Which tickets are out is not: who opens the book again gives them out
again, and whichever result comes first counts.

Memory does not grow with the games: numbers are kept as ranges, durations as a histogram. `book.json` tells how things
stood at some place of the journal, so that no more than what follows is read again. It may be lost without harm.
"""

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Self, get_args

from core.errors import DataError, UsageError
from core.files import seal, unseal, write_atomic
from core.metrics import Metrics, NoMetrics
from core.seeds import derive_seed
from engines.errors import FaultKind
from engines.forge_protocol import Mode, checked_deck
from engines.journal import Entry, Journal
from engines.losses import Losses
from engines.tally import DurationTally, NumberSet
from engines.terms import Terms, TermsHistory
from engines.tickets import End, Exchange, Failed, Played, Ticket
from engines.timings import Ending, EngineRecorder

FORMAT = 1
MOST_GAMES = 1_000_000_000
MOST_TICKETS = 4096
"""Handed out at once."""
SNAPSHOT_BYTES = 16 << 20
"""Of the journal, after which the state is noted again."""
LOOK_SECONDS = 0.5
"""Between two looks for tickets that are overdue."""
_SHOWN_CHARACTERS = 300
QUANTILES = (0.5, 0.95, 0.99)
NO_METRICS = NoMetrics()


@dataclass(frozen=True, slots=True)
class Plan:
    """Which games are played.

    Attributes:
        games: how many. A book may be opened again with more.
        decks: each two of them meet, in turn, either having the first seat; one alone meets itself.
        mode: what daemons are to tell; see `engines.forge_protocol`.
        seed: of the run, from which those of the games are derived.
        tries: of a game before it is set aside.
        terms: by what and how they are played. Those of a book may change, and it tells when they did.
    """

    games: int
    decks: tuple[str, ...]
    mode: Mode = "result"
    seed: int = 0
    tries: int = 3
    terms: Terms | None = None

    def __post_init__(self) -> None:
        for deck in self.decks:
            checked_deck(deck)
        if not self.decks or not 1 <= self.games <= MOST_GAMES or self.tries < 1:
            raise UsageError(
                f"{self.games:,} games of {len(self.decks)} decks cannot be played",
                why=f"it takes a deck, 1 to {MOST_GAMES:,} games, and a try of each",
                fix="give decks as in --decks red.dck,blue.dck",
            )

    def identity(self) -> Entry:
        """Return what may not change when a book is opened again."""
        return {"book": FORMAT, "seed": self.seed, "decks": list(self.decks), "mode": self.mode}


@dataclass(slots=True)
class _Out:
    attempt: int
    holder: str
    deadline: float

    def is_for(self, holder: str, attempt: int) -> bool:
        return (self.holder, self.attempt) == (holder, attempt)


class GameBook:
    """The book in `folder`; made, or opened again. Any thread may use it.

    Args:
        folder: where it is kept.
        plan: which games.
        metrics: of games that are tried again, or set aside; and whenever `stats` is asked for, how all stand.
        clock: monotonic seconds.

    Raises:
        UsageError: when the folder has other games, or another process plays them.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        metrics: Metrics = NO_METRICS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self._recorder = EngineRecorder(metrics)
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot_path = folder / "book.json"
        pairs = list(permutations(plan.decks, 2)) or [(plan.decks[0], plan.decks[0])]
        self._pairs: list[tuple[str, str]] = [(first, second) for first, second in pairs]
        self._finished, self._aside = NumberSet(), NumberSet()
        self._failures: dict[int, int] = {}
        self._endings: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self._aside_by: Counter[str] = Counter()
        self._whys: dict[str, str] = {}
        self._aside_in_a_row = 0
        self._refused_pairs: set[int] = set()
        self._losses, self._terms = Losses(), TermsHistory()
        self._durations = DurationTally()
        self._out: dict[int, _Out] = {}
        self._held: Counter[str] = Counter()
        """How many of these each holder has."""
        self._again: deque[int] = deque()
        self._next = 0
        self._last: dict[str, tuple[int, Exchange]] = {}
        self._duplicates = self._late = self._finished_now = 0
        self._began: float | None = None
        self._ended = 0.0
        self._next_look = 0.0
        self._journal = Journal(folder / "games.jsonl")
        try:
            self._noted = self._restore()
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Note how things stand, and let another open the book."""
        with self._lock:
            self._note()
            self._journal.close()

    def enter(self, holder: str) -> None:
        """Let `holder` begin anew: what went out to it before is lost with its former life."""
        with self._lock:
            self._last.pop(holder, None)
            lost = [(number, out) for number, out in self._out.items() if out.holder == holder]
            self._lose(lost, "died", f"{holder} ended while it played")

    def exchange(
        self, holder: str, number: int, ends: Sequence[End], *, want: int, hold_seconds: float
    ) -> Exchange:
        """Take in what became of tickets, and give out others; what was taken in is on the disk then.

        Args:
            holder: who asks.
            number: rises with each exchange of a holder. The last one may be asked for again when its answer was lost.
            ends: in any order, also of tickets that went out to others.
            want: how many tickets, at most.
            hold_seconds: after which a ticket is lost if nothing was heard of it.

        Raises:
            OSError: when the disk takes nothing; then nothing has changed.
        """
        with self._lock:
            last = self._last.get(holder)
            if last is not None and last[0] == number:
                return last[1]
            self._look()
            self._enter_ends(holder, ends)
            tickets = tuple(self._hand_out(holder, self._fair(holder, want), hold_seconds))
            is_over = self._left() == 0
            self._last[holder] = (number, Exchange(tickets, is_over))
            if self._journal.end - self._noted >= SNAPSHOT_BYTES:
                self._note()
            return self._last[holder][1]

    def stats(self) -> dict[str, Any]:
        """Return counts of games.

        Returns:
            asked, finished, set_aside, out, waiting: the first is the sum of the others; endings; retried and
            set_aside_by, by kind of fault; whys: the last reason of each kind; set_aside_in_a_row, since a game was
            finished; p50_s, p95_s, p99_s of what daemons took, None of nothing; changes, of the terms, in words. Since
            the book was opened: seconds from the first ticket to the newest result, and games_per_s meanwhile; lost,
            tickets that were lost with their holder and cost no try; duplicates, results of finished games; late,
            failures of tries that others had gone on from; all_refused: whether the newest game of each pair of decks
            was refused for good; damaged_lines, passed over when it was opened.
        """
        with self._lock:
            self._look()
            finished, aside, out = len(self._finished), len(self._aside), len(self._out)
            seconds = 0.0 if self._began is None else max(0.0, self._ended - self._began)
            quantiles = [self._durations.quantile(share) for share in QUANTILES]
            self._recorder.games_stand(self._left(), dict(zip(QUANTILES, quantiles, strict=True)))
            p50, p95, p99 = quantiles
            return {
                "asked": self.plan.games,
                "finished": finished,
                "set_aside": aside,
                "out": out,
                "waiting": self._left() - out,
                "endings": dict(self._endings),
                "retried": dict(self._retried),
                "set_aside_by": dict(self._aside_by),
                "whys": dict(self._whys),
                "set_aside_in_a_row": self._aside_in_a_row,
                "p50_s": p50,
                "p95_s": p95,
                "p99_s": p99,
                "seconds": seconds,
                "games_per_s": self._finished_now / seconds if seconds else 0.0,
                "changes": list(self._terms.changes),
                "lost": self._losses.counted,
                "all_refused": len(self._refused_pairs) == len(self._pairs),
                "duplicates": self._duplicates,
                "late": self._late,
                "damaged_lines": self._journal.damaged,
            }

    def _left(self) -> int:
        return self.plan.games - len(self._finished) - len(self._aside)

    def _is_done(self, number: int) -> bool:
        return number in self._finished or number in self._aside

    def _fair(self, holder: str, want: int) -> int:
        """Return how many tickets a holder gets that wants some: of the last less than all, if there are others."""
        waiting = self._left() - len(self._out)
        others = len(self._last.keys() - {holder})
        share = waiting if not others else max(1, waiting // (2 * (others + 1)))
        return min(want, MOST_TICKETS, share)

    def _hand_out(self, holder: str, want: int, hold_seconds: float) -> Iterable[Ticket]:
        now = self._clock()
        deadline = now + hold_seconds
        room = self._losses.room(
            self._held[holder], lambda number: number in self._out and self._out[number].holder == holder
        )
        for _ in range(want):
            number = self._next_waiting()
            if number is None:
                return
            if not room.takes(number):
                self._again.appendleft(number)
                return
            self._began = now if self._began is None else self._began
            attempt = self._failures.get(number, 0) + 1
            self._out[number] = _Out(attempt, holder, deadline)
            self._held[holder] += 1
            seed = derive_seed(self.plan.seed, "engine game", number) >> 1
            yield Ticket(number, attempt, self._pairs[number % len(self._pairs)], seed)

    def _next_waiting(self) -> int | None:
        """Return a game that waits: one that has been out, or else the next."""
        while self._again:
            number = self._again.popleft()
            if number not in self._out and not self._is_done(number):
                return number
        while self._next < self.plan.games:
            number = self._aside.next_missing(self._finished.next_missing(self._next))
            if number == self._next:
                self._next += 1
                return number
            self._next = number
        return None

    def _enter_ends(self, holder: str, ends: Sequence[End]) -> None:
        """Write down what became of tickets, and take it in."""
        entries: list[Entry] = []
        done: set[int] = set()
        failed: set[int] = set()
        duplicates = late = 0
        returned: list[int] = []
        for end in ends:
            out = self._out.get(end.number)
            is_known = 0 <= end.number < self.plan.games
            is_done = not is_known or end.number in done or self._is_done(end.number)
            if isinstance(end, Played):
                duplicates += is_done
                if not is_done:
                    done.add(end.number)
                    self._refused_pairs.discard(end.number % len(self._pairs))
                    entries.append(end.entry())
            elif is_done or end.number in failed or out is None or not out.is_for(holder, end.attempt):
                late += isinstance(end, Failed)
            elif isinstance(end, Failed):
                failed.add(end.number)
                if end.is_final:
                    self._refused_pairs.add(end.number % len(self._pairs))
                entries.append(self._failed(end))
            else:
                returned.append(end.number)
        self._write(entries)
        if done:
            self._finished_now, self._ended = self._finished_now + len(done), self._clock()
        self._duplicates += duplicates
        self._late += late
        for number in returned:
            if self._take_back(number):
                self._again.append(number)

    def _look(self) -> None:
        """Take back what is overdue, now and then."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        overdue = [(number, out) for number, out in self._out.items() if out.deadline <= now]
        self._lose(overdue, "timeout", "nothing was heard of it until its deadline")

    def _lose(self, lost: list[tuple[int, _Out]], kind: FaultKind, why: str) -> None:
        """Take back what was lost with its holder; if that had nothing else, a try of it has failed."""
        is_alone = {holder: held == 1 for holder, held in self._held.items()}
        alone = [Failed(number, out.attempt, kind, why) for number, out in lost if is_alone[out.holder]]
        self._write([self._failed(end) for end in alone])
        for number, out in lost:
            if not is_alone[out.holder]:
                self._take_back(number)
                self._again.append(number)
                self._losses.add(number)

    def _take_back(self, number: int) -> bool:
        """Return whether a game was out; it is no longer."""
        out = self._out.pop(number, None)
        if out is not None:
            self._held[out.holder] -= 1
        return out is not None

    def _failed(self, end: Failed) -> Entry:
        step = "aside" if end.is_final or end.attempt >= self.plan.tries else "failed"
        return {
            "game": end.number,
            "attempt": end.attempt,
            step: end.kind,
            "why": end.why[:_SHOWN_CHARACTERS],
        }

    def _write(self, entries: list[Entry]) -> None:
        if not entries:
            return
        self._journal.append(entries)
        for entry in entries:
            self._apply(entry)
            if "failed" in entry:
                self._recorder.game_tried_again(entry["failed"])
            elif "aside" in entry:
                self._recorder.game_set_aside(entry["aside"])
            if self._take_back(entry["game"]) and "failed" in entry:
                self._again.append(entry["game"])

    def _apply(self, entry: Entry) -> None:
        """Take in a line of the journal, just written or read again."""
        if "terms" in entry:
            self._terms.add(entry["terms"], games=len(self._finished))
            return
        number = entry["game"]
        if self._is_done(number):
            return
        if "ending" in entry:
            self._finished.add(number)
            self._failures.pop(number, None)
            self._losses.forget(number)
            self._endings[entry["ending"]] += 1
            self._durations.add(entry["seconds"])
            self._aside_in_a_row = 0
            return
        kind: str = entry["aside"] if "aside" in entry else entry["failed"]
        self._whys[kind] = entry["why"]
        if "aside" in entry:
            self._aside.add(number)
            self._failures.pop(number, None)
            self._losses.forget(number)
            self._aside_by[kind] += 1
            self._aside_in_a_row += 1
        else:
            self._failures[number] = entry["attempt"]
            self._retried[kind] += 1

    def _restore(self) -> int:
        """Take in what the folder holds; return up to which byte of the journal it had been noted."""
        start = self._read_snapshot()
        entries = self._journal.entries(start)
        if start == 0:
            self._check_identity(next(entries, None))
        for entry in entries:
            self._check(entry)
            self._apply(entry)
        if self._journal.end == 0:
            self._journal.append([self.plan.identity()])
        if self.plan.terms is not None and self.plan.terms.told() != self._terms.last:
            self._journal.append([entry := {"terms": self.plan.terms.told()}])
            self._apply(entry)
        return start

    def _check_identity(self, first: Entry | None) -> None:
        if first is not None and first != self.plan.identity():
            raise UsageError(
                f"{self._snapshot_path.parent} has other games",
                why=f"it was begun with {json.dumps(first)[:_SHOWN_CHARACTERS]}",
                fix="choose another folder, or give the same decks, seed and mode",
            )

    def _check(self, entry: Entry) -> None:
        """See that a line is of a game that was asked for, or of terms. Raises UsageError, DataError."""
        if isinstance(entry.get("terms"), dict):
            return
        number, kind = entry.get("game"), entry.get("failed", entry.get("aside"))
        is_result = entry.get("ending") in get_args(Ending) and isinstance(entry.get("seconds"), float | int)
        is_failure = kind in get_args(FaultKind) and isinstance(entry.get("why"), str)
        if not isinstance(number, int) or number < 0 or not isinstance(entry.get("attempt"), int):
            raise self._no_book("a line tells of no game")
        if not (is_result or is_failure):
            raise self._no_book(f"the line of game {number} tells neither a result nor a failure")
        if number >= self.plan.games:
            raise UsageError(
                f"{self.plan.games:,} games are fewer than were played",
                why=f"{self._snapshot_path.parent} has a game {number:,}",
                fix="ask for as many as before, or more",
            )

    def _no_book(self, why: str) -> DataError:
        return DataError(
            f"{self._snapshot_path.with_name('games.jsonl')} is no book of games",
            why=why,
            fix="choose another folder",
        )

    def _note(self) -> None:
        """Write how things stand, so that the journal is read again from here on alone."""
        state = {
            "identity": self.plan.identity(),
            "journal": self._journal.end,
            "finished": list(self._finished.ranges()),
            "aside": list(self._aside.ranges()),
            "failures": list(self._failures.items()),
            "endings": dict(self._endings),
            "retried": dict(self._retried),
            "aside_by": dict(self._aside_by),
            "whys": self._whys,
            "aside_in_a_row": self._aside_in_a_row,
            "durations": self._durations.counts(),
            "terms": self._terms.last,
            "changes": self._terms.changes,
        }
        with suppress(OSError):  # on a full disk the journal is read from an earlier place
            write_atomic(self._snapshot_path, seal(json.dumps(state).encode()))
            self._noted = self._journal.end

    def _read_snapshot(self) -> int:
        """Take in what was noted; return up to where in the journal, 0 when there is nothing that can be used."""
        try:
            state = json.loads(unseal(self._snapshot_path.read_bytes(), source=str(self._snapshot_path)))
        except (FileNotFoundError, DataError):
            return 0
        self._check_identity(state["identity"])
        if not 0 < state["journal"] <= self._journal.size:
            return 0
        self._finished, self._aside = NumberSet(state["finished"]), NumberSet(state["aside"])
        for numbers in (self._finished, self._aside):
            for _, last in numbers.ranges():
                self._check({"game": last, "attempt": 1, "ending": "draw", "seconds": 0.0})
        self._failures = dict(state["failures"])
        self._endings, self._retried = Counter(state["endings"]), Counter(state["retried"])
        self._aside_by, self._whys = Counter(state["aside_by"]), state["whys"]
        self._aside_in_a_row = state["aside_in_a_row"]
        self._durations = DurationTally(state["durations"])
        self._terms = TermsHistory(state.get("terms"), state.get("changes", ()))
        return state["journal"]
