"""Files of games, line by line: plain or gz, whole or a piece, whatever is in them, in bounded memory.

Blank lines and headers (`# Model: …`) are passed over. What cannot be read becomes a `Rejection` among the lines, and
the rest goes on. In a file called `.sgf` a "line" is one game, which may stand on many; it has the number of its first.
"""

import gzip
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from core.errors import UsageError
from games.formats.reading import is_header
from games.formats.record import Reason, shorten
from pipeline.storage import is_url, list_files, open_binary

PIECE_BYTES = 4 << 20
"""About 45,000 games of 10×10, which take a second to read."""
LONGEST_LINE_BYTES = 1 << 18

GAME_SUFFIXES = (".trmph", ".sgf")

Opener: TypeAlias = Callable[[str], BinaryIO]

_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"
_SKIPPED_BYTES = 1 << 20
_SGF_SIGN = re.compile(rb"\\.|[\[\]()]", re.DOTALL)


class Trouble(StrEnum):
    """Why a line, or what is left of a file, cannot be read."""

    TOO_LONG = "line too long"
    NOT_TEXT = "not text"
    EMPTY = "empty file"
    UNREADABLE = "file cannot be read"
    CUT_SHORT = "file cut short"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; `number` counts from 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is set aside, and why.

    Attributes:
        file: as it was named.
        line: its number, from 1; 0 where it is the file, or its rest, that cannot be read.
        reason: its kind, one of `Trouble` or `Reason`, by which rejections are counted.
        detail: what exactly.
        text: of the line, shortened.
    """

    file: str
    line: int
    reason: str
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines of a file that begin in its bytes from `start` up to `stop`; up to its end where that is None."""

    file: str
    start: int = 0
    stop: int | None = None


def find_files(paths: Sequence[str]) -> list[str]:
    """Return the files that `paths` name, those in folders and in folders below them by their names in order.

    Of a folder only files that are called `.trmph` or `.sgf`, or so and `.gz`, are taken. A URL that is called
    otherwise is a folder, and those below it are not searched.

    Raises:
        UsageError: when there is no such file or folder, or no game file in a folder.
    """
    found: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            inside = sorted(str(file) for file in Path(path).rglob("*") if _is_game_file(file))
        elif is_url(path) and not path.removesuffix(".gz").endswith(GAME_SUFFIXES):
            inside = [file for file in list_files(path) if file.removesuffix(".gz").endswith(GAME_SUFFIXES)]
        elif os.path.lexists(path) or is_url(path):
            inside = [path]
        else:
            raise UsageError(
                f"there is no file or folder {path}",
                why=f"nothing has this name, seen from {Path.cwd()}",
                fix="mend the name",
            )
        if not inside:
            raise UsageError(
                f"there are no files of games in {path}",
                why=f"they are called {', '.join(GAME_SUFFIXES)}, or so and .gz",
                fix="name the files themselves if they are called otherwise",
            )
        found += inside
    return found


def cut_into_pieces(file: str, *, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Return the pieces of a file, which can be read side by side; a packed, distant or SGF file is one."""
    try:
        size = os.path.getsize(file)
        with open(file, "rb") as opened:
            packed = opened.read(len(_GZIP)) == _GZIP
    except OSError:
        return [Piece(file)]
    if packed or _is_sgf(file) or size <= piece_bytes:
        return [Piece(file)]
    return [Piece(file, start, min(start + piece_bytes, size)) for start in range(0, size, piece_bytes)]


class LineReader:
    """Reads the lines of a piece.

    Attributes:
        lines_passed: of the file, once all is read: also blank lines, headers and what was set aside.
    """

    def __init__(self, piece: Piece, opener: Opener = open_binary) -> None:
        self._piece = piece
        self._opener = opener
        self.lines_passed = 0

    def __iter__(self) -> Iterator[Line | Rejection]:
        """Yield lines, and what is set aside, in their order. Numbers count from the beginning of the piece."""
        raw = self._raw_lines()
        for found in _whole_games(raw, self._reject) if _is_sgf(self._piece.file) else raw:
            if isinstance(found, Rejection):
                yield found
                continue
            number, data = found
            line = self._decode(number, data)
            if isinstance(line, Rejection) or (line.text and not is_header(line.text)):
                yield line

    def _raw_lines(self) -> "Iterator[tuple[int, bytes] | Rejection]":
        try:
            with self._opener(self._piece.file) as raw:
                yield from self._lines_of(_unpacked(raw))
        except EOFError:
            detail = f"the packed file ends before its end, after line {self.lines_passed}"
            yield self._reject(0, Trouble.CUT_SHORT, detail)
        except (OSError, zlib.error) as error:
            if not _is_of_the_file(error, self._piece.file):
                raise
            # The bare reason: a path in it would be said twice.
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
            after = f", after line {self.lines_passed}" if self.lines_passed else ""
            yield self._reject(0, Trouble.UNREADABLE, f"{problem}{after}")

    def _lines_of(self, stream: BinaryIO) -> "Iterator[tuple[int, bytes] | Rejection]":
        place, stop = self._piece.start, self._piece.stop
        if place:
            # The line before goes on to its end, which may be the very next byte, wherever it began.
            stream.seek(place - 1)
            place += _pass_over_line(stream) - 1
        while stop is None or place < stop:
            line = stream.readline(LONGEST_LINE_BYTES)
            if not line:
                break
            place += len(line)
            self.lines_passed += 1
            if len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                passed = _pass_over_line(stream)
                place += passed
                detail = f"{len(line) + passed:,} bytes; at most {LONGEST_LINE_BYTES:,} are read"
                yield self._reject(self.lines_passed, Trouble.TOO_LONG, detail, line)
                continue
            yield self.lines_passed, line
        if self.lines_passed == 0 and self._piece.start == 0:
            yield self._reject(0, Trouble.EMPTY, "it holds nothing")

    def _decode(self, number: int, data: bytes) -> Line | Rejection:
        if number == 1 and self._piece.start == 0:
            data = data.removeprefix(_MARK)
        if b"\0" in data:
            return self._reject(number, Trouble.NOT_TEXT, "it holds zero bytes", data)
        try:
            return Line(number, data.decode().strip())
        except UnicodeDecodeError as error:
            return self._reject(number, Trouble.NOT_TEXT, f"byte {error.start + 1} is not UTF-8", data)

    def _reject(self, number: int, reason: str, detail: str, data: bytes = b"") -> Rejection:
        text = shorten(data[:1000].decode(errors="backslashreplace").strip())
        return Rejection(self._piece.file, number, reason, detail, text)


def _is_of_the_file(error: Exception, file: str) -> bool:
    """Whether an error is the file's, and would come again; the disk's and the network's may be gone the next time."""
    if isinstance(error, zlib.error | gzip.BadGzipFile):
        return True
    return not is_url(file) and isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError)


