"""How fast are rows shuffled, and in how much memory? tamen beside Ray Data's random_shuffle, on the same rows.

    .venv/bin/python -m benchmarks.shuffle [--environments PEERS] [--rows 100000,1000000] [--rounds 3] [--json]

Run it from the checkout. For each number of rows both sides take turns, in processes of their own. Rows are those of
random games of 10×10 hex, in shards of 10,000 games. tamen reads shards from disk and ends with shuffled shards on
disk, fsynced. Ray Data reads Parquet and ends, by the rate that counts, with the rows in its object store; its seconds
with writing are in the raw figures.

Memory is the highest sum of PSS over all processes of a side, looked at every 50 ms (PSS: a page that n processes
share counts as 1/n in each). `of_data_set` is that over the bytes of the shards.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.memory_soak import MIB, memory
from benchmarks.peers.comparison import describe_machine
from benchmarks.peers.environments import make_environments
from benchmarks.peers.measuring import ROOT, say
from core.seeds import derive_rng
from games.notation import cell_names
from pipeline.positions import Selection, cut_rows
from replay.shards import ShardAbout, write_shard

SIZE = 10
GAMES_PER_SHARD = 10_000
SAMPLE_SECONDS = 0.05
LIMIT_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--environments", type=Path, help="folder of the peers' environments, made when missing"
    )
    parser.add_argument("--rows", type=_numbers, default=(100_000, 1_000_000), metavar="N,N,…")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=psutil.cpu_count() or 1, help="processes of tamen")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--json", action="store_true", help="nothing but one JSON object")
    given = parser.parse_args()
    python = None
    if given.environments:
        python = make_environments(given.environments, ["raydata"])["raydata"]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        sizes = [measure(count, Path(folder), given, python) for count in given.rows]
    result = {"machine": describe_machine(), "rounds": given.rounds, "sizes": sizes}
    if not given.json:
        print(to_table(sizes))
    print(json.dumps(result))


def measure(count: int, folder: Path, given: argparse.Namespace, python: str | None) -> dict[str, Any]:
    """Return what both sides took for `count` rows, in each round."""
    shards, parquet, out = folder / "shards", folder / "parquet", folder / "out"
    data_bytes = write_rows(count, shards)
    peer = [
        str(python),
        str(Path(__file__).parent / "peers" / "raydata_shuffle.py"),
        str(shards),
        str(parquet),
    ]
    if python:
        subprocess.run([*peer, "prepare"], check=True, timeout=LIMIT_SECONDS)
    said: dict[str, list[dict[str, Any]]] = {"tamen": [], **({"ray_data": []} if python else {})}
    for seed in range(given.rounds):
        ours = [sys.executable, "-m", "benchmarks.shuffle_tamen", str(shards), str(out / "tamen")]
        said["tamen"].append(run([*ours, str(given.workers), str(seed)]))
        if python:
            said["ray_data"].append(run([*peer, "shuffle", "--seed", str(seed), "--write", str(out / "ray")]))
        shutil.rmtree(out, ignore_errors=True)
        say(
            f"{count:,} rows, round {seed}: "
            + ", ".join(f"{n} {r[-1]['seconds']:.2f} s" for n, r in said.items())
        )
    shutil.rmtree(shards)
    shutil.rmtree(parquet, ignore_errors=True)
    figures = {name: _figures(runs, count, data_bytes) for name, runs in said.items()}
    if python:
        ratios = [
            ray["seconds"] / ours["seconds"]
            for ours, ray in zip(said["tamen"], said["ray_data"], strict=True)
        ]
        figures["tamen"]["over_ray_data"] = {"median": statistics.median(ratios), "rounds": ratios}
    return {"rows": count, "data_bytes": data_bytes, **figures}


def write_rows(count: int, folder: Path) -> int:
    """Write shards of `count` rows of random games in all, and return their bytes."""
    folder.mkdir(parents=True)
    rng = derive_rng(0, "shuffle benchmark")
    written = size = number = 0
    while written < count:
        text = b"".join(random_games(GAMES_PER_SHARD, rng))
        rows = cut_rows(text, SIZE, Selection(), source="random games")
        rows = {name: column[: count - written] for name, column in rows.items()}
        about = ShardAbout(f"hex{SIZE}", SIZE * SIZE, (f"random_{number}",))
        size += write_shard(folder / f"hex{SIZE}_{number:04d}.npz", rows, about).size
        written += len(rows["game"])
        number += 1
    return size


def random_games(count: int, rng: np.random.Generator) -> list[bytes]:
    """Return lines of games of 20 to 69 moves anywhere, with a winner that is none."""
    names = np.array(cell_names(SIZE, SIZE))
    lines = []
    for _ in range(count):
        plies = int(rng.integers(20, 70))
        moves = "".join(names[rng.permutation(SIZE * SIZE)[:plies]])
        lines.append(f"#{SIZE},{moves} {'rb'[plies % 2]}\n".encode())
    return lines


def run(command: Sequence[str]) -> dict[str, Any]:
    """Return what a side prints, and the most memory that its processes took together."""
    peak = 0
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as side:
        process = psutil.Process(side.pid)
        began = time.monotonic()
        while side.poll() is None:
            peak = max(peak, memory(process)["pss"])
            if time.monotonic() - began > LIMIT_SECONDS:
                side.kill()
            time.sleep(SAMPLE_SECONDS)
        assert side.stdout is not None
        lines = side.stdout.read().strip().splitlines()
        if side.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with status {side.returncode}")
    return {**json.loads(lines[-1]), "peak_bytes": peak}


def _figures(runs: Sequence[dict[str, Any]], count: int, data_bytes: int) -> dict[str, Any]:
    rates = [count / one["seconds"] for one in runs]
    peak = max(one["peak_bytes"] for one in runs)
    return {
        "rows_per_s": {"median": statistics.median(rates), "rounds": [round(rate) for rate in rates]},
        "peak_mib": round(peak / MIB, 1),
        "of_data_set": round(peak / data_bytes, 3),
        "runs": runs,
    }


def to_table(sizes: Sequence[dict[str, Any]]) -> str:
    """Return rates and memory by the number of rows, in Markdown."""
    lines = ["| rows | side | rows/s | peak memory | of the data set |", "| --: | :-- | --: | --: | --: |"]
    for size in sizes:
        for name in ("tamen", "ray_data"):
            if figures := size.get(name):
                rates = figures["rows_per_s"]
                spread = f"{min(rates['rounds']):,} to {max(rates['rounds']):,}"
                lines.append(
                    f"| {size['rows']:,} | {name} | {rates['median']:,.0f} ({spread}) "
                    f"| {figures['peak_mib']:,.0f} MiB | {figures['of_data_set']:.2f} |"
                )
    return "\n".join(lines)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
