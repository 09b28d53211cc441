"""`tamen datagen analyze-hands`: what is in logs of hands, and analytics made of it."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cluster.cli.progress import StepDisplay
from cluster.cli.terminal import console, percent, whole
from core.errors import DataError, UsageError
from core.files import write_atomic
from poker.acpc import STREETS, Hand, LogReader, Raises, SetAside, Terms, find_terms
from poker.analysis import Tally, make_analytics

SHOWN_LINES = 20
"""Of those set aside; so many are kept of each file."""
_LINE_SECONDS = 2.0
_PROGRESS_HANDS = 1000
_BLINDS = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass
class _Log:
    """What was found in one file."""

    file: str
    terms: Terms | None = None
    tally: Tally = field(default_factory=Tally)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[SetAside] = field(default_factory=list)
    file_trouble: tuple[str, str] | None = None
    lines: int = 0
    header_lines: int = 0
    statistics_lines: int = 0


def analyze_logs(
    files: Sequence[str],
    out: Path | None,
    *,
    raises: str | None = None,
    blinds: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Count what is in logs of hands, write analytics to `out`, and return the counts; print them unless `quiet`.

    Raises:
        UsageError: when a file is not there, or its terms cannot be told, see `poker.acpc.find_terms`.
        DataError: when there is not one hand in the files.
        OSError: when `out` cannot be written; an older file is left as it was.
    """
    told_raises = Raises(raises) if raises else None
    told_blinds = _read_blinds(blinds) if blinds else None
    for file in files:
        _check_is_file(file)
    logs = _read_logs(files, told_raises, told_blinds, quiet=quiet)
    tallies = [log.tally for log in logs if log.tally.hands]
    if not tallies:
        raise DataError(
            f"there is not one hand in {', '.join(files)}",
            why="; ".join(_troubles(logs)),
            fix="name logs of heads-up no-limit hold'em with the cards of both players",
        )
    made = datetime.now()
    source = ", ".join(Path(log.file).name for log in logs if log.tally.hands)
    analytics = make_analytics(tallies, source=source, made=made)
    counts = _counts(logs, analytics)
    if out is not None:
        target = out / f"{analytics['name']}.json" if out.is_dir() or out.suffix != ".json" else out
        write_atomic(target, (json.dumps(analytics, indent=2) + "\n").encode())
        counts["out"] = str(target)
    if not quiet:
        _show(logs, counts)
    return counts


def _read_logs(
    files: Sequence[str], raises: Raises | None, blinds: tuple[int, int] | None, *, quiet: bool
) -> list[_Log]:
    sizes = [os.path.getsize(file) for file in files]
    display = StepDisplay(console(stderr=True), plain=quiet, line_seconds=_LINE_SECONDS)
    logs: list[_Log] = []
    with display:
        display.begin("reading")
        for place, file in enumerate(files):
            log = _Log(file)
            logs.append(log)
            try:
                log.terms = find_terms(file, raises=raises, blinds=blinds)
            except DataError as error:
                log.file_trouble = ("no hands", error.why)
                continue
            reader = LogReader(file, log.terms)
            for number, found in enumerate(reader):
                _add(log, found)
                if number % _PROGRESS_HANDS == 0:
                    display.progress(sum(sizes[:place]) + reader.bytes_passed, sum(sizes), "bytes")
            log.lines, log.header_lines = reader.lines_passed, reader.header_lines
            log.statistics_lines = reader.statistics_lines
    return logs


def _add(log: _Log, found: Hand | SetAside) -> None:
    if isinstance(found, Hand):
        log.tally.add(found)
    elif found.line == 0:
        log.file_trouble = (found.reason, found.detail)
    else:
        log.reasons[found.reason] += 1
        if len(log.examples) < SHOWN_LINES:
            log.examples.append(found)


