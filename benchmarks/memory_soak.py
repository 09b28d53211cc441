"""Does a run's memory stay flat? Trains for MINUTES and watches the summed PSS of all its processes.

Usage: python benchmarks/memory_soak.py [MINUTES] [RUNS_FOLDER] [OVERRIDE ...]
Prints one JSON object: the growth over the last two thirds of the time, by a straight line through the samples.

PSS (proportional set size) counts a page that n processes share as 1/n in each, so the sum is what the run takes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

SAMPLE_SECONDS = 10.0


def pss_bytes(process: psutil.Process) -> int:
    """Return the summed PSS of a process and all its descendants; one that has just ended counts nothing."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    runs = sys.argv[2] if len(sys.argv) > 2 else "runs"
    name = f"memory-{int(time.time())}"
    # A window that is full long before the last two thirds begin, so that its growth is not mistaken for a leak.
    settings = ["replay.capacity_rows=20000", "replay.min_rows=5000", *sys.argv[3:]]
    command = [sys.executable, "-m", "cluster.main", "train", "hex5", *settings]
    command += ["--name", name, "--runs", runs, "--minutes", str(minutes), "--plain"]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    process, began = psutil.Process(training.pid), time.monotonic()
    samples: list[tuple[float, int]] = []
    try:
        while training.poll() is None and time.monotonic() - began < 60 * minutes:
            time.sleep(SAMPLE_SECONDS)
            samples.append((time.monotonic() - began, pss_bytes(process)))
            sys.stderr.write(f"{samples[-1][0]:6.0f} s  {samples[-1][1] / 2**20:8.1f} MiB\n")
    finally:
        if training.poll() is None:
            os.kill(training.pid, signal.SIGINT)
            training.wait(timeout=60)
    print(json.dumps(judge(samples, last=60 * minutes * 2 / 3)))


def judge(samples: list[tuple[float, int]], *, last: float) -> dict[str, float]:
    """Return the growth within the `last` seconds, in percent of the level at their beginning."""
    end = samples[-1][0]
    times, sizes = np.array([sample for sample in samples if sample[0] >= end - last], float).T
    slope, level = np.polyfit(times - times[0], sizes, 1)
    quarter = max(1, len(sizes) // 4)
    return {
        "growth_percent": 100 * slope * (times[-1] - times[0]) / level,
        "quarters_growth_percent": 100 * (np.median(sizes[-quarter:]) / np.median(sizes[:quarter]) - 1),
        "first_mib": sizes[0] / 2**20,
        "last_mib": sizes[-1] / 2**20,
        "peak_mib": max(size for _, size in samples) / 2**20,
        "minutes": end / 60,
    }


if __name__ == "__main__":
    main()
