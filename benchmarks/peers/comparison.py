"""What the rounds of a comparison come to, as numbers and as text."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RATES = ("moves_per_s", "evals_per_s", "raw_per_s")


def summarise(rounds: Sequence[dict[str, dict[str, Any]]], *, ours: str) -> dict[str, dict[str, Any]]:
    """Return the figures of each side: medians and spreads over the rounds it took part in.

    Args:
        rounds: for each, what each side said, by its name.
        ours: the side that the others are set against; it took part in all.

    `ours_over` is how many times as many moves a second as that side ours made in the same round.
    """
    names = list(dict.fromkeys(name for said in rounds for name in said))
    return {name: _figures([said for said in rounds if name in said], name, ours=ours) for name in names}


def _figures(rounds: Sequence[dict[str, dict[str, Any]]], name: str, *, ours: str) -> dict[str, Any]:
    figures: dict[str, Any] = {rate: _spread([said[name][rate] for said in rounds]) for rate in RATES}
    ratios = [said[ours]["moves_per_s"] / said[name]["moves_per_s"] for said in rounds]
    settings = {key: rounds[0][name][key] for key in ("peer", "processes", "batch") if key in rounds[0][name]}
    extras = {
        key: statistics.median(said[name][key] for said in rounds)
        for key in ("busy_cores", "cache_hit_ratio")
        if key in rounds[0][name]
    }
    return settings | figures | {"ours_over": _spread(ratios)} | extras


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(values), 3),
        "low": round(min(values), 3),
        "high": round(max(values), 3),
        "rounds": [round(value, 3) for value in values],
    }


def to_table(result: dict[str, Any], *, ours: str) -> str:
    """Return a table in Markdown, and why a side is missing from it.

    Args:
        result: `machine`, `left_out` and `sides`, as `summarise` returns them.
        ours: the side that the others are set against.
    """
    lines = [
        f"| side | moves/s | {ours} makes | evaluations/s | raw forward/s |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name, figures in result["sides"].items():
        moves, ratio = figures["moves_per_s"], figures["ours_over"]
        cells = [
            f"{name}{_setting(figures)}",
            f"{moves['median']:,.1f} ({moves['low']:,.1f} to {moves['high']:,.1f})",
            "" if name == ours else f"{ratio['median']:.2f} × ({ratio['low']:.2f} to {ratio['high']:.2f})",
            f"{figures['evals_per_s']['median']:,.0f}",
            f"{figures['raw_per_s']['median']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{name} was left out: {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines)


def _setting(figures: dict[str, Any]) -> str:
    return f" ({figures['processes']} × batch {figures['batch']})" if "batch" in figures else ""


def to_markdown(result: dict[str, Any], *, ours: str) -> str:
    """Return a page that can stand by itself: what was measured, where, how, and the raw figures."""
    rounds = len(result["sides"][ours]["moves_per_s"]["rounds"])
    commands = "\n".join(f"{name}: {command}" for name, command in result["commands"].items())
    return f"""# Self-play beside peers

{result["machine"]}.
Connect four, {result["simulations"]} simulations for every move, 4 blocks × 64 channels in float32, on all cores.
Medians (lowest to highest) of {rounds} rounds in which all sides took turns, {result["seconds"]:g} s each; ratios are
taken within a round. What each side is, and is not: [benchmarks/peers](../peers/README.md).

{to_table(result, ours=ours)}

The raw forward is each side's own network doing nothing else; tamen's at its best batch size, a peer's at that of its
search. The commands, each with `--seconds {result["seconds"]:g}`:

```
{commands}
```

```
{json.dumps({"sides": result["sides"], "tried": result["tried"]})}
```
"""


def describe_machine() -> str:
    """Return the processor, its cores, and the versions that tamen ran on."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "ray", "numba"))
    return f"{os.cpu_count()} cores ({model}), {platform.system()}; Python {platform.python_version()}, {versions}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
