"""tamen beside its peers: self-play of connect four, every move with all its simulations, in float32, on all cores.

    .venv/bin/python -m benchmarks.peers.compare --environments PEERS [--rounds 3] [--seconds 60] [--write FILE.md]

Run it from the checkout, in tamen's own environment; README.md beside it says what each side is. First every peer
that has a choice of batch size or processes tries them; then, in each round, all sides take turns, so that a slow
minute of a shared machine meets them all. Figures are medians of the rounds; ratios are taken within a round.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.comparison import describe_machine, summarise, to_markdown, to_table
from benchmarks.peers.environments import make_environments
from benchmarks.peers.measuring import OPENING_PLIES, READY_SECONDS, ROOT, say

OURS = "tamen"
SIDES = ("tamen_cached", "mctx_pgx", "gumbel_mcts", "open_spiel")
TRYING = {"mctx_pgx": "benchmarks.peers.mctx_pgx", "gumbel_mcts": "benchmarks.peers.gumbel_mcts_peer"}
"""Peers that have settings to try, each in an environment of its own, and their modules."""
TRY_SECONDS = 8.0
"""Of each setting of a peer that is tried before the rounds."""
MOST_TRIED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of those compared.

    Attributes:
        name: how the table calls it.
        command: prints one JSON object on its last line; the length of the measurement is appended.
        tries: whether it has settings to try before the rounds; its best are appended from then on.
    """

    name: str
    command: tuple[str, ...]
    tries: bool = False


