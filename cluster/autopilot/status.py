"""`tamen status --auto` and `tamen stop`: what autopilots do at this moment, what came of them, and that they end."""

import contextlib
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.cli.terminal import UNKNOWN, console, duration, whole
from control import journal, presence, trainings
from control.database import CONTROL_FILE, Database
from control.presence import Presence, Present
from control.trainings import Trainings
from core.errors import ClusterError, UsageError
from core.processes import this_process

TABLES = journal.TABLES + presence.TABLES + trainings.TABLES
RESULTS_SHOWN = 10
STOP_SECONDS = 60.0
POLL_SECONDS = 0.2


def results_since(kept: Trainings, moment: float) -> list[dict[str, Any]]:
    """Return the trainings that ended since then (seconds since 1970), the oldest first."""
    found = [each for each in kept.newest(1000) if each.ended is not None and each.ended >= moment]
    return [each.as_json() for each in reversed(found)]


def show_autopilots(runs: Path, *, quiet: bool, now: float | None = None) -> dict[str, Any]:
    """Return, and print unless `quiet`, the autopilots of `runs` that go round, and the newest trainings.

    Raises:
        DataError: when the file is damaged or foreign.
    """
    file, now = runs / CONTROL_FILE, time.time() if now is None else now
    told: dict[str, Any] = {"autopilots": [], "trainings": []}
    if file.exists():
        with contextlib.closing(Database(file, TABLES)) as database:
            here = this_process()
            everybody = [(each, each.state(here, now)) for each in Presence(database).everybody()]
            shown = [each for each in everybody if each[1] != "ended"] or everybody[:1]
            told["autopilots"] = [_autopilot_told(each, state, now) for each, state in shown]
            told["trainings"] = [each.as_json() for each in Trainings(database).newest(RESULTS_SHOWN)]
    if not quiet:
        _print(told, file, now)
    return told


def stop_autopilots(runs: Path, *, quiet: bool, seconds: float = STOP_SECONDS) -> list[int]:
    """Ask the autopilots of `runs` to leave off, wait until they have, and return their numbers.

    Raises:
        UsageError: when none goes round.
        ClusterError: when one goes on for longer than `seconds`.
    """
    file = runs / CONTROL_FILE
    if not file.exists():
        raise _none_goes_round(file)
    with contextlib.closing(Database(file, TABLES)) as database:
        present, here = Presence(database), this_process()
        asked = [each for each in present.everybody() if _goes_round(each, here)]
        if not asked:
            raise _none_goes_round(file)
        for each in asked:
            present.ask_to_stop(each.number)
            if not quiet:
                console().print(f"autopilot {each.number} leaves off", markup=False)
        deadline = time.monotonic() + seconds
        while left := [each.number for each in asked if _goes_round(present.get(each.number), here)]:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"autopilot {left[0]} has not left off",
                    why=f"it was asked to {seconds:.0f} s ago, and will when its stage comes to a point to leave",
                    fix="look with `tamen status --auto`, and end its process if it hangs",
                )
            time.sleep(POLL_SECONDS)
    return [each.number for each in asked]


def _goes_round(each: Present, here: Any) -> bool:
    return each.state(here, time.time()) in ("running", "stopping")


def _none_goes_round(file: Path) -> UsageError:
    return UsageError(
        "no autopilot goes round here",
        why=f"none is noted in {file} that runs",
        fix="say with --runs where the runs are; begin one with: tamen train --auto KEYS",
    )


def _autopilot_told(each: Present, state: str, now: float) -> dict[str, Any]:
    return {
        "number": each.number,
        "state": state,
        "keys": list(each.asked["keys"]),
        "settings": list(each.asked["settings"]),
        "host": each.process.host,
        "pid": each.process.pid,
        "began": each.began,
        "ended": each.ended,
        "restarts": each.restarts,
        "message": each.message,
        "doing": {**each.doing, "seconds_left": _seconds_left(each, now)} if each.doing else None,
    }


def _seconds_left(each: Present, now: float) -> float | None:
    """Return how long the present stage will take, going by what was done since it was first seen to do anything."""
    first = each.doing.get("first")
    if first is None or each.doing["done"] <= first["done"] or now <= first["at"]:
        return None
    rate = (each.doing["done"] - first["done"]) / (now - first["at"])
    return round(max(0.0, each.doing["total"] - each.doing["done"]) / rate, 1)


def _print(told: dict[str, Any], file: Path, now: float) -> None:
    target = console()
    if not told["autopilots"]:
        target.print(
            f"no autopilot has gone round at {file}; begin one: tamen train --auto KEYS", markup=False
        )
        return
    for each in told["autopilots"]:
        since = duration(max(0.0, (each["ended"] or now) - each["began"]))
        again = f", begun again {_times(each['restarts'])}" if each["restarts"] else ""
        line = f"autopilot {each['number']}: {each['state']}, {since}{again}; {', '.join(each['keys'])}"
        target.print(line, markup=False, soft_wrap=True)
        if each["message"] and each["message"] != "stopped":
            target.print(f"  {each['message']}", markup=False, soft_wrap=True)
        if each["doing"]:
            target.print(f"  {_doing(each['doing'], now)}", markup=False, soft_wrap=True)
    if told["trainings"]:
        _print_trainings(told["trainings"])


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _doing(doing: dict[str, Any], now: float) -> str:
    words = f"{doing['key']} {doing['stage']} for {duration(max(0.0, now - doing['since']))}"
    if "total" in doing:
        words += f": {whole(doing['done'])} of {whole(doing['total'])} {doing['unit']}"
        words += f", {duration(doing['seconds_left'])} left"
    return words


def _print_trainings(found: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("training", "key", "export", "fit", "matches", "came to"):
        table.add_column(heading, justify="left" if heading in ("key", "came to") else "right")
    for each in found:
        outcome = "under way" if each["ended"] is None else each["message"]
        times = (each[name] for name in ("export_seconds", "training_seconds", "evaluation_seconds"))
        seconds = (UNKNOWN if time is None else f"{time:.0f} s" for time in times)
        table.add_row(str(each["training"]), each["key"], *seconds, outcome)
    console().print(table)
