"""How long games of engines take: what was measured, read from a file, and what is told to monitoring.

`tamen engines bench --json` writes such a file, `read_durations` reads it, and `tamen plan games` reckons with it.
Whoever plays games tells an `EngineRecorder` what has just been measured.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NoReturn

import numpy as np

from core.errors import DataError, UsageError
from core.metrics import Metrics
from engines.errors import EngineFault, FaultKind
from engines.journal import read_journal
from engines.sim_output import is_sim_output, sim_games

MOST_SECONDS = 86_400.0
"""Of a game; who measures more has measured something else."""
MOST_GAMES = 1_000_000
MOST_BYTES = 64 << 20
LEAST_SECONDS = 5e-4
JOURNAL = "games.jsonl"
"""In the folder of a book of games."""
_NUMBER = re.compile(r"[+]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)

EXAMPLE_GAMES = 10_000
EXAMPLE_STARTUP_SECONDS = 8.0
_EXAMPLE_QUANTILES = ((0.1, 2.2601), (0.5, 6.379), (0.9, 15.622), (0.95, 19.245), (0.99, 27.706))
_EXAMPLE_SHORTEST, _EXAMPLE_LONGEST = 0.649, 53.623

Ending = Literal["first", "second", "draw", "broken off"]
"""Who won, the first or the second seat; "broken off": by the engine's own time limit, which counts as a draw."""


