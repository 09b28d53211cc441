"""A run on many machines, event by event: what `cluster.plan.cluster_model` says in closed form, with luck and queues.

A machine is one source: it makes parcels of rows, has at most two that are not acknowledged, and stops until one is.
The replay takes one at a time, in the order in which they come over home's network, and none while it is ahead of the
learner by more than the slack. The learner draws a parcel's worth at a time. Versions of the weights leave home one
after the other, and what does not get through before the next ones are there is skipped. A machine that is told to go
makes nothing more; parcels that are not acknowledged when it goes are lost.

Parcels are as large as a bounded number of events allows. What both share, and this can tell nothing of, are the costs
and `lost_at_start`: games are not played out, and what a stay loses with them is the closed form's mean.
"""

import heapq
import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np

from cluster.plan.cluster_model import (
    TREE_COPIES,
    Costs,
    Layout,
    driver_load,
    home_row_seconds,
    lost_at_start,
    playing_cores,
    replay_row_seconds,
    row_core_seconds,
    row_network_bytes,
    steady,
    version_core_seconds,
)
from core.seeds import derive_rng

PARCELS = 30_000
INTERRUPTIONS = 60
"""How many are waited for, as far as that takes no more than `MOST_SECONDS`."""
MOST_INTERRUPTIONS = 10_000
MOST_SECONDS = 30 * 86_400.0
_LEAST_PARCELS = 4_000
_UNACKNOWLEDGED = 2
_SLACK_PARCELS = 4
_RECKONINGS = 400
_COUNTED_FROM = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it, after the first fifth of the time.

    Attributes:
        seconds: simulated, all.
        rows: acknowledged, a second.
        lost_rows: made and never acknowledged, a second.
        effective: share of the time of all machines that was not lost to interruptions; waiting for others counts.
        interruptions: counted.
        versions, skipped_versions: a second: sent, and made but passed over.
        replay_used, learner_used, store_used: shares of the time.
    """

    seconds: float
    rows: float
    lost_rows: float
    effective: float
    interruptions: int
    versions: float
    skipped_versions: float
    replay_used: float
    learner_used: float
    store_used: float


def simulate(machines: int, costs: Costs, layout: Layout, *, seed: int = 0) -> Outcome:
    """Simulate a run on `machines` machines, home among them, long enough for some interruptions."""
    expected = steady(machines, costs, layout).rows
    rate = layout.spot.interruptions_per_hour / 3600 if layout.spot else 0.0
    seconds = _LEAST_PARCELS * layout.chunk_rows / expected
    if rate and machines > 1:
        away = layout.spot.notice_seconds + layout.spot.replacement_seconds if layout.spot else 0.0
        all_rate = rate * (machines - 1)
        long_enough = max(INTERRUPTIONS / all_rate, min(20 * away, MOST_INTERRUPTIONS / all_rate))
        seconds = max(seconds, min(long_enough, MOST_SECONDS))
    parcel = max(float(layout.chunk_rows), expected * seconds / PARCELS)
    run = _Run(machines, costs, layout, seconds=seconds, parcel=parcel, seed=seed)
    run.go_on()
    return run.outcome()


class _Run:
    """The state of a simulation. Events are (time, order, what happens, its argument)."""

    def __init__(
        self, machines: int, costs: Costs, layout: Layout, *, seconds: float, parcel: float, seed: int
    ) -> None:
        self._costs, self._layout, self._parcel, self._until = costs, layout, parcel, seconds
        self._from = _COUNTED_FROM * seconds
        self._rng = derive_rng(seed, "cluster", machines)
        self._order = itertools.count()
        self._events: list[tuple] = []
        self._play = row_core_seconds(costs, layout)
        self._row_seconds = max(replay_row_seconds(costs, layout), costs.row_bytes / costs.disk_bytes_per_s)
        brain = layout.brain_evals_per_s
        self._brain_seconds = parcel * costs.evals_per_row / brain if brain is not None else 0.0
        self._network_seconds = row_network_bytes(machines, costs, layout) / layout.network_bytes_per_s
        copies = min(machines - 1, TREE_COPIES) if layout.tree else machines - 1
        self._version_seconds = copies * costs.weights_bytes / layout.network_bytes_per_s
        self._taking_in = version_core_seconds(costs, layout)
        self._driver = min(1.0, driver_load(machines, costs, layout))
        self._cores = playing_cores(costs, layout)
        # A stay loses half a parcel, on average, by its parcel that is not whole when it ends.
        parcel_seconds = parcel * self._play / self._cores
        self._dead = max(0.0, lost_at_start(machines, costs, layout) - parcel_seconds / 2)
        self._learner_seconds = (
            parcel * layout.samples_per_insert / layout.learners / costs.learner_rows_per_s
        )
        self._stay, self._plays, self._waiting = [0] * machines, [False] * machines, [0] * machines
        self._making = [False] * machines
        self._since = np.zeros(machines)
        self._queue: deque[tuple[float, int, int]] = deque()
        self._network_free = self._brain_free = self._store_free = 0.0
        self._replaying = self._learning = False
        self._inserted = self._drawn = self._lost = 0
        self._counted = self._counted_lost = self._interruptions = 0
        self._sent = self._skipped = 0.0
        self._lost_time = self._replay_time = self._learner_time = self._store_time = 0.0
        self._rows_per_s = 0.0
        for machine in range(machines):
            self._play_on(0.0, (machine, 0))
            if machine:
                self._wait_for_notice(0.0, machine)
        self._at(seconds / _RECKONINGS, self._reckon, None)

    def go_on(self) -> None:
        while self._events and self._events[0][0] < self._until:
            now, _, happens, argument = heapq.heappop(self._events)
            happens(now, argument)

    def outcome(self) -> Outcome:
        span, machines = self._until - self._from, len(self._plays)
        for machine in range(machines):
            if not self._plays[machine]:
                self._count_lost_time(machine, self._until)
        return Outcome(
            seconds=self._until,
            rows=self._counted * self._parcel / span,
            lost_rows=self._counted_lost * self._parcel / span,
            effective=1 - self._lost_time / span / machines,
            interruptions=self._interruptions,
            versions=self._sent / span,
            skipped_versions=self._skipped / span,
            replay_used=min(1.0, self._replay_time / span),
            learner_used=min(1.0, self._learner_time / span),
            store_used=min(1.0, self._store_time / span),
        )

    def _at(self, time: float, happens, argument) -> None:
        heapq.heappush(self._events, (time, next(self._order), happens, argument))

    def _wait_for_notice(self, now: float, machine: int) -> None:
        spot = self._layout.spot
        if spot is not None and spot.interruptions_per_hour:
            stay = self._rng.exponential(3600 / spot.interruptions_per_hour)
            self._at(now + stay, self._notice, machine)

    def _notice(self, now: float, machine: int) -> None:
        assert self._layout.spot is not None
        self._interruptions += 1
        if self._plays[machine]:
            self._since[machine] = now
        if self._making[machine]:
            self._brain_free -= self._brain_seconds  # others are evaluated in its place
        self._plays[machine], self._making[machine] = False, False
        self._stay[machine] += 1
        self._at(now + self._layout.spot.notice_seconds, self._go, machine)

    def _go(self, now: float, machine: int) -> None:
        assert self._layout.spot is not None
        self._lost += self._waiting[machine]
        self._counted_lost += self._waiting[machine] if now >= self._from else 0
        self._waiting[machine] = 0
        self._stay[machine] += 1
        back = now + self._layout.spot.replacement_seconds
        self._at(back + self._dead, self._play_on, (machine, self._stay[machine]))
        self._wait_for_notice(back, machine)

    def _play_on(self, now: float, who: tuple[int, int]) -> None:
        machine, stay = who
        if self._stay[machine] == stay:
            self._plays[machine] = True
            self._count_lost_time(machine, now)
            self._make(now, machine)

    def _count_lost_time(self, machine: int, now: float) -> None:
        self._lost_time += max(0.0, now - max(self._since[machine], self._from))

    def _make(self, now: float, machine: int) -> None:
        """Let a machine make its next parcel, unless it waits for acknowledgements, or has no core left."""
        if not self._plays[machine] or self._making[machine] or self._waiting[machine] >= _UNACKNOWLEDGED:
            return
        cores = self._cores
        if machine == 0:
            home = self._rows_per_s * home_row_seconds(self._costs, self._layout)
            cores = min(cores, self._layout.cores - self._driver - home)
        cores -= self._versions_per_s() * self._taking_in
        if cores <= 0:
            return
        self._making[machine] = True
        played = now + self._parcel * self._play / cores
        self._brain_free = max(now, self._brain_free) + self._brain_seconds
        made = max(played, self._brain_free)
        self._at(made, self._made, (machine, self._stay[machine]))

    def _versions_per_s(self) -> float:
        return self._rows_per_s * self._layout.versions_per_row

    def _made(self, now: float, who: tuple[int, int]) -> None:
        machine, stay = who
        if self._stay[machine] != stay:
            return
        self._making[machine] = False
        self._waiting[machine] += 1
        arrives = max(now, self._network_free) + self._parcel * self._network_seconds
        self._network_free = arrives
        self._at(arrives, self._arrived, who)
        self._make(now, machine)

    def _arrived(self, now: float, who: tuple[int, int]) -> None:
        self._queue.append((now, *who))
        self._take_in(now)

    def _take_in(self, now: float) -> None:
        """Let the replay take the next parcel, unless it is ahead of the learner."""
        while not self._replaying and self._queue and self._inserted - self._drawn < _SLACK_PARCELS:
            _, machine, stay = self._queue.popleft()
            if self._stay[machine] > stay + 1:
                continue  # it has gone, and its parcels with it
            self._replaying = True
            took = self._parcel * self._row_seconds
            self._replay_time += max(0.0, now + took - max(now, self._from))
            self._at(now + took, self._taken, (machine, stay))

    def _taken(self, now: float, who: tuple[int, int]) -> None:
        machine, stay = who
        self._replaying = False
        self._inserted += 1
        self._counted += now >= self._from
        if self._stay[machine] <= stay + 1:
            self._waiting[machine] -= 1
            self._make(now, machine)
        self._learn(now)
        self._take_in(now)

    def _learn(self, now: float) -> None:
        if not self._learning and self._drawn < self._inserted:
            self._learning = True
            self._learner_time += max(0.0, now + self._learner_seconds - max(now, self._from))
            self._at(now + self._learner_seconds, self._learnt, None)

    def _learnt(self, now: float, _: None) -> None:
        self._learning = False
        self._drawn += 1
        self._send(now, self._parcel * self._layout.versions_per_row)
        self._learn(now)
        self._take_in(now)

    def _send(self, now: float, versions: float) -> None:
        """Send versions as far as the network is free for them before the next ones are there."""
        took = versions * self._version_seconds
        period = max(self._learner_seconds, self._parcel / max(1e-9, self._rows_per_s))
        room = max(0.0, now + period - max(now, self._store_free))
        share = min(1.0, room / took) if took else 1.0
        self._store_free = max(now, self._store_free) + share * took
        if now >= self._from:
            self._sent += share * versions
            self._skipped += (1 - share) * versions
            self._store_time += share * took

    def _reckon(self, now: float, before: int | None) -> None:
        """Note how fast it goes, by which home's cores are shared out and versions are taken in."""
        rows_per_s = (self._inserted - (before or 0)) * self._parcel / (self._until / _RECKONINGS)
        beside = home_row_seconds(self._costs, self._layout) + self._layout.versions_per_row * self._taking_in
        self._rows_per_s += (
            self._play / (self._play + beside) * (rows_per_s - self._rows_per_s)
        )  # or it swings
        self._at(now + self._until / _RECKONINGS, self._reckon, self._inserted)
        self._make(now, 0)
