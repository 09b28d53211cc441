"""Sections of `tamen engines bench`: what ways to ask a daemon for games are worth, and flags for its JVM.

Both are measured beside Ray, on the reference daemon. The sides take turns, each first as often as the others; what is
compared is compared within a round, and a figure is the median of the rounds with an interval.
"""

import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.bench.engine_rig import BASE_PORT, DECKS, PATIENCE_SECONDS, capacity, reference, wait_for
from cluster.bench.rig import Measuring
from cluster.external.games import local_engines
from configs.engines import Preset
from core.errors import ClusterError
from engines.errors import EngineFault
from engines.forge_client import Endpoint, ForgeClient
from engines.forge_extension import ForgeConnection
from engines.forge_protocol import GameRequest
from engines.launch import plan_launch
from engines.ports import free_port

WARM_UP_GAMES = 3000
"""Of the reference daemon's own rules, until the JVM has compiled them."""
AT_ONCE = (1, 10)
"""Games that a daemon plays at a time; the published one plays ten."""
GAMES = (("compute", 0), ("compute", 1), ("wait", 1), ("compute", 50))
"""What each game does, and for how many milliseconds."""
BATCH = 256
_TICKS = os.sysconf("SC_CLK_TCK")
_LIKELY = 0.95


@dataclass(frozen=True, slots=True)
class Load:
    """What a JVM is measured with.

    Attributes:
        allocate_mb: that each game takes from the heap beside what its rules take.
        live_mb: that stay in it.
        memory_mb: of the heap.
    """

    allocate_mb: int
    live_mb: int
    memory_mb: int


LOADS = {"own rules": Load(0, 0, 128), "much memory": Load(20, 200, 512)}
"""The second is like a large card game, which is said to keep 500 MB of cards and to take 20 MB a game."""
FLAGS: dict[str, tuple[Preset, str]] = {
    "none": ("none", ""),
    "heap alone": ("none", "-Xmx{memory_mb}m"),
    "throughput": ("throughput", ""),
    "container": ("container", ""),
}
"""Presets, and what is added. By itself a JVM takes up to a quarter of the machine's memory, which many cannot."""


def bench_connections(room: Path, measuring: Measuring) -> dict[str, Any]:
    """Ask for games over one connection that stays open, many at a time, and over a connection for each game.

    The latter by one worker, which has one game in play; and by as many as the daemon plays at a time, which shows what
    the connections cost alone.
    """
    figures: dict[str, Any] = {}
    for at_once in AT_ONCE:
        with local_engines(reference(f"connections-{at_once}", "--threads", str(at_once)), room) as engines:
            (endpoint,) = wait_for(engines, 1)
            capacity(endpoint, WARM_UP_GAMES)
            for what, milliseconds in GAMES:
                found = _connections(endpoint, at_once, what, milliseconds, measuring)
                figures[f"{at_once} at once, {what} {milliseconds} ms"] = found
                measuring.say(
                    f"connections: {at_once} at once, games that {what} {milliseconds} ms: {_told(found)}"
                )
    return figures


def _connections(
    endpoint: Endpoint, at_once: int, what: str, milliseconds: int, measuring: Measuring
) -> dict[str, Any]:
    request = GameRequest(DECKS, extra=("-x", f"{what}={milliseconds}"))
    own = {f"{what}_ms": milliseconds}
    ways: dict[str, Callable[[int], float]] = {
        "capacity": lambda games: capacity(endpoint, games, **own),
        "kept": lambda games: _kept_open(endpoint, request, games),
        "one_worker": lambda games: _one_a_game(endpoint, request, games, 1),
        "as_many": lambda games: _one_a_game(endpoint, request, games, at_once),
    }
    rounds = _in_turn(ways, measuring.seconds, measuring.rounds)
    return (
        {f"{way}_games_per_s": statistics.median(one[way] for one in rounds) for way in ways}
        | _compared(rounds, "kept", "as_many", "times")
        | _compared(rounds, "kept", "one_worker", "times_one_worker")
        | _compared(rounds, "kept", "capacity", "share_of_capacity")
    )


def _told(found: Mapping[str, Any]) -> str:
    return (
        f"{found['kept_games_per_s']:.0f} games/s over one that stays open, {found['share_of_capacity']:.2f} of what"
        f" the daemon can do; {found['times_one_worker']:.2f} times one worker with one a game,"
        f" {found['times']:.2f} times as many workers as it plays at once"
    )


