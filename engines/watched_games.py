"""Games with the decisions of their players, as files of JSON lines: one line a game, gzipped.

A game's line is in a file before the game counts as finished, and the book's line of it names that file. One that was
played twice, because a result was lost on its way, may be in two files; `counted_games` yields it once, as an `Outcome`
of which `engines.decision_records` makes rows.
"""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from core.errors import DataError
from core.files import write_atomic
from engines.book import Ticket
from engines.forge_decisions import Decision
from engines.forge_protocol import Outcome
from engines.journal import read_journal

FOLDER = "decisions"
_SUFFIX = ".jsonl.gz"
_COMPRESSION_LEVEL = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DECISION_FIELDS = ("kind", "number", "seat", "turn", "phase", "state", "details", "choice")
_OUTCOME_FIELDS = ("winner", "milliseconds", "seed", "timed_out", "error")

GameLine: TypeAlias = dict[str, Any]
"""game, attempt and decks of the ticket, and what `Outcome` has; `decisions` as `Decision` has them."""


def game_line(ticket: Ticket, outcome: Outcome) -> bytes:
    """Return a game as a line."""
    decisions = [
        {name: getattr(decision, name) for name in _DECISION_FIELDS} for decision in outcome.decisions
    ]
    line: GameLine = {"game": ticket.number, "attempt": ticket.attempt, "decks": ticket.decks}
    line |= {name: getattr(outcome, name) for name in _OUTCOME_FIELDS} | {"decisions": decisions}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def write_shard(folder: Path, name: str, lines: list[bytes]) -> None:
    """Write games as the shard `name` of the run in `folder`, durably and in one step. Raises OSError."""
    data = gzip.compress(b"".join(lines), compresslevel=_COMPRESSION_LEVEL, mtime=0)
    write_atomic(folder / FOLDER / f"{name}{_SUFFIX}", data)


def read_shard(folder: Path, name: str) -> Iterator[GameLine]:
    """Yield the games of a shard.

    Raises:
        DataError: when it is not there, or damaged.
    """
    path = folder / FOLDER / f"{name}{_SUFFIX}"
    try:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name[:40]!r} is no name of a shard")
        with gzip.open(path) as lines:
            for line in lines:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise _cannot_be_read(path, error) from error


def counted_games(folder: Path) -> Iterator[tuple[int, Outcome]]:
    """Yield number and outcome of each finished game of the run in `folder`, once, file by file.

    Raises:
        DataError: as `read_shard`, and when a line is no game.
    """
    named: dict[str, set[int]] = {}
    for entry in read_journal(folder / "games.jsonl"):
        if "ending" in entry and (record := entry.get("record")):
            named.setdefault(record, set()).add(entry["game"])
    for name, numbers in named.items():
        for line in read_shard(folder, name):
            try:
                number, outcome = line["game"], _outcome(line)
            except (LookupError, TypeError) as error:
                raise _cannot_be_read(folder / FOLDER / f"{name}{_SUFFIX}", error) from error
            if number in numbers:
                numbers.remove(number)
                yield number, outcome


def _outcome(line: GameLine) -> Outcome:
    decisions = tuple(
        Decision(**decision | {"choice": _as_tuples(decision["choice"])}) for decision in line["decisions"]
    )
    return Outcome(**{name: line[name] for name in _OUTCOME_FIELDS}, decisions=decisions)


def _as_tuples(choice: Any) -> Any:
    return tuple(map(_as_tuples, choice)) if isinstance(choice, list) else choice


def _cannot_be_read(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read",
        why=str(error) or type(error).__name__,
        fix="restore it from a copy, or play its games anew in another folder",
    )
