"""`tamen status`: how runs stand, read from their folders; needs neither torch nor ray, and disturbs nobody."""

import json
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.metrics_sinks import newest_moment
from cluster.observer import newest_evaluations
from cluster.run_folder import RunFolder, named_runs, nearest_run, run_folder, run_names
from cluster.terminal import console, reward
from core.errors import UsageError


def show_status(name: str | None, *, runs: Path, quiet: bool) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, how one run or all runs in `runs` stand, the newest first.

    Raises:
        UsageError: when there is no such run.
    """
    folders = [run_folder(runs, name)] if name else [run_folder(runs, each) for each in run_names(runs)]
    if name and not folders[0].exists():
        raise UsageError(
            f"there is no run {name!r}",
            why=named_runs(runs),
            fix=nearest_run(name, runs),
        )
    found = sorted((_status(folder) for folder in folders), key=lambda status: -(status["written"] or 0))
    if not quiet:
        _print(found, runs)
    return found


def _status(folder: RunFolder) -> dict[str, Any]:
    last = newest_moment(folder.root)
    evaluations = newest_evaluations(folder.evaluations_file)
    return {
        "run": folder.typed,
        "game": folder.config().game,
        "running": folder.is_running(),
        "written": last.get("time"),
        "games": last.get("games/played"),
        "learner_steps": last.get("learner/steps"),
        "version": last.get("learner/newest_version"),
        "games_per_hour": last.get("games/per_hour"),
        "perfect_share": evaluations.get("perfect_share"),
        "strength": {name: score.score for name, score in (evaluations.get("strength") or {}).items()},
        "evaluated_return": _returned(evaluations.get("returned", {})),
        **_fitted(folder),
        **_imitated(folder),
    }


def _returned(line: dict[str, Any]) -> dict[str, Any] | None:
    """Return what episodes of an environment returned when they were last evaluated; None of what has none."""
    told = ("mean_return", "low", "high", "episodes", "version")
    return {name: line[name] for name in told} if line else None


def _fitted(folder: RunFolder) -> dict[str, Any]:
    """Return what differs in the status of a run that `tamen pipeline` has made; nothing of any other."""
    train, shuffle = (folder.root / "pipeline" / step / "step.json" for step in ("train", "shuffle"))
    if not train.exists():
        return {}
    counts = json.loads(train.read_bytes())["counts"]
    shuffled = json.loads(shuffle.read_bytes())["counts"] if shuffle.exists() else {}
    judged = counts.get("validation") or {}
    told = {"moves": judged.get("policy_top1"), "winners": judged.get("value_accuracy")}
    return {
        "written": train.stat().st_mtime,
        "games": shuffled.get("games"),
        "learner_steps": counts.get("steps"),
        "version": counts.get("version"),
        "strength": {name: share for name, share in told.items() if share is not None},
    }


def _imitated(folder: RunFolder) -> dict[str, Any]:
    """Return what differs in the status of a run that `tamen engines imitate` has made; nothing of any other."""
    file = folder.root / "imitation" / "result.json"
    if not file.exists():
        return {}
    result = json.loads(file.read_bytes())
    judged = result["validation"]
    return {
        "written": file.stat().st_mtime,
        "games": result["games"],
        "learner_steps": result["steps"],
        "version": result["version"],
        "strength": {"choices": judged["accuracy"]} if judged else {},
    }


def _print(found: list[dict[str, Any]], runs: Path) -> None:
    target = console()
    if not found:
        target.print(f"no runs in {runs.resolve()}; begin one with: tamen train hex5", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "game", "state", "games", "steps", "version", "strength"):
        table.add_column(heading, justify="right" if heading in ("games", "steps", "version") else "left")
    for status in found:
        ago = f"{time.time() - status['written']:.0f} s ago" if status["written"] else "no games yet"
        strength = [f"{name} {score:.0%}" for name, score in status["strength"].items()]
        if status["perfect_share"] is not None:
            strength.append(f"perfect {status['perfect_share']:.1%}")
        if (returned := status["evaluated_return"]) is not None:
            known = returned["low"] is not None
            between = f" ({reward(returned['low'])} to {reward(returned['high'])})" if known else ""
            strength.append(f"return {reward(returned['mean_return'])}{between}")
        table.add_row(
            status["run"],
            status["game"],
            "running" if status["running"] else f"stopped, {ago}",
            *(_number(status[key]) for key in ("games", "learner_steps", "version")),
            ", ".join(strength) or "–",
        )
    target.print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
