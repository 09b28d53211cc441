"""`tamen models`: the registry in tables, trees and cards; needs neither torch nor ray."""

import getpass
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import UNKNOWN, console, is_live, short, whole
from control import lineage
from control.keys import parse_key
from control.model_cards import Elo, FileState, Model, Stage, moment
from control.registry import FILE_NAME, ModelRegistry
from core.errors import UsageError

_STYLES = {"production": "bold green", "staging": "yellow", "rejected": "dim", "archived": "dim"}


def list_models(
    key: str | None, *, runs: Path, stage: Stage | None = None, verify: bool = False, quiet: bool = False
) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, the models of a key or of all, with the state of their files.

    Raises:
        UsageError: when `key` is none.
    """
    wanted = None if key is None else parse_key(key)
    found: list[Model] = []
    states: list[FileState] = []
    if _is_there(runs):
        registry = ModelRegistry(runs)
        found = registry.models(wanted, stage=stage)
        states = [registry.file_state(model, thorough=verify) for model in found]
        registry.close()
    if not quiet:
        _print_list(found, states, key=key, stage=stage, runs=runs)
    return [_as_json(model, state) for model, state in zip(found, states, strict=True)]


def show_model(name: str, *, runs: Path, quiet: bool = False) -> dict[str, Any]:
    """Return what is known of a model; print its card unless `quiet`. Raises UsageError when there is none."""
    registry = _opened(runs)
    model = registry.find(name)
    state = registry.file_state(model, thorough=True)
    parents = registry.parents(parse_key(model.key))
    if not quiet:
        _print_card(registry.card(model.id))
    return _as_json(model, state) | {
        "config": model.config,
        "sources": [asdict(source) for source in model.sources],
        "ancestors": lineage.ancestors(parents, model.id),
        "descendants": lineage.descendants(parents, model.id),
        "matches": [
            {
                "opponent": match.opponent,
                "wins": match.wins,
                "draws": match.draws,
                "losses": match.losses,
                "pairs": match.pairs.counts,
                "conditions": match.conditions,
                "seed": match.seed,
                "first_pair": match.first_pair,
                "set_aside": match.set_aside,
                "played_at": match.played_at,
            }
            for match in registry.matches(model.id)
        ],
        "history": [asdict(move) for move in registry.history(model=model.id)],
    }


def promote_model(
    name: str,
    to: Literal["champion", "candidate", "development", "archived", "rejected"],
    *,
    expected: str | None,
    why: str,
    runs: Path,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make a model champion or candidate, or put it into a stage; return, and print unless `quiet`, how it stands.

    Args:
        expected: id of who must be champion or candidate now, "none" for nobody; None for whoever it is.
    """
    registry = _opened(runs)
    model = registry.find(name)
    key, who = parse_key(model.key), _who()
    if to in ("champion", "candidate"):
        before = registry.alias(key, to)
        seen = before if expected is None else None if expected == "none" else registry.find(expected).id
        move = registry.promote if to == "champion" else registry.propose
        move(model.id, expected=seen, who=who, why=why)
        since = "as before" if before == model.id else f"before it was {before or 'nobody'}"
        told = f"{model.key}@{to} is {model.id}, {since}"
    else:
        registry.set_stage(model.id, to, who=who, why=why)
        told = f"{model.id} is in {to}, before it was in {model.stage}"
    if not quiet:
        console().print(Text(told), soft_wrap=True)
        console().print(Text(f"next: tamen models show {model.id}"), soft_wrap=True)
    now = registry.find(model.id)
    return _as_json(now, registry.file_state(now))


def roll_back(key: str, *, why: str, runs: Path, quiet: bool = False) -> dict[str, Any]:
    """Make the champion before this one champion again; return, and print unless `quiet`, who it is."""
    wanted = parse_key(key)
    registry = _opened(runs)
    champion = registry.alias(wanted, "champion")
    # Without a champion there is none before either, which the registry tells.
    now = registry.rollback(wanted, expected=champion or "", who=_who(), why=why)
    if not quiet:
        console().print(Text(f"{key}@champion is {now} again, before it was {champion}"), soft_wrap=True)
        console().print(Text(f"next: tamen models show {now}"), soft_wrap=True)
    return {"key": key, "champion": now, "before": champion}


