"""How the machines of a run stand: its driver writes `machines.json`, `tamen status` and `tamen scale` read it."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from cluster.run.placement import Node, check_kinds
from cluster.run.run_folder import RunFolder
from configs.scale import Scale
from configs.schema import Section
from core.errors import DataError
from core.files import write_atomic

WINDOW_SECONDS = 10.0
OLD_SECONDS = 60.0
"""After which a file tells nothing of the present."""
WRITE_SECONDS = 2.0
MACHINES_FILE = "machines.json"


class MachineStanding(Section):
    """A machine.

    Attributes:
        node: Ray's id of it.
        state: "home"; "playing"; "joining", until its first part answers; "leaving", when Ray drains it; "not used".
        why: it is not used.
        actors, servers: that are there. spares: actors that wait to play in the place of one that dies.
        games_per_hour: finished by its actors. busy_share: of its cores' time, taken by processes of the run.
        heard_seconds: since one of its parts answered last.
        watched_by: "aws", "gcp" or "azure", which would tell of its end; empty where none is asked, or none answers.
        leaves_in_seconds: when it is taken away; None without a notice.
    """

    node: str
    host: str
    state: Literal["home", "playing", "joining", "leaving", "not used"]
    labels: dict[str, str] = Field(default_factory=dict)
    cpus: int
    gpus: int
    why: str = ""
    actors: int = 0
    servers: int = 0
    spares: int = 0
    games_per_hour: float | None = None
    busy_share: float | None = None
    heard_seconds: float | None = None
    watched_by: str = ""
    leaves_in_seconds: float | None = None


class Standing(Section):
    """All machines of a run at `time` (seconds since 1970), and what the run goes by.

    `games_lost` were in play, or finished and not acknowledged, of actors that left, which tell how many, and of those
    that died or vanished, as they told last; `effective_ratio` is the share of the time that actors should have played
    in which they did (`cluster.machines.effective_time`). Both are since the driver began.
    """

    format: Literal[1] = 1
    time: float
    scale: Scale
    games_lost: int
    effective_ratio: float | None = None
    machines: tuple[MachineStanding, ...]

    def is_old(self, now: float) -> bool:
        return now - self.time > OLD_SECONDS

    def check_kinds(self, scale: Scale) -> None:
        """Raise UsageError when `scale` names kinds of which no machine is."""
        nodes = [
            Node(each.node, each.host, each.cpus, each.gpus, labels=each.labels, is_home=each.state == "home")
            for each in self.machines
        ]
        for name, setting in scale:
            check_kinds(setting, nodes, name=name)


def read_standing(folder: RunFolder) -> Standing | None:
    """Return what the driver wrote last; None when there is nothing. Raises DataError when it is damaged."""
    path = _file(folder)
    try:
        return Standing.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DataError(
            f"{path} cannot be read",
            why=str(error.errors()[0]["msg"]),
            fix="delete it; a run that goes on writes it anew",
        ) from error


class Measured:
    """What the parts of each machine did within the last seconds."""

    def __init__(self) -> None:
        self._moments: deque[tuple[float, Mapping[str, Mapping[str, Any]]]] = deque()

    def take(self, stats: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Take in the counters of all parts at `now` (monotonic seconds)."""
        self._moments.append((now, stats))
        while len(self._moments) > 2 and self._moments[1][0] <= now - WINDOW_SECONDS:
            self._moments.popleft()

    def rate(self, parts: Sequence[str], counter: str) -> float | None:
        """Return by how much a counter grew a second, summed over parts; None when it cannot be told."""
        rates = [self._rate_of(part, counter) for part in parts]
        known = [rate for rate in rates if rate is not None]
        return sum(known) if known else None

    def _rate_of(self, part: str, counter: str) -> float | None:
        """Return the rate of one part, since it was first heard of where that was within the last seconds."""
        first = _first_count(self._moments, part, counter)
        last = _first_count(reversed(self._moments), part, counter)
        if first is None or last is None or first[0] == last[0]:
            return None
        (then, before), (now, count) = first, last
        # A counter below its earlier value belongs to a part that was restarted in between.
        return max(0.0, count - before) / max(1e-9, now - then)


def _first_count(
    moments: Iterable[tuple[float, Mapping[str, Mapping[str, Any]]]], part: str, counter: str
) -> tuple[float, float] | None:
    """Return when a counter was first told, and what it was; for thousands of parts nothing else is looked at."""
    for at, stats in moments:
        if counter in (told := stats.get(part, {})):
            return at, told[counter]
    return None


class StandingWriter:
    """Writes how the machines stand, every two seconds. A disk without room costs the lines, not the run.

    Args:
        clock: monotonic seconds. wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = _file(folder)
        self._clock = clock  # the other one may be set back
        self._wall_clock = wall_clock
        self._due = -math.inf

    def write(
        self,
        scale: Scale,
        games_lost: int,
        machines: tuple[MachineStanding, ...],
        *,
        effective_ratio: float | None = None,
    ) -> None:
        """Write, if it is time."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + WRITE_SECONDS
        standing = Standing(
            time=round(self._wall_clock(), 3),
            scale=scale,
            games_lost=games_lost,
            effective_ratio=None if effective_ratio is None else round(effective_ratio, 4),
            machines=machines,
        )
        content = json.dumps(standing.model_dump(mode="json"), indent=1)
        try:
            write_atomic(self._file, content.encode())
        except OSError:
            return

    def remove(self) -> None:
        """Take the file away: nobody goes by it any more."""
        self._file.unlink(missing_ok=True)


def _file(folder: RunFolder) -> Path:
    return folder.root / MACHINES_FILE
