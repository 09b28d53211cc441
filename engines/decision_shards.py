"""Games with the decisions of their players, as files of JSON lines: one line a game, gzipped.

A game's line is in a file before the game counts as finished, and the book's line of it names that file. One that was
played twice, because a result was lost on its way, may be in two files; `counted_games` yields it once.
"""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.files import write_atomic
from engines.book import Ticket
from engines.forge_protocol import Outcome
from engines.journal import read_journal

FOLDER = "decisions"
_SUFFIX = ".jsonl.gz"
_COMPRESSION_LEVEL = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def game_line(ticket: Ticket, outcome: Outcome) -> bytes:
    """Return a game as a line: game, attempt, decks, seed, winner (a seat or null), timed_out, and its decisions."""
    fields = {
        "game": ticket.number,
        "attempt": ticket.attempt,
        "decks": ticket.decks,
        "seed": outcome.seed,
        "winner": outcome.winner,
        "timed_out": outcome.timed_out,
        "decisions": [asdict(decision) for decision in outcome.decisions],
    }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def write_shard(folder: Path, name: str, lines: list[bytes]) -> None:
    """Write games as the shard `name` of the run in `folder`, durably and in one step. Raises OSError."""
    data = gzip.compress(b"".join(lines), compresslevel=_COMPRESSION_LEVEL, mtime=0)
    write_atomic(folder / FOLDER / f"{name}{_SUFFIX}", data)


def read_shard(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the games of a shard, as `game_line` describes them.

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
        raise DataError(
            f"{path} cannot be read",
            why=str(error) or type(error).__name__,
            fix="restore it from a copy, or play its games anew in another folder",
        ) from error


def counted_games(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield each finished game of the run in `folder` once, in the order of their files.

    Raises:
        DataError: as `read_shard`.
    """
    named: dict[str, set[int]] = {}
    for entry in read_journal(folder / "games.jsonl"):
        if "ending" in entry and (record := entry.get("record")):
            named.setdefault(record, set()).add(entry["game"])
    for name, numbers in named.items():
        for game in read_shard(folder, name):
            if game["game"] in numbers:
                numbers.remove(game["game"])
                yield game
