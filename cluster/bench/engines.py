"""`tamen engines bench`: what of the reference daemon's capacity reaches the book, and what faults cost.

A daemon's own capacity is that of its loop without a socket, `BENCH`, in the same JVM. Where two things are compared
they take turns, and a figure is the median of the rounds.
"""

import contextlib
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import environment
from cluster.bench.daemons import bench_connections, bench_flags
from cluster.bench.engine_rig import (
    BASE_PORT,
    DECKS,
    MEMORY_MB,
    PATIENCE_SECONDS,
    capacity,
    reference,
    startup_seconds,
    wait_for,
)
from cluster.bench.rig import Measuring, around
from cluster.cli.stopping import StopRequest
from cluster.external.engines import engines_folder
from cluster.external.games import EnginesOfFolder, Order, watch
from configs.engines import EngineConfig, EnginesConfig, GamesConfig
from core.errors import UsageError
from engines.book import Plan
from engines.journal import read_journal
from engines.launch import daemon_count
from engines.process import kill_marked, marked_processes
from engines.reference.compile import compiled
from engines.supervised import LIFE_MARK, MARK, mark_of, read_state

SECTIONS = ("pipeline", "waiting", "connections", "flags", "faults")
WARM_UP_GAMES = 300
"""Until the JVM has compiled what the games need."""
GAME_MS = 50
WAITING_DAEMONS = (1, 2, 4, 8)
FAULT_DAEMONS, FAULT_THREADS, FAULT_EVERY = 4, 2, 300
FAULTS = ("hang", "garbage", "midline")
"""Of the first daemons, each in one of `FAULT_EVERY` games."""
KILL_SECONDS = 15.0


def bench_engines(sections: Sequence[str], measuring: Measuring, *, fault_games: int) -> dict[str, Any]:
    """Measure the reference daemon.

    Args:
        sections: some of `SECTIONS`.
        measuring: how long and how often.
        fault_games: that are played undisturbed, and once more under faults.

    Returns:
        of each section its figures under its name; and of the pipeline also games_per_s, capacity_games_per_s,
        share_of_capacity, p95_s, retries, set_aside, durations_s (of each game), startup_s (of a daemon).

    Raises:
        UsageError: for a section that there is not, or without a JDK.
    """
    unknown = [section for section in sections if section not in SECTIONS]
    if unknown or not sections:
        raise UsageError(
            f"there is no section {', '.join(unknown) or 'to be measured'}",
            why=f"sections are {', '.join(SECTIONS)}",
            fix="write them as in --sections pipeline,faults",
        )
    environment.prepare_ray(None)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        room = Path(folder)
        if {"pipeline", "waiting", "faults"}.intersection(sections):
            stack.enter_context(_ray())
        if "pipeline" in sections:
            measured |= bench_pipeline(room, measuring)
        if "waiting" in sections:
            measured["waiting"] = bench_waiting(room, measuring)
        if "connections" in sections:
            measured["connections"] = bench_connections(room, measuring)
        if "flags" in sections:
            measured["flags"] = bench_flags(room, measuring)
        if "faults" in sections:
            measured["faults"] = bench_faults(room, fault_games, measuring)
    return measured


