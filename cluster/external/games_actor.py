"""Games of engines on a Ray cluster: the book beside the driver, and on each machine one that plays beside its engines.

Each is a named actor that Ray starts again when it dies. A new life of the book reads its folder; a new life of a
player begins anew under its name, and what it had out is played again. Machines that join get a player and engines,
and what was out on those that leave is played elsewhere.
"""

import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.engine_games import EngineGames
from cluster.external.engines import engines_folder
from cluster.external.engines_actor import (
    ANSWER_SECONDS,
    FOLLOW_SECONDS,
    NAMESPACE,
    PREFIX,
    end_hosts,
    find_hosts,
    machines,
    start_host,
)
from cluster.external.games import EnginesOfFolder, Order
from cluster.external.profiling import profile_of, profiled
from cluster.monitoring.sinks import RayMetrics
from cluster.on_ray.address import connect
from cluster.on_ray.client import LOST, call, get, in_one_line
from cluster.on_ray.program import beside_the_driver, dressed
from cluster.run.program import Machine
from configs.engines import GamesConfig
from core.errors import ClusterError, TamenError, UsageError, of_the_system
from core.files import digest
from core.restarts import RestartPolicy
from engines.book import GameBook, Plan
from engines.forge_protocol import Mode
from engines.tickets import End, Exchange

BOOK, PLAYER = "games of", "player of games of"
EXCHANGE_SECONDS = 30.0
LOOK_SECONDS = 2.0
"""That a look at all players, or all engines, waits for those that do not answer at once."""
GONE_SECONDS = 60.0
"""Of silence, after which a player, or its machine, is taken for gone."""


class BookActor:
    """`engines.book.GameBook`, opened by whoever asks first, so that what is wrong with it is told."""

    def __init__(self, folder: str, plan: Plan) -> None:
        self._folder, self._plan = Path(folder), plan
        self._opened: GameBook | None = None

    def enter(self, holder: str) -> None:
        with _told():
            self._book().enter(holder)

    def exchange(
        self, holder: str, number: int, ends: Sequence[End], want: int, hold_seconds: float
    ) -> Exchange:
        with _told():
            return self._book().exchange(holder, number, ends, want=want, hold_seconds=hold_seconds)

    def stats(self) -> dict[str, Any]:
        with _told():
            return self._book().stats() | {"pid": os.getpid()}

    def close(self) -> None:
        with _told():
            self._book().close()

    def _book(self) -> GameBook:
        if self._opened is None:
            self._opened = GameBook(self._folder, self._plan, metrics=RayMetrics({"role": "games"}))
        return self._opened


@contextmanager
def _told() -> Iterator[None]:
    """Tell what the system refuses in words: to begin again would not mend a full disk."""
    try:
        yield
    except OSError as error:
        raise of_the_system(error) from error


