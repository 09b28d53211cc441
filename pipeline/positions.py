"""The step `positions`: games as text become training rows, one shard for each file of cleaned games.

A game of M moves has M + 1 positions, from the empty board to the final one; the last has no move to be learnt. Rows
lie in the order of games and plies. What a row holds, and in which frame: `replay.shards`.

Symmetries. Whoever knows nothing but the rules of hex sees a position in four equal ways: as it lies, turned by 180°,
and mirrored in either long or short diagonal with the colours exchanged, the player to move with them. In the frame of
views these are two. The mirrored and recoloured position is shown to the other player, whose view mirrors it back:
its row is, cell by cell, that of the position as it lies, or turned. With four copies each row would be there twice.
"""

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit

from core.errors import DataError, UsageError
from core.files import digest
from games.hex import LARGEST, SMALLEST, Hex
from pipeline.contract import Context
from pipeline.running import remove_torn, run_left
from replay.shards import ShardAbout, is_complete, load_info, write_shard

Selector = Literal["all", "final", "penultimate"]

_ALL, _FINAL, _PENULTIMATE = range(3)
_SELECTORS = {"all": _ALL, "final": _FINAL, "penultimate": _PENULTIMATE}

_SOUND, _BAD_SIZE, _BAD_MOVE, _REPEATED, _BAD_END = range(5)
_PROBLEMS = {
    _BAD_SIZE: "it does not begin with #{size},",
    _BAD_MOVE: "a move is no cell of a board of {size}×{size}",
    _REPEATED: "a cell is taken twice",
    _BAD_END: "what follows the moves is no winner, b or r",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows are cut from a game of M moves.

    Attributes:
        selector: "all" M + 1 positions; the "final" one, after all moves; or the "penultimate", before the last move,
            which a game without moves does not have.
        symmetries: whether each row is followed by that of the same position turned by 180°.
        policy_from_ply: moves before this ply are not to be learnt, their rows have action -1: for games whose
            openings were drawn, not chosen.

    Raises:
        UsageError: when there is no such selector.
    """

    selector: Selector = "all"
    symmetries: bool = False
    policy_from_ply: int = 0

    def __post_init__(self) -> None:
        if self.selector not in _SELECTORS:
            raise UsageError(
                f"there is no selector {self.selector!r}",
                why=f"positions are chosen by one of {', '.join(_SELECTORS)}",
                fix="set positions.selector=all",
            )


@dataclass(frozen=True, slots=True)
class CutTask:
    """A file of cleaned games on boards of `size`, its digest, and the shard that is to be made of it."""

    games: Path
    digest: str
    shard: Path
    size: int
    selection: Selection


class PositionsStep:
    """Cuts rows from the games that `preprocess` has cleaned; see `pipeline.contract.Step`."""

    name = "positions"
    needs = ("preprocess",)

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self._selection)

    def run(self, inputs: dict[str, Path], folder: Path, context: Context) -> dict[str, Any]:
        """Return {"rows", "shards", "rows_of": {game: rows}}. Raises what the contract says."""
        tasks = _tasks(inputs["preprocess"], folder, self._selection)
        remove_torn(folder)
        left = [task for task in tasks if not is_complete(task.shard)]
        run_left(cut_shard, tasks, left, context, unit="files")
        rows_of: dict[str, int] = {}
        for task in tasks:
            info = load_info(task.shard)
            rows_of[info.game] = rows_of.get(info.game, 0) + info.rows
        return {"rows": sum(rows_of.values()), "shards": len(tasks), "rows_of": rows_of}


def cut_shard(task: CutTask) -> int:
    """Write the rows of a file of games as a shard, and return how many.

    Raises:
        DataError: when the games cannot be read, or are not those that were cleaned.
        OSError: when the shard cannot be written.
    """
    try:
        text = task.games.read_bytes()
    except OSError as error:
        raise _unreadable(str(task.games), str(error)) from error
    if digest(text) != task.digest:
        raise _unreadable(str(task.games), f"its digest is {digest(text)}, the manifest says {task.digest}")
    rows = cut_rows(text, task.size, task.selection, source=str(task.games))
    about = ShardAbout(f"hex{task.size}", task.size**2, (task.games.name,))
    return write_shard(task.shard, rows, about).rows


def cut_rows(text: bytes, size: int, selection: Selection, *, source: str) -> dict[str, np.ndarray]:
    """Return the columns of `replay.shards` for games as text.

    Args:
        text: canonical lines such as `#10,a1b2c3 b`: moves of the two players in turn, then who won, b(lue), who moves
            first, or r(ed); without it the outcome is unknown.
        size: of the board.
        selection: which rows.
        source: of the text, for errors.

    Raises:
        DataError: naming the line that is not of this form, or in which a cell is taken twice.
    """
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if text and not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    begins = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    head = np.frombuffer(f"#{size},".encode(), np.uint8)
    moves, offsets, winners, problem = _parse(characters, begins, ends, head, size)
    if problem != _SOUND:
        line = len(offsets) - 1
        raise _unreadable(f"{source}:{line + 1}", _PROBLEMS[problem].format(size=size))
    games = _game_numbers(moves, offsets, size)
    columns = _cut(
        moves,
        offsets,
        winners,
        games,
        Hex(size).views.astype(np.uint16),
        _SELECTORS[selection.selector],
        1 + selection.symmetries,
        selection.policy_from_ply,
    )
    return dict(zip(("stones", "action", "outcome", "game", "ply", "plies"), columns, strict=True))


def _tasks(cleaned: Path, folder: Path, selection: Selection) -> list[CutTask]:
    """Return a task for each file that the manifest of `preprocess` names."""
    manifest = cleaned / "manifest.json"
    try:
        said = json.loads(manifest.read_bytes())["files"]
        files = [(str(file["name"]), str(file["game"]), str(file["digest"])) for file in said]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(str(manifest), f"{type(error).__name__}: {error}") from error
    if not files:
        raise DataError(
            f"{cleaned} holds no games",
            why="nothing was left after preprocess; its rejected.jsonl tells why",
            fix="give other files with --data",
        )
    return [
        CutTask(cleaned / name, digest_, folder / f"{Path(name).stem}.npz", _size_of(game), selection)
        for name, game, digest_ in files
    ]


def _size_of(game: str) -> int:
    match = re.fullmatch(r"hex(\d{1,2})", game)
    if match is None or not SMALLEST <= int(match[1]) <= LARGEST:
        raise DataError(
            f"no positions can be cut from games of {game!r}",
            why=f"the games are hex{SMALLEST} … hex{LARGEST}",
            fix="give games of hex with --data",
        )
    return int(match[1])


def _game_numbers(moves: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
    """Return uint64 [G]: digests of size and moves, whoever won; of a game and the same game turned by 180° one.

    Who learns from a turned game knows the other, so both have to be on the same side of training and validation.
    """

    def digests(cells: np.ndarray) -> np.ndarray:
        data, ends = cells.astype("<i2").tobytes(), (2 * offsets).tolist()
        heads = (data[begin:end] for begin, end in itertools.pairwise(ends))
        key = f"hex{size}".encode()
        found = b"".join(hashlib.blake2b(head, digest_size=8, key=key).digest() for head in heads)
        return np.frombuffer(found, "<u8").astype(np.uint64)

    return np.minimum(digests(moves), digests(size * size - 1 - moves))


def _unreadable(source: str, why: str) -> DataError:
    return DataError(f"{source} cannot be read", why=why, fix="run the pipeline again with --from preprocess")


@njit(cache=True, nogil=True)
def _parse(text, begins, ends, head, size):
    """Return (moves int16 [all plies], offsets int64 [G + 1], winners int8 [G], problem).

    G is the number of lines, or that of the line with the problem, which is then cut off from all that is returned.
    `head` is what each line begins with, as characters. Winners are 1 blue, -1 red, 0 unknown.
    """
    num_games = len(begins)
    moves = np.empty(len(text) // 2 + 1, np.int16)
    offsets = np.zeros(num_games + 1, np.int64)
    winners = np.zeros(num_games, np.int8)
    taken = np.full(size * size, -1, np.int64)
    count = 0
    for game in range(num_games):
        at, end = begins[game], ends[game]
        problem = _SOUND if _starts_with(text, at, end, head) else _BAD_SIZE
        at += len(head)
        while problem == _SOUND and at < end and text[at] != 32:
            cell, at = _read_move(text, at, end, size)
            if cell < 0:
                problem = _BAD_MOVE
            elif taken[cell] == game:
                problem = _REPEATED
            else:
                taken[cell] = game
                moves[count] = cell
                count += 1
        if problem == _SOUND and at < end:
            letter = text[at + 1] if end - at == 2 else 0
            winners[game] = 1 if letter == 98 else -1 if letter == 114 else 0
            if winners[game] == 0:
                problem = _BAD_END
        if problem != _SOUND:
            return moves[:count], offsets[: game + 1], winners[:game], problem
        offsets[game + 1] = count
    return moves[:count], offsets, winners, _SOUND


@njit(cache=True, nogil=True)
def _starts_with(text, at, end, head):
    return end - at >= len(head) and (text[at : at + len(head)] == head).all()


@njit(cache=True, nogil=True)
def _read_move(text, at, end, size):
    """Return (cell, where it ends) of a move such as c12; the cell is -1 when it is none of the board."""
    column = text[at] - 97
    at += 1
    row = 0
    digits = at
    while at < end and at < digits + 2 and 48 <= text[at] <= 57:
        row = 10 * row + text[at] - 48
        at += 1
    if not 0 <= column < size or not 1 <= row <= size or text[digits] == 48:
        return -1, at
    return (row - 1) * size + column, at


@njit(cache=True, nogil=True)
def _cut(moves, offsets, winners, games, views, selector, copies, policy_from_ply):
    """Return the columns of the chosen positions.

    All planes are kept as bits, in the four views at once, so that a move sets a bit in each and a row is a copy.
    """
    num_cells = views.shape[1]
    width = (num_cells + 7) // 8
    num_rows = copies * _count_positions(offsets, selector)
    stones = np.empty((num_rows, 2, width), np.uint8)
    action = np.empty(num_rows, np.int16)
    outcome = np.empty(num_rows, np.int8)
    game_of = np.empty(num_rows, np.uint64)
    ply_of = np.empty(num_rows, np.int16)
    plies_of = np.empty(num_rows, np.int16)
    planes = np.empty((4, 2, width), np.uint8)
    row = 0
    for game in range(len(games)):
        begin, plies = offsets[game], offsets[game + 1] - offsets[game]
        planes[:] = 0
        for ply in range(plies + 1):
            player = ply & 1
            if selector == _ALL or ply == plies + 1 - selector:
                for view in range(2 * player, 2 * player + copies):
                    for k in range(width):
                        stones[row, 0, k] = planes[view, player, k]
                        stones[row, 1, k] = planes[view, 1 - player, k]
                    learnt = policy_from_ply <= ply < plies
                    action[row] = views[view, moves[begin + ply]] if learnt else -1
                    outcome[row] = winners[game] * (1 - 2 * player)
                    game_of[row], ply_of[row], plies_of[row] = games[game], ply, plies
                    row += 1
            if ply < plies:
                for view in range(4):
                    place = views[view, moves[begin + ply]]
                    planes[view, player, place >> 3] |= 128 >> (place & 7)
    return stones, action, outcome, game_of, ply_of, plies_of


@njit(cache=True, nogil=True)
def _count_positions(offsets, selector):
    """Return how many positions `selector` chooses of all games."""
    if selector == _ALL:
        return offsets[-1] + len(offsets) - 1
    if selector == _FINAL:
        return len(offsets) - 1
    count = 0
    for game in range(len(offsets) - 1):
        count += offsets[game + 1] > offsets[game]
    return count
