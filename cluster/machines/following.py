"""A program follows the machines of its cluster: who joins gets actors and servers, who leaves loses them."""

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from cluster.machines.effective_time import EffectiveTime
from cluster.machines.roster import Machines, free_resources, name_of
from cluster.machines.spot_watches import CLOUDS, Watches
from cluster.machines.warming import Warming
from cluster.on_ray.client import NamedServer, Servers, in_one_line
from cluster.on_ray.part import AT_HOME, Part
from cluster.on_ray.program import RayProgram
from cluster.on_ray.supervision import MOST_QUESTIONS
from cluster.run.machine_table import MachineStanding, Measured
from cluster.run.placement import Node, Share, gpu_share, shares
from cluster.run.program import Role
from configs.scale import Scale
from core.errors import ClusterError, TamenError

LOOK_SECONDS = 1.0
LEAVE_SECONDS = 30.0
"""For an actor that is not wanted any more to play its games out and deliver them; a cloud's notice comes before it."""
START_SECONDS = 150.0
"""For a part elsewhere to answer for the first time."""
MEANWHILE_ACTORS = 16
"""That may ask each server at home until the first of their own has begun; of many machines that join at once the
others wait: they would soon have asked home for more than it does in a minute."""
OWN_SERVERS_SECONDS = 60.0
"""For which those wait for it at most."""
TOLD_AFTER_LOOKS = 5
"""In a row at which Ray's head could not tell or do what was asked of it; it may be overloaded for a moment."""
GONE_BEFORE_SECONDS = 2.0
"""By which parts have left before their machine is taken away."""
QUIET_SECONDS = 10.0
"""After which an actor that has not answered counts as not playing; of thousands of parts each is asked less often."""
ASKING = ("actor", "evaluator")


