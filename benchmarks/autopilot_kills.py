"""Let an autopilot go round, kill a part of it again and again, and look whether it goes on and does nothing twice.

`python benchmarks/autopilot_kills.py RUNS KEYS… [--minutes 30] [--every 60] [SETTING…]` runs `tamen train --auto` on
the folder RUNS. Each time a part drawn by lot gets SIGKILL: the process of a stage, the loop, the guard, or one of
Ray's; a recovery is the time from then until a stage is at work again that was begun since, or has come further. In the
end each key is looked at: its trainings, whether two were under way at the same time or made two models, its champions
and how they scored against the one before. Prints one JSON object; exit code 1 when a recovery took longer than
`RECOVERY_SECONDS`, a training was doubled, or processes are left.
"""

import argparse
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from cluster.autopilot.status import TABLES, show_autopilots, stop_autopilots
from control.database import CONTROL_FILE, Database
from control.keys import parse_key
from control.model_cards import Match
from control.registry import ModelRegistry
from control.trainings import Trainings
from core.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = ("stage", "loop", "guard", "ray")
RECOVERY_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.1


def go_round(runs: Path, words: list[str], *, minutes: float, every: float) -> dict[str, Any]:
    """Return what came of an autopilot that lost a part every so many seconds."""
    command = [
        sys.executable,
        "-m",
        "cluster.main",
        "train",
        "--auto",
        *words,
        "--runs",
        str(runs),
        "--plain",
    ]
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / "autopilot.txt").open("a") as said:
        guard = psutil.Popen([*command, "--minutes", str(minutes)], cwd=CHECKOUT, stdout=said, stderr=said)
        recoveries: list[dict[str, Any]] = []
        began, luck = time.monotonic(), random.Random(0)
        try:
            for number in range(10_000):
                _sleep_until(began + every * (number + 1), guard)
                if time.monotonic() - began > 60 * minutes - every or not _present(runs):
                    break
                recovery = _kill(luck.choice(PARTS), runs, luck)
                if recovery is not None:
                    recoveries.append(recovery)
            _wait_for_end(runs, 60 * minutes - (time.monotonic() - began) + PATIENCE_SECONDS)
        finally:
            with contextlib.suppress(UsageError):
                stop_autopilots(runs, quiet=True)
    return {"recoveries": recoveries, "left": _left(runs), **_look(runs)}


def _kill(part: str, runs: Path, luck: random.Random) -> dict[str, Any] | None:
    """Kill a part and return how long it took to go on; None when there is none such at this moment."""
    present = _present(runs)
    doing = present["doing"]
    victims = [process for name, process in _parts(present["pid"]) if name == part]
    if not victims or doing is None:
        return None
    victim = luck.choice(victims)
    name = victim.name()
    victim.kill()
    killed, wall = time.monotonic(), time.time()
    while time.monotonic() - killed < PATIENCE_SECONDS:
        time.sleep(POLL_SECONDS)
        now = (_present(runs) or {}).get("doing")
        further = (
            part == "ray" and time.time() > wall + 2 and (now or {}).get("done", 0) > doing.get("done", 0)
        )
        if now is not None and (now["since"] > wall or further):
            break
    seconds = round(time.monotonic() - killed, 1)
    return {"part": part, "process": name, "stage": doing["stage"], "key": doing["key"], "seconds": seconds}


def _parts(loop_pid: int) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the processes of each part."""
    loop = psutil.Process(loop_pid)
    yield "loop", loop
    guard = loop.parent()
    if guard is not None and "cluster" in " ".join(guard.cmdline()):  # else it is just being replaced
        yield "guard", guard
    for child in loop.children():
        yield "stage", child
        for process in child.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith(("ray::", "raylet", "gcs_server")):
                    yield "ray", process


def _present(runs: Path) -> dict[str, Any]:
    found = show_autopilots(runs, quiet=True)["autopilots"]
    return found[0] if found and found[0]["ended"] is None else {}


def _sleep_until(moment: float, process: psutil.Popen) -> None:
    while time.monotonic() < moment:
        process.poll()  # so that it does not stay behind as a zombie
        time.sleep(POLL_SECONDS)


def _wait_for_end(runs: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _present(runs) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _left(runs: Path) -> list[str]:
    """Return the processes that are still there and name the folder."""
    time.sleep(2.0)
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(runs) in words and "autopilot_kills" not in words:
            found.append(words[:200])
    return found


def _look(runs: Path) -> dict[str, Any]:
    """Return what came of each key."""
    told = show_autopilots(runs, quiet=True)
    with contextlib.closing(Database(runs / CONTROL_FILE, TABLES)) as database:
        trainings = [each.as_json() for each in Trainings(database).newest(10_000)]
    with contextlib.closing(ModelRegistry(runs)) as registry:
        keys = {str(model.key) for model in registry.models()}
        found = {key: _look_at(registry, key, trainings) for key in sorted(keys)}
    return {"restarts": told["autopilots"][0]["restarts"], "keys": found}


def _look_at(registry: ModelRegistry, key: str, trainings: list[dict[str, Any]]) -> dict[str, Any]:
    parsed = parse_key(key)
    models = registry.models(parsed)
    moves = [move for move in registry.history(parsed) if move.what == "champion" and move.after is not None]
    champions = [
        {
            "id": move.after,
            "elo": _elo(registry, str(move.after)),
            "score_over_the_one_before": None
            if move.before is None
            else _score(registry.matches(str(move.after), move.before)),
        }
        for move in moves
    ]
    own = sorted((each for each in trainings if each["key"] == key), key=lambda each: each["training"])
    ids = [each["model_id"] for each in own if each["model_id"]]
    overlapping = sum(
        later["began"] < (earlier["ended"] or float("inf")) for earlier, later in itertools.pairwise(own)
    )
    return {
        "trainings": len(own),
        "failed": sum(each["success"] is False for each in own),
        "models": len(models),
        "doubled": overlapping + len(ids) - len(set(ids)),
        "first_elo": _elo(registry, models[0].id) if models else None,
        "champions": champions,
    }


def _elo(registry: ModelRegistry, model_id: str) -> list[float] | None:
    elo = registry.find(model_id).elo
    return None if elo is None else [round(elo.rating), round(elo.low), round(elo.high)]


def _score(matches: list[Match]) -> float | None:
    games = sum(match.games for match in matches)
    return round(sum(match.wins + match.draws / 2 for match in matches) / games, 3) if games else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path)
    parser.add_argument("words", nargs="+", help="keys and settings")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two kills")
    given = parser.parse_args()
    told = go_round(given.runs.resolve(), given.words, minutes=given.minutes, every=given.every)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    slow = any(each["seconds"] > RECOVERY_SECONDS for each in told["recoveries"])
    if slow or told["left"] or any(key["doubled"] for key in told["keys"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
