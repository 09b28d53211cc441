"""Finished games as text, for people and other programs: one game a line, appended to files of many chunks.

    games/00012000.trmph      chunks 12000 to 12999; .txt for games other than hex
      # chunk 12000: 24 games
      #5,c3b2… b
      …

The games of a chunk are one block, appended and fsynced as a whole. The chunk's own file is the commit: a block
that a kill cut short is cut off, and written again from it.
"""

import os
import re
from pathlib import Path

from replay.experience import Experience
from replay.records import Chunk

CHUNKS_PER_FILE = 1000

_HEADER = re.compile(rb"^# chunk (\d+): (\d+) games\n", re.MULTILINE)
_NAME = re.compile(r"(\d{8,})\.(trmph|txt)")


class GameTexts:
    """Appends blocks of games. Every method raises OSError when the folder cannot be read or written.

    Args:
        folder: where the files lie; it exists.
        experience: writes the lines. Without a text form of games nothing is written, and nothing is missing.
    """

    def __init__(self, folder: Path, experience: Experience) -> None:
        self._folder = folder
        self._experience = experience
        self._suffix = experience.text_suffix
        self._chunks: dict[Path, set[int]] = {}

    def has(self, number: int) -> bool:
        """Say whether the block of chunk `number` is there, whole."""
        return not self._suffix or number in self._chunks_in(self._file(number))

    def append(self, number: int, chunk: Chunk) -> None:
        """Make the games of chunk `number` durable. When it raises, nothing of them is left."""
        if not self._suffix:
            return
        lines = [f"# chunk {number}: {len(chunk.games)} games\n"]
        lines += [f"{self._experience.line(game)}\n" for game in chunk.games]
        file = self._file(number)
        chunks = self._chunks_in(file)
        _append("".join(lines).encode(), to=file)
        chunks.add(number)

    def next_number(self) -> int:
        """Return the lowest number above those of all blocks."""
        files = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        if not files:
            return 0
        newest = max(files, key=_first_number)
        return 1 + max(self._chunks_in(newest), default=_first_number(newest) - 1)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number - number % CHUNKS_PER_FILE:08d}{self._suffix}"

    def _chunks_in(self, file: Path) -> set[int]:
        """Return the numbers of the blocks in `file`, once it is rid of a block that was cut short."""
        if file not in self._chunks:
            self._chunks[file] = _mend(file) if file.exists() else set()
        return self._chunks[file]


def _first_number(file: Path) -> int:
    return int(file.stem)


def _append(block: bytes, *, to: Path) -> None:
    size = to.stat().st_size if to.exists() else 0
    try:
        with to.open("ab") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        if size:
            os.truncate(to, size)
        else:
            to.unlink(missing_ok=True)
        raise


def _mend(file: Path) -> set[int]:
    """Cut off what a kill left of the last block, if it is not whole, and return the numbers of the others."""
    text = file.read_bytes()
    lines = text[: text.rfind(b"\n") + 1]
    headers = list(_HEADER.finditer(lines))
    chunks = {int(header[1]) for header in headers}
    if headers and lines.count(b"\n", headers[-1].end()) < int(headers[-1][2]):
        chunks.remove(int(headers[-1][1]))
        lines = lines[: headers[-1].start()]
    if len(lines) < len(text):
        os.truncate(file, len(lines))
    return chunks
