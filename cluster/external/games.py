"""`tamen engines play`: games of engines, each accounted for, on this machine or on all of a Ray cluster.

`play_games` opens the book in the run's folder, brings up engines where they are not up, lets them play, and tells how
it goes. The same command goes on where it was stopped. Under Ray the parts are those of `games_actor`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.text import Text

from actors.engine_games import EngineGames
from cluster import environment
from cluster.cli.addresses import cluster_to_join
from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import StopRequest, stop_request
from cluster.cli.terminal import UNKNOWN, console, duration, percent, real, whole
from cluster.external.engines import check_usable, engines_folder, machine_name, standing
from cluster.external.games_checks import Checkup, Faults, check_refusals, nobody_plays
from cluster.external.profiling import check_profile, costliest, profiled, profiles_since
from cluster.monitoring.sinks import served
from configs.engines import EnginesConfig
from configs.loading import dump
from core.files import write_atomic
from core.metrics import Metrics, NoMetrics
from engines.book import GameBook, Plan
from engines.forge_client import Endpoint
from engines.jvm import recordings
from engines.launch import plan_launch
from engines.monitor import EngineMonitor
from engines.service import STEP_SECONDS
from engines.supervised import StateFile, complain, read_state
from engines.supervisor import Supervisor
from engines.terms import terms_of

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
"""Between two looks at the engines."""
STATE_SECONDS = 0.5
"""Between two looks at where daemons serve."""
NO_METRICS = NoMetrics()
STOP_SECONDS = 20.0
"""For players to bring back what they have, besides the time that games in play are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be played, and where.

    Attributes:
        config: the engines, and how games are asked of them.
        plan: the games.
        folder: of the run; on a cluster at the same path on each machine, as `runs` is.
        runs: below which the engines have their folder.
        profile: file for where Python's time goes, and beside it one for each that plays in a process of its own.
    """

    config: EnginesConfig
    plan: Plan
    folder: Path
    runs: Path
    profile: Path | None = None


class Players(Protocol):
    """Engines, a book, and who plays its games with them."""

    def book(self) -> dict[str, Any]:
        """Return what `GameBook.stats` does."""
        ...

    def parts(self) -> list[dict[str, Any]]:
        """Return of each whether it `has_ended`, `trouble` in words, and, if it answers, what `EngineGames.stats` does.

        Raises:
            TamenError: why one cannot go on.
        """
        ...

    def engines(self) -> list[dict[str, Any]]:
        """Return of the engines of each machine that answers what `cluster.external.engines.standing` does."""
        ...

    def news(self) -> list[str]:
        """Return a line for each machine that has joined, left, or cannot run engines, since the last call."""
        ...

    def stop(self) -> None:
        """Let games end, and take no more."""
        ...


class EnginesOfFolder:
    """Where the daemons serve that are supervised in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked = -STATE_SECONDS
        self._state: StateFile | None = None
        self.problem: Exception | None = None
        """Why they are supervised no longer, when this process did that."""

    def state(self) -> StateFile | None:
        """Return how they stand, or stood half a second ago."""
        now = time.monotonic()
        if now - self._looked >= STATE_SECONDS:
            self._looked, self._state = now, read_state(self._folder)
        return self._state

    def standing(self) -> dict[str, Any]:
        """Return what `cluster.external.engines.standing` does. Raises what ended their supervision."""
        if self.problem is not None:
            raise self.problem
        return standing(self._folder.name, self._folder, self.state())

    def complain(self, endpoint: Endpoint) -> None:
        """Have the daemon there started again: its games hang, though it answers."""
        complain(self._folder, endpoint.port)

    def endpoints(self) -> list[Endpoint]:
        state = self.state()
        return [] if state is None else [Endpoint(daemon.port) for daemon in state.daemons if daemon.serving]