def bench_pipeline(room: Path, measuring: Measuring) -> dict[str, Any]:
    """Play on one daemon, each of whose games takes 50 ms of a core, through the whole pipeline on Ray."""
    config = reference("pipeline", "--compute-ms", str(GAME_MS), "--threads", "1")
    startup = startup_seconds(config, room)
    games = max(20, round(measuring.seconds * 1000 / GAME_MS))
    capacities, results, durations = [], [], []
    with _engines_up(config, room) as engines:
        (endpoint,) = engines.endpoints()
        capacity(endpoint, games // 2, compute_ms=GAME_MS)
        capacities.append(capacity(endpoint, games, compute_ms=GAME_MS))
        for number in range(measuring.rounds):
            folder = room / f"pipeline-{number}"
            results.append(_play(config, games, folder, room))
            durations += _durations(folder)
            capacities.append(capacity(endpoint, games, compute_ms=GAME_MS))
            measuring.say(f"{results[-1]['games_per_s']:.2f} games/s of {capacities[-1]:.2f}")
    rates = [result["games_per_s"] for result in results]
    shares = [rate / beside for rate, beside in zip(rates, around(capacities), strict=True)]
    share = statistics.median(shares)
    measuring.say(f"pipeline: {share:.3f} of what the daemon can do (wanted: 0.95)")
    rate = statistics.median(rates)
    return {
        "games_per_s": rate,
        "capacity_games_per_s": rate / share,
        "share_of_capacity": share,
        "p95_s": statistics.median(result["p95_s"] for result in results),
        "retries": sum(result["retries"] for result in results),
        "set_aside": sum(result["set_aside"] for result in results),
        "durations_s": durations,
        "startup_s": startup,
        "pipeline": {"shares": shares, "games_per_s": rates, "capacities": capacities},
    }


def bench_waiting(room: Path, measuring: Measuring) -> dict[str, Any]:
    """Play on more and more daemons that take no core but wait 50 ms a game, in turn with their own loops together."""
    rates: dict[int, float] = {}
    own: dict[int, float] = {}
    each = round(measuring.seconds * 1000 / GAME_MS)
    for count in WAITING_DAEMONS:
        config = reference(
            f"waiting-{count}", "--wait-ms", str(GAME_MS), "--threads", "1", count=count, preset="none"
        )
        played: list[float] = []
        loops: list[float] = []
        with _engines_up(config, room) as engines, ThreadPoolExecutor(count) as pool:
            endpoints = engines.endpoints()
            list(pool.map(lambda endpoint: capacity(endpoint, WARM_UP_GAMES), endpoints))
            for number in range(measuring.rounds):
                loops.append(sum(pool.map(lambda one: capacity(one, each, wait_ms=GAME_MS), endpoints)))
                folder = room / f"waiting-{count}-{number}"
                played.append(_play(config, count * each, folder, room)["games_per_s"])
        rates[count], own[count] = statistics.median(played), statistics.median(loops)
        measuring.say(f"{count} daemons that wait: {rates[count]:.1f} games/s of {own[count]:.1f}")
    most = max(WAITING_DAEMONS)
    times, possible = rates[most] / rates[1], own[most] / own[1]
    measuring.say(
        f"waiting: {most} daemons play {times:.2f} times as many games as one (wanted: 7.6), their loops {possible:.2f}"
    )
    return {
        "games_per_s": {str(count): rate for count, rate in rates.items()},
        "capacity_games_per_s": {str(count): rate for count, rate in own.items()},
        "times": times,
        "capacity_times": possible,
    }


def bench_faults(room: Path, games: int, measuring: Measuring) -> dict[str, Any]:
    """Play games with and without daemons that are killed, hang, answer garbage and close inside a line."""
    runs = {}
    for name, faults in (("undisturbed", ()), ("disturbed", FAULTS)):
        config = _faulty(name, faults)
        folder = engines_folder(room, config.engine.name)
        killer = _Killer(folder) if faults else None
        with _engines_up(config, room):
            runs[name] = _play(config, games, room / name, room, meanwhile=killer)
        runs[name]["kills"] = 0 if killer is None else killer.kills
        runs[name]["left"] = len(marked_processes(MARK, mark_of(folder)))
        measuring.say(f"{name}: {runs[name]['games_per_s']:.1f} games/s, {runs[name]['retried']} tried again")
    under, without = runs["disturbed"], runs["undisturbed"]
    numbers = [entry["game"] for entry in read_journal(room / "disturbed" / "games.jsonl") if _is_last(entry)]
    result = {
        "games": games,
        "accounted": sorted(numbers) == list(range(games)),
        "finished": under["finished"],
        "set_aside": under["set_aside_by"],
        "retried": under["retried"],
        "duplicates": under["duplicates"],
        "kills": under["kills"],
        "restarts": under["restarts"],
        "processes_left": under["left"] + without["left"],
        "games_per_s": under["games_per_s"],
        "undisturbed_games_per_s": without["games_per_s"],
        "share": under["games_per_s"] / without["games_per_s"],
    }
    measuring.say(
        f"faults: {result['finished']} finished, {under['set_aside']} set aside, each once: {result['accounted']};"
        f" {result['kills']} daemons killed, {result['processes_left']} processes left;"
        f" {result['share']:.3f} of undisturbed (wanted: 0.85)"
    )
    return result


class _Killer:
    """Kills one serving daemon after the other, the last first, every `KILL_SECONDS`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = time.monotonic() + KILL_SECONDS
        self.kills = 0

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + KILL_SECONDS
        state = read_state(self._folder)
        serving = [daemon for daemon in state.daemons if daemon.serving] if state is not None else []
        if serving:
            kill_marked(LIFE_MARK, serving[-1 - self.kills % len(serving)].life)
            self.kills += 1


def _faulty(name: str, faults: Sequence[str]) -> EnginesConfig:
    """Return daemons, and one to spare, of which the first have `faults`, and what soon notices them."""
    cases = " ".join(
        f"{number}) f='--fault {fault} --every {FAULT_EVERY}';;" for number, fault in enumerate(faults)
    )
    script = (
        f"case {{number}} in {cases} *) f=;; esac; exec java -Xmx{MEMORY_MB}m -jar {shlex.quote(str(compiled()))}"
        f" daemon -p {{port}} --threads {FAULT_THREADS} --wait-ms {GAME_MS} $f"
    )
    engine = EngineConfig(
        name=name, command=("sh", "-c", script), count=FAULT_DAEMONS, spares=1, base_port=BASE_PORT
    )
    return EnginesConfig(engine=engine, games=GamesConfig(game_seconds=2, slack_seconds=1.0))


@contextmanager
def _ray() -> Iterator[None]:
    """Start Ray on this machine, unless it runs."""
    import ray

    from cluster.on_ray.address import connect
    from cluster.run.program import Machine

    mine = not ray.is_initialized()
    if mine:
        connect(None, cpus=Machine.here().cpus)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


@contextmanager
def _engines_up(config: EnginesConfig, runs: Path) -> Iterator[EnginesOfFolder]:
    """Keep engines up under Ray, so that several runs play on the same."""
    from cluster.external.engines_actor import end_hosts, start_hosts, wait_until_settled

    hosts = start_hosts(config, runs, detached=False)
    try:
        wait_until_settled(hosts, PATIENCE_SECONDS)
        engines = EnginesOfFolder(engines_folder(runs, config.engine.name))
        wait_for(engines, daemon_count(config))
        yield engines
    finally:
        end_hosts(hosts.values())


def _play(
    config: EnginesConfig,
    games: int,
    folder: Path,
    runs: Path,
    *,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Play games through the whole pipeline on Ray."""
    from cluster.external.games_actor import ray_players

    order = Order(config=config, plan=Plan(games=games, decks=DECKS), folder=folder, runs=runs)
    with ray_players(order, None) as players:
        return watch(players, order, StopRequest(), None, meanwhile=meanwhile or (lambda: None))


def _durations(folder: Path) -> list[float]:
    return [entry["seconds"] for entry in read_journal(folder / "games.jsonl") if entry.get("seconds")]


def _is_last(entry: dict[str, Any]) -> bool:
    return "ending" in entry or "aside" in entry