class Following:
    """Keeps the actors and servers of each machine at what `cluster.run.placement` says.

    Args:
        program: that has started.
        watches: over the machines that may be taken away.
        scale: how many there are to be.
        report: told in one line what a person should know.
        stop: asks the run to save and stop; called when home is to leave.
        clock: monotonic seconds, as the program's.

    Attributes:
        scale: settable at any time.
        nodes: the machines of use when looked last, home first.
        effective: how much of the time that actors should have played they did.
    """

    def __init__(
        self,
        program: RayProgram,
        machines: Machines,
        scale: Scale,
        *,
        watches: Watches,
        report: Callable[[str], None],
        stop: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._program = program
        self._machines = machines
        self._watches = watches
        self._report = report
        self._stop = stop
        self._next_look = 0.0
        self._failed_looks = 0
        self._joined: dict[str, Node] = {}
        self._leaving: frozenset[str] = frozenset()
        self._on: dict[str, list[Part]] = {}
        self._with_gpus: tuple[str, ...] = ()
        self._warming = Warming(_servers(program.parts.values()))
        self._served: set[str] = set()
        self._places_at_home = 0
        self._told_slow: set[str] = set()
        self._told_idle = False
        self._stops = False
        self._measured = Measured()
        self.scale = scale
        self.nodes: list[Node] = []
        self.effective = EffectiveTime()

    def step(self) -> None:
        """Look at the machines, if it is time, and bring the parts in line.

        What Ray fails to tell or to do is tried again at the next look: until then all stays as it is.
        """
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        try:
            self._look(now)
        except TamenError:
            raise
        except Exception as error:  # Ray raises a dozen kinds while its head is overloaded or away
            self._failed_looks += 1
            if self._failed_looks == TOLD_AFTER_LOOKS:
                self._report(
                    f"Ray has not told or done what was asked at {TOLD_AFTER_LOOKS} looks in a row; machines are left "
                    f"as they are until it does: {in_one_line(error)}\n{''.join(traceback.format_exception(error))}"
                )
        else:
            self._failed_looks = 0

    def _look(self, now: float) -> None:
        self._refuse_those_that_fail(now)
        self.nodes = self._machines.look(now)
        self._on = _by_machine(self._program.parts.values())
        self._with_gpus = tuple(_where(node) for node in self.nodes if node.gpus)
        self._warming.step(_servers(self._program.parts.values()), now)
        self._served &= {node.id for node in self.nodes}
        self._served |= {node.id for node in self.nodes if self._serves(node)}
        self._watches.step(self.nodes, now)
        leaving = self._machines.leaving | self._watches.leaving()
        self._stop_if_home_leaves(leaving)
        leaving = frozenset(node.id for node in self.nodes if node.id in leaving and not node.is_home)
        before = self._shares(self.nodes)
        wanted = self._shares([node for node in self.nodes if node.id not in leaving])
        due = {id: wanted.get(id, share).actors for id, share in before.items()}
        self.effective.step(due, self._playing(now), now)
        wanted |= {id: Share(0, 0) for id in leaving & before.keys()}
        for id in (leaving - self._leaving) & self._joined.keys():
            self._tell_of_leaving(self._joined[id], now)
        self._leaving = leaving
        self._let_go(wanted.keys(), now)
        self._places_at_home = self._count_places_at_home(now)
        for node in self.nodes:
            if node.id in wanted:
                self._bring_in_line(node, wanted[node.id], now)
        self._tell_of_servers(now)
        self._tell_if_nobody_plays(wanted.values())

    def _shares(self, nodes: Sequence[Node]) -> dict[str, Share]:
        return shares(
            nodes,
            actors=self.scale.actors_per_machine,
            servers=self.scale.servers_per_machine,
            spares=self._program.spares,
            serving=self._served,
        )

    def _serves(self, node: Node) -> bool:
        """Whether a server on a machine has answered."""
        on_it = _servers(self._on.get(_where(node), ()))
        return any(part.heard_at is not None and self._warming.is_over(part) for part in on_it)

    def _stop_if_home_leaves(self, leaving: Collection[str]) -> None:
        home = next((node for node in self.nodes if node.is_home and node.id in leaving), None)
        if home is None or self._stops:
            return
        self._stops = True
        error = ClusterError(
            "the run saves and stops",
            why=f"Ray drains {name_of(home)}, where the run's folder is",
            fix="the same command goes on where the folder is; elsewhere with --resume, where it is mirrored",
        )
        self._report(f"{error.what}: {error.why}\n{error}")
        self._stop()

    def standings(self, stats: Mapping[str, Mapping[str, Any]]) -> tuple[MachineStanding, ...]:
        """Return how each machine stands, home first; `stats` are the newest counters of all parts."""
        now = self._clock()
        self._on = _by_machine(self._program.parts.values())
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
        parts = self._staying(node)
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
            servers=len(_servers(parts)),
            spares=self._program.spares_ready(_where(node)),
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
            "games_lost": self._program.games_lost,
            "games_taken_over": self._program.games_taken_over,
            "spares": sum(self._program.spares_ready(_where(node)) for node in self.nodes),
        }

    def _staying(self, node: Node) -> list[Part]:
        """Return the parts on a machine that are to stay there."""
        return [part for part in self._on.get(_where(node), ()) if part.leaves_by is None]

    def _playing(self, now: float) -> int:
        """Return how many actors play."""
        parts = self._program.parts.values()
        quiet = QUIET_SECONDS + len(parts) // MOST_QUESTIONS
        return sum(
            part.role == "actor"
            and part.running is not None
            and (part.leaves_by is None or part.node in self._leaving)
            and part.heard_at is not None
            and now - part.heard_at < quiet
            for part in parts
        )

    def _tell_of_leaving(self, node: Node, now: float) -> None:
        leaves_at, told = self._watches.leaves_at(node.id), self._watches.told(node.id)
        when = ""
        if leaves_at is not None:
            when = f" in {max(0.0, leaves_at - now):.0f} s ({CLOUDS[told.cloud]} says {told.what!r})"
        self._report(f"{name_of(node)} is to leave{when}: its actors play their games out")

    def _leave_by(self, node: Node, now: float) -> float:
        """Return when an actor that is to leave is ended at the latest."""
        leaves_at = self._watches.leaves_at(node.id)
        return now + LEAVE_SECONDS if leaves_at is None else max(now, leaves_at - GONE_BEFORE_SECONDS)

    def _refuse_those_that_fail(self, now: float) -> None:
        for part in self._program.parts.values():
            if part.heard_at is not None or part.leaves_by is not None or now - part.made_at <= START_SECONDS:
                continue
            if part.node != AT_HOME:
                self._program.given_up.setdefault(part.node, _does_not_start(part, part.node))
            elif part.name not in self._told_slow:
                self._told_slow.add(part.name)
                error = _does_not_start(part, next(node.id for node in self.nodes if node.is_home))
                self._report(f"{error.what}: {error.why}\n{error}")
        for id, error in self._program.given_up.items():
            self._machines.give_up(id, error, now)
        self._program.given_up.clear()

    def _let_go(self, wanted: Collection[str], now: float) -> None:
        """End the parts on machines that are not there any more, or of no use; those deaths are no failures.

        Actors that play on a machine which is there still play their games out.
        """
        for id in [id for id in self._joined if id not in wanted]:
            node = self._joined[id]
            is_there = self._machines.is_there(id)
            staying = [part for part in self._on.get(id, ()) if is_there and _plays(part)]
            for part in staying:
                part.leave(self._leave_by(node, now), now)
            gone = [part for part in self._on.pop(id, []) if part not in staying]
            for part in gone:
                self._program.drop(part)
            if staying:
                self._on[id] = staying
            lost = sum(part.games_at_stake for part in gone)
            what = "is given up" if is_there else "has left"
            with_it = f": with it {_in_words(gone)}" if gone else ""
            with_it += f" and some {lost:,} games" if lost else ""
            with_it += f"; {_many(len(staying), 'actor')} may play out what is in play" if staying else ""
            self._report(f"{name_of(node)} {what}{with_it}")
            del self._joined[id]

    def _bring_in_line(self, node: Node, share: Share, now: float) -> None:
        parts = self._staying(node)
        actors = [part for part in parts if part.role == "actor"]
        servers = _servers(parts)
        if not node.is_home and node.id not in self._joined and (share.actors or share.servers):
            self._joined[node.id] = node
            cores = _many(node.cpus, "core") + (f" and {_many(node.gpus, 'GPU')}" if node.gpus else "")
            gets = f"{_many(share.actors, 'actor')}, {_many(share.servers, 'server')}"
            self._report(f"{name_of(node)} with {cores} joins: {gets}")
        server = self._server(node, share)
        if len(servers) < share.servers:
            servers = self._end_too_large(servers, server.num_gpus, now)
        for _ in range(share.servers - len(servers)):
            self._add(node, server)
        actor = Role("actor", 1, 0.0, 0.0, ("inference", "replay"))
        for _ in range(share.actors - len(actors)):
            begins = self._begins(_where(node), now)
            self._places_at_home -= begins
            waits = begins and self._places_at_home < 0
            self._add(node, actor, () if waits else self._servers_for(_where(node)))
        for part in actors[share.actors :]:
            part.leave(self._leave_by(node, now), now)
        if all(part.leaves_by is None for part in self._on.get(_where(node), ())):
            for part in servers[share.servers :]:
                part.leave(now, now)  # once no actor that is leaving may ask it

    def _end_too_large(self, servers: list[Part], gpus: float, now: float) -> list[Part]:
        """End servers that hold more of a GPU than each may where more are wanted; return those that stay."""
        too_large = [part for part in servers if part.num_gpus > gpus + 1e-6]
        for part in too_large:
            part.leave(now, now)
        return [part for part in servers if part not in too_large]

    def _add(self, node: Node, role: Role, servers: Servers = ()) -> None:
        at_home = {part.name: part.ray_name for part in self._on[AT_HOME]}
        part = self._program.add(
            role,
            node=_where(node),
            asks={name: [at_home[name]] for name in role.asks if name != "inference"},
            servers=servers,
            batch_rows=self._machines.batch_rows(node),
        )
        self._on.setdefault(_where(node), []).append(part)

    def _server(self, node: Node, share: Share) -> Role:
        if node.is_home:
            return self._program.server(share.servers, node.gpus)
        return Role("inference", 1, 0.0, gpu_share(share.servers, node.gpus), ("store",))

    def _begins(self, where: str, now: float) -> bool:
        """Whether the servers of a machine begin, none of them can be asked yet, and its actors may wait for them."""
        servers = [part for part in _servers(self._on.get(where, ())) if part.leaves_by is None]
        waited = max((now - part.made_at for part in servers), default=OWN_SERVERS_SECONDS)
        return waited < OWN_SERVERS_SECONDS and not any(self._warming.is_over(part) for part in servers)

    def _count_places_at_home(self, now: float) -> int:
        """Return how many more actors may ask home until their own servers have begun."""
        taken = sum(
            part.role == "actor" and part.servers != ()
            for where, parts in self._on.items()
            if where != AT_HOME and self._begins(where, now)
            for part in parts
        )
        return MEANWHILE_ACTORS * len(_servers(self._on.get(AT_HOME, ()))) - taken

    def _servers_for(self, where: str) -> Servers:
        """Return the servers that are asked on a machine: those at home, those on GPUs, its own."""
        home = next(node.id for node in self.nodes if node.is_home)
        return tuple(
            NamedServer(part.ray_name, each or home)
            for each in dict.fromkeys((AT_HOME, *self._with_gpus, where))
            for part in _servers(self._on.get(each, ()))
            if part.leaves_by is None and self._warming.is_over(part)
        )

    def _tell_if_nobody_plays(self, wanted: Collection[Share]) -> None:
        idle = not any(share.actors for share in wanted)
        if idle and not self._told_idle:
            self._report(f"nobody plays: actors.count gives no machine an actor (taking part: {len(wanted)})")
        self._told_idle = idle

    def _tell_of_servers(self, now: float) -> None:
        """Tell those who ask of servers that have come or gone."""
        for where, parts in self._on.items():
            known, begins = self._servers_for(where), self._begins(where, now)
            for part in parts:
                waits = begins and part.servers == ()
                if part.role in ASKING and part.servers != known and part.lost == "" and not waits:
                    part.meet(known)


def _servers(parts: Iterable[Part]) -> list[Part]:
    return [part for part in parts if part.role == "inference"]


def _plays(part: Part) -> bool:
    return part.role == "actor" and part.running is not None and part.heard_at is not None


def _where(node: Node) -> str:
    return AT_HOME if node.is_home else node.id


def _by_machine(parts: Iterable[Part]) -> dict[str, list[Part]]:
    """Return the parts of each machine, by `Part.node`: to look through all of them for each would be quadratic."""
    found: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        found[part.node].append(part)
    return found


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
