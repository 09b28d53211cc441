"""How long a fleet of machines plays a number of games: a discrete-event simulation, and closed forms of its middle.

A daemon plays one game after the other, each of a duration that was measured; one that plays several at once counts as
several. Games are handed out one at a time, at most at the coordinator's rate. A machine that may be taken away is told
some time before; from then on it gets no more games. What is still played when it goes is lost, and played anew by
whoever is free. Another machine comes in its place.

A long run is simulated with fewer games. Between its beginning, when daemons start, and its end, when they wait for the
slowest, it is the same all the time, and how fast that goes is known: `steady_rates`.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.errors import UsageError
from core.seeds import derive_rng

MOST_DAEMONS = 20_000
MOST_MACHINES = 20_000
LEAST_SIMULATED = 100_000
"""Games; with fewer, or fewer than `_GAMES_OF_A_DAEMON` for each daemon, all are simulated."""
_GAMES_OF_A_DAEMON = 20
_EVENTS_OF_A_GAME, _LEAST_EVENTS = 10, 1_000_000
"""After as many of them, whichever is more, a run is broken off."""
_LEAST_KEPT = 0.5
_IDLE = -1.0


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    daemons: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be played.

    Attributes:
        games: how many.
        seconds: that games take, float64 [N]; each as often as every other.
        startup_seconds: of a daemon on a new machine.
        between_games: seconds that a daemon waits before each game.
        failed_share: of the games, that come to nothing, after their time, for other reasons than a lost machine.
        tries: of a game before it is set aside. One that was lost with its machine counts as not tried.
        handouts_per_second: that the coordinator can do; infinite where it does not matter.
    """

    games: int
    seconds: np.ndarray
    startup_seconds: float = 0.0
    between_games: float = 0.0
    failed_share: float = 0.0
    tries: int = 3
    handouts_per_second: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """How machines are taken away.

    Attributes:
        interruptions_per_hour: of a machine that is there.
        notice_seconds: from when it is told until it is gone.
        replacement_seconds: from then until another is there.
    """

    interruptions_per_hour: float
    notice_seconds: float
    replacement_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        seconds: until the last game is finished or set aside.
        finished, set_aside: all the games.
        failed: tries that came to nothing.
        lost: games that went with their machine, each time counted.
        interruptions: notices that machines got.
        core_seconds: of all machines, while they were there.
        tail_seconds: at the end, when there was no new game to hand out.
        useful_share: of the daemons' time, present or not, that went to finished games.
        simulated: games.
    """

    seconds: float
    finished: float
    set_aside: float
    failed: float
    lost: float
    interruptions: float
    core_seconds: float
    tail_seconds: float
    useful_share: float
    simulated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How it goes in the middle of a long run.

    Attributes:
        games: finished or set aside, a second.
        lost, interruptions: a second.
        present_share: of the time, that a machine is there.
    """

    games: float
    lost: float
    interruptions: float
    present_share: float


def daemons_of(cores: int) -> int:
    """Return how many daemons a machine gets by itself: all cores but two, at least one."""
    return max(1, cores - 2)


def steady_rates(machines: list[Machine], work: Work, spot: Spot | None = None) -> Rates:
    """Return how it goes on between a run's beginning and its end, as far as the coordinator does not hold it up.

    A daemon plays, from when it is ready, a game after the other. With interruptions at a rate r, a notice of n and a
    game of X seconds, it comes to the next game with probability L = E[exp(-rX)]; the one during which the notice comes
    is finished in time with probability E[exp(-r max(0, X - n))] - L. The sum over its games is a geometric series.
    Games that are interrupted are begun again, so E is over tries: each game as often as it takes until it is finished.

    Raises:
        UsageError: when machines go before they have played.
    """
    daemons = sum(machine.daemons for machine in machines)
    seconds = work.seconds + work.between_games
    games_of_try = (1 - work.failed_share) / (1 - work.failed_share**work.tries)
    if spot is None or spot.interruptions_per_hour == 0:
        return Rates(
            games=daemons * games_of_try / float(seconds.mean()),
            lost=0.0,
            interruptions=0.0,
            present_share=1.0,
        )
    rate = spot.interruptions_per_hour / 3600
    gets_ready = math.exp(-rate * work.startup_seconds)
    too_late = rate * np.maximum(0.0, seconds - spot.notice_seconds)
    tries = np.exp(too_late - too_late.max())
    tries /= tries.sum()
    interrupted = float(tries @ -np.expm1(-rate * seconds))
    unfinished = float(tries @ -np.expm1(-too_late))
    kept = gets_ready * (1 - unfinished) / interrupted
    if kept < _LEAST_KEPT:
        raise UsageError(
            f"a daemon finishes {kept:.2g} games before its machine is taken away",
            why=f"{spot.interruptions_per_hour:g} interruptions an hour leave no time for it",
            fix="take fewer --interruptions",
        )
    lost = gets_ready * unfinished / interrupted
    cycle = 1 / rate + spot.notice_seconds + spot.replacement_seconds
    return Rates(
        games=daemons * kept * games_of_try / cycle,
        lost=daemons * lost / cycle,
        interruptions=len(machines) / cycle,
        present_share=1 - spot.replacement_seconds / cycle,
    )


