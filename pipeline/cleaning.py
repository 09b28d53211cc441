"""One piece of a file of games, cleaned: which of its lines are games, as three files side by side.

    00000.games      a line for each game that the rules allow: `#10,a1b2c3`
    00000.rejected   a line of JSON for each line that is set aside
    00000.npz        a row for each game; written last, so that a piece that has it is whole

Lines are numbered from the beginning of the piece: which line of the file that is, is known when the pieces before are.
"""

import hashlib
import json
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.errors import DataError
from core.files import open_atomic, write_atomic
from games.formats.reading import read_game
from games.formats.record import GameText, GameTextError, shorten
from pipeline.checking import CheckedGame, Fault, RepeatedCell, check_games
from pipeline.reading import Line, LineReader, Opener, Piece, Rejection
from pipeline.storage import open_binary

_BATCH_LINES = 4096
_ID_BYTES = 16

COLUMNS = {"line": "q", "winner": "b", "finished": "b", "swapped": "b", "size": "b", "plies": "h"}
"""The row of a game, by type codes: its line; who won, 0 blue, 1 red, -1 unknown; whether by a chain; whether a swap
was mirrored away; N; moves."""


@dataclass(frozen=True, slots=True)
class CleaningTask:
    """A piece, and where what comes of it goes: `target` with another suffix each."""

    piece: Piece
    target: Path
    repeated_cell: RepeatedCell = "reject"
    opener: Opener = open_binary


@dataclass(frozen=True, slots=True)
class CleanedPiece:
    """What came of a piece.

    Attributes:
        columns: as in `COLUMNS`, [G] each.
        ids: uint64 [G, 2]; equal for games of equal moves on boards of equal size.
        lines: that are neither blank nor headers.
        lines_passed: all lines.
    """

    columns: dict[str, np.ndarray]
    ids: np.ndarray
    lines: int
    lines_passed: int


def clean_piece(task: CleaningTask) -> int:
    """Read, check and write a piece; return how many of its lines are games.

    Raises:
        OSError: when it cannot be written. What cannot be read is set aside.
    """
    reader = LineReader(task.piece, task.opener)
    # Lists of numbers would take several times the memory, and a packed file is one piece however large.
    columns = {name: array(code) for name, code in COLUMNS.items()}
    ids = bytearray()
    lines = 0
    with (
        open_atomic(task.target.with_suffix(".games")) as games_file,
        open_atomic(task.target.with_suffix(".rejected")) as rejected_file,
    ):
        found = iter(reader)
        while batch := list(islice(found, _BATCH_LINES)):
            lines += sum(isinstance(line, Line) or line.line > 0 for line in batch)
            rejected: list[Rejection] = []
            for number, game in judge_lines(batch, rejected, task.piece.file, task.repeated_cell):
                text = game.text().encode()
                games_file.write(text + b"\n")
                ids += hashlib.blake2b(text, digest_size=_ID_BYTES).digest()
                winner = -1 if game.winner is None else game.winner
                row = (number, winner, game.finished, game.swapped, game.size, len(game.moves))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
            write_rejections(rejected, rejected_file)
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    packed = BytesIO()
    np.savez(
        packed,
        ids=np.frombuffer(bytes(ids), "<u8").reshape(-1, 2),
        lines=np.int64(lines),
        lines_passed=np.int64(reader.lines_passed),
        allow_pickle=False,
        **arrays,
    )
    write_atomic(task.target.with_suffix(".npz"), packed.getvalue())
    return len(columns["line"])


def judge_lines(
    batch: Sequence[Line | Rejection],
    rejected: list[Rejection],
    file: str,
    repeated_cell: RepeatedCell,
) -> Iterator[tuple[int, CheckedGame]]:
    """Yield (number of the line, game) of each line that is a game; put the others into `rejected`, in their order."""
    numbers: list[int] = []
    games: list[GameText] = []
    texts: list[str] = []
    for found in batch:
        if isinstance(found, Rejection):
            rejected.append(found)
            continue
        try:
            games.append(read_game(found.text))
        except GameTextError as error:
            rejected.append(Rejection(file, found.number, error.reason, error.detail, shorten(found.text)))
            continue
        numbers.append(found.number)
        texts.append(found.text)
    checked = check_games(games, repeated_cell=repeated_cell)
    for number, text, game in zip(numbers, texts, checked, strict=True):
        if isinstance(game, Fault):
            rejected.append(Rejection(file, number, game.reason, game.detail, shorten(text)))
    # What concerns the file stands behind its lines.
    rejected.sort(key=lambda rejection: rejection.line or float("inf"))
    for number, game in zip(numbers, checked, strict=True):
        if isinstance(game, CheckedGame):
            yield number, game


def is_cleaned(target: Path) -> bool:
    """Whether a piece has been cleaned, whole."""
    return target.with_suffix(".npz").exists()


def load_cleaned(target: Path) -> CleanedPiece:
    """Return what came of a piece. Raises DataError when the file is damaged."""
    file = target.with_suffix(".npz")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return CleanedPiece(
                {name: arrays[name] for name in COLUMNS},
                arrays["ids"],
                int(arrays["lines"]),
                int(arrays["lines_passed"]),
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file} is damaged",
            why=f"{type(error).__name__}: {error}",
            fix=f"delete {file.parent} and begin anew",
        ) from error


def load_rejections(target: Path) -> Iterator[Rejection]:
    """Yield what was set aside of a piece, in the order of lines."""
    with target.with_suffix(".rejected").open("rb") as file:
        for line in file:
            yield Rejection(**json.loads(line))


def write_rejections(rejections: Sequence[Rejection], file: BinaryIO) -> None:
    """Append a line of JSON for each of `rejections`."""
    for rejection in rejections:
        file.write(
            json.dumps(asdict(rejection), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        )
