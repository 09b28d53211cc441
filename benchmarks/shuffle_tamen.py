"""tamen's side of benchmarks/shuffle.py: shuffles a folder of shards into another, and prints one JSON object.

Usage: python -m benchmarks.shuffle_tamen SHARDS FOLDER WORKERS [SEED]
The clock starts when the worker processes are there, and stops when all is on disk.
"""

import json
import sys
import time
from pathlib import Path

from pipeline.contract import Context
from pipeline.executors import Inline, Processes
from pipeline.shuffle import ShuffleStep, Shuffling


def main() -> None:
    shards, folder, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    folder.mkdir(parents=True)
    with Processes(workers) if workers > 1 else Inline() as executor:
        # Who starts a process waits for Python; Ray Data's workers are there before its clock starts, too.
        list(executor.run(abs, range(workers)))
        context = Context(executor, lambda done, total, unit: None, lambda: False, lambda line: None)
        began = time.perf_counter()
        counts = ShuffleStep(Shuffling(seed=seed)).run({"positions": shards}, folder, context)
        seconds = time.perf_counter() - began
    print(
        json.dumps({"rows": counts["rows"], "seconds": seconds, "workers": workers, "files": counts["files"]})
    )


if __name__ == "__main__":
    main()
