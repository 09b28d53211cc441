"""Kill a pipeline at random moments, let it go on each time, and compare what it made with that of one left alone.

`python benchmarks/pipeline_kills.py GAMES [--kills 20]` runs `tamen pipeline` from files of games to shuffled rows,
twice: undisturbed, and killed by SIGKILL (by turns the driver alone, and with its workers) a moment after some tasks
were done. All files of the cleaned games and of the shuffled rows must be equal, byte for byte, and no task may have
been done twice. Prints one JSON object.
"""

import argparse
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = 8
SETTINGS = ("preprocess.chunk_games=500", "shuffle.buckets=40", "workers=2")
COMPARED = ("preprocess", "shuffle")
PATIENCE_SECONDS = 300.0
MOST_TASKS = 3
"""Done between the start of an attempt and its end."""
TASK_SECONDS = 0.2
START_SECONDS = 3.0


def kill_and_compare(games: Sequence[str], folder: Path, *, kills: int, seed: int = 0) -> dict[str, object]:
    """Return what came of a pipeline that was killed `kills` times: attempts, tasks, those done twice, other files.

    A pipeline that is finished before that many kills is begun again in another folder.

    Args:
        games: lines of games.
        folder: an empty one.
        kills: how many.
        seed: of the moments.
    """
    data = _write_games(games, folder / "games")
    whole = _command(data, folder / "runs", "whole")
    subprocess.run(whole, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=PATIENCE_SECONDS)
    luck = random.Random(seed)
    rounds: list[Path] = []
    killed = 0
    while killed < kills or not rounds:
        name = f"killed{len(rounds)}"
        rounds.append(folder / "runs" / name / "pipeline")
        command = _command(data, folder / "runs", name)
        while killed < kills and _killed(command, rounds[-1], luck, with_workers=killed % 2 == 1):
            killed += 1
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=PATIENCE_SECONDS)
    expected = _content(folder / "runs" / "whole" / "pipeline")
    others = [sorted(_differing(expected, _content(path))) for path in rounds]
    tasks = [_tasks(path) for path in rounds]
    return {
        "kills": killed,
        "pipelines": len(rounds),
        "files": len(expected),
        "differing_files": sorted({name for names in others for name in names}),
        "tasks_of_one": len(_tasks(folder / "runs" / "whole" / "pipeline")),
        "tasks_done": [len(names) for names in tasks],
        "tasks_done_twice": sum(len(names) - len(set(names)) for names in tasks),
    }


def _write_games(games: Sequence[str], folder: Path) -> list[Path]:
    """Spread the lines over `FILES` files."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.trmph" for number in range(FILES)]
    share = -(-len(games) // FILES)
    for number, path in enumerate(paths):
        path.write_text("".join(f"{line}\n" for line in games[number * share : (number + 1) * share]))
    return paths


def _command(data: Sequence[Path], runs: Path, name: str) -> list[str]:
    command = [sys.executable, "-m", "cluster.main", "pipeline", "hex", *SETTINGS, "--name", name]
    command += ["--runs", str(runs), "--to", "shuffle", "--no-cleanup"]
    return command + [word for path in data for word in ("--data", str(path))]


def _killed(command: Sequence[str], pipeline: Path, luck: random.Random, *, with_workers: bool) -> bool:
    """Run the command and kill it a moment after a few more tasks are done; return whether it was killed."""
    tasks = luck.randint(0, MOST_TASKS)
    goal = len(_tasks(pipeline)) + tasks
    moment = luck.uniform(0.0, TASK_SECONDS if tasks else START_SECONDS)
    with _started(command) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if len(_tasks(pipeline)) >= goal:
                time.sleep(moment)
                break
            time.sleep(0.01)
        if process.poll() is not None:
            return False
        if with_workers:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        return True


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _tasks(pipeline: Path) -> list[str]:
    """Return the tasks that were done, in the order in which they were noted; a line that was cut short is none."""
    try:
        lines = (pipeline / "tasks.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line)["task"] for line in lines if line.endswith("}")]


def _content(pipeline: Path) -> dict[str, bytes]:
    """Return all files that a pipeline made, by their paths in its folder."""
    files = (path for step in COMPARED for path in (pipeline / step).rglob("*") if path.is_file())
    return {str(path.relative_to(pipeline)): path.read_bytes() for path in files if path.name != "step.json"}


def _differing(expected: dict[str, bytes], content: dict[str, bytes]) -> Iterator[str]:
    for name in expected.keys() | content.keys():
        if expected.get(name) != content.get(name):
            yield name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("games", type=Path, help="a file of games, plain or .gz")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    opener = gzip.open if arguments.games.suffix == ".gz" else open
    with opener(arguments.games, "rt") as file:
        games = file.read().splitlines()
    with tempfile.TemporaryDirectory(prefix="tamen-kills-") as folder:
        result = kill_and_compare(games, Path(folder), kills=arguments.kills, seed=arguments.seed)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(bool(result["differing_files"] or result["tasks_done_twice"]))


if __name__ == "__main__":
    main()
