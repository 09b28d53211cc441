"""What a pipeline would do: its steps, what they read, and how many rows, how much room and time that may take.

Estimates come from the beginning of each file of games, and from speeds measured on two cores (AMD EPYC, AVX2).
"""

import gzip
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.storage import open_binary, size_of

SAMPLE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_GAME = re.compile(rb"#(\d+)[^,\s]*,([a-z0-9:]*)")
_MOVE = re.compile(rb"[a-z]+\d+")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What files of games come to, about.

    Attributes:
        files: how many.
        size: their bytes, as they lie there.
        games: in them, doubles too.
        rows: positions of these games.
        board: most frequent size N of a board in the samples; 0 where there is no game.
    """

    files: int
    size: int
    games: int
    rows: int
    board: int

    @property
    def row_bytes(self) -> int:
        """What a row takes: two planes of bits, the move, the outcome, and where it comes from."""
        return 2 * -(-self.board * self.board // 8) + 15


def estimate(files: Sequence[str]) -> Estimate:
    """Look into the beginning of each file. Raises OSError when one cannot be read."""
    games = rows = 0.0
    sizes, boards = 0, dict[int, int]()
    for file in files:
        size = size_of(file) or 0
        sizes += size
        with open_binary(file) as raw:
            text, share = _sample(raw, size)
        found = [(int(game[1]), len(_MOVE.findall(game[2])) + 1) for game in _GAME.finditer(text)]
        for board, _ in found:
            boards[board] = boards.get(board, 0) + 1
        games += len(found) / share
        rows += sum(positions for _, positions in found) / share
    board = max(boards, key=lambda board: boards[board], default=0)
    return Estimate(len(files), sizes, round(games), round(rows), board)


def _sample(raw: BinaryIO, size: int) -> tuple[bytes, float]:
    """Return the beginning of a file as text, and which share of the file that is."""
    packed = raw.read(SAMPLE_BYTES)
    share = min(1.0, len(packed) / size) if size else 1.0
    if not packed.startswith(_GZIP):
        return packed, share
    text = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unpacked:
            while block := unpacked.read(1 << 16):
                text.write(block)
    except (OSError, EOFError):  # where the sample was cut, or damage, of which the step itself will tell
        pass
    return text.getvalue(), share