@dataclass(frozen=True, slots=True, eq=False)
class Durations:
    """Games of one daemon, measured.

    Attributes:
        seconds: of each game, rising, above 0. float64 [N], not to be written to.
        source: where they are from, for a person.
        startup_seconds: of a daemon, until it can play; None where that was not measured.
        share_of_capacity: games that daemons played, of what their durations would allow, at most 1: what is missing
            went by between games. 1 where that was not measured.
        is_example: whether they were not measured here, but published.
    """

    seconds: np.ndarray
    source: str
    startup_seconds: float | None = None
    share_of_capacity: float = 1.0
    is_example: bool = False

    @property
    def mean(self) -> float:
        return float(self.seconds.mean())

    @property
    def between_games(self) -> float:
        """Seconds that pass between a daemon's games, on average."""
        return self.mean * (1 / self.share_of_capacity - 1)

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the games did not take longer than."""
        return float(np.quantile(self.seconds, share))


def example_durations() -> Durations:
    """Return 10,000 games distributed as those of a published profile of one Forge daemon that played ten at once.

    Published are the shortest and longest game, median, 90, 95 and 99 % quantile, mean, and a standard deviation of
    5.809 s. Between the quantiles log(seconds) is linear in the quantile of a normal distribution: pieces of log-normal
    distributions, joined. A 10 % quantile of 2.26 s gives the published mean; the standard deviation is then 5.70 s.
    """
    places = (np.arange(EXAMPLE_GAMES) + 0.5) / EXAMPLE_GAMES
    knots = (
        (places[0], _EXAMPLE_SHORTEST),
        *_EXAMPLE_QUANTILES,
        (places[-1], _EXAMPLE_LONGEST),
    )
    normal = NormalDist().inv_cdf
    seconds = np.exp(
        np.interp(
            [normal(place) for place in places],
            [normal(share) for share, _ in knots],
            [math.log(value) for _, value in knots],
        )
    )
    return Durations(
        _frozen(seconds),
        "an example: what was published of one Forge daemon that played ten games at once",
        EXAMPLE_STARTUP_SECONDS,
        is_example=True,
    )


def read_durations(path: Path) -> Durations:
    """Read what was measured: a folder of games, the JSON of `tamen engines bench --json`, what `forge sim` printed, or
    seconds, one a line.

    Of the JSON, which may stand on the last line behind others, `durations_s` is needed; `startup_s` is used, and so
    are `games_per_s` and `capacity_games_per_s`, of the same daemons, where both are there. Other keys are left alone.
    Of the folder of `tamen engines play` those games count that were finished, of what was printed all.

    Raises:
        UsageError: when there is no such file, or no games in the folder.
        DataError: when it is none of these, or a number is not above 0 and at most a day.
    """
    if (path / JOURNAL).is_file():
        return _of_games(path)
    if not path.is_file():
        raise UsageError(
            f"there are no durations in {path}",
            why=f"it is a folder without {JOURNAL}" if path.is_dir() else "there is no such file",
            fix="measure some: tamen engines bench --json > durations.json",
        )
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        _refuse(path, f"it has more than {MOST_BYTES >> 20} MiB")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        _refuse(path, f"byte {error.start} is not UTF-8")
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if not lines:
        _refuse(path, "it is empty")
    if is_sim_output(lines):
        return _of_sim(path, lines)
    if lines[-1].startswith("{") or lines[0].startswith("{"):
        return _of_json(path, lines[-1] if lines[-1].startswith("{") else text)
    for number, line in enumerate(lines, 1):
        if _NUMBER.fullmatch(line) is None:
            _refuse(path, f"number {number} is {line[:40]!r}, no number of seconds")
    return Durations(_checked(path, [float(line) for line in lines]), str(path))


def _of_games(folder: Path) -> Durations:
    """Return how long the finished games of a book took; of many, as many as are reckoned with."""
    told = [entry["seconds"] for entry in read_journal(folder / JOURNAL) if "ending" in entry]
    # Of less than half a millisecond daemons say 0.
    seconds = np.sort([seconds if seconds else LEAST_SECONDS for seconds in told])
    if len(seconds) > MOST_GAMES:
        seconds = np.quantile(seconds, (np.arange(MOST_GAMES) + 0.5) / MOST_GAMES)
    return Durations(_checked(folder / JOURNAL, seconds.tolist()), f"{len(told):,} games in {folder}")


def _of_sim(path: Path, lines: list[str]) -> Durations:
    try:
        told = [game.milliseconds / 1000 or LEAST_SECONDS for game in sim_games(lines, "forge sim")]
    except EngineFault as fault:
        _refuse(path, fault.why)
    return Durations(_checked(path, told), f"{len(told):,} games of forge sim in {path}")


def _of_json(path: Path, text: str) -> Durations:
    try:
        measured = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its JSON cannot be read: {error}")
    if not isinstance(measured, dict) or not isinstance(measured.get("durations_s"), list):
        _refuse(path, "its JSON has no list durations_s")
    seconds = _checked(path, measured["durations_s"])
    startup, rate, capacity = (
        None if measured.get(key) is None else _positive(path, key, measured[key])
        for key in ("startup_s", "games_per_s", "capacity_games_per_s")
    )
    share = 1.0 if rate is None or capacity is None else min(1.0, rate / capacity)
    return Durations(seconds, str(path), startup, share)


def _checked(path: Path, values: list[Any]) -> np.ndarray:
    if not 1 <= len(values) <= MOST_GAMES:
        _refuse(path, f"it has {len(values):,} durations, not 1 to {MOST_GAMES:,}")
    checked = [_positive(path, f"duration {place}", value) for place, value in enumerate(values, 1)]
    return _frozen(np.sort(np.array(checked)))


def _positive(path: Path, what: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared before it is made a float: JSON has integers that are none.
    if not is_number or not 0 < value <= MOST_SECONDS:
        _refuse(path, f"{what} is {str(value)[:40]}, not a number above 0 and at most {MOST_SECONDS:,.0f}")
    return float(value)


def _refuse(path: Path, why: str) -> NoReturn:
    raise DataError(
        f"{path} holds no durations of games",
        why=why,
        fix="give what `tamen engines bench --json` or `forge sim` prints, or seconds, one number a line",
    )


def _frozen(seconds: np.ndarray) -> np.ndarray:
    seconds.setflags(write=False)
    return seconds


class EngineRecorder:
    """Tells monitoring what was measured of games of engines. Any thread may.

    Args:
        metrics: where to.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def game_finished(self, ending: Ending, seconds: float) -> None:
        """Count a game, which took some seconds in its daemon."""
        self._metrics.count("tamen_engine_games_total", outcome=ending)
        self._metrics.observe("tamen_engine_game_duration_seconds", seconds)

    def game_tried_again(self, reason: FaultKind) -> None:
        self._metrics.count("tamen_engine_retries_total", reason=reason)

    def game_set_aside(self, reason: FaultKind) -> None:
        self._metrics.count("tamen_engine_games_set_aside_total", reason=reason)

    def games_stand(self, left: int, quantiles: Mapping[float, float | None]) -> None:
        """Tell how many games are not done, and in how many seconds shares of those that are were played."""
        self._metrics.gauge("tamen_engine_games_left", left)
        for share, seconds in quantiles.items():
            if seconds is not None:
                self._metrics.gauge("tamen_engine_game_quantile_seconds", seconds, quantile=f"{share:g}")
