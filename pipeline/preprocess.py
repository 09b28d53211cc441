"""The step `preprocess`: files of games become cleaned games, each once, and a list of what was set aside and why.

    hex10_000.trmph   canonical lines `#10,a1b2c3 b`, those of one board size together, in the order of first sight;
    hex10_001.trmph   the winner's letter is there where it is known: by a winning chain, or by what a line told
    rejected.jsonl    one object for each line that is set aside: file, line, reason, detail, text
    manifest.json     schema, the files with their games and digests, counts

Files are read in pieces, side by side; `pieces/` holds what came of each, until all is put together in order. Games are
equal when their moves and their boards are, whatever the form and the winner; where one line lets blue win and another
red, and there is no chain to tell, all of them are set aside.
"""

import heapq
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UsageError
from core.files import digest, open_atomic, write_atomic
from games.formats.record import WINNER_LETTERS, shorten
from pipeline.checking import RepeatedCell
from pipeline.cleaning import (
    CleanedPiece,
    CleaningTask,
    clean_piece,
    is_cleaned,
    load_cleaned,
    load_rejections,
    write_rejections,
)
from pipeline.contract import Context, Stopped
from pipeline.reading import PIECE_BYTES, Rejection, cut_into_pieces, find_files
from pipeline.running import remove_torn, run_left

SCHEMA = 1
MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
WINNERS_DISAGREE = "winners disagree"

_PIECES = "pieces"
_UNKNOWN = -1
_BIN_PLIES = 10


