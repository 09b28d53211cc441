"""`tamen status`: how runs stand, read from their folders; needs neither torch nor ray, and disturbs nobody."""

import json
import time
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import console, reward
from cluster.monitoring.observer import newest_evaluations
from cluster.monitoring.sinks import newest_moment
from cluster.run.machine_table import MachineStanding, Standing, read_standing
from cluster.run.placement import KIND_LABELS
from cluster.run.run_folder import RunFolder, named_runs, nearest_run, run_folder, run_names
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
        if name and found[0]["machines"]:
            _print_machines(found[0])
    return found


def _status(folder: RunFolder) -> dict[str, Any]:
    last = newest_moment(folder.root)
    evaluations = newest_evaluations(folder.evaluations_file)
    standing = _standing(folder)
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
        "effective_ratio": standing.effective_ratio if standing else None,
        "games_lost": standing.games_lost if standing else None,
        "machines": [machine.model_dump(mode="json") for machine in standing.machines] if standing else [],
        **_fitted(folder),
        **_imitated(folder),
    }


def _returned(line: dict[str, Any]) -> dict[str, Any] | None:
    """Return what episodes of an environment returned when they were last evaluated; None of what has none."""
    told = ("mean_return", "low", "high", "episodes", "version")
    return {name: line[name] for name in told} if line else None


def _standing(folder: RunFolder) -> Standing | None:
    """Return how the machines of a run that goes on stand; None where nobody has told of late."""
    standing = read_standing(folder) if folder.is_running() else None
    return None if standing is None or standing.is_old(time.time()) else standing


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


def _print_machines(status: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    numbers = ("cores", "actors", "servers", "games/h", "busy", "silent")
    for heading in ("machine", "state", "kind", *numbers):
        number = heading in numbers
        table.add_column(heading, justify="right" if number else "left", no_wrap=heading != "kind")
    machines = [MachineStanding.model_validate(machine) for machine in status["machines"]]
    for machine in machines:
        kinds = [machine.labels[key] for key in KIND_LABELS if key in machine.labels]
        heard, busy = machine.heard_seconds, machine.busy_share
        table.add_row(
            f"{machine.host} {machine.node[:6]}",
            machine.state,
            # Where there is no room a label ends in dots; it has no place at which a line should break.
            Text(", ".join(kinds) or "–", no_wrap=True, overflow="ellipsis"),
            f"{machine.cpus}" + (f"+{machine.gpus} GPU" if machine.gpus else ""),
            f"{machine.actors}" + (f"+{machine.spares}" if machine.spares else ""),
            f"{machine.servers}",
            _number(machine.games_per_hour),
            "–" if busy is None else f"{busy:.0%}",
            "–" if heard is None else f"{heard:.0f} s",
        )
    target = console()
    target.print()
    target.print(table)
    if any(machine.spares for machine in machines):
        target.print("actors: that play + that wait to take the place of one that dies", markup=False)
    for machine in machines:
        called = f"{machine.host} {machine.node[:6]}"
        if machine.why:
            target.print(f"{called} is not used: {machine.why}", markup=False, soft_wrap=True)
        if machine.leaves_in_seconds is not None:
            left = f"{machine.leaves_in_seconds:.0f} s"
            target.print(f"{called} is taken away in {left}, its cloud says", markup=False, soft_wrap=True)
    if status["effective_ratio"] is not None:
        told = f"actors have played {status['effective_ratio']:.1%} of the time that they should have"
        lost = f"; {status['games_lost']:,} games were lost with some of them" if status["games_lost"] else ""
        target.print(told + lost, markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
