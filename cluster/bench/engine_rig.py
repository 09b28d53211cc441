"""What the benchmarks of engines share: the reference daemon, brought up on this machine, and its own capacity."""

import json
import time
from pathlib import Path

from cluster.external.games import EnginesOfFolder, local_engines
from configs.engines import EngineConfig, EnginesConfig, JavaConfig, Preset
from core.errors import ClusterError
from engines.errors import EngineFault
from engines.forge_client import Connection, Endpoint
from engines.reference.compile import compiled

DECKS = ("aggro", "control")
BASE_PORT = 28_000
PATIENCE_SECONDS = 120.0
MEMORY_MB = 128


def capacity(
    endpoint: Endpoint, games: int, *, compute_ms: int = 0, wait_ms: int = 0, allocate_mb: int = 0
) -> float:
    """Return the games a second that a reference daemon plays without a socket.

    Raises:
        EngineFault: when it does not answer.
    """
    deadline = (
        time.monotonic() + PATIENCE_SECONDS + games * (compute_ms + wait_ms + 10 * allocate_mb + 10) / 100
    )
    with Connection(endpoint, deadline) as connection:
        options = {"compute": compute_ms, "wait": wait_ms, "allocate": allocate_mb}
        words = [f"-x {name}={value}" for name, value in options.items()]
        connection.send([f"BENCH {games} {' '.join(words)}"], deadline)
        line = connection.receive(deadline) or ""
    if not line.startswith("BENCH_RESULT: "):
        raise EngineFault("protocol", str(endpoint), why=f"it answered BENCH by {line[:100]!r}")
    return json.loads(line.removeprefix("BENCH_RESULT: "))["games_per_s"]


def reference(
    name: str,
    *flags: str,
    count: int = 1,
    preset: Preset = "throughput",
    memory_mb: int = MEMORY_MB,
    java_flags: tuple[str, ...] = (),
) -> EnginesConfig:
    """Return reference daemons that are started with `flags`."""
    return EnginesConfig(
        engine=EngineConfig(
            name=name,
            jar=str(compiled()),
            arguments=("daemon", "-p", "{port}", *flags),
            count=count,
            base_port=BASE_PORT,
        ),
        java=JavaConfig(memory_mb=memory_mb, preset=preset, flags=java_flags),
    )


def startup_seconds(config: EnginesConfig, room: Path) -> float:
    """Return how long a daemon takes until it can play."""
    began = time.monotonic()
    with local_engines(config, room) as engines:
        wait_for(engines, 1)
        return time.monotonic() - began


def wait_for(engines: EnginesOfFolder, count: int) -> list[Endpoint]:
    """Return where `count` daemons serve, once they do."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(endpoints := engines.endpoints()) < count:
        if time.monotonic() > deadline:
            raise ClusterError(
                "the reference daemon does not come up",
                why=f"{len(endpoints)} of {count} answered within {PATIENCE_SECONDS:.0f} s",
                fix="try it: java -jar $(python -m engines.reference.compile) daemon -p 17171",
            )
        time.sleep(0.02)
    return endpoints