def main() -> None:
    given = _parser().parse_args()
    wanted, known = given.only or SIDES, dict(given.setting)
    pythons: dict[str, str | None] = {"mctx_pgx": given.mctx_python, "gumbel_mcts": given.gumbel_python}
    if given.environments is not None:
        missing = [name for name in wanted if name in pythons and pythons[name] is None]
        pythons |= make_environments(Path(given.environments), missing)
    sides, left_out = choose_sides(pythons, simulations=given.simulations, settings=given.settings)
    sides = [side for side in sides if side.name == OURS or side.name in wanted]
    tried: dict[str, Any] = {}
    sides = [with_setting(side, *known[side.name]) if side.name in known else side for side in sides]
    sides = [_with_best_setting(side, tried, left_out, seconds=given.try_seconds) for side in sides]
    rounds = _take_turns(sides, left_out, number=given.rounds, seconds=given.seconds)
    result = {
        "machine": describe_machine(),
        "simulations": given.simulations,
        "seconds": given.seconds,
        "commands": {side.name: " ".join(side.command).replace(f"{ROOT}/", "") for side in sides},
        "left_out": {name: reason for name, reason in left_out.items() if name in wanted},
        "tried": tried,
        "sides": summarise(rounds, ours=OURS),
    }
    if given.write is not None:
        Path(given.write).write_text(to_markdown(result, ours=OURS), encoding="utf-8")
        say(f"written to {given.write}")
    print(json.dumps(result) if given.json else to_table(result, ours=OURS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    # tamen's games of a group move together, hundreds at a time: in 20 s one such move more or less is 5 %.
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--try-seconds", type=float, default=TRY_SECONDS, help="of each setting of a peer")
    parser.add_argument(
        "--setting",
        type=_setting,
        action="append",
        default=[],
        metavar="SIDE=PxB",
        help="let a peer run as P processes of batch B without trying others",
    )
    parser.add_argument("--simulations", type=int, default=32, help="of each move")
    parser.add_argument(
        "--environments", metavar="FOLDER", help="where the peers' environments are or are made"
    )
    parser.add_argument(
        "--mctx-python", type=os.path.abspath, metavar="PYTHON", help="one that has mctx and pgx"
    )
    parser.add_argument(
        "--gumbel-python", type=os.path.abspath, metavar="PYTHON", help="one that has gumbel-mcts"
    )
    parser.add_argument("--only", nargs="+", choices=SIDES, help="measure tamen and these")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="section.key=value of tamen"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--write", metavar="FILE.md", help="write the table, the commands and the raw figures"
    )
    return parser


def choose_sides(
    pythons: dict[str, str | None], *, simulations: int, settings: Sequence[str]
) -> tuple[list[Side], dict[str, str]]:
    """Return who can be measured, and who cannot with the reason.

    Args:
        pythons: by peer, the Python of its environment; None: it has none.
        simulations: of each move.
        settings: of tamen, beyond those of its benchmark.
    """
    depth = ("--simulations", str(simulations))
    ours = (sys.executable, "-m", "cluster.main", "bench", "selfplay", "--game", "connect_four", *depth)
    ours += ("--precision", "fp32", "--rounds", "1", "--json")
    for setting in (f"actors.random_opening_plies={OPENING_PLIES}", *settings):
        ours += ("--set", setting)
    sides = [
        Side(name=OURS, command=ours),
        Side(name="tamen_cached", command=(*ours, "--set", "inference.cache_positions=200000")),
    ]
    left_out = {}
    for name, module in TRYING.items():
        if python := pythons.get(name):
            sides.append(Side(name=name, command=(python, "-m", module, *depth), tries=True))
        else:
            left_out[name] = "no environment; name a folder for it by --environments"
    spiel = (sys.executable, "-m", "benchmarks.peers.open_spiel_mcts", *depth)
    return [*sides, Side(name="open_spiel", command=spiel)], left_out


def _with_best_setting(
    side: Side, tried: dict[str, Any], left_out: dict[str, str], *, seconds: float
) -> Side:
    """Return the side as it is fastest here, and note what was tried; it is left out when it fails."""
    if not side.tries:
        return side
    say(f"trying the settings of {side.name}")
    try:
        found = measure(side, seconds=seconds, timeout_seconds=MOST_TRIED * (READY_SECONDS + 4 * seconds))
    except MeasurementFailedError as error:
        left_out[side.name] = str(error)
        return side
    tried[side.name] = found["tried"]
    say(f"{side.name} is fastest with {found['processes']} processes of batch {found['batch']}")
    return with_setting(side, found["processes"], found["batch"])


def with_setting(side: Side, processes: int, batch: int) -> Side:
    """Return the side as it plays in `processes` processes of `batch` games each."""
    setting = ("--processes", str(processes), "--batch", str(batch))
    return Side(name=side.name, command=(*side.command, *setting))


def _setting(text: str) -> tuple[str, tuple[int, int]]:
    """Read `mctx_pgx=2x32`: two processes, each of a batch of 32."""
    name, _, numbers = text.partition("=")
    processes, _, batch = numbers.partition("x")
    if name not in TRYING:
        raise ValueError
    return name, (int(processes), int(batch))


def _take_turns(
    sides: Sequence[Side], left_out: dict[str, str], *, number: int, seconds: float
) -> list[dict[str, dict[str, Any]]]:
    """Return, for each round, what each side said; one that fails takes no further part."""
    rounds: list[dict[str, dict[str, Any]]] = []
    for index in range(number):
        said: dict[str, dict[str, Any]] = {}
        for side in sides:
            if side.name in left_out:
                continue
            try:
                said[side.name] = measure(
                    side, seconds=seconds, timeout_seconds=READY_SECONDS + 10 * seconds + 120
                )
            except MeasurementFailedError as error:
                left_out[side.name] = str(error)
                say(f"round {index + 1} of {number}: {side.name} {error}")
                if side.name == OURS:
                    raise SystemExit(1) from error
                continue
            say(f"round {index + 1} of {number}: {side.name} {said[side.name]['moves_per_s']:,.1f} moves/s")
        rounds.append(said)
    return rounds


class MeasurementFailedError(Exception):
    """A side did not say its figures."""


def measure(side: Side, *, seconds: float, timeout_seconds: float) -> dict[str, Any]:
    """Return the JSON object that the side's command prints last. Raises MeasurementFailedError."""
    command = [*side.command, "--seconds", str(seconds)]
    # A session of its own: whatever the command starts can be ended with it.
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = running.communicate(timeout=timeout_seconds)
    except BaseException as error:
        _end(running)
        if isinstance(error, subprocess.TimeoutExpired):
            raise MeasurementFailedError(f"took more than {timeout_seconds:.0f} s") from None
        raise
    if running.returncode:
        raise MeasurementFailedError(f"ended with exit code {running.returncode}")
    try:
        return json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise MeasurementFailedError("did not print a JSON object") from error


def _end(running: "subprocess.Popen[str]") -> None:
    """End a command and what it started, gently at first: tamen has a Ray of its own to stop."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(running.pid, sign)
            running.wait(timeout=60)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    main()