def _counts(logs: Sequence[_Log], analytics: dict[str, Any]) -> dict[str, Any]:
    reasons = sum((log.reasons for log in logs), Counter[str]())
    tallies = [log.tally for log in logs]
    return {
        "lines": sum(log.lines for log in logs),
        "hands": sum(tally.hands for tally in tallies),
        "header_lines": sum(log.header_lines for log in logs),
        "statistics_lines": sum(log.statistics_lines for log in logs),
        "set_aside": reasons.total(),
        "set_aside_reasons": dict(reasons),
        "set_aside_lines": [
            {"file": about.file, "line": about.line, "reason": about.reason, "detail": about.detail}
            for log in logs
            for about in log.examples
        ],
        "files_set_aside": [
            {"file": log.file, "reason": log.file_trouble[0], "detail": log.file_trouble[1]}
            for log in logs
            if log.file_trouble
        ],
        "terms": {
            log.file: {"raises": log.terms.raises, "blinds": [log.terms.small_blind, log.terms.big_blind]}
            for log in logs
            if log.terms
        },
        "reached": _by_street([tally.reached for tally in tallies]),
        "ended": _by_street([tally.ended for tally in tallies]),
        "decisions": _by_street([tally.decisions for tally in tallies]),
        "analytics": analytics,
        "out": None,
    }


def _by_street(counts: Sequence[Sequence[int]]) -> dict[str, int]:
    return {street: sum(each[place] for each in counts) for place, street in enumerate(STREETS)}


def _show(logs: Sequence[_Log], counts: dict[str, Any]) -> None:
    target = console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    rows = [
        ("lines", counts["lines"], ""),
        ("hands", counts["hands"], "their results come out as the logs say"),
        ("header lines", counts["header_lines"], ""),
        ("statistics lines", counts["statistics_lines"], ""),
        ("set aside", counts["set_aside"], ""),
        *((f"  {reason}", number, "") for reason, number in counts["set_aside_reasons"].items()),
    ]
    for name, number, remark in rows:
        table.add_row(name, whole(number), remark)
    target.print(table)
    for log in logs:
        if log.terms:
            about = f"blinds {log.terms.small_blind}/{log.terms.big_blind}, raises say {log.terms.raises}"
            target.print(Text(f"{log.file}: {about}"), soft_wrap=True)
    target.print()
    target.print(_streets(counts))
    for about in counts["set_aside_lines"][:SHOWN_LINES]:
        where = f"{about['file']}:{about['line']}"
        target.print(Text(f"{where}: {about['reason']}: {about['detail']}"), soft_wrap=True)
    if counts["set_aside"] > SHOWN_LINES:
        target.print(Text(f"… and {whole(counts['set_aside'] - SHOWN_LINES)} lines more"))
    for about in counts["files_set_aside"]:
        target.print(Text(f"{about['file']}: {about['reason']}: {about['detail']}"), soft_wrap=True)
    if counts["out"]:
        target.print(Text(f"\nanalytics in {counts['out']}"), soft_wrap=True)


def _streets(counts: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("street", "hands", "end there", "decisions", "share"):
        table.add_column(name, justify="left" if name == "street" else "right")
    table.add_column("bets, in pots after a call")
    analytics = counts["analytics"]
    for place, street in enumerate(STREETS):
        sizes = analytics["bet_sizing_override"].get(str(place), [])
        table.add_row(
            street,
            *(whole(counts[kind][street]) for kind in ("reached", "ended", "decisions")),
            percent(analytics["street_distribution"][street], 1),
            ", ".join(f"{size:g}" for size in sizes),
        )
    return table


def _troubles(logs: Sequence[_Log]) -> list[str]:
    told = [f"{log.file}: {log.file_trouble[1]}" for log in logs if log.file_trouble]
    return told + [
        f"{log.file}: {number} × {reason}" for log in logs for reason, number in log.reasons.items()
    ]


def _read_blinds(text: str) -> tuple[int, int]:
    match = _BLINDS.fullmatch(text)
    if match is None or not 0 < int(match[1]) <= int(match[2]):
        raise UsageError(
            f"blinds cannot be {text!r}",
            why="they are two whole numbers of chips, the smaller first",
            fix="write for example --blinds 50/100",
        )
    return int(match[1]), int(match[2])


def _check_is_file(path: str) -> None:
    if not Path(path).is_file():
        raise UsageError(
            f"there is no file {path}",
            why="it is a folder" if Path(path).is_dir() else f"nothing has this name, seen from {Path.cwd()}",
            fix="name the logs themselves, plain or .gz",
        )
