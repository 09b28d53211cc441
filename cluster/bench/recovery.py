"""`tamen bench recovery`: what a run loses by faults that come again and again, beside one that nothing befalls.

Both runs learn, on two machines of Ray's that share out the cores of this one (`cluster.bench.recovery_rig`). Every so
many seconds an actor's process gets SIGKILL, and once in ten times the whole machine without the run's folder, in whose
place another comes. Rows are counted by witnesses (`cluster.bench.recovery_account`), not by the counters of the run.
The sides of a pair take turns, and which is first changes from pair to pair; then their final models play each other.
"""

import contextlib
import json
import math
import secrets
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.autopilot.stage_process import run_apart
from cluster.bench.recovery_faults import Fault, percentile, schedule, seconds_of
from cluster.bench.recovery_rig import HEALTH, REPLACEMENT_SECONDS, Order, marked, play_side
from cluster.cli.terminal import UNKNOWN, console, duration, real
from cluster.run.run_folder import RunFolder
from configs.loading import load, override
from configs.schema import RunConfig
from core.errors import ClusterError, UsageError
from core.files import write_atomic
from core.seeds import derive_seed
from pipeline.contract import Stopped

CALM, STRUCK = "undisturbed", "faults"
"""The sides of a pair, and the last words of their runs' names."""
SETTINGS = (
    "evaluation.games=0",
    "stop.minutes=null",
    # On a machine of one core: the others play on while one is away.
    "actors.count=2",
    "inference.servers=1",
    # A killed machine takes its games in play, each half played, a killed actor what it has not delivered.
    "actors.games_per_group=32",
    "actors.flush_seconds=0.5",
)
"""Of both sides, before what a person asks for."""
OPENING_PLIES = 4
"""Of the games between the final models, by lot: each opening is played from both sides."""
PATIENCE_SECONDS = 420.0
"""For a side to start and to stop, beside the time that counts."""
SAY_SECONDS = 30.0
"""Between two words of how far it is."""
LEFT_SECONDS = 10.0
"""For processes of a side to end after it has."""
_SIDE_EXTRA_SECONDS, _GAME_SECONDS = 45.0, 0.1
"""What a side takes beside the time that counts, and a game, until the first one has shown it."""


@dataclass(frozen=True, slots=True)
class RecoveryBench:
    """What is measured.

    Attributes:
        minutes: of each run, from when all play.
        every: seconds between two faults.
        pairs: of runs, one of each without faults.
        games: between the final models of each pair, two of each opening; 0: none.
        seed: of runs, faults and openings.
        bound: whether each of the two machines has cores of its own.

    Raises:
        UsageError: for a number out of its range.
    """

    minutes: float = 10.0
    every: float = 15.0
    pairs: int = 3
    games: int = 400
    seed: int = 0
    bound: bool = True

    def __post_init__(self) -> None:
        sound = (
            all(map(math.isfinite, (self.minutes, self.every))) and self.every >= 1 and self.minutes <= 1440
        )
        if not sound or 60 * self.minutes < 2 * self.every:
            raise UsageError(
                f"faults every {self.every:g} s of {self.minutes:g} min cannot be measured",
                why="they are at least a second apart, and a run lasts at least twice as long as that, at most a day",
                fix="take the defaults: --minutes 10 --every 15",
            )
        if not 1 <= self.pairs <= 100 or self.games < 0 or self.games % 2 or self.seed < 0:
            raise UsageError(
                f"{self.pairs} pairs with {self.games} games, seed {self.seed}, cannot be measured",
                why="there are 1-100 pairs, the games are even (each opening is played from both sides), seeds from 0",
                fix="take the defaults: --pairs 3 --games 400",
            )


def recovery_config(preset: str, overrides: Sequence[str], *, seed: int) -> RunConfig:
    """Return the configuration of both sides.

    Raises:
        UsageError: for what does not exist, or cannot be measured.
    """
    config = load(preset, [*SETTINGS, f"seed={seed}", *overrides])
    if config.environment is not None:
        raise UsageError(
            f"{preset} is learnt from rollouts",
            why="the final models of two runs play each other, and those of an environment cannot",
            fix="name a board game, such as hex5",
        )
    if not config.replay.persisted:
        raise UsageError(
            "replay.persisted=false cannot be measured",
            why="what is not written is not acknowledged for good, and nobody could look for it",
            fix="leave it true",
        )
    return config