def _is_game_file(file: Path) -> bool:
    name = file.name.removesuffix(".gz")
    return name.endswith(GAME_SUFFIXES) and not name.startswith(".") and file.is_file()


def _is_sgf(file: str) -> bool:
    return file.removesuffix(".gz").endswith(".sgf")


def _unpacked(raw: BinaryIO) -> BinaryIO:
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw


def _pass_over_line(stream: BinaryIO) -> int:
    """Read to the end of a line and return how many bytes that were."""
    passed = 0
    while part := stream.readline(_SKIPPED_BYTES):
        passed += len(part)
        if part.endswith(b"\n"):
            break
    return passed


def _whole_games(
    lines: "Iterator[tuple[int, bytes] | Rejection]", reject: Callable[[int, str, str, bytes], Rejection]
) -> "Iterator[tuple[int, bytes] | Rejection]":
    """Join the lines of each game of SGF.

    Of a game without an end the first line is set aside, and the next is tried; where that does not end either two are,
    then four: so that a file of opening brackets is not read again from each of them.
    """
    waiting: deque[tuple[int, bytes]] = deque()
    gathered: list[tuple[int, bytes]] = []
    scan, skipped = _SgfScan(), 1
    while True:
        found = waiting.popleft() if waiting else next(lines, None)
        if isinstance(found, Rejection):
            yield found
            continue
        if found is not None and not gathered and not found[1].lstrip().startswith(b"("):
            yield found
            continue
        if found is not None:
            gathered.append(found)
            end = scan.end_of_game(found[1])
            if end is not None:
                rest = found[1][end:]
                gathered[-1] = (found[0], found[1][:end])
                yield gathered[0][0], b"".join(data for _, data in gathered)
                if rest.strip():
                    waiting.appendleft((found[0], rest))
                gathered, scan, skipped = [], _SgfScan(), 1
        if gathered and (found is None or scan.bytes_seen > LONGEST_LINE_BYTES):
            number, data = gathered[0]
            detail = "the game that begins here does not end"
            if (passed := min(skipped, len(gathered)) - 1) > 0:
                detail += f"; {passed} lines more are passed over with it"
            yield reject(number, Reason.NOT_A_GAME, detail, data)
            waiting.extendleft(reversed(gathered[skipped:]))
            gathered, scan, skipped = [], _SgfScan(), 2 * skipped
        elif found is None:
            return


class _SgfScan:
    """Finds where a game ends, over several lines; brackets inside values are text."""

    def __init__(self) -> None:
        self.bytes_seen = 0
        self._depth = 0
        self._in_value = False

    def end_of_game(self, line: bytes) -> int | None:
        """Return the place behind the last bracket of the game, None when it goes on behind this line."""
        self.bytes_seen += len(line)
        for sign in _SGF_SIGN.finditer(line):
            if self._in_value:
                self._in_value = sign[0] != b"]"
            elif sign[0] == b"[":
                self._in_value = True
            elif sign[0] in (b"(", b")"):
                self._depth += 1 if sign[0] == b"(" else -1
                if self._depth == 0:
                    return sign.end()
        return None