class LocalPlayers:
    """Players in this process; see `Players`."""

    def __init__(self, order: Order, engines: EnginesOfFolder, metrics: Metrics = NO_METRICS) -> None:
        self._engines = engines
        self._profile = order.profile
        self._book = GameBook(order.folder, order.plan, metrics=metrics)
        self._problem: BaseException | None = None
        self._games = EngineGames(
            self._book,
            machine_name(),
            order.config.games,
            endpoints=engines.endpoints,
            complain=engines.complain,
            mode=order.plan.mode,
            folder=order.folder,
            metrics=metrics,
        )
        self._thread = threading.Thread(target=self._run, name="games", daemon=True)
        self._thread.start()

    def book(self) -> dict[str, Any]:
        return self._book.stats()

    def parts(self) -> list[dict[str, Any]]:
        if self._problem is not None:
            raise self._problem
        return [self._games.stats() | {"has_ended": not self._thread.is_alive(), "trouble": ""}]

    def engines(self) -> list[dict[str, Any]]:
        return [self._engines.standing()]

    def news(self) -> list[str]:
        return []

    def stop(self) -> None:
        self._games.stop()

    def close(self) -> None:
        self._games.stop(0.0)
        self._thread.join(STOP_SECONDS)
        self._book.close()

    def _run(self) -> None:
        try:
            with profiled(self._profile):
                self._games.run()
        except BaseException as problem:  # raised where somebody looks
            self._problem = problem


def play_games(
    order: Order,
    *,
    engine: Literal["local", "ray"],
    address: str | None = None,
    quiet: bool,
    plain: bool = False,
    metrics_port: int | None = None,
) -> dict[str, Any]:
    """Play the games of `order` until each is finished or set aside, or Ctrl-C.

    Args:
        metrics_port: of 127.0.0.1, where this process serves Prometheus text meanwhile; 0 takes a free one.

    Returns:
        what `GameBook.stats` does; retries, in all; restarts, of daemons since they were brought up; busy_share, of the
        sessions; folder; stopped, whether by Ctrl-C; profiles and recordings, files on this machine.

    Raises:
        UsageError: when what is to be started is not there, or the folder has other games.
        ClusterError: when no daemon comes up, or one game after the other is set aside; what was finished stays.
    """
    plan_launch(order.config)
    check_profile(order.profile)
    order.folder.mkdir(parents=True, exist_ok=True)
    order = replace(order, plan=replace(order.plan, terms=terms_of(order.config)))
    target, began = console(stderr=True), time.time()
    with (
        stop_request() as stop,
        served(metrics_port) as ports,
        StepDisplay(target, plain=plain) as display,
    ):
        display.begin(f"games of {order.config.engine.name}")
        with players_of(order, engine, address, ports) as players:
            write_atomic(order.folder / "config.yaml", dump(order.config).encode())
            monitors = [EngineMonitor(port, counts_games=engine == "ray") for port in ports]
            result = watch(players, order, stop, None if quiet else display, monitors=monitors)
    result["profiles"] = [str(path) for path in profiles_since(order.profile, began)]
    written = (
        recordings(engines_folder(order.runs, order.config.engine.name)) if order.config.java.record else []
    )
    result["recordings"] = [file for file, size in written if size]
    if not quiet:
        show_result(result)
        if order.plan.mode == "observe" and result["finished"]:
            name = order.config.engine.name
            console().print(Text(f"next: tamen engines imitate {order.folder} --name {name}"), soft_wrap=True)
    return result


@contextmanager
def players_of(
    order: Order, engine: Literal["local", "ray"], address: str | None, ports: Sequence[Metrics] = ()
) -> Iterator[Players]:
    """Give players; in the end they, and engines that were brought up for them, are gone.

    Players in this process tell of their games to the first of `ports`, if there is one.
    """
    if engine == "ray":
        joined = None if address is None else cluster_to_join(address)
        environment.prepare_ray(joined)
        from cluster.external.games_actor import ray_players

        with ray_players(order, joined) as players:
            yield players
        return
    with local_engines(order.config, order.runs) as engines:
        local = LocalPlayers(order, engines, ports[0] if ports else NO_METRICS)
        try:
            yield local
        finally:
            local.close()


@contextmanager
def local_engines(config: EnginesConfig, runs: Path) -> Iterator[EnginesOfFolder]:
    """Give the engines of this machine: those that are up, which stay so; or else they are up meanwhile.

    Raises:
        UsageError: when others of that name are up, or those of other games.
    """
    folder = engines_folder(runs, config.engine.name)
    state = read_state(folder)
    if state is not None and state.is_supervised():
        check_usable(config, state)
        yield EnginesOfFolder(folder)
        return
    ended = threading.Event()
    with Supervisor(config, folder, kind="run") as supervisor:
        engines = EnginesOfFolder(folder)
        thread = threading.Thread(
            target=_supervise, args=(supervisor, engines, ended), name="supervise", daemon=True
        )
        thread.start()
        try:
            yield engines
        finally:
            ended.set()
            thread.join(STOP_SECONDS)
            supervisor.stop()


