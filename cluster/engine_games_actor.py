"""Games of engines on a Ray cluster: the book beside the driver, and on each machine one that plays beside its engines.

Each is a named actor that Ray starts again when it dies. A new life of the book reads its folder; a new life of a
player begins anew under its name, and what it had out is played again.
"""

import os
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.engine_games import EngineGames
from cluster.engine_games import EnginesOfFolder, Order
from cluster.engines import engines_folder
from cluster.engines_actor import ANSWER_SECONDS, NAMESPACE, end_hosts, find_hosts, start_hosts
from cluster.metrics_sinks import RayMetrics
from cluster.program import Machine
from cluster.ray_client import LOST, call, get, in_one_line
from cluster.ray_program import beside_the_driver, connect, dressed
from configs.engines import GamesConfig
from core.errors import ClusterError, TamenError, UsageError
from core.files import digest
from core.restarts import RestartPolicy
from engines.book import End, Exchange, GameBook, Plan
from engines.forge_protocol import Mode

BOOK, PLAYER = "games of", "player of games of"
EXCHANGE_SECONDS = 30.0
GONE_SECONDS = 60.0
"""Of silence, after which a player, or its machine, is taken for gone."""


class BookActor:
    """`engines.book.GameBook`, opened by whoever asks first, so that what is wrong with it is told."""

    def __init__(self, folder: str, plan: Plan) -> None:
        self._folder, self._plan = Path(folder), plan
        self._opened: GameBook | None = None

    def enter(self, holder: str) -> None:
        self._book().enter(holder)

    def exchange(
        self, holder: str, number: int, ends: Sequence[End], want: int, hold_seconds: float
    ) -> Exchange:
        return self._book().exchange(holder, number, ends, want=want, hold_seconds=hold_seconds)

    def stats(self) -> dict[str, Any]:
        return self._book().stats() | {"pid": os.getpid()}

    def close(self) -> None:
        self._book().close()

    def _book(self) -> GameBook:
        if self._opened is None:
            self._opened = GameBook(self._folder, self._plan, metrics=RayMetrics({"role": "games"}))
        return self._opened


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
    """What one that plays is given: the book's name, its own there, how games are asked for, and the folders."""

    book: str
    holder: str
    config: GamesConfig
    mode: Mode
    folder: str
    runs: str
    engines: str


class EngineGamesActor:
    """`actors.engine_games.EngineGames` on the daemons of this machine, in a thread of its own."""

    def __init__(self, given: Assignment) -> None:
        self._problem: TamenError | None = None
        self._games = EngineGames(
            RayBook(given.book),
            given.holder,
            given.config,
            endpoints=EnginesOfFolder(engines_folder(Path(given.runs), given.engines)).endpoints,
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
            self._games.run()
        except TamenError as error:
            self._problem = error
        except Exception:
            traceback.print_exc()
            os._exit(1)  # Ray starts this process again; what it had out is played again


class RayPlayers:
    """Players on the machines of the cluster that this process has joined; see `cluster.engine_games.Players`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._names = f"{order.config.engine.name} {digest(str(order.folder.resolve()).encode())[:16]}"
        book_name = f"{BOOK} {self._names}"
        book = dressed(BookActor, num_cpus=0, max_restarts=-1, max_task_retries=0).options(
            name=book_name, namespace=NAMESPACE, scheduling_strategy=beside_the_driver()
        )
        try:
            self._book: Any = book.remote(str(order.folder.resolve()), order.plan)
        except ValueError as error:  # Ray's word for a name that is taken
            raise UsageError(
                f"the games in {order.folder} are being played",
                why="another command has their book open",
                fix="wait for it, or stop it with Ctrl-C; it can be gone on with later",
            ) from error
        self.book()  # raises what is wrong with it
        self._hosts, self._ours = _hosts(order)
        self._players = {node: self._player(node, book_name) for node in _nodes()}
        self._lives: dict[str, int] = {}
        self._answered = dict.fromkeys(self._players, time.monotonic())
        self._policies = {node: RestartPolicy() for node in self._players}

    def book(self) -> dict[str, Any]:
        return call(self._book.stats, timeout_seconds=ANSWER_SECONDS)

    def parts(self) -> list[dict[str, Any]]:
        asked = {node: actor.stats.remote() for node, actor in self._players.items()}
        return [self._part(node, reference) for node, reference in asked.items()]

    def engines(self) -> list[dict[str, Any]]:
        found = []
        for actor in self._hosts:
            with suppress(*LOST):
                found.append(get(actor.stats.remote(), timeout_seconds=ANSWER_SECONDS))
        return found

    def stop(self) -> None:
        for actor in self._players.values():
            actor.stop.remote()

    def close(self) -> None:
        """End all actors, and the engines that were brought up for them."""
        for actor in self._players.values():
            ray.kill(actor)
        with suppress(*LOST, TamenError):
            get(self._book.close.remote(), timeout_seconds=ANSWER_SECONDS)
        ray.kill(self._book)
        if self._ours:
            end_hosts(self._hosts)

    def _player(self, node: str, book_name: str) -> Any:
        order = self._order
        given = Assignment(
            book_name,
            _holder(node),
            order.config.games,
            order.plan.mode,
            str(order.folder.resolve()),
            str(order.runs.resolve()),
            order.config.engine.name,
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

    def _part(self, node: str, reference: Any) -> dict[str, Any]:
        """Return what a player says; one that is silent for long has ended, and others get its games.

        Raises:
            ClusterError: when it dies again and again.
        """
        now = time.monotonic()
        try:
            stats = get(reference, timeout_seconds=ANSWER_SECONDS)
        except LOST as error:
            is_gone = now - self._answered[node] > GONE_SECONDS
            if is_gone:
                call(self._book.enter, _holder(node), timeout_seconds=ANSWER_SECONDS)
            return {"has_ended": is_gone, "trouble": in_one_line(error)}
        self._answered[node] = now
        before = self._lives.setdefault(node, stats["pid"])
        self._lives[node] = stats["pid"]
        if before != stats["pid"] and self._policies[node].failed(time.monotonic()) is None:
            raise ClusterError(
                "what plays the games of engines ends again and again",
                why=f"on node {node[:8]} it was started more than {self._policies[node].max_failures} times",
                fix="look into Ray's log of that node; what was finished stays, and the same command goes on",
            )
        return stats


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


def _nodes() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _holder(node: str) -> str:
    """Return the name that the player of a node has in the book."""
    return f"node-{node[:16]}"


def _hosts(order: Order) -> tuple[list[Any], bool]:
    """Return the supervisors of the engines, and whether they were started for these games."""
    with suppress(UsageError):
        return find_hosts(order.config.engine.name), False
    return list(start_hosts(order.config, order.runs, detached=False).values()), True