def simulate(machines: list[Machine], work: Work, spot: Spot | None = None, *, seed: int = 0) -> Outcome:
    """Simulate a fleet that plays `work`, until the last game is done.

    What happens rarely, machines being taken away, is in a run that was simulated with fewer games than it has what is
    to be expected, not what one run would meet. Where the coordinator holds it up, the simulated middle tells how fast
    the rest goes.

    Raises:
        UsageError: when a run would hardly end.
    """
    rates = steady_rates(machines, work, spot)
    daemons = sum(machine.daemons for machine in machines)
    simulated = min(work.games, max(LEAST_SIMULATED, _GAMES_OF_A_DAEMON * daemons))
    run = _Run(machines, work, spot, games=simulated, seed=seed)
    run.go_on()
    outcome = run.outcome()
    more = work.games - simulated
    if not more:
        return outcome
    pace = rates.games if math.isinf(work.handouts_per_second) else min(rates.games, run.middle_pace())
    seconds = more / pace
    tries = more * (1 - work.failed_share**work.tries) / (1 - work.failed_share)
    set_aside = more * work.failed_share**work.tries
    all_seconds = outcome.seconds + seconds
    useful = (outcome.useful_share * outcome.seconds * daemons) + (more - set_aside) * float(
        work.seconds.mean()
    )
    return Outcome(
        seconds=all_seconds,
        finished=outcome.finished + more - set_aside,
        set_aside=outcome.set_aside + set_aside,
        failed=outcome.failed + tries * work.failed_share,
        lost=outcome.lost + seconds * rates.lost * pace / rates.games,
        interruptions=outcome.interruptions + seconds * rates.interruptions,
        core_seconds=outcome.core_seconds
        + seconds * rates.present_share * sum(machine.cores for machine in machines),
        tail_seconds=outcome.tail_seconds,
        useful_share=useful / (all_seconds * daemons),
        simulated=simulated,
    )


def drawn(values: np.ndarray, rng: np.random.Generator) -> Iterator[float]:
    """Yield `values` without end, shuffled anew each time round, so that none comes much more often than another."""
    while True:
        yield from rng.permutation(values).tolist()


