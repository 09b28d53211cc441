"""Games with the decisions of their players, as files of JSON lines: one line a game, gzipped.

A game's line is in a file before the game counts as finished, and the book's line of it names that file. One that was
played twice, because a result was lost on its way, may be in two files; `counted_games` yields it once, as an `Outcome`
of which `engines.decision_records` makes rows.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from core.errors import DataError, UsageError
from core.files import digest, file_digest, write_atomic
from engines.forge_decisions import Decision
from engines.forge_protocol import Outcome
from engines.journal import read_journal
from engines.tickets import Ticket

FOLDER = "decisions"
_SUFFIX = ".jsonl.gz"
_COMPRESSION_LEVEL = 3
_READ_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DECISION_FIELDS = ("kind", "number", "seat", "turn", "phase", "state", "details", "choice")
_OUTCOME_FIELDS = ("winner", "milliseconds", "seed", "timed_out", "error")

GameLine: TypeAlias = dict[str, Any]
"""game, attempt and decks of the ticket, and what `Outcome` has; `decisions` as `Decision` has them."""


@dataclass(frozen=True, slots=True)
class CountedShard:
    """A file of games, and which of them count.

    Attributes:
        folder: of the run.
        name: of the shard.
        games: numbers of those that finished with the decisions that are in this file.
    """

    folder: Path
    name: str
    games: frozenset[int]

    @property
    def path(self) -> Path:
        return self.folder / FOLDER / f"{self.name}{_SUFFIX}"

    def fingerprint(self) -> str:
        """Return what tells file and games from all others, wherever they lie.

        Raises:
            DataError: when the file is not there, or not whole.
        """
        try:
            with gzip.open(self.path) as data:
                while data.read(_READ_BYTES):
                    pass
            found, _ = file_digest(self.path)
        except (OSError, EOFError, zlib.error) as error:
            raise _cannot_be_read(self.path, error) from error
        return digest(json.dumps([found, sorted(self.games)]).encode())


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
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _cannot_be_read(path, error) from error


def counted_games(folder: Path) -> Iterator[tuple[int, Outcome]]:
    """Yield number and outcome of each finished game of the run in `folder`, once, file by file.

    Raises:
        UsageError, DataError: as `counted_shards` and `games_of`.
    """
    for shard in counted_shards(folder):
        yield from games_of(shard)


def counted_shards(folder: Path) -> list[CountedShard]:
    """Return the files of the finished games of the run in `folder`, in the order in which games are first in them.

    Raises:
        UsageError: when it has no games whose decisions were kept.
    """
    named: dict[str, set[int]] = {}
    finished = 0
    try:
        for entry in read_journal(folder / "games.jsonl"):
            if "ending" in entry:
                finished += 1
                if record := entry.get("record"):
                    named.setdefault(record, set()).add(entry["game"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_decisions(folder, "there is no games.jsonl in it") from error
    if not named:
        why = (
            f"its {finished:,} games were played without --observe"
            if finished
            else "no game is finished there"
        )
        raise _no_decisions(folder, why)
    return [CountedShard(folder, name, frozenset(games)) for name, games in named.items()]


def games_of(shard: CountedShard) -> Iterator[tuple[int, Outcome]]:
    """Yield number and outcome of each game of a shard that counts, once.

    Raises:
        DataError: as `read_shard`, and when a line is no game.
    """
    left = set(shard.games)
    for line in read_shard(shard.folder, shard.name):
        try:
            number, outcome = line["game"], _outcome(line)
        except (LookupError, TypeError) as error:
            raise _cannot_be_read(shard.path, error) from error
        if number in left:
            left.remove(number)
            yield number, outcome


def _outcome(line: GameLine) -> Outcome:
    decisions = tuple(
        Decision(**decision | {"choice": _as_tuples(decision["choice"])}) for decision in line["decisions"]
    )
    return Outcome(**{name: line[name] for name in _OUTCOME_FIELDS}, decisions=decisions)


def _as_tuples(choice: Any) -> Any:
    return tuple(map(_as_tuples, choice)) if isinstance(choice, list) else choice


def _no_decisions(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"{folder} holds no decisions of an engine",
        why=why,
        fix="watch games: tamen engines play PROGRAM --games N --decks A,B --observe --out FOLDER",
    )


def _cannot_be_read(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read",
        why=str(error) or type(error).__name__,
        fix="restore it from a copy, or play its games anew in another folder",
    )
