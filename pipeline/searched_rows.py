"""Self-play as a data set: rows of many games in one random order, read from folders that may be in use.

    1. read   Chunk files, the newest first, until enough games are there. Nothing is written where they lie.
    2. order  Each row has a key, a hash of the seed, its game and its ply, and rows are in the order of their keys.
    3. write  Shards for training and for validation, see `replay.searched_shards`; at last the manifest.

As a row's place follows from the row alone, the data set does not depend on where chunks lie, in which order they are
read or how they were cut, and neither on how much memory there is: rows beyond a bound wait in files by ranges of
keys. What is there already, to the last byte, is left alone.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from configs.searched import SearchedExportSettings
from core.errors import DataError, UsageError
from core.files import write_atomic
from core.seeds import derive_seed, mix_keys
from games.game import Game
from pipeline.contract import Stopped
from pipeline.running import remove_torn
from replay.archive import StoredChunk
from replay.experience import BoardExperience, problems_of
from replay.npz import sidecar_of
from replay.records import Chunk
from replay.searched_shards import (
    MANIFEST,
    SEARCHED_COLUMNS,
    SEARCHED_SCHEMA,
    SIDES,
    SearchedAbout,
    SearchedFile,
    SearchedSet,
    Side,
    encode_searched_shard,
    game_number,
    holds,
    put_searched_shard,
    read_searched_set,
)
from replay.splitting import is_validation

Keep = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Says which rows are kept, bool [R], by their games uint64 [R] and plies int64 [R]; to depend on nothing else."""

MEMORY_BYTES = 512 << 20
"""Of rows that wait in memory; together with what is made of them it is twice as much."""

UNSORTED = "unsorted"
_BUCKET_BITS = 6
_BLOCK_ROWS = 1 << 15
_CHUNK_FILE = re.compile(r"(\d{8,})\.chunk")
_OURS = re.compile(
    rf"{MANIFEST}|({'|'.join(SIDES)})(/searched_\d+\.npz(\.json)?)?|{UNSORTED}(/\d+\.rows)?|(.*/)?\.[^/]*\.tmp"
)