class _Run:
    """The state of a simulation. An event is (time, a daemon, or ~machine); a daemon's counts if it is `due` then."""

    def __init__(
        self, machines: list[Machine], work: Work, spot: Spot | None, *, games: int, seed: int
    ) -> None:
        self._machines, self._work, self._spot = machines, work, spot
        self._durations = drawn(work.seconds, derive_rng(seed, "durations"))
        self._failures = derive_rng(seed, "failures")
        self._losses = derive_rng(seed, "interruptions")
        self._games = self._fresh = self._open = games
        self._again: list[tuple[int, float]] = []
        """Games to be played again: which try it is, and how long it lasts: as long as it did before."""
        self._machine_of = [m for m, machine in enumerate(machines) for _ in range(machine.daemons)]
        self._first = np.cumsum([0, *(machine.daemons for machine in machines)]).tolist()
        daemons = len(self._machine_of)
        self._due, self._tries, self._lasting = [_IDLE] * daemons, [0] * daemons, [0.0] * daemons
        self._idle: list[int] = []
        self._is_leaving = [False] * len(machines)
        self._back = [0.0] * len(machines)
        self._next_handout = self._now = self._last_handout = 0.0
        self._finished = self._set_aside = self._failed = self._lost = self._interruptions = 0
        self._useful = self._absent = 0.0
        self._quarter = 0.0
        self._events: list[tuple[float, int]] = []
        for machine in range(len(machines)):
            self._arrive(machine, 0.0)

    def go_on(self) -> None:
        """Let everything happen, until no game is open."""
        left = max(_LEAST_EVENTS, _EVENTS_OF_A_GAME * self._games)
        while self._open:
            if not (left := left - 1):
                raise UsageError(
                    f"{self._games:,} games are not played in {self._now / 86_400:,.0f} days",
                    why="machines are taken away so often that hardly anything else happens",
                    fix="take fewer --interruptions, or a faster coordinator with --handouts",
                )
            now, who = heapq.heappop(self._events)
            if who < 0:
                self._now = now
                self._take_away(~who) if self._is_leaving[~who] else self._give_notice(~who)
            elif self._due[who] == now:
                self._now = now
                self._end_game(who)
                self._hand_out(who)

    def outcome(self) -> Outcome:
        cores = sum(machine.cores for machine in self._machines)
        not_yet_back = sum(
            machine.cores * max(0.0, back - self._now)
            for machine, back in zip(self._machines, self._back, strict=True)
        )
        return Outcome(
            seconds=self._now,
            finished=self._finished,
            set_aside=self._set_aside,
            failed=self._failed,
            lost=self._lost,
            interruptions=self._interruptions,
            core_seconds=cores * self._now - self._absent + not_yet_back,
            tail_seconds=self._now - self._last_handout,
            useful_share=self._useful / (self._now * len(self._due)),
            simulated=self._games,
        )

    def middle_pace(self) -> float:
        """Return the games a second of the last three quarters that were handed out."""
        return (self._games - self._games // 4) / (self._last_handout - self._quarter)

    def _arrive(self, machine: int, now: float) -> None:
        """Let a machine be there; its daemons start."""
        for daemon in range(self._first[machine], self._first[machine + 1]):
            self._set_due(daemon, now + self._work.startup_seconds)
        if self._spot is not None and self._spot.interruptions_per_hour:
            wait = self._losses.exponential(3600 / self._spot.interruptions_per_hour)
            heapq.heappush(self._events, (now + wait, ~machine))

    def _set_due(self, daemon: int, time: float) -> None:
        self._due[daemon] = time
        heapq.heappush(self._events, (time, daemon))

    def _end_game(self, daemon: int) -> None:
        tries, self._tries[daemon] = self._tries[daemon], 0
        self._due[daemon] = _IDLE
        if not tries:
            return
        if self._work.failed_share and self._failures.random() < self._work.failed_share:
            self._failed += 1
            if tries < self._work.tries:
                self._play_again(tries + 1, self._lasting[daemon])
                return
            self._set_aside += 1
        else:
            self._finished += 1
            self._useful += self._lasting[daemon]
        self._open -= 1

    def _hand_out(self, daemon: int) -> None:
        """Give a daemon that is free a game, if it may have one and there is one."""
        if self._is_leaving[self._machine_of[daemon]]:
            return
        if not self._again and not self._fresh:
            self._idle.append(daemon)
            return
        begins = max(self._now, self._next_handout)
        self._next_handout = begins + 1 / self._work.handouts_per_second
        if self._again:
            self._tries[daemon], self._lasting[daemon] = self._again.pop()
        else:
            self._tries[daemon], self._lasting[daemon] = 1, next(self._durations)
            self._fresh -= 1
            self._last_handout = begins
            if self._games - self._fresh == self._games // 4:
                self._quarter = begins
        self._set_due(daemon, begins + self._work.between_games + self._lasting[daemon])

    def _play_again(self, tries: int, lasts: float) -> None:
        """Put a game back, and wake who has nothing to do."""
        self._again.append((tries, lasts))
        while self._idle:
            daemon = self._idle.pop()
            if self._due[daemon] == _IDLE and not self._is_leaving[self._machine_of[daemon]]:
                self._set_due(daemon, self._now)
                return

    def _give_notice(self, machine: int) -> None:
        assert self._spot is not None
        self._interruptions += 1
        self._is_leaving[machine] = True
        heapq.heappush(self._events, (self._now + self._spot.notice_seconds, ~machine))

    def _take_away(self, machine: int) -> None:
        assert self._spot is not None
        daemons = range(self._first[machine], self._first[machine + 1])
        lost = [(self._tries[daemon], self._lasting[daemon]) for daemon in daemons if self._tries[daemon]]
        back = self._now + self._spot.replacement_seconds
        self._absent += self._machines[machine].cores * self._spot.replacement_seconds
        self._back[machine] = back
        for daemon in daemons:
            self._tries[daemon] = 0
        self._is_leaving[machine] = False
        self._arrive(machine, back)
        self._lost += len(lost)
        for tries, lasts in lost:
            self._play_again(tries, lasts)