def bench_recovery(
    bench: RecoveryBench, config: RunConfig, *, folder: Path | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Play the pairs, and return what faults cost. Each pair's part of that is in a file as soon as it is over.

    Args:
        config: of both sides, from `recovery_config`.
        folder: where runs and results stay; None: in a temporary one, of which the results alone stay.
        quiet: say nothing on the way.

    Returns:
        effective_ratio: acknowledged rows a second with faults over those without, median of `effective_ratios`, of the
        pairs. lost, duplicated: rows with faults, see `cluster.bench.recovery_account`; lost_undisturbed,
        duplicated_undisturbed: without. p95_recovery_s: over all faults, and p95_actor_s, p95_node_s of each kind;
        p95_replaced_s: until the machine that came in the place of a killed one played, see `Recovery`.
        not_recovered: faults that were not got over before the end. faults_not_come: for which nobody was there.
        machines_given_up: by Ray, that nobody had killed, of both sides: with any, the health checks were too strict.
        faults_by_kind. elo, elo_low, elo_high: how much stronger the models of runs with faults are, over the games of
        all pairs; None where it is infinite or nobody played. processes_left: that a side had begun and left. passed:
        whether nothing was lost, duplicated or left. pairs: each with both sides. health, config, bench, replacement_s,
        results_file.

    Raises:
        ClusterError: when a side does not begin or go on.
    """
    root = _made(folder)
    told = _Told(bench, quiet=quiet)
    told.say(f"results so far: {root / 'recovery.json'}")
    pairs: list[dict[str, Any]] = []
    games: list[Any] = []
    result: dict[str, Any] = {}
    try:
        for number in range(bench.pairs):
            order = (CALM, STRUCK) if number % 2 == 0 else (STRUCK, CALM)
            sides = {side: _play(bench, config, root / "runs", number, side, told) for side in order}
            pair, match = _compared(bench, root / "runs", number, sides, told)
            pairs.append({"first": order[0], **pair})
            games += [match] if match is not None else []
            result = summary(bench, pairs, games) | {
                "config": config.model_dump(mode="json"),
                "results_file": str(root / "recovery.json"),
            }
            write_atomic(root / "recovery.json", json.dumps(result, indent=1).encode())
            told.say(in_words(number, pair))
    finally:
        if folder is None:
            shutil.rmtree(root / "runs", ignore_errors=True)
    return result


def summary(bench: RecoveryBench, pairs: Sequence[dict[str, Any]], matches: Sequence[Any]) -> dict[str, Any]:
    """Return what the pairs that are over come to, see `bench_recovery`; `matches` are the results of their games."""
    ratios = [pair["effective_ratio"] for pair in pairs]
    faults = [fault for pair in pairs for fault in pair[STRUCK]["faults"]]
    replaced = [fault["replaced_seconds"] for fault in faults if fault.get("replaced_seconds") is not None]

    def total(side: str, what: str) -> int:
        return sum(pair[side]["account"][what] for pair in pairs)

    left = sum(pair[side]["processes_left"] for pair in pairs for side in (CALM, STRUCK))
    accounted = {
        "lost": total(STRUCK, "lost_rows"),
        "duplicated": total(STRUCK, "duplicated_rows"),
        "lost_undisturbed": total(CALM, "lost_rows"),
        "duplicated_undisturbed": total(CALM, "duplicated_rows"),
    }
    return {
        "effective_ratio": statistics.median(ratios),
        "effective_ratios": ratios,
        **accounted,
        "p95_recovery_s": percentile(seconds_of(faults), 0.95),
        "p95_actor_s": percentile(seconds_of(faults, kind="actor"), 0.95),
        "p95_node_s": percentile(seconds_of(faults, kind="node"), 0.95),
        "p95_replaced_s": percentile(replaced, 0.95),
        "not_recovered": sum(fault["seconds"] is None and not fault["overtaken"] for fault in faults),
        "faults_not_come": sum(pair[STRUCK]["faults_not_come"] for pair in pairs),
        "machines_given_up": sum(
            pair[side].get("machines_given_up", 0) for pair in pairs for side in (CALM, STRUCK)
        ),
        "faults_by_kind": dict(Counter(fault["kind"] for fault in faults)),
        **_elo(matches),
        "processes_left": left,
        "passed": not (sum(accounted.values()) or left),
        "pairs": list(pairs),
        "health": HEALTH,
        "replacement_s": REPLACEMENT_SECONDS,
        "bench": asdict(bench),
    }


def whole_in_words(result: dict[str, Any]) -> str:
    """Return what all pairs come to, for people."""

    def signed(value: float | None) -> str:
        return UNKNOWN if value is None else f"{value:+.0f}"

    kinds = ", ".join(f"{count} × {kind}" for kind, count in result["faults_by_kind"].items())
    given_up = result["machines_given_up"]
    return "\n".join(
        [
            f"acknowledged rows with faults over those without: {result['effective_ratio']:.3f}, median of "
            + ", ".join(f"{ratio:.3f}" for ratio in result["effective_ratios"]),
            f"rows lost: {result['lost']}, counted twice: {result['duplicated']}",
            f"95 % of {kinds or 'no faults'} were got over within {real(result['p95_recovery_s'], 1)} s (actors "
            f"{real(result['p95_actor_s'], 1)} s, machines {real(result['p95_node_s'], 1)} s, another one plays after "
            f"{real(result['p95_replaced_s'], 1)} s); {result['not_recovered']} were not"
            + (f"; Ray gave {given_up} machines up that nobody had killed" if given_up else ""),
            f"final models: {signed(result['elo'])} Elo, 95 % interval {signed(result['elo_low'])} to "
            f"{signed(result['elo_high'])}, in {result['games']} games",
            f"processes left behind: {result['processes_left']}; results: {result['results_file']}",
        ]
    )


def in_words(number: int, pair: dict[str, Any]) -> str:
    """Return in a line what came of pair number `number`."""
    calm, struck = pair[CALM], pair[STRUCK]
    recovered = seconds_of(struck["faults"])
    p95 = percentile(recovered, 0.95)
    return (
        f"pair {number + 1}: {struck['rows']:,} rows over {calm['rows']:,}: {pair['effective_ratio']:.3f}; "
        f"{struck['account']['lost_rows']} lost, {struck['account']['duplicated_rows']} duplicated; "
        f"{len(recovered)} of {len(struck['faults'])} faults got over"
        + ("" if p95 is None else f", 95 % within {p95:.1f} s")
        + ("" if pair["elo"] is None else f"; Elo {pair['elo']:+.0f}")
    )


class _Told:
    """Says on stderr how far it is and how long it may take yet."""

    def __init__(self, bench: RecoveryBench, *, quiet: bool) -> None:
        self._bench = bench
        self._quiet = quiet
        self._target = console(stderr=True)
        self._next = 0.0
        self.sides: list[float] = []
        self.game_seconds: list[float] = []

    def say(self, text: str) -> None:
        if not self._quiet:
            self._target.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, done: float, total: float, words: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SAY_SECONDS
            self.say(f"{what}: {done:.0f} of {total:.0f} s, {words}; about {duration(self.left(done))} to go")

    def left(self, done: float) -> float:
        """Return the seconds that all may take yet, `done` seconds into a side."""
        side = statistics.fmean(self.sides) if self.sides else 60 * self._bench.minutes + _SIDE_EXTRA_SECONDS
        game = statistics.fmean(self.game_seconds) if self.game_seconds else _GAME_SECONDS
        matches = self._bench.pairs - len(self.game_seconds)
        return (2 * self._bench.pairs - len(self.sides)) * side - done + matches * self._bench.games * game


def _made(folder: Path | None) -> Path:
    """Return the folder for runs and results. Raises UsageError when one that was named holds such already."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="tamen-recovery-"))
    root = folder.resolve()
    if (root / "runs").exists() or (root / "recovery.json").exists():
        raise UsageError(
            f"{root} holds an earlier measurement",
            why="its runs would be resumed, and its results written over",
            fix="name another folder, or delete that one",
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


def _play(
    bench: RecoveryBench, config: RunConfig, runs: Path, number: int, side: str, told: _Told
) -> dict[str, Any]:
    """Play one side in a process of its own, and see to it that nothing of it is left."""
    seconds = 60 * bench.minutes
    faults: tuple[Fault, ...] = ()
    if side == STRUCK:
        faults = schedule(seconds, bench.every, seed=derive_seed(bench.seed, "recovery", number))
    mark = secrets.token_hex(8)
    config = override(config, [f"seed={config.seed + number}"])  # no two pairs begin with the same weights
    order = Order(runs / f"{side}-{number + 1}", config, seconds, faults, bench.bound, mark)
    what = f"pair {number + 1} of {bench.pairs}, {side}"
    told.say(f"{what}: begins")
    began = time.monotonic()
    try:
        result = run_apart(
            play_side,
            order,
            should_stop=lambda: time.monotonic() - began > seconds + PATIENCE_SECONDS,
            tell=lambda done, total, words: told.progress(what, done, total, words),
        )
    except Stopped as error:
        raise ClusterError(
            f"{what} did not come to its end",
            why=f"it has taken {PATIENCE_SECONDS:.0f} s longer than it was to play",
            fix="see to what else takes this machine, and look into Ray's logs (/tmp/ray/session_latest/logs)",
        ) from error
    finally:
        left = _clear_away(mark)
    told.sides.append(time.monotonic() - began)
    return result | {"processes_left": len(left), "left": left}


def _clear_away(mark: str) -> list[str]:
    """Wait for the end of what a side has begun, end the rest, and return what had to be ended."""
    deadline = time.monotonic() + LEFT_SECONDS
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    names = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            names.append(process.name())
            process.kill()
    return names


def _compared(
    bench: RecoveryBench, runs: Path, number: int, sides: dict[str, dict[str, Any]], told: _Told
) -> tuple[dict[str, Any], Any]:
    """Return how the sides of a pair compare, and the games of their models, None without any."""
    ratio = sides[STRUCK]["rows_per_s"] / sides[CALM]["rows_per_s"] if sides[CALM]["rows"] else 0.0
    match = None
    if bench.games:
        told.say(f"pair {number + 1} of {bench.pairs}: {bench.games} games between the final models")
        began = time.monotonic()
        match = _played(bench, runs, number)
        told.game_seconds.append((time.monotonic() - began) / bench.games)
    pair = {"effective_ratio": round(ratio, 4), **_elo([match] if match else []), **sides}
    return pair, match


def _played(bench: RecoveryBench, runs: Path, number: int) -> Any:
    """Let the final models of a pair play, the one of the run with faults first; no opening is of another pair's."""
    from cluster.matches.match import agree_on_game, contest, find_contender

    names = [f"{side}-{number + 1}" for side in (STRUCK, CALM)]
    simulations = RunFolder(runs / names[0]).config().search.simulations
    contenders = tuple(find_contender(name, simulations=simulations, runs=runs) for name in names)
    return contest(
        contenders,
        agree_on_game(contenders, None),
        pairs=bench.games // 2,
        first_pair=number * (bench.games // 2),
        opening_plies=OPENING_PLIES,
        seed=bench.seed,
    )


def _elo(matches: Sequence[Any]) -> dict[str, Any]:
    """Return what matches, none of whose pairs have one number, come to."""
    from actors.arena import joined

    if not matches:
        return {
            "elo": None,
            "elo_low": None,
            "elo_high": None,
            "games": 0,
            "wins": 0,
            "draws": 0,
            "losses": 0,
        }
    whole = joined(matches)
    tally, interval = whole.tally(), whole.elo_interval
    elo = (whole.elo, interval.low, interval.high)
    return {
        **{
            name: round(value, 1) if math.isfinite(value) else None
            for name, value in zip(("elo", "elo_low", "elo_high"), elo, strict=True)
        },
        "games": tally.wins + tally.draws + tally.losses,
        "wins": tally.wins,
        "draws": tally.draws,
        "losses": tally.losses,
    }