def keep_all(games: np.ndarray, plies: np.ndarray) -> np.ndarray:
    """Keep every row; see `Keep`."""
    return np.ones(len(plies), bool)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export came to.

    Attributes:
        games: that were taken; of some no row may have been kept.
        rows: all that were kept, those of validation included.
        validation_rows: of games kept apart.
        digest: of the data set: that of its manifest.
        seconds: that it took.
        duplicates: games that had been taken from another chunk.
        damaged: chunk files that could not be used; `log` was told why.
        vanished: chunk files that were gone before they were read.
        written: whether anything had to be written.
    """

    games: int
    rows: int
    validation_rows: int
    digest: str
    seconds: float
    duplicates: int
    damaged: int
    vanished: int
    written: bool


def export_searched(
    folders: Sequence[Path],
    game: Game,
    target: Path,
    settings: SearchedExportSettings,
    *,
    keep: Keep = keep_all,
    log: Callable[[str], None] = lambda line: None,
    progress: Callable[[float, float, str], None] = lambda done, total, unit: None,
    should_stop: Callable[[], bool] = lambda: False,
    memory_bytes: int = MEMORY_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> Exported:
    """Make a data set of the newest games of self-play.

    Of two games the newer is the one in the later chunk file of a folder; of two folders the newer is the one whose
    path sorts later, numbers by what they count, so that `cycle_10` comes after `cycle_9`.

    Args:
        folders: of runs, each with its `replay/`; in any order.
        game: what was played in all of them.
        target: folder of the data set. Nobody else may write there meanwhile.
        settings: how many games, and how they are split.
        keep: which of their rows.
        log: takes a line for people.
        progress: told (done, total, unit): first chunks that were read, then rows that were written.
        should_stop: whether to leave off.
        memory_bytes: see `MEMORY_BYTES`; what is made does not depend on it.
        clock: monotonic seconds.

    Raises:
        UsageError: when a folder is missing or of another game, or holds no row to export; when something else than
            such a data set is at `target`.
        Stopped: when it was asked to stop; what is there of the data set is no harm.
        OSError: when `target` cannot be written.
    """
    began = clock()
    about = SearchedAbout(game.name, game.board.height * game.board.width, game.num_actions)
    files = [file for folder in newest_first(folders) for file in chunk_files(folder)]
    check_target(target, game.name)
    unsorted = target / UNSORTED
    shutil.rmtree(unsorted, ignore_errors=True)  # of one that was killed
    rows = _SortedRows(about.record(), unsorted, seed=settings.seed, memory_bytes=memory_bytes)
    selection = _Selection(game, settings.max_games, keep)
    reader = _Reader(game, log)
    try:
        for number, file in enumerate(files):
            if selection.is_full:
                break
            if should_stop():
                raise Stopped
            chunk = reader.read(file)
            if chunk is not None:
                rows.add(selection.take(chunk, about.record()))
            progress(number + 1, len(files), "chunks")
        if not rows.count:
            raise _no_rows(folders, reader, selection)
        made, written = _write(
            rows, about, target, settings, games=selection.games, progress=progress, should_stop=should_stop
        )
    finally:
        rows.close()
    return Exported(
        games=selection.games,
        rows=made.train_rows + made.validation_rows,
        validation_rows=made.validation_rows,
        digest=made.digest,
        seconds=clock() - began,
        duplicates=selection.duplicates,
        damaged=reader.damaged,
        vanished=reader.vanished,
        written=written,
    )


def newest_first(folders: Sequence[Path]) -> list[Path]:
    """Return folders of runs, each once, in the order in which they are read. Raises UsageError without one of them."""
    different = {folder.resolve(): folder for folder in folders}
    for place, folder in different.items():
        if not place.is_dir():
            raise UsageError(
                f"{folder} holds no games",
                why="there is no such folder",
                fix="name the folder of a run, such as runs/NAME or the one that `tamen selfplay` was given",
            )
    return sorted(different, key=_by_numbers, reverse=True)


def chunk_files(folder: Path) -> list[Path]:
    """Return the chunk files of a run, the newest first."""
    numbered = [
        (int(match[1]), path)
        for path in (folder / "replay").glob("*.chunk")
        if (match := _CHUNK_FILE.fullmatch(path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def check_target(target: Path, game: str) -> None:
    """Raise UsageError unless a data set of `game` may be made at `target`: nothing is there, or one made before."""
    there = target.rglob("*") if target.is_dir() or not target.exists() else iter([target])
    # The first will do: a folder that was named by mistake may hold very much.
    foreign = next((path for path in there if not _OURS.fullmatch(path.relative_to(target).as_posix())), None)
    why = None if foreign is None else f"{foreign} is none of its files"
    with contextlib.suppress(UsageError, DataError):  # there is none, or it is damaged and made anew
        if foreign is None and (before := read_searched_set(target).game) != game:
            why = f"it holds rows of {before}"
    if why is not None:
        raise UsageError(
            f"{target} is not free for a data set of {game}",
            why=why,
            fix="give another folder, or an empty one",
        )


def _by_numbers(path: Path) -> list[str | int]:
    """Return a key to sort paths by; text and numbers take turns in it."""
    parts = re.split(r"([0-9]+)", str(path))
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


class _Reader:
    """Reads chunk files as they are, and passes over those that cannot be used."""

    def __init__(self, game: Game, log: Callable[[str], None]) -> None:
        self._experience = BoardExperience(game)
        self._log = log
        self.damaged = 0
        self.vanished = 0

    def read(self, file: Path) -> Chunk | None:
        """Return the chunk in a file; None when there is none. Raises UsageError when it is of another game."""
        source = str(file)
        try:
            stored = StoredChunk.decode(file.read_bytes(), source=source)
            chunk = Chunk.decode(stored.chunk, source=source)
        except FileNotFoundError:  # its replay has dropped it, or set it aside
            self.vanished += 1
            return None
        except (OSError, DataError) as error:
            return self._refuse(file, error.why if isinstance(error, DataError) else str(error))
        if chunk.game != self._experience.name:
            raise UsageError(
                f"{file.parent.parent} cannot be exported with the others",
                why=f"its games are of {chunk.game}, wanted are those of {self._experience.name}",
                fix="leave it out, or export it for itself",
            )
        problems = problems_of(chunk, self._experience)
        return self._refuse(file, "; ".join(problems)[:300]) if problems else chunk

    def _refuse(self, file: Path, why: str) -> None:
        self.damaged += 1
        self._log(f"{file} is left out: {why}")


class _Selection:
    """Takes games until there are enough, each of them once, and of their rows those that are kept."""

    def __init__(self, game: Game, max_games: int | None, keep: Keep) -> None:
        self._max_games = max_games
        self._keep = keep
        self._taken: set[int] = set()
        self.duplicates = 0

    @property
    def games(self) -> int:
        return len(self._taken)

    @property
    def is_full(self) -> bool:
        return self._max_games is not None and self.games >= self._max_games

    def take(self, chunk: Chunk, record: np.dtype) -> np.ndarray:
        """Return the rows that are kept of a chunk, [R] of `record`; of its games the last ones are the newest."""
        numbers = np.array([game_number(game) for game in chunk.games], np.uint64)
        wanted = np.zeros(len(numbers), bool)
        for place in range(len(numbers) - 1, -1, -1):
            if self.is_full:
                break
            number = int(numbers[place])
            wanted[place] = number not in self._taken
            self.duplicates += not wanted[place]
            self._taken.add(number)
        columns = chunk.columns
        places = np.searchsorted(np.array(chunk.seqs, np.int64), columns["seq"])
        chosen = np.flatnonzero(wanted[places])
        games, plies = numbers[places[chosen]], columns["step"][chosen].astype(np.int64)
        kept = np.asarray(self._keep(games, plies), bool)
        rows = np.empty(int(kept.sum()), record)
        for name in SEARCHED_COLUMNS.keys() - {"game", "ply"}:
            rows[name] = columns[name][chosen[kept]]
        rows["game"], rows["ply"] = games[kept], plies[kept]
        return rows


class _SortedRows:
    """Rows in the order of their keys; beyond a bound they wait in files, each with a range of keys.

    Args:
        record: of a row.
        folder: for the files, made when there are any; `close` removes it.
        seed: of the keys.
        memory_bytes: of rows in memory.

    Attributes:
        count: rows that were added.
    """

    def __init__(self, record: np.dtype, folder: Path, *, seed: int, memory_bytes: int) -> None:
        self._record = record
        self._folder = folder
        self._salt = derive_seed(seed, "searched rows")
        self._memory_bytes = memory_bytes
        self._held: list[np.ndarray] = []
        self._held_bytes = 0
        self._files: list[BinaryIO] = []
        self.count = 0

    def add(self, rows: np.ndarray) -> None:
        """Take in rows. Raises OSError when there is no room for them."""
        self._held.append(rows)
        self._held_bytes += rows.nbytes
        self.count += len(rows)
        if self._held_bytes > self._memory_bytes:
            self._put_into_files()

    def in_order(self) -> Iterator[np.ndarray]:
        """Yield all rows in blocks; call once, when all are there. Raises OSError."""
        if not self._files:
            yield from self._ordered(self._take_held())
            return
        self._put_into_files()
        for file in self._files:
            file.seek(0)
            yield from self._ordered(np.frombuffer(file.read(), self._record))

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _put_into_files(self) -> None:
        if not self._files:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._files = [
                (self._folder / f"{bucket:02d}.rows").open("w+b") for bucket in range(1 << _BUCKET_BITS)
            ]
        rows = self._take_held()
        buckets = (self._keys(rows) >> np.uint64(64 - _BUCKET_BITS)).astype(np.uint8)
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets, minlength=len(self._files)))
        for file, places in zip(self._files, np.split(order, ends[:-1]), strict=True):
            file.write(_picked(rows, places).view(np.uint8).data)

    def _take_held(self) -> np.ndarray:
        rows = np.concatenate([np.empty(0, self._record), *self._held])
        self._held, self._held_bytes = [], 0
        return rows

    def _ordered(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        order = np.argsort(self._keys(rows), kind="stable")
        for begin in range(0, len(rows), _BLOCK_ROWS):
            yield _picked(rows, order[begin : begin + _BLOCK_ROWS])

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        return mix_keys(mix_keys(rows["game"], self._salt), rows["ply"].astype(np.uint64))


def _picked(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return rows[places]; taken as raw bytes, which numpy does three times as fast."""
    return rows.view(f"V{rows.itemsize}")[places].view(rows.dtype)