def show_lineage(name: str, *, runs: Path, quiet: bool = False) -> list[dict[str, Any]]:
    """Return, and print unless `quiet`, the models of a key, or one with its ancestors and descendants; parents first.

    Raises:
        UsageError: when `name` is neither a key nor a model.
    """
    registry = _opened(runs)
    if "@" in name or "-v" in name:
        model = registry.find(name)
        key = parse_key(model.key)
        parents = registry.parents(key)
        family = {model.id, *lineage.ancestors(parents, model.id), *lineage.descendants(parents, model.id)}
    else:
        key = parse_key(name)
        parents = registry.parents(key)
        family = set(parents)
    known = {model.id: model for model in registry.models(key) if model.id in family}
    if not quiet:
        _print_tree({each: parents[each] for each in known}, known, asked=name)
    return [
        {
            "id": each,
            "parent": parents[each],
            "stage": model.stage,
            "aliases": list(model.aliases),
            "elo": _elo_json(model.elo),
        }
        for each, model in known.items()
    ]


def _is_there(runs: Path) -> bool:
    return (runs / FILE_NAME).exists()


def _opened(runs: Path) -> ModelRegistry:
    if not _is_there(runs):
        raise UsageError(
            f"no models are registered in {runs.resolve()}",
            why=f"there is no {FILE_NAME}",
            fix="say with --runs where they are; `tamen train --auto KEY` registers what it trains",
        )
    return ModelRegistry(runs)


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _as_json(model: Model, state: FileState) -> dict[str, Any]:
    plain = ("id", "key", "version", "parent", "stage", "created_at", "who", "games", "bytes", "digest")
    return {
        **{name: getattr(model, name) for name in plain},
        "aliases": list(model.aliases),
        "elo": _elo_json(model.elo),
        "metrics": dict(model.metrics),
        "data_digest": model.data_digest,
        "file": str(model.file),
        "file_state": state,
    }


def _elo_json(elo: Elo | None) -> dict[str, Any] | None:
    return None if elo is None else asdict(elo)


def _print_list(
    found: Sequence[Model], states: Sequence[FileState], *, key: str | None, stage: str | None, runs: Path
) -> None:
    target = console()
    if not found:
        of, kind = f" of {key}" if key else "", f" in stage {stage}" if stage else ""
        target.print(Text(f"{runs.resolve()} has no models{of}{kind}"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "stage", "made of", "games", "Elo", "age", "file"):
        right = heading in ("games", "age")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading in ("model", "Elo"))
    now = time.time()
    for model, state in zip(found, states, strict=True):
        stages = " ".join([model.stage, *(f"@{alias}" for alias in model.aliases)])
        table.add_row(
            Text(model.id),
            Text(stages, style=_STYLES.get(model.stage, "")),
            Text(UNKNOWN if model.parent is None else f"v{model.parent.rpartition('-v')[2]}"),
            whole(model.games),
            Text(_elo_short(model.elo)),
            Text(_age(model.created_at, now)),
            Text(state, style="" if state == "ok" else "bold red"),
        )
    target.print(table)
    for model in found:
        if model.created_at > now:
            told = f"{model.id} was registered {moment(model.created_at, now)}; its age counts as 0"
            target.print(Text(told, style="yellow"), soft_wrap=True)


def _elo_short(elo: Elo | None) -> str:
    return UNKNOWN if elo is None else f"{elo.rating:+.0f} ({elo.low:+.0f}…{elo.high:+.0f})"


def _age(at: float, now: float) -> str:
    seconds = max(0.0, now - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_card(page: str) -> None:
    target = console()
    if is_live(target):
        from rich.markdown import Markdown

        target.print(Markdown(page))
    else:
        target.print(Text(page), soft_wrap=True, end="")


def _print_tree(parents: Mapping[str, str | None], known: Mapping[str, Model], *, asked: str) -> None:
    """Print a model a line, a parent before its children, indented only where one has several: chains are long."""
    target = console()
    if not known:
        target.print(Text(f"there are no models of {asked}"))
        return
    below = lineage.children(parents)
    waiting = [(each, 0) for each, parent in reversed(list(parents.items())) if parent not in parents]
    while waiting:
        model_id, depth = waiting.pop()
        model, made = known[model_id], below.get(model_id, [])
        waiting += [(each, depth + (len(made) > 1)) for each in reversed(made)]
        marks = " ".join([model.stage, *(f"@{alias}" for alias in model.aliases)])
        line = Text("  " * depth + ("└ " if model.parent else "● "))
        line.append(model_id, style="bold" if model_id == asked else "")
        line.append(f"  {marks}", style=_STYLES.get(model.stage, ""))
        line.append(f"  Elo {_elo_short(model.elo)}, {short(model.games)} games", style="dim")
        target.print(line, soft_wrap=True)
