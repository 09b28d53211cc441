"""A program follows the machines of its cluster: who joins gets actors and servers, who leaves loses them."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from cluster.effective_time import EffectiveTime
from cluster.machine_table import MachineStanding, Measured
from cluster.machines import AGAIN_AFTER_FAILURES_SECONDS, Machines, free_resources, name_of
from cluster.placement import Node, Share, gpu_share, shares
from cluster.program import Role
from cluster.ray_part import AT_HOME, Part
from cluster.ray_program import RayProgram
from cluster.spot_watches import CLOUDS, Watches
from configs.scale import Scale
from core.errors import ClusterError

LOOK_SECONDS = 1.0
LEAVE_SECONDS = 30.0
"""For an actor that is not wanted any more to deliver what it has finished."""
START_SECONDS = 150.0
"""For a part elsewhere to answer for the first time."""
GONE_BEFORE_SECONDS = 2.0
"""By which parts have left before their machine is taken away."""
QUIET_SECONDS = 10.0
"""After which an actor that has not answered counts as not playing."""
ASKING = ("actor", "evaluator")


class Following:
    """Keeps the actors and servers of each machine at what `cluster.placement` says.

    Args:
        program: that has started.
        watches: over the machines that may be taken away.
        scale: how many there are to be.
        games_in_play: of one actor.
        report: told in one line what a person should know.
        clock: monotonic seconds, as the program's.

    Attributes:
        scale: settable at any time.
        nodes: the machines of use when looked last, home first.
        games_lost: that were in play on machines which left without a word, at most.
        effective: how much of the time that actors should have played they did.
    """

    def __init__(
        self,
        program: RayProgram,
        machines: Machines,
        scale: Scale,
        *,
        watches: Watches,
        games_in_play: int,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._program = program
        self._machines = machines
        self._watches = watches
        self._games_in_play = games_in_play
        self._report = report
        self._next_look = 0.0
        self._joined: dict[str, Node] = {}
        self._leaving: frozenset[str] = frozenset()
        self._told_slow: set[str] = set()
        self._told_idle = False
        self._measured = Measured()
        self.scale = scale
        self.nodes: list[Node] = []
        self.games_lost = 0
        self.effective = EffectiveTime()

    def step(self) -> None:
        """Look at the machines, if it is time, and bring the parts in line."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        self._refuse_those_that_fail(now)
        self.nodes = self._machines.look(now)
        wanted = shares(
            self.nodes, actors=self.scale.actors_per_machine, servers=self.scale.servers_per_machine
        )
        self.effective.step({id: share.actors for id, share in wanted.items()}, self._playing(now), now)
        self._watches.step(self.nodes, now)
        leaving = self._machines.leaving | self._watches.leaving()
        wanted |= {id: Share(0, 0) for id in leaving & wanted.keys()}
        for id in (leaving - self._leaving) & self._joined.keys():
            self._tell_of_leaving(self._joined[id], now)
        self._leaving = leaving
        self._let_go(wanted.keys())
        for node in self.nodes:
            if node.id in wanted:
                self._bring_in_line(node, wanted[node.id], now)
        self._tell_of_servers()
        self._tell_if_nobody_plays(wanted.values())

    def parts_of(self, node: Node) -> list[Part]:
        """Return the parts on a machine that are to stay there."""
        where = AT_HOME if node.is_home else node.id
        return [
            part for part in self._program.parts.values() if part.node == where and part.leaves_by is None
        ]

    def standings(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[MachineStanding, ...]:
        """Return how each machine stands, home first; `stats` are the newest counters of all parts."""
        now = self._clock()
        self._measured.take(stats, now)
        of_use = tuple(self._standing(node, now) for node in self.nodes)
        return of_use + tuple(
            MachineStanding(
                node=node.id,
                host=node.host,
                state="not used",
                why=why,
                labels=dict(node.labels),
                cpus=node.cpus,
                gpus=node.gpus,
            )
            for node, why in self._machines.of_no_use()
        )

    def _standing(self, node: Node, now: float) -> MachineStanding:
        parts = self.parts_of(node)
        actors = [part.name for part in parts if part.role == "actor"]
        heard = [part.heard_at for part in parts if part.heard_at is not None]
        games = self._measured.rate(actors, "games")
        busy = self._measured.rate([part.name for part in parts], "process_seconds")
        there = "playing" if heard else "joining"
        leaves_at = self._watches.leaves_at(node.id)
        return MachineStanding(
            node=node.id,
            host=node.host,
            state="home" if node.is_home else "leaving" if node.id in self._leaving else there,
            labels=dict(node.labels),
            cpus=node.cpus,
            gpus=node.gpus,
            actors=len(actors),
            servers=sum(part.role == "inference" for part in parts),
            games_per_hour=None if games is None else round(3600 * games, 1),
            busy_share=None if busy is None else round(busy / max(1, node.cpus), 3),
            heard_seconds=round(now - max(heard), 1) if heard else None,
            watched_by=self._watches.told(node.id).cloud,
            leaves_in_seconds=None if leaves_at is None else round(max(0.0, leaves_at - now), 1),
        )

    def stats(self) -> dict[str, Any]:
        """Return how the machines as a whole did since this began, as one more part's counters."""
        return {
            "effective_ratio": self.effective.ratio,
            "spot_notices": self._watches.notices_given,
            "games_lost": self.games_lost,
        }

    def _playing(self, now: float) -> int:
        """Return how many actors play."""
        return sum(
            part.role == "actor"
            and part.running is not None
            and part.leaves_by is None
            and part.heard_at is not None
            and now - part.heard_at < QUIET_SECONDS
            for part in self._program.parts.values()
        )

    def _tell_of_leaving(self, node: Node, now: float) -> None:
        leaves_at, told = self._watches.leaves_at(node.id), self._watches.told(node.id)
        when = ""
        if leaves_at is not None:
            when = f" in {max(0.0, leaves_at - now):.0f} s ({CLOUDS[told.cloud]} says {told.what!r})"
        self._report(f"{name_of(node)} is to leave{when}: its actors deliver what they have finished")

    def _leave_by(self, node: Node, now: float) -> float:
        """Return when an actor that is to leave is ended at the latest."""
        leaves_at = self._watches.leaves_at(node.id)
        by = now + LEAVE_SECONDS
        return by if leaves_at is None else min(by, max(now, leaves_at - GONE_BEFORE_SECONDS))

    def _refuse_those_that_fail(self, now: float) -> None:
        for part in self._program.parts.values():
            if part.heard_at is not None or now - part.made_at <= START_SECONDS:
                continue
            if part.node != AT_HOME:
                self._program.given_up.setdefault(part.node, _does_not_start(part, part.node))
            elif part.name not in self._told_slow:
                self._told_slow.add(part.name)
                error = _does_not_start(part, next(node.id for node in self.nodes if node.is_home))
                self._report(f"{error.what}: {error.why}\n{error}")
        for id, error in self._program.given_up.items():
            self._machines.refuse(id, error, now, for_seconds=AGAIN_AFTER_FAILURES_SECONDS)
        self._program.given_up.clear()

    def _let_go(self, wanted: Collection[str]) -> None:
        """End the parts on machines that are not there any more, or of no use; those deaths are no failures."""
        for id in [id for id in self._joined if id not in wanted]:
            node = self._joined.pop(id)
            gone = [part for part in self._program.parts.values() if part.node == id]
            for part in gone:
                self._program.drop(part)
            lost = self._games_in_play * sum(part.role == "actor" for part in gone)
            self.games_lost += lost
            what = "is given up" if self._machines.is_there(id) else "has left"
            with_it = f": with it {_in_words(gone)}" if gone else ""
            with_it += f" and at most {lost:,} games in play" if lost else ""
            self._report(f"{name_of(node)} {what}{with_it}")

    def _bring_in_line(self, node: Node, share: Share, now: float) -> None:
        parts = self.parts_of(node)
        has = Counter(part.role for part in parts)
        if not node.is_home and node.id not in self._joined and (share.actors or share.servers):
            self._joined[node.id] = node
            cores = _many(node.cpus, "core") + (f" and {_many(node.gpus, 'GPU')}" if node.gpus else "")
            gets = f"{_many(share.actors, 'actor')}, {_many(share.servers, 'server')}"
            self._report(f"{name_of(node)} with {cores} joins: {gets}")
        for _ in range(share.servers - has["inference"]):
            self._add(node, self._server(node, share), {})
        actor = Role("actor", 1, 0.0, 0.0, ("inference", "replay"))
        for _ in range(share.actors - has["actor"]):
            self._add(node, actor, {"inference": list(self._servers_for(node.id))})
        for part in [part for part in parts if part.role == "actor"][share.actors :]:
            part.leave(self._leave_by(node, now))
        where = AT_HOME if node.is_home else node.id
        if not any(part.leaves_by and part.node == where for part in self._program.parts.values()):
            for part in [part for part in parts if part.role == "inference"][share.servers :]:
                part.leave(now)  # once no actor that is leaving may ask it

    def _add(self, node: Node, role: Role, asks: dict[str, list[str]]) -> None:
        at_home = {part.name: part.ray_name for part in self._program.parts.values() if part.node == AT_HOME}
        asks = asks | {name: [at_home[name]] for name in role.asks if name not in asks}
        self._program.add(
            role,
            node=AT_HOME if node.is_home else node.id,
            asks=asks,
            batch_rows=self._machines.batch_rows(node),
        )

    def _server(self, node: Node, share: Share) -> Role:
        if node.is_home:
            return replace(self._program.role("inference"), count=1)
        return Role("inference", 1, 0.0, gpu_share(share.servers, node.gpus), ("store",))

    def _servers_for(self, id: str) -> tuple[str, ...]:
        """Return the Ray names of the servers that are asked on a machine: its own, those on GPUs, those at home."""
        with_gpus = {node.id for node in self.nodes if node.gpus}
        return tuple(
            part.ray_name
            for part in self._program.parts.values()
            if part.role == "inference"
            and part.leaves_by is None
            and (part.node in (AT_HOME, id) or part.node in with_gpus)
        )

    def _tell_if_nobody_plays(self, wanted: Collection[Share]) -> None:
        idle = not any(share.actors for share in wanted)
        if idle and not self._told_idle:
            self._report(f"nobody plays: actors.count gives no machine an actor (taking part: {len(wanted)})")
        self._told_idle = idle

    def _tell_of_servers(self) -> None:
        """Tell those who ask of servers that have come or gone."""
        known = {id: self._servers_for(id) for id in {part.node for part in self._program.parts.values()}}
        for part in self._program.parts.values():
            if part.role in ASKING and part.servers != known[part.node] and part.lost == "":
                part.servers = known[part.node]
                part.handle.meet.remote(list(part.servers))


def _in_words(parts: list[Part]) -> str:
    counts = Counter(part.role for part in parts)
    return f"{_many(counts['actor'], 'actor')} and {_many(counts['inference'], 'server')}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _does_not_start(part: Part, id: str) -> ClusterError:
    asked = f"{part.num_gpus:g} GPU" if part.num_gpus else "no more than a process"
    return ClusterError(
        f"{part.name} does not start",
        why=f"it asks for {asked}, and has not answered for {START_SECONDS:.0f} s; free there: "
        f"{free_resources(id)}",
        fix="look at `ray status` for what else takes that machine, and at Ray's logs there",
    )