class _Shards:
    """Writes the shards of one side of a data set, but for those that are there already."""

    def __init__(self, target: Path, side: Side, about: SearchedAbout, shard_rows: int) -> None:
        self._target = target
        self._side = side
        self._about = about
        self._shard_rows = shard_rows
        self._waiting: list[np.ndarray] = []
        self._written_rows = 0
        self.files: list[SearchedFile] = []
        self.rows = 0
        self.written = False

    def add(self, rows: np.ndarray) -> None:
        """Take in rows, and write what is full. Raises OSError."""
        self._waiting.append(rows)
        self.rows += len(rows)
        if self.rows - self._written_rows < self._shard_rows:
            return
        whole = np.concatenate(self._waiting)
        full = len(whole) - len(whole) % self._shard_rows
        for begin in range(0, full, self._shard_rows):
            self._write(whole[begin : begin + self._shard_rows])
        self._waiting = [whole[full:]]

    def end(self) -> None:
        """Write what is left. Raises OSError."""
        if self.rows > self._written_rows:
            self._write(np.concatenate(self._waiting))

    def _write(self, rows: np.ndarray) -> None:
        name = f"{self._side}/searched_{len(self.files):04d}.npz"
        data, info = encode_searched_shard({each: rows[each] for each in SEARCHED_COLUMNS}, self._about)
        if not holds(self._target / name, info):
            # What is half the old data set and half the new is none.
            (self._target / MANIFEST).unlink(missing_ok=True)
            put_searched_shard(self._target / name, data, info)
            self.written = True
        self.files.append(SearchedFile(name, info.rows, info.digest))
        self._written_rows += info.rows


