"""Does a run's memory stay flat? Lets tamen work for MINUTES and watches the memory of all its processes.

Usage: python benchmarks/memory_soak.py [MINUTES] [VERB ARGUMENT ...]
Prints one JSON object: the growth over the last two thirds of the time, by a straight line through the samples.
Without a verb it trains hex5, with a replay window that is full long before the last two thirds begin, so that its
growth is not mistaken for a leak.

PSS (proportional set size) counts a page that n processes share as 1/n in each, so the sum is what the run takes.
Pages of files, most of them libraries, are shared with whatever else runs: another torch program takes some percent
of them over. What leaks is anonymous or in shared memory, and `written` counts that alone.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

SAMPLE_SECONDS = 10.0
TRAIN_HEX5 = ("train", "hex5", "replay.capacity_rows=20000", "replay.min_rows=5000", "stop.minutes=null")
MIB = 2**20


def memory(process: psutil.Process) -> dict[str, int]:
    """Return the summed bytes of a process and all its descendants: "pss", and "written" of it.

    One that has just ended counts nothing.
    """
    kib: Counter[str] = Counter()
    for one in (process, *process.children(recursive=True)):
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            name, amount, *_ = line.split()
            kib[name] += int(amount)
    return {"pss": 1024 * kib["Pss:"], "written": 1024 * (kib["Pss_Anon:"] + kib["Pss_Shmem:"])}


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    asked = sys.argv[2:] or TRAIN_HEX5
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "cluster.main", *asked, "--runs", runs, "--plain"]
        working = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            samples = watch(working, seconds=60 * minutes)
        finally:
            if working.poll() is None:
                os.kill(working.pid, signal.SIGINT)
                working.wait(timeout=60)
    result: dict[str, object] = {"minutes": samples[-1][0] / 60}
    for name in samples[-1][1]:
        one = [(seconds, sizes[name]) for seconds, sizes in samples]
        result |= {f"{name}_{key}": value for key, value in judge(one, last=60 * minutes * 2 / 3).items()}
    print(json.dumps(result))


def watch(working: subprocess.Popen[bytes], *, seconds: float) -> list[tuple[float, dict[str, int]]]:
    """Return (seconds since the start, memory), taken all the time. Exits when the process ends before that."""
    process, began = psutil.Process(working.pid), time.monotonic()
    samples: list[tuple[float, dict[str, int]]] = []
    while time.monotonic() - began < seconds:
        time.sleep(SAMPLE_SECONDS)
        if working.poll() is not None:
            sys.exit(f"it ended by itself with status {working.returncode}: there is nothing to judge")
        samples.append((time.monotonic() - began, memory(process)))
        shown = "  ".join(f"{name} {size / MIB:8.1f} MiB" for name, size in samples[-1][1].items())
        sys.stderr.write(f"{samples[-1][0]:6.0f} s  {shown}\n")
    return samples


def judge(samples: list[tuple[float, int]], *, last: float) -> dict[str, float]:
    """Return the growth within the `last` seconds, in percent of the level at their beginning."""
    end = samples[-1][0]
    times, sizes = np.array([sample for sample in samples if sample[0] >= end - last], float).T
    slope, level = np.polyfit(times - times[0], sizes, 1)
    quarter = max(1, len(sizes) // 4)
    return {
        "growth_percent": 100 * slope * (times[-1] - times[0]) / level,
        "quarters_growth_percent": 100 * (np.median(sizes[-quarter:]) / np.median(sizes[:quarter]) - 1),
        "first_mib": sizes[0] / MIB,
        "last_mib": sizes[-1] / MIB,
        "peak_mib": max(size for _, size in samples) / MIB,
    }


if __name__ == "__main__":
    main()
