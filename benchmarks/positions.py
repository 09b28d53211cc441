"""How many rows a second of one core are made, from lines of games to a shard on disk?

    .venv/bin/python -m benchmarks.positions [GAMES.trmph] [--rounds 7] [--json]

Run it from the checkout. GAMES.trmph holds cleaned lines of one board size; without it games are random, of 10×10. A
round is what the pipeline's step does with one file: reading, parsing, replaying, packing, checking, writing, and the
sidecar. Rates count the processor time of the process, which a crowded machine does not lengthen; `wall` counts seconds
that passed, with four fsyncs for each file. `curve` has the same for the first tenth, hundredth, … of the games.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.comparison import describe_machine
from benchmarks.shuffle import GAMES_PER_SHARD, SIZE, random_games
from core.files import digest
from core.seeds import derive_rng
from pipeline.positions import CutTask, Selection, cut_shard


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("games", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="nothing but one JSON object")
    given = parser.parse_args()
    if given.games:
        lines = given.games.read_bytes().splitlines(keepends=True)
    else:
        lines = random_games(GAMES_PER_SHARD, derive_rng(0, "positions benchmark"))
    size = int(lines[0][1 : lines[0].index(b",")]) if given.games else SIZE
    shares = [1]
    while len(lines) // (10 * shares[-1]) >= 10:
        shares.append(10 * shares[-1])
    with tempfile.TemporaryDirectory() as folder:
        curve = [
            measure(lines[: len(lines) // n], size, Path(folder), given.rounds) for n in reversed(shares)
        ]
        mirrored = measure(lines, size, Path(folder), given.rounds, symmetries=True)
    if not given.json:
        print("| games | rows | rows/s of a core | wall rows/s |\n| --: | --: | --: | --: |")
        for one in curve:
            rate, wall = one["rows_per_core_s"], one["rows_per_wall_s"]
            print(f"| {one['games']:,} | {one['rows']:,} | {_spread(rate)} | {_spread(wall)} |")
    result = {"machine": describe_machine(), "size": size, "curve": curve, "with_symmetries": mirrored}
    print(json.dumps(result))


def measure(
    lines: list[bytes], size: int, folder: Path, rounds: int, *, symmetries: bool = False
) -> dict[str, Any]:
    """Return the rates of each round, after one that compiles."""
    (folder / "games.trmph").write_bytes(b"".join(lines))
    task = CutTask(
        folder / "games.trmph",
        digest((folder / "games.trmph").read_bytes()),
        folder / "games.npz",
        size,
        Selection(symmetries=symmetries),
    )
    rows = cut_shard(task)
    core, wall = [], []
    for _ in range(rounds):
        began, began_wall = time.process_time(), time.perf_counter()
        cut_shard(task)
        core.append(rows / (time.process_time() - began))
        wall.append(rows / (time.perf_counter() - began_wall))
    rates = {
        "rows_per_core_s": [round(rate) for rate in core],
        "rows_per_wall_s": [round(rate) for rate in wall],
    }
    return {"games": len(lines), "rows": rows, **rates}


def _spread(rates: list[int]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,} to {max(rates):,})"


if __name__ == "__main__":
    main()