class PreprocessStep:
    """Combines, checks and dedupes files of games; see `pipeline.contract.Step`.

    Args:
        sources: files and folders, local or URLs.
        needs: steps whose folders are read as well, before `sources`.
        chunk_games: to a file.
        repeated_cell: see `pipeline.checking.check_games`.
        piece_bytes: of a file that are read at a time.
    """

    name = "preprocess"

    def __init__(
        self,
        sources: Sequence[str],
        *,
        needs: tuple[str, ...] = (),
        chunk_games: int = 10_000,
        repeated_cell: RepeatedCell = "reject",
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._sources = tuple(sources)
        self.needs = needs
        self._chunk_games = chunk_games
        self._repeated_cell: RepeatedCell = repeated_cell
        self._piece_bytes = piece_bytes

    @property
    def settings(self) -> dict[str, Any]:
        """With the size and age of each file: of others of the same name the result is another.

        Raises:
            UsageError: when a source is not there.
        """
        return {
            "sources": [_fingerprint(file) for file in find_files(self._sources)],
            "chunk_games": self._chunk_games,
            "repeated_cell": self._repeated_cell,
        }

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return the counts of the manifest. Raises what the contract says, and OSError when a disk is full."""
        manifest = folder / MANIFEST
        if not manifest.exists():
            files = find_files([*(str(inputs[name]) for name in self.needs), *self._sources])
            if not files:
                raise UsageError(
                    "there are no games to clean",
                    why="no files of games were given, and none were played",
                    fix="name files or folders of games",
                )
            tasks = self._tasks(files, folder / _PIECES)
            for place in (folder, folder / _PIECES):
                remove_torn(place)
            left = [task for task in tasks if not is_cleaned(task.target)]
            run_left(clean_piece, tasks, left, context, unit="pieces")
            context.log(f"{len(tasks)} pieces of {len(files)} files are read")
            _combine(tasks, folder, chunk_games=self._chunk_games, context=context)
        shutil.rmtree(folder / _PIECES, ignore_errors=True)
        return json.loads(manifest.read_bytes())["counts"]

    def _tasks(self, files: Sequence[str], folder: Path) -> list[CleaningTask]:
        pieces = [piece for file in files for piece in cut_into_pieces(file, piece_bytes=self._piece_bytes)]
        return [
            CleaningTask(piece, folder / f"{number:05d}", self._repeated_cell)
            for number, piece in enumerate(pieces)
        ]


@dataclass(frozen=True)
class _Everything:
    """The games of all pieces, one after the other: G of them.

    Attributes:
        tasks: the pieces' tasks.
        pieces: what came of them.
        first_lines: lines of its file before each piece.
    """

    tasks: Sequence[CleaningTask]
    pieces: Sequence[CleanedPiece]
    first_lines: Sequence[int]

    def column(self, name: str) -> np.ndarray:
        return np.concatenate([piece.columns[name] for piece in self.pieces])

    @cached_property
    def offsets(self) -> np.ndarray:
        """Games before each piece, and all, int64 [pieces + 1]."""
        return np.cumsum([0, *(len(piece.ids) for piece in self.pieces)])

    def row(self, game: int) -> tuple[int, int]:
        """Return the piece of a game, and its number in it."""
        piece = int(np.searchsorted(self.offsets, game, side="right")) - 1
        return piece, game - int(self.offsets[piece])

    def place(self, game: int) -> tuple[str, int]:
        """Return the file and the line of a game."""
        piece, row = self.row(game)
        line = int(self.pieces[piece].columns["line"][row])
        return self.tasks[piece].piece.file, self.first_lines[piece] + line


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Which of G games stay.

    Attributes:
        kept: bool [G]; the first of each group of equal ones, except where winners disagree.
        winners: int8 [G], of the group.
        disagreeing: numbers of the games to set aside, int64 [D].
        told_blue, told_red: a game of the same moves that blue, and one that red is told to have won, int64 [D].
    """

    kept: np.ndarray
    winners: np.ndarray
    disagreeing: np.ndarray
    told_blue: np.ndarray
    told_red: np.ndarray


def _combine(tasks: Sequence[CleaningTask], folder: Path, *, chunk_games: int, context: Context) -> None:
    """Write the cleaned games of all pieces, what is set aside, and at last the manifest."""
    everything = _load(tasks)
    verdict = _judge(np.concatenate([piece.ids for piece in everything.pieces]), everything.column("winner"))
    files = []
    for done, written in enumerate(_write_chunks(everything, verdict, folder, chunk_games), start=1):
        files.append(written)
        context.progress(done * chunk_games, max(done * chunk_games, int(verdict.kept.sum())), "games")
        if context.should_stop():
            raise Stopped
    reasons: Counter[str] = Counter()
    set_aside: list[dict[str, Any]] = []
    with open_atomic(folder / REJECTED) as rejected:
        for rejection in _rejections(everything, verdict):
            write_rejections([rejection], rejected)
            if rejection.line:
                reasons[rejection.reason] += 1
            else:
                about = {"file": rejection.file, "reason": rejection.reason, "detail": rejection.detail}
                set_aside.append(about)
    files.sort(key=lambda file: (len(file["game"]), file["name"]))
    counts = _counts(everything, verdict, reasons)
    manifest = {
        "schema": SCHEMA,
        "files": files,
        "counts": {**counts, "files": len({task.piece.file for task in tasks}), "files_set_aside": set_aside},
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n")


def _load(tasks: Sequence[CleaningTask]) -> _Everything:
    pieces = [load_cleaned(task.target) for task in tasks]
    first_lines, passed = [], 0
    for task, piece in zip(tasks, pieces, strict=True):
        passed = passed if task.piece.start else 0
        first_lines.append(passed)
        passed += piece.lines_passed
    return _Everything(tasks, pieces, first_lines)


def _judge(ids: np.ndarray, winners: np.ndarray) -> _Verdict:
    """Find equal games by `ids` uint64 [G, 2] and agree on who won; winners int8 [G] are 0, 1 or _UNKNOWN."""
    if not len(ids):
        none = np.zeros(0, np.int64)
        return _Verdict(none.astype(np.bool_), winners, none, none, none)
    order = np.lexsort((ids[:, 1], ids[:, 0]))  # stable: the first of equal games is the first in sight
    new = np.ones(len(ids), np.bool_)
    new[1:] = (ids[order[1:]] != ids[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    groups = np.empty(len(ids), np.int64)
    groups[order] = np.cumsum(new) - 1
    # The first game of each group that each colour is told to have won; len(ids) stands for none.
    blue, red = (
        np.minimum.reduceat(np.where(winners[order] == colour, order, len(ids)), starts) for colour in (0, 1)
    )
    disagree = np.maximum(blue, red) < len(ids)
    agreed = np.select([blue < len(ids), red < len(ids)], [0, 1], _UNKNOWN).astype(np.int8)
    kept = np.zeros(len(ids), np.bool_)
    kept[order[starts]] = ~disagree
    disagreeing = np.flatnonzero(disagree[groups])
    told = groups[disagreeing]
    return _Verdict(kept, agreed[groups], disagreeing, blue[told], red[told])


def _write_chunks(
    everything: _Everything, verdict: _Verdict, folder: Path, chunk_games: int
) -> Iterator[dict[str, Any]]:
    """Write the games that stay, `chunk_games` to a file; yield what the manifest says of each file."""
    waiting: dict[int, list[bytes]] = {}
    written: Counter[int] = Counter()

    def write(size: int) -> dict[str, Any]:
        lines = waiting.pop(size)
        name = f"hex{size}_{written[size]:03d}.trmph"
        written[size] += 1
        data = b"".join(lines)
        write_atomic(folder / name, data)
        return {"name": name, "game": f"hex{size}", "games": len(lines), "digest": digest(data)}

    letters = {number: f" {letter}\n".encode() for number, letter in enumerate(WINNER_LETTERS)}
    letters[_UNKNOWN] = b"\n"
    for number, task in enumerate(everything.tasks):
        ours = slice(everything.offsets[number], everything.offsets[number + 1])
        rows = zip(
            verdict.kept[ours].tolist(),
            verdict.winners[ours].tolist(),
            everything.pieces[number].columns["size"].tolist(),
            strict=True,
        )
        with task.target.with_suffix(".games").open("rb") as games:
            for line, (kept, winner, size) in zip(games, rows, strict=True):
                if not kept:
                    continue
                lines = waiting.setdefault(size, [])
                lines.append(line[:-1] + letters[winner])
                if len(lines) == chunk_games:
                    yield write(size)
    for size in sorted(waiting):
        yield write(size)


def _rejections(everything: _Everything, verdict: _Verdict) -> Iterator[Rejection]:
    """Yield all that is set aside: file after file, by lines; what concerns a whole file behind its lines."""
    pieces = np.searchsorted(everything.offsets, verdict.disagreeing, side="right") - 1
    for number, task in enumerate(everything.tasks):
        before = everything.first_lines[number]
        of_lines = (
            replace(rejection, line=before + rejection.line) if rejection.line else rejection
            for rejection in load_rejections(task.target)
        )
        ours = _disagreements(everything, verdict, np.flatnonzero(pieces == number))
        yield from heapq.merge(of_lines, ours, key=lambda rejection: rejection.line or float("inf"))


def _disagreements(everything: _Everything, verdict: _Verdict, places: np.ndarray) -> Iterator[Rejection]:
    """Yield the rejections of games of one piece that others contradict; `places` are theirs in the verdict."""
    for place in places.tolist():
        piece, row = everything.row(int(verdict.disagreeing[place]))
        file, line = everything.place(int(verdict.disagreeing[place]))
        blue, red = (
            "{}:{}".format(*everything.place(int(told[place])))
            for told in (verdict.told_blue, verdict.told_red)
        )
        detail = f"the same moves are won by blue in {blue} and by red in {red}, and by no chain"
        with everything.tasks[piece].target.with_suffix(".games").open() as games:
            text = next(islice(games, row, None)).strip()
        yield Rejection(file, line, WINNERS_DISAGREE, detail, shorten(text))


def _counts(everything: _Everything, verdict: _Verdict, reasons: Counter[str]) -> dict[str, Any]:
    """Return the manifest's counts; lines = games + duplicates + rejected."""
    kept, plies = verdict.kept, everything.column("plies")[verdict.kept]
    sizes, games_of = np.unique(everything.column("size")[kept], return_counts=True)
    winners = verdict.winners[kept]
    return {
        "lines": sum(piece.lines for piece in everything.pieces),
        "games": int(kept.sum()),
        "duplicates": int((~kept).sum()) - len(verdict.disagreeing),
        "rejected": reasons.total(),
        "rejected_reasons": dict(sorted(reasons.items())),
        "unfinished": int((everything.column("finished")[kept] == 0).sum()),
        "swapped": int(everything.column("swapped")[kept].sum()),
        "won": {name: int((winners == winner).sum()) for winner, name in _WINNERS.items()},
        "lengths": _lengths(plies),
        "by_size": {str(size): int(games) for size, games in zip(sizes, games_of, strict=True)},
    }


_WINNERS = {0: "blue", 1: "red", _UNKNOWN: "unknown"}


def _lengths(plies: np.ndarray) -> dict[str, Any]:
    """Return the least, mean, median and greatest number of moves, and games by tens of moves ("30": 30 to 39)."""
    if not len(plies):
        return {"min": 0, "mean": 0.0, "median": 0.0, "max": 0, "histogram": {}}
    bins, games = np.unique(plies // _BIN_PLIES * _BIN_PLIES, return_counts=True)
    return {
        "min": int(plies.min()),
        "mean": round(float(plies.mean()), 2),
        "median": float(np.median(plies)),
        "max": int(plies.max()),
        "histogram": {str(first): int(count) for first, count in zip(bins, games, strict=True)},
    }


def _fingerprint(file: str) -> dict[str, Any]:
    """Return what tells a file from an earlier one of the same name; of a URL the name alone."""
    try:
        about = os.stat(file)
    except OSError:
        return {"file": file}
    said = {"file": file, "bytes": about.st_size, "modified_ns": about.st_mtime_ns}
    return said if os.access(file, os.R_OK) else said | {"readable": False}
