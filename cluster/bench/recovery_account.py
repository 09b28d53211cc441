"""What was acknowledged and what was kept, for `tamen bench recovery`: by witnesses beside the counters of the run.

    witness/acks-<actor>-<pid>.jsonl   a line for each chunk that an actor saw acknowledged, written by its process
    witness/chunks/00000017.chunk      each chunk that the replay took in: a second name of its file, which stays when
                                       the chunk leaves the window

An actor's line is one write to a file opened for appending, after the acknowledgement has come: of a process that is
killed the lines are there.

Lost is what an actor saw acknowledged and is in no chunk that the replay took in. To be trained twice needs care: the
learner draws each row several times by design, `replay.samples_per_insert` times on average. What must not be is that
a game counts as two: (run, actor, epoch, seq) is unique, and the replay drops what it has seen. Duplicated are
therefore rows, (actor, epoch, seq, step), that are in the chunks of the replay more than once: they alone would be
drawn twice as often as others. Rows that were taken in though no actor saw it, because it was killed before the
acknowledgement reached it, are neither; they are counted as unseen.
"""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DataError
from replay.archive import StoredChunk
from replay.records import Chunk

Game = tuple[int, int, int]
"""Actor, epoch, seq."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A chunk that an actor saw acknowledged.

    Attributes:
        at: monotonic seconds, which all processes of a machine share.
        rows: of each game in it.
    """

    at: float
    rows: Mapping[Game, int]

    def encode(self) -> bytes:
        """Return it as a line."""
        games = [[*game, rows] for game, rows in self.rows.items()]
        return json.dumps({"at": self.at, "games": games}).encode() + b"\n"

    @staticmethod
    def decode(line: bytes) -> "Acknowledged":
        """Return what was encoded. Raises DataError when it is no such line."""
        try:
            told = json.loads(line)
            rows = {(int(a), int(e), int(s)): int(rows) for a, e, s, rows in told["games"]}
            return Acknowledged(float(told["at"]), rows)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                "a witness of acknowledgements wrote what cannot be read",
                why=f"{error}: {line[:80]!r}",
                fix="measure again; if it comes again, the witness is at fault",
            ) from error


@dataclass(frozen=True, slots=True)
class Account:
    """How what was acknowledged compares with what was kept.

    Attributes:
        acknowledged_rows, acknowledged_games: that actors saw acknowledged.
        kept_rows, kept_games: that the replay took in, each counted once.
        lost_rows, lost_games: acknowledged and not kept.
        duplicated_rows, duplicated_games: kept more than once, each repetition counted.
        unseen_rows: kept, but not seen acknowledged.
    """

    acknowledged_rows: int
    acknowledged_games: int
    kept_rows: int
    kept_games: int
    lost_rows: int
    lost_games: int
    duplicated_rows: int
    duplicated_games: int
    unseen_rows: int


def rows_by_game(chunk: Chunk) -> dict[Game, int]:
    """Return how many rows of each game are in a chunk, those without a row too."""
    counts = Counter(chunk.columns["seq"].tolist())
    return {(chunk.actor, chunk.epoch, seq): counts[seq] for seq in chunk.seqs}


def account_for(acknowledged: Iterable[Acknowledged], kept: Iterable[Chunk]) -> Account:
    """Compare what actors saw acknowledged with the chunks that the replay took in."""
    seen: dict[Game, int] = {}
    for one in acknowledged:
        seen |= one.rows
    games: set[Game] = set()
    rows: Counter[tuple[int, int, int, int]] = Counter()
    duplicated_games = 0
    for chunk in kept:
        there = rows_by_game(chunk).keys()
        duplicated_games += len(games & there)
        games |= there
        places = np.stack([chunk.columns["seq"], chunk.columns["step"]], axis=1).tolist()
        rows.update((chunk.actor, chunk.epoch, seq, step) for seq, step in places)
    kept_of: Counter[Game] = Counter((actor, epoch, seq) for actor, epoch, seq, _ in rows)
    return Account(
        acknowledged_rows=sum(seen.values()),
        acknowledged_games=len(seen),
        kept_rows=len(rows),
        kept_games=len(games),
        lost_rows=sum(max(0, count - kept_of[game]) for game, count in seen.items()),
        lost_games=len(seen.keys() - games),
        duplicated_rows=rows.total() - len(rows),
        duplicated_games=duplicated_games,
        unseen_rows=sum(max(0, count - seen.get(game, 0)) for game, count in kept_of.items()),
    )


class AckLog:
    """The witness of one actor's process.

    Args:
        folder: of the witnesses.
        actor: its number.

    Raises:
        OSError: when its file cannot be written.
    """

    def __init__(self, folder: Path, actor: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"acks-{actor}-{os.getpid()}.jsonl"
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, one: Acknowledged) -> None:
        os.write(self._file, one.encode())


def read_acks(folder: Path) -> list[Acknowledged]:
    """Return what all actors saw acknowledged, by time. Raises DataError for a line that cannot be read."""
    lines = [line for file in folder.glob("acks-*.jsonl") for line in file.read_bytes().splitlines()]
    return sorted(map(Acknowledged.decode, lines), key=lambda one: one.at)


class KeptChunks:
    """Gives each chunk file of a replay a second name, under which it stays when the replay deletes it.

    Args:
        replay: folder of the chunk files.
        folder: of the second names, on the same file system.
    """

    def __init__(self, replay: Path, folder: Path) -> None:
        self._replay = replay
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._names: set[str] = set()

    def look(self) -> None:
        """Keep what has come since; to be called more often than a chunk takes through the window."""
        for file in self._replay.glob("*.chunk"):
            if file.name in self._names:
                continue
            with contextlib.suppress(FileNotFoundError):  # it has left since it was listed
                self._link(file)
                self._names.add(file.name)

    def chunks(self) -> Iterator[Chunk]:
        """Yield them in the order in which they came. Raises DataError when one is damaged."""
        for name in sorted(self._names):
            stored = StoredChunk.decode((self._folder / name).read_bytes(), source=name)
            yield Chunk.decode(stored.chunk, source=name)

    def missed(self) -> int:
        """Return how many chunks before the last one were not kept here: with any, an account is not whole."""
        numbers = [int(name.partition(".")[0]) for name in self._names]
        return max(numbers, default=-1) + 1 - len(numbers)

    def _link(self, file: Path) -> None:
        try:
            os.link(file, self._folder / file.name)
        except PermissionError:  # a file system without links
            shutil.copyfile(file, self._folder / file.name)


def as_numbers(account: Account) -> dict[str, Any]:
    """Return an account for JSON."""
    return {name: getattr(account, name) for name in Account.__slots__}