class RayBook:
    """An `actors.engine_games.Book` that asks the actor called `name`, also while that starts again."""

    def __init__(self, name: str) -> None:
        self._actor: Any = ray.get_actor(name, namespace=NAMESPACE)

    def enter(self, holder: str) -> None:
        call(self._actor.enter, holder, timeout_seconds=EXCHANGE_SECONDS)

    def exchange(
        self, holder: str, number: int, ends: Sequence[End], *, want: int, hold_seconds: float
    ) -> Exchange:
        return call(
            self._actor.exchange, holder, number, ends, want, hold_seconds, timeout_seconds=EXCHANGE_SECONDS
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one that plays is given: the book's name, its own there, how games are asked for, and the files."""

    book: str
    holder: str
    config: GamesConfig
    mode: Mode
    folder: str
    runs: str
    engines: str
    profile: Path | None


class EngineGamesActor:
    """`actors.engine_games.EngineGames` on the daemons of this machine, in a thread of its own."""

    def __init__(self, given: Assignment) -> None:
        self._problem: TamenError | None = None
        self._profile = given.profile
        engines = EnginesOfFolder(engines_folder(Path(given.runs), given.engines))
        self._games = EngineGames(
            RayBook(given.book),
            given.holder,
            given.config,
            endpoints=engines.endpoints,
            complain=engines.complain,
            mode=given.mode,
            folder=Path(given.folder),
            metrics=RayMetrics({"role": "engine_games"}),
        )
        self._thread = threading.Thread(target=self._run, name="games", daemon=True)
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Return what `EngineGames.stats` does, whether it `has_ended`, and pid.

        Raises:
            TamenError: why it cannot go on.
        """
        if self._problem is not None:
            raise self._problem
        ended = {"has_ended": not self._thread.is_alive(), "trouble": ""}
        return self._games.stats() | ended | {"pid": os.getpid()}

    def stop(self) -> None:
        self._games.stop()

    def _run(self) -> None:
        try:
            with _told(), profiled(self._profile):
                self._games.run()
        except TamenError as error:
            self._problem = error
        except Exception:
            traceback.print_exc()
            os._exit(1)  # Ray starts this process again; what it had out is played again


class _Question:
    """A remote question that is asked again and again, one at a time."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self.reference: Any = None

    def ask(self) -> Any:
        """Ask, unless it is being asked, and return the reference to the answer."""
        if self.reference is None:
            self.reference = self._method.remote()
        return self.reference

    def answer(self) -> Any:
        """Return the answer that has come. Raises what `cluster.on_ray.client.get` does."""
        reference, self.reference = self.reference, None
        return get(reference, timeout_seconds=ANSWER_SECONDS)


@dataclass(slots=True)
class _Machine:
    """A machine of the cluster.

    Attributes:
        player: the actor that plays there, and `stats`, how that is asked.
        host: the actor that supervises engines there, None while there is none, and `standing`, how that is asked.
        answered: when its player has answered last.
        last: what that has answered.
        trouble: why it did not answer.
        problem: why there are no engines.
        pid: of its player; 0 before its first answer.
    """

    name: str
    player: Any
    stats: _Question
    answered: float
    host: Any = None
    standing: _Question | None = None
    last: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""
    problem: TamenError | None = None
    pid: int = 0
    policy: RestartPolicy = field(default_factory=RestartPolicy)

    def take_host(self, host: Any) -> None:
        self.host, self.standing = host, _Question(host.stats)


class RayPlayers:
    """Players on the machines of the cluster that this process has joined; see `cluster.external.games.Players`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._names = f"{order.config.engine.name} {digest(str(order.folder.resolve()).encode())[:16]}"
        self._book_name = f"{BOOK} {self._names}"
        book = dressed(BookActor, num_cpus=0, max_restarts=-1, max_task_retries=0).options(
            name=self._book_name, namespace=NAMESPACE, scheduling_strategy=beside_the_driver()
        )
        try:
            self._book: Any = book.remote(str(order.folder.resolve()), order.plan)
        except ValueError as error:  # Ray's word for a name that is taken
            raise UsageError(
                f"the games in {order.folder} are being played",
                why="another command has their book open",
                fix="wait for it, or stop it with Ctrl-C; it can be gone on with later",
            ) from error
        self._machines: dict[str, _Machine] = {}
        self._news: list[str] = []
        self._is_stopping = False
        try:
            self.book()  # raises what is wrong with it
            self._are_ours = not _is_up(order.config.engine.name)
            for node, name in machines().items():
                self._join(node, name)
        except BaseException:
            self.close()
            raise
        self._next_look = time.monotonic() + FOLLOW_SECONDS

    def book(self) -> dict[str, Any]:
        return call(self._book.stats, timeout_seconds=ANSWER_SECONDS)

    def parts(self) -> list[dict[str, Any]]:
        if time.monotonic() >= self._next_look and not self._is_stopping:
            self._follow()
        _ask([machine.stats for machine in self._machines.values()])
        return [self._part(node, machine) for node, machine in self._machines.items()]

    def engines(self) -> list[dict[str, Any]]:
        """See `cluster.external.games.Players`. Raises TamenError when there is no machine that can run them."""
        hosts = [machine for machine in self._machines.values() if machine.standing is not None]
        questions = [machine.standing for machine in hosts if machine.standing is not None]
        answered = _ask(questions)
        found = []
        for machine, question in zip(hosts, questions, strict=True):
            if question.reference not in answered:
                continue
            try:
                found.append(question.answer())
                machine.problem = None
            except LOST:
                if not self._are_ours:  # they may be brought up anew, by another actor of that name
                    machine.host = machine.standing = None
            except TamenError as error:
                if machine.problem is None:
                    self._news.append(f"{machine.name} runs no engines: {in_one_line(error)}")
                machine.problem = error
        problems = [machine.problem for machine in self._machines.values()]
        if problems and problems[0] is not None and all(problems):
            raise problems[0]
        return found

    def news(self) -> list[str]:
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        self._is_stopping = True
        for machine in self._machines.values():
            machine.player.stop.remote()

    def close(self) -> None:
        """End all actors, and the engines that were brought up for them."""
        for machine in self._machines.values():
            ray.kill(machine.player)
        with suppress(*LOST, TamenError):
            get(self._book.close.remote(), timeout_seconds=ANSWER_SECONDS)
        ray.kill(self._book)
        if self._machines and self._are_ours:
            end_hosts([machine.host for machine in self._machines.values() if machine.host is not None])

    def _follow(self) -> None:
        """Take in machines that have joined, and drop those that have left."""
        self._next_look = time.monotonic() + FOLLOW_SECONDS
        now_there = machines()
        for node in self._machines.keys() - now_there.keys():
            machine = self._machines.pop(node)
            ray.kill(machine.player)
            call(self._book.enter, _holder(node), timeout_seconds=ANSWER_SECONDS)
            self._news.append(
                f"{machine.name} has left the cluster; what was in play there is tried elsewhere"
            )
        for node in now_there.keys() - self._machines.keys():
            self._join(node, now_there[node])
            self._news.append(f"{now_there[node]} has joined the cluster, and plays")
        for node, machine in self._machines.items():
            if machine.host is None:  # others bring them up
                self._find_host(node, machine)

    def _join(self, node: str, name: str) -> None:
        player = self._player(node)
        machine = self._machines[node] = _Machine(name, player, _Question(player.stats), time.monotonic())
        if self._are_ours:
            machine.take_host(start_host(node, self._order.config, self._order.runs, detached=False))
        else:
            self._find_host(node, machine)

    def _find_host(self, node: str, machine: _Machine) -> None:
        with suppress(ValueError):  # there is none yet
            name = f"{PREFIX}{self._order.config.engine.name} {node}"
            machine.take_host(ray.get_actor(name, namespace=NAMESPACE))

    def _player(self, node: str) -> Any:
        order = self._order
        given = Assignment(
            self._book_name,
            _holder(node),
            order.config.games,
            order.plan.mode,
            str(order.folder.resolve()),
            str(order.runs.resolve()),
            order.config.engine.name,
            profile_of(order.profile, _holder(node)),
        )
        return (
            dressed(EngineGamesActor, num_cpus=0, max_restarts=-1)
            .options(
                name=f"{PLAYER} {self._names} {node}",
                namespace=NAMESPACE,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(given)
        )

    def _part(self, node: str, machine: _Machine) -> dict[str, Any]:
        """Return what a player says; one that is silent for long has ended, and others get its games.

        Raises:
            ClusterError: when it dies again and again.
        """
        now, reference = time.monotonic(), machine.stats.ask()
        try:
            if ray.wait([reference], timeout=0)[0]:
                machine.last, machine.answered, machine.trouble = machine.stats.answer(), now, ""
        except LOST as error:
            machine.trouble = in_one_line(error)
        if now - machine.answered > GONE_SECONDS:
            call(self._book.enter, _holder(node), timeout_seconds=ANSWER_SECONDS)
            return {"has_ended": True, "trouble": machine.trouble or "it has been silent"}
        if machine.trouble or not machine.last:
            return {"has_ended": False, "trouble": machine.trouble}
        before, machine.pid = machine.pid or machine.last["pid"], machine.last["pid"]
        if before != machine.pid and machine.policy.failed(now) is None:
            raise ClusterError(
                "what plays the games of engines ends again and again",
                why=f"on {machine.name} it was started more than {machine.policy.max_failures} times",
                fix="look into Ray's log of that node; what was finished stays, and the same command goes on",
            )
        return machine.last


def _ask(questions: Sequence[_Question]) -> set[Any]:
    """Ask, wait a moment for the answers, and return the references of those that have come."""
    asked = [question.ask() for question in questions]
    return set(ray.wait(asked, num_returns=len(asked), timeout=LOOK_SECONDS)[0]) if asked else set()


@contextmanager
def ray_players(order: Order, address: str | None) -> Iterator[RayPlayers]:
    """Join the cluster at `address`, or start one here for None, and give players on it.

    Raises:
        UsageError: when the book cannot be opened.
        ClusterError: when there is no such cluster.
    """
    mine = not ray.is_initialized()
    if mine:
        connect(address, cpus=Machine.here().cpus)
    try:
        players = RayPlayers(order)
        try:
            yield players
        finally:
            players.close()
    finally:
        if mine:
            ray.shutdown()


def _holder(node: str) -> str:
    """Return the name that the player of a node has in the book."""
    return f"node-{node[:16]}"


def _is_up(name: str) -> bool:
    """Whether engines of that name were brought up on this cluster."""
    with suppress(UsageError):
        return bool(find_hosts(name))
    return False