def bench_flags(room: Path, measuring: Measuring) -> dict[str, Any]:
    """Let JVMs with the flags of each preset, all up and warm, play the same games in turn.

    What they are compared with is a JVM with a heap of the same size and no other flag.
    """
    figures: dict[str, Any] = {}
    for name, load in LOADS.items():
        starts = _starts(room / f"starts {load.memory_mb}", load, measuring.rounds)
        with ExitStack() as stack:
            jvms = {
                flags: stack.enter_context(_jvm(room / f"{flags} {load.memory_mb}", flags, load))
                for flags in FLAGS
            }
            ways = {flags: jvm.play for flags, jvm in jvms.items()}
            for jvm in [*jvms.values()] * 2:  # twice: the heaps grow as well
                jvm.play(max(100, WARM_UP_GAMES // (1 + 10 * load.allocate_mb)))
            before = {flags: (jvm.cpu_seconds(), jvm.games) for flags, jvm in jvms.items()}
            rounds = _in_turn(ways, measuring.seconds / 2, 2 * measuring.rounds)
            figures[name] = {
                flags: {
                    "games_per_s": statistics.median(one[flags] for one in rounds),
                    "cpu_ms": 1000 * (jvm.cpu_seconds() - before[flags][0]) / (jvm.games - before[flags][1]),
                    "resident_mb": jvm.resident_mb(),
                    "start_s": starts[flags],
                }
                | _compared(rounds, flags, "heap alone", "times")
                for flags, jvm in jvms.items()
            }
        for flags, found in figures[name].items():
            low, high = found["times_interval"]
            measuring.say(
                f"flags, {name}: {flags} {found['games_per_s']:.0f} games/s, {found['times']:.3f} of the heap alone"
                f" ({low:.3f} to {high:.3f}); {found['cpu_ms']:.2f} ms of a core a game,"
                f" {found['resident_mb']:.0f} MB, up in {found['start_s']:.2f} s"
            )
    return figures


def _starts(room: Path, load: Load, rounds: int) -> dict[str, float]:
    """Return in how many seconds a daemon with the flags of each preset answers: medians of starts in turn."""
    seconds: dict[str, list[float]] = {flags: [] for flags in FLAGS}
    for number in range(rounds):
        for flags, found in seconds.items():
            with _jvm(room / f"{flags} {number}", flags, load) as jvm:
                found.append(jvm.start_seconds)
    return {flags: statistics.median(found) for flags, found in seconds.items()}


class _Jvm:
    """A reference daemon that plays one game at a time, as a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", endpoint: Endpoint, load: Load) -> None:
        self._process, self._endpoint, self._load = process, endpoint, load
        self.games = 0
        self.start_seconds = 0.0

    def play(self, games: int) -> float:
        """Play games without a socket; return how many a second."""
        self.games += games
        return capacity(self._endpoint, games, allocate_mb=self._load.allocate_mb)

    def cpu_seconds(self) -> float:
        """Return what it has taken of all cores, garbage collection and compilers included."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS

    def resident_mb(self) -> float:
        return (
            int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGESIZE")
            / 1e6
        )

    def wait(self) -> None:
        """Wait until it answers. Raises ClusterError."""
        began = time.monotonic()
        while self._process.poll() is None and time.monotonic() - began < PATIENCE_SECONDS:
            with suppress(EngineFault):
                ForgeClient(self._endpoint).status()
                self.start_seconds = time.monotonic() - began
                return
            time.sleep(0.01)
        raise ClusterError(
            "the reference daemon does not come up",
            why=f"it did not answer within {PATIENCE_SECONDS:.0f} s",
            fix=f"try it: {' '.join(map(str, self._process.args))}",  # pyright: ignore[reportArgumentType]
        )


@contextmanager
def _jvm(room: Path, flags: str, load: Load) -> Iterator[_Jvm]:
    room.mkdir(parents=True)
    port = free_port(BASE_PORT)
    preset, added = FLAGS[flags]
    config = reference(
        "flags",
        *("--threads", "1", "--live-mb", str(load.live_mb)),
        preset=preset,
        memory_mb=load.memory_mb,
        java_flags=tuple(added.format(memory_mb=load.memory_mb).split()),
    )
    command = plan_launch(config).command(0, port, room)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        jvm = _Jvm(process, Endpoint(port), load)
        jvm.wait()
        yield jvm
    finally:
        process.kill()
        process.wait()


def _kept_open(endpoint: Endpoint, request: GameRequest, games: int) -> float:
    """Return the games a second that come of asking for `games` over a connection that stays open."""
    connection = ForgeConnection.opened(endpoint)
    assert connection is not None
    try:
        began = time.monotonic()
        for done in range(0, games, BATCH):
            _play(connection, request, min(BATCH, games - done))
        return games / (time.monotonic() - began)
    finally:
        connection.close()


def _one_a_game(endpoint: Endpoint, request: GameRequest, games: int, workers: int) -> float:
    """Return the same over a connection for each game, by some workers."""
    each = math.ceil(games / workers)
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda _: _play(ForgeClient(endpoint), request, each), range(workers)))
    return each * workers / (time.monotonic() - began)


def _play(player: ForgeClient | ForgeConnection, request: GameRequest, games: int) -> None:
    for _, end in player.play_batch([request] * games):
        if isinstance(end, EngineFault):
            raise end


def _in_turn(
    ways: Mapping[str, Callable[[int], float]], seconds: float, rounds: int
) -> list[dict[str, float]]:
    """Return games a second by each way, round by round; each is given what takes some `seconds`."""
    pace = {way: play(50) for way, play in ways.items()}
    names, found = list(ways), []
    for number in range(rounds):
        first = number % len(names)
        one: dict[str, float] = {}
        for way in [*names[first:], *names[:first]]:
            pace[way] = one[way] = ways[way](max(50, round(seconds * pace[way])))
        found.append(one)
    return found


def _compared(rounds: Sequence[Mapping[str, float]], one: str, other: str, name: str) -> dict[str, Any]:
    """Return how many times as many `one` gives as `other`: the median over the rounds, and an interval."""
    ratios = sorted(each[one] / each[other] for each in rounds)
    return {name: statistics.median(ratios), f"{name}_interval": median_interval(ratios)}


def median_interval(rising: Sequence[float]) -> tuple[float, float]:
    """Return between which of the readings the true median lies with 95 %; of fewer than six, the least and greatest.

    Whatever their distribution, each reading is below the true median as often as above.
    """
    count = len(rising)
    cut, tail = 0, 0.5**count
    while 2 * (tail + math.comb(count, cut + 1) * 0.5**count) <= 1 - _LIKELY:
        cut += 1
        tail += math.comb(count, cut) * 0.5**count
    return rising[cut], rising[count - 1 - cut]
