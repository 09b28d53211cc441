"""What watching costs a run: Ray's dashboard, all metrics and a Prometheus that reads them, against none of these.

    python benchmarks/metrics_overhead.py [--pairs 3] [--seconds 20] [--preset hex5]

Each side trains the preset anew on a Ray of its own, in turn, the first of a pair changing; positions a second are
counted over the last SECONDS. The side without has neither dashboard nor Ray's own collection; that our parts write
numbers at all cannot be turned off, and costs both sides a microsecond a call.

Prints one JSON object: the median ratio with its spread, and the share of all cores that went to processes which only
the watched side has, or has more work for (Prometheus, dashboard, agents, head), by their processor time.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

WARM_SECONDS = 12.0
"""After the first game, before anything is counted."""
PATIENCE_SECONDS = 120.0
WATCHERS = ("prometheus", "dashboard", "Dashboard", "agent", "Agent", "log_monitor", "gcs_server")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def of(folder: Path) -> list[psutil.Process]:
    """Return the processes that were told of `folder`, and what those started."""
    named = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                named.append(process)
    children = []
    for process in named:
        with contextlib.suppress(psutil.Error):
            children += process.children(recursive=True)
    return list(dict.fromkeys(named + children))


def watchers_seconds(folder: Path) -> float:
    """Return the processor time that went to watching so far."""
    total = 0.0
    for process in of(folder):
        with contextlib.suppress(psutil.Error):
            if any(word in process.name() + " ".join(process.cmdline()[:3]) for word in WATCHERS):
                spent = process.cpu_times()
                total += spent.user + spent.system
    return total


def positions(folder: Path) -> tuple[float, float] | None:
    """Return the newest (seconds, positions a second) of the run, None before its first game."""
    file = folder / "runs" / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    moments = [json.loads(line) for line in lines if line.endswith("}")]
    playing = [one for one in moments if one.get("games/played") and "inference/positions_per_second" in one]
    return (playing[-1]["time"], playing[-1]["inference/positions_per_second"]) if playing else None


def side(preset: str, *, watched: bool, seconds: float) -> dict[str, float]:
    """Train for a while; return positions a second, and the share of all cores that went to watching."""
    folder = Path(tempfile.mkdtemp(prefix="tamen-"))
    gcs, page, client, own, prometheus = free_ports(5)
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_enable_metrics_collection": str(int(watched)),
    }
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--disable-usage-stats"]
    start += [f"--port={gcs}", f"--dashboard-port={page}", f"--ray-client-server-port={client}"]
    start += [f"--include-dashboard={str(watched).lower()}", f"--temp-dir={folder / 'ray'}", "--num-cpus=2"]
    train = [
        sys.executable,
        "-m",
        "cluster.main",
        "train",
        preset,
        "--name",
        "run",
        "--runs",
        str(folder / "runs"),
    ]
    train += ["--address", f"127.0.0.1:{gcs}", "--plain", "stop.minutes=null", "evaluation.games=0"]
    train += ["--metrics-port", str(own)] if watched else []
    ours = [
        sys.executable,
        "-m",
        "cluster.main",
        "dashboard",
        "--out",
        str(folder),
        "--metrics-port",
        str(own),
    ]
    read = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
    ]
    read += [f"--web.listen-address=127.0.0.1:{prometheus}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        subprocess.run(start, check=True, timeout=PATIENCE_SECONDS, env=environment, **quiet)
        if watched:
            subprocess.run([*ours, "--ray-folder", str(folder / "ray")], check=True, timeout=60, **quiet)
            subprocess.Popen(read, **quiet)
        subprocess.Popen(train, env=environment, **quiet)
        return measured(folder, seconds)
    finally:
        for process in of(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def measured(folder: Path, seconds: float) -> dict[str, float]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while positions(folder) is None:
        if time.monotonic() > deadline:
            raise SystemExit("no game was finished in time")
        time.sleep(0.2)
    time.sleep(WARM_SECONDS)
    spent, began = watchers_seconds(folder), time.monotonic()
    rates: dict[float, float] = {}
    while time.monotonic() - began < seconds:
        time.sleep(1)
        if (newest := positions(folder)) is not None:
            rates[newest[0]] = newest[1]
    cores = (watchers_seconds(folder) - spent) / (time.monotonic() - began)
    return {
        "positions_per_s": statistics.fmean(rates.values()),
        "watching_share": cores / (os.cpu_count() or 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--preset", default="hex5")
    given = parser.parse_args()
    pairs: list[dict[bool, dict[str, float]]] = []
    for number in range(given.pairs):
        order = (True, False) if number % 2 else (False, True)
        pairs.append({w: side(given.preset, watched=w, seconds=given.seconds) for w in order})
        print({("with" if w else "without"): told for w, told in sorted(pairs[-1].items())}, flush=True)
    ratios = [pair[True]["positions_per_s"] / pair[False]["positions_per_s"] for pair in pairs]
    shares = {w: [pair[w]["watching_share"] for pair in pairs] for w in (True, False)}
    result = {
        "preset": given.preset,
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "watching_share_with": statistics.median(shares[True]),
        "watching_share_without": statistics.median(shares[False]),
        "pairs": len(pairs),
    }
    print(
        json.dumps(
            {name: round(told, 4) if isinstance(told, float) else told for name, told in result.items()}
        )
    )


if __name__ == "__main__":
    main()
