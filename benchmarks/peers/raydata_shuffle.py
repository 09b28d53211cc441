"""Ray Data's random_shuffle on the rows of tamen's shards.

    ~/peers/raydata/bin/python benchmarks/peers/raydata_shuffle.py SHARDS PARQUET prepare
    ~/peers/raydata/bin/python benchmarks/peers/raydata_shuffle.py SHARDS PARQUET shuffle [--write FOLDER] [--seed 0]

Needs ray[data] alone, not tamen. `prepare` writes each .npz shard as a Parquet file, not compressed, which is what Ray
Data reads fastest; stones become one value of fixed length. `shuffle` reads them, shuffles and has all rows in the
object store in their new order; with --write it then writes them as Parquet. Prints one JSON object. Ray is up, and
has run a small shuffle, before the clock starts.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
from pyarrow import parquet


def prepare(shards: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in sorted(shards.glob("*.npz")):
        with np.load(shard, allow_pickle=False) as file:
            rows = {name: file[name] for name in file}
        stones = np.ascontiguousarray(rows.pop("stones")).reshape(len(rows["game"]), -1)
        column = pa.Array.from_buffers(pa.binary(stones.shape[1]), len(stones), [None, pa.py_buffer(stones)])
        table = pa.table({"stones": column, **rows})
        parquet.write_table(table, folder / f"{shard.stem}.parquet", compression="NONE")


def shuffle(folder: Path, *, write: str | None, seed: int) -> dict[str, object]:
    began = time.perf_counter()
    rows = ray.data.read_parquet(str(folder)).random_shuffle(seed=seed).materialize()
    shuffled = time.perf_counter() - began
    result: dict[str, object] = {"rows": rows.count(), "seconds": shuffled}
    if write:
        rows.write_parquet(write)
        result["seconds_with_writing"] = time.perf_counter() - began
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("what", choices=("prepare", "shuffle"))
    parser.add_argument("--write")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "prepare":
        prepare(given.shards, given.parquet)
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(include_dashboard=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.range(1000).random_shuffle().materialize()
    result = shuffle(given.parquet.resolve(), write=given.write, seed=given.seed)
    print(json.dumps({"peer": f"Ray Data {ray.__version__}, pyarrow {pa.__version__}", **result}))


if __name__ == "__main__":
    main()