def _write(
    rows: _SortedRows,
    about: SearchedAbout,
    target: Path,
    settings: SearchedExportSettings,
    *,
    games: int,
    progress: Callable[[float, float, str], None],
    should_stop: Callable[[], bool],
) -> tuple[SearchedSet, bool]:
    """Return what was made of the rows, and whether anything was written for it. Raises Stopped and OSError."""
    sides = {side: _Shards(target, side, about, settings.shard_rows) for side in SIDES}
    for block in rows.in_order():
        if should_stop():
            raise Stopped
        apart = is_validation(block["game"], settings.validation_share)
        sides["train"].add(block[~apart])
        sides["validation"].add(block[apart])
        progress(sum(shards.rows for shards in sides.values()), rows.count, "rows")
    for shards in sides.values():
        shards.end()
    made = SearchedSet(
        schema=SEARCHED_SCHEMA,
        game=about.game,
        cells=about.cells,
        actions=about.actions,
        games=games,
        train_rows=sides["train"].rows,
        validation_rows=sides["validation"].rows,
        validation_share=settings.validation_share,
        seed=settings.seed,
        files=(*sides["train"].files, *sides["validation"].files),
    )
    changed = _remove_others(target, made) or any(shards.written for shards in sides.values())
    manifest = target / MANIFEST
    if not changed and manifest.exists() and manifest.read_bytes() == made.to_json():
        return made, False
    write_atomic(manifest, made.to_json())
    return made, True


def _remove_others(target: Path, made: SearchedSet) -> bool:
    """Remove the shards of an earlier data set that are none of this one; return whether there were any."""
    named = {target / file.name for file in made.files}
    found = {path for side in SIDES for path in (target / side).glob("searched_*.npz")}
    for folder in (target, *(target / side for side in SIDES)):
        remove_torn(folder)
    for path in found - named:
        (target / MANIFEST).unlink(missing_ok=True)
        sidecar_of(path).unlink(missing_ok=True)
        path.unlink()
    return bool(found - named)


def _no_rows(folders: Sequence[Path], reader: _Reader, selection: _Selection) -> UsageError:
    looked = ", ".join(map(str, folders)) or "no folder"
    return UsageError(
        "there are no rows to export",
        why=f"{looked}: {selection.games} games, {reader.damaged} damaged chunks, and no row that is kept",
        fix="play first, with `tamen selfplay`, or keep more of the rows",
    )
