"""How soon a run whose machine is lost learns again, and what it has lost: restored from a mirror, on one machine.

    python benchmarks/restore.py [PRESET] [--rounds 3] [--seconds 40] [--checkpoint-seconds 15] [--mirror-seconds 5]
        --mirror FOLDER     where to mirror, a path or URL; a folder of its own otherwise

A round begins `tamen train` with a mirror, waits for so many seconds of learning and a checkpoint in the mirror, kills
the driver and all that it started with SIGKILL, deletes the folder of the run, and begins `tamen train --resume`. It
gives:

    seconds_to_step         from the command to the first step of the learner that the run's own metrics count
    seconds_to_folder       of these, until all files are back
    steps_lost, rows_lost   what the metrics and the disk of the first had when it was killed, less what came back
    checkpoint_age          seconds from the newest mirrored checkpoint to the kill, in intervals of checkpoints

The time that a new machine takes to boot is not in it, and files that were just written are still in memory. Prints a
table, and one JSON object on the last line.
"""

import argparse
import contextlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from cluster.mirror.manifests import manifest_numbers, newest_manifests, object_of
from cluster.mirror.place import Place
from cluster.mirror.plan import Manifest
from learner.checkpoint import STATE_FILE
from replay.archive import StoredChunk
from replay.records import Chunk

PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.1


class Run:
    """`tamen train` as a program, with the port of its metrics."""

    def __init__(self, runs: Path, preset: str, *words: str) -> None:
        self.root = runs / "lost"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        program = [sys.executable, "-m", "cluster.main", "train", preset, "--name", self.root.name]
        where = ["--runs", str(runs), "--metrics-port", str(self._port), "--plain", "stop.minutes=null"]
        runs.mkdir(parents=True)
        self._said = runs / "said.txt"
        with self._said.open("w") as file:
            self.began = time.monotonic()
            self._process = subprocess.Popen(
                [*program, *where, *words], stdout=file, stderr=subprocess.STDOUT
            )

    def steps(self) -> int:
        """Return the learner's steps that the metrics have counted in this life."""
        with contextlib.suppress(URLError, OSError):
            text = urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5).read().decode()
            if found := re.search(r"^tamen_learner_steps_total(?:\{.*\})? (\S+)$", text, re.MULTILINE):
                return int(float(found[1]))
        return 0

    def until(self, reached: Callable[[], bool], what: str) -> float:
        """Wait; return the seconds since the command was typed."""
        while not reached():
            if self._process.poll() is not None or time.monotonic() - self.began > PATIENCE_SECONDS:
                raise SystemExit(f"{what} did not come to pass: {self._said.read_text()[-2000:]}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - self.began

    def kill(self) -> None:
        """End the driver and everything that it started, at once."""
        if self._process.poll() is not None:
            return
        driver = psutil.Process(self._process.pid)
        everything = [driver, *driver.children(recursive=True)]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(30)
        psutil.wait_procs(everything, timeout=30)

    def rows(self) -> dict[str, int]:
        """Return the rows of each chunk on disk, which are those that were acknowledged."""
        files = sorted((self.root / "replay").glob("*.chunk"))
        stored = [StoredChunk.decode(path.read_bytes(), source=path.name) for path in files]
        return {path.name: Chunk.decode(one.chunk).num_rows for path, one in zip(files, stored, strict=True)}


def newest_checkpoint(place: Place) -> tuple[Manifest, str] | None:
    """Return the newest manifest that names a checkpoint, and the path of that one's state; None: none does."""
    for manifest in reversed(newest_manifests(place, manifest_numbers(place))):
        found = [path for path in manifest.files if path.endswith(f"/{STATE_FILE}")]
        if found:
            return manifest, max(found)
    return None


def restored(preset: str, folder: Path, url: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Return what one round measured."""
    place = Place(url, timeout_seconds=10.0)
    settings = [
        f"learner.checkpoint_every_seconds={asked.checkpoint_seconds}",
        f"mirror.every_seconds={asked.mirror_seconds}",
    ]
    first = Run(folder / "first", preset, *settings, f"mirror.url={url}")
    try:
        first.until(lambda: first.steps() > 0, "a step of the learner")
        learnt_from = time.monotonic()
        first.until(lambda: newest_checkpoint(place) is not None, "a checkpoint in the mirror")
        time.sleep(max(0.0, learnt_from + asked.seconds - time.monotonic()))
        steps = first.steps()
        first.kill()
        killed_at, acknowledged = time.time(), first.rows()
    finally:
        first.kill()
    found = newest_checkpoint(place)
    assert found is not None
    manifest, path = found
    age = killed_at - (first.root / path).stat().st_mtime
    state = json.loads(b"".join(place.read(object_of(piece), piece.size) for piece in manifest.files[path]))
    shutil.rmtree(folder / "first")

    second = Run(folder / "second", preset, *settings, "--resume", url)
    try:
        there = second.until(second.root.exists, "the folder")
        back = {name: rows for name, rows in acknowledged.items() if (second.root / "replay" / name).exists()}
        step = second.until(lambda: second.steps() > 0, "a step of the learner after the restore")
    finally:
        second.kill()
    kept = state["state"]["learner_steps"]
    return {
        "seconds_to_step": step,
        "seconds_to_folder": there,
        "megabytes": manifest.total_bytes / 1e6,
        "steps": steps,
        "steps_lost": steps - kept,
        "checkpoint_age": age / asked.checkpoint_seconds,
        "rows": sum(acknowledged.values()),
        "rows_lost": sum(acknowledged.values()) - sum(back.values()),
    }


def main() -> None:
    """Measure some rounds, and print the table and the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", default="hex5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--checkpoint-seconds", type=float, default=15.0)
    parser.add_argument("--mirror-seconds", type=float, default=5.0)
    parser.add_argument("--mirror", default="")
    asked = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory(prefix="tamen-restore-") as folder:
            place = asked.mirror or f"file://{folder}/mirror"
            url = f"{place.rstrip('/')}/{uuid.uuid4().hex[:8]}"
            rounds.append(restored(asked.preset, Path(folder), url, asked))
        sys.stderr.write(f"round {number + 1}: {json.dumps(rounds[-1])}\n")
    lines = [f"{'':>18}{'median':>10}{'least':>10}{'most':>10}"]
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        lines.append(
            f"{name:>18}{statistics.median(values):>10,.1f}{min(values):>10,.1f}{max(values):>10,.1f}"
        )
    sys.stdout.write("\n".join([*lines, json.dumps({"preset": asked.preset, "rounds": rounds})]) + "\n")


if __name__ == "__main__":
    main()