def _supervise(supervisor: Supervisor, engines: EnginesOfFolder, ended: threading.Event) -> None:
    try:
        while not ended.wait(STEP_SECONDS):
            supervisor.step()
    except Exception as problem:  # raised where somebody looks at the engines
        engines.problem = problem


def watch(
    players: Players,
    order: Order,
    stop: StopRequest,
    display: StepDisplay | None,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    monitors: Sequence[EngineMonitor] = (),
) -> dict[str, Any]:
    """Wait until `players` are done, or `stop`, and tell on the way how it goes; see `play_games`.

    Args:
        meanwhile: is called some times a second.
        monitors: are told how all stand.
    """
    stop_by, next_look = float("inf"), 0.0
    engines: list[dict[str, Any]] = []
    faults, checkup = Faults(display), Checkup(order.config)
    if display is not None:
        _tell_changes(players.book(), order.folder, display)
    while True:
        meanwhile()
        # In this order: when a player has ended because all games are, the book says so.
        parts, book, now = players.parts(), players.book(), time.monotonic()
        if now >= next_look:
            next_look, engines = now + LOOK_SECONDS, players.engines()
            for line in players.news():
                if display is not None:
                    display.say(line)
        for monitor in monitors:
            monitor.take(book, engines)
        is_over = book["waiting"] + book["out"] == 0
        if all(part["has_ended"] for part in parts) or now > stop_by:
            break
        if (stop.requested or is_over) and stop_by == float("inf"):
            players.stop()
            stop_by = now + order.config.games.stop_seconds + STOP_SECONDS
        if stop_by == float("inf"):
            checkup.check(book, parts, engines, now)
        if display is not None:
            display.progress(book["finished"] + book["set_aside"], book["asked"], "games")
            faults.tell(book, now)
        time.sleep(POLL_SECONDS)
    check_refusals(book)
    if not (is_over or stop.requested):
        raise nobody_plays(book, parts)
    busy = [part["busy_share"] for part in parts if part.get("busy_share") is not None]
    book = players.book()
    for monitor in monitors:
        monitor.take(book, engines)
    return book | {
        "retries": sum(book["retried"].values()),
        "restarts": sum(daemon["restarts"] for each in engines for daemon in each["daemons"]),
        "busy_share": sum(busy) / len(busy) if busy else None,
        "folder": str(order.folder),
        "stopped": stop.requested,
    }


def _tell_changes(book: dict[str, Any], folder: Path, display: StepDisplay) -> None:
    for change in book["changes"]:
        display.say(f"not all games in {folder} are played alike: {change}")


def show_result(result: dict[str, Any]) -> None:
    """Print what `play_games` has returned."""
    target = console()

    def say(line: str) -> None:
        target.print(Text(line), soft_wrap=True)

    endings = ", ".join(f"{name} {whole(count)}" for name, count in sorted(result["endings"].items()))
    say(
        f"{whole(result['finished'])} of {whole(result['asked'])} games are finished"
        + (f": {endings}" if endings else "")
    )
    say(
        f"{real(result['games_per_s'], 1)} games/s in {duration(result['seconds'])}; a game took"
        f" {_seconds(result['p50_s'])} (half), {_seconds(result['p95_s'])} (95 %), {_seconds(result['p99_s'])} (99 %);"
        f" sessions were busy {percent(result['busy_share'])} of the time"
    )
    for what, counts in (("tried again", result["retried"]), ("set aside", result["set_aside_by"])):
        for kind, count in sorted(counts.items()):
            say(f"{whole(count)} {what}: {kind}; the last: {result['whys'][kind]}")
    if result["lost"]:
        say(f"{whole(result['lost'])} went back, as who played them ended or fell silent")
    for change in result["changes"]:
        say(f"not all of them were played alike: {change}")
    if result["damaged_lines"]:
        say(
            f"{whole(result['damaged_lines'])} lines of games.jsonl were damaged; what they told of was played anew"
        )
    if result["profiles"]:
        say(f"where Python's time went, as {', '.join(result['profiles'])} tells pstats:")
        for line in costliest([Path(path) for path in result["profiles"]]):
            say(line)
    for file in result["recordings"]:
        say(f"flight recording: {file}")
    left = result["waiting"] + result["out"]
    say(
        f"results are in {result['folder']}/games.jsonl"
        + (f"; the same command plays the other {whole(left)}" if left else "")
    )


def _seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.3g} s"
