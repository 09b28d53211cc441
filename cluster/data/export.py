"""How exports are made once: nothing is done until a source, a setting or the output has changed.

`export_once` is for an export of any kind, `export_rows_once` for one of self-play to rows; the latter is what
`tamen data export --form rows` and the autopilot do. What was made is noted in the control file of the runs.

Who makes an export holds a file lock beside the output. Locks of the control plane would not do: they are those of one
folder of runs, while an output may be given to commands with several.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.text import Text

from cluster.cli.progress import StepDisplay
from cluster.cli.stopping import stop_request
from cluster.cli.terminal import console, whole
from configs.control import ExportConfig
from configs.searched import SearchedExportSettings
from control.database import CONTROL_FILE, Database
from control.export_cache import TABLES, ExportCache, Source, Verdict
from control.export_settings import ExportSettings, Selection, export_settings, override_export
from core.errors import ClusterError, DataError, UsageError
from pipeline.contract import Stopped
from pipeline.searched_rows import Exported, check_target, chunk_files, export_searched, newest_first
from replay.archive import StoredChunk
from replay.records import Chunk
from replay.searched_shards import SEARCHED_SCHEMA, SearchedSet, read_searched_set

LOCK_SECONDS = 1.0
SHOWN_AFTER_SECONDS = 2.0
"""What takes less shows no progress."""


@dataclass(frozen=True, slots=True)
class Made:
    """What an export came to; one that is not `whole`, as a file could not be read, is made again the next time."""

    games: int
    samples: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """An export that is there: made now for a reason, or `cached`, as nothing has changed."""

    games: int
    samples: int
    cached: bool
    reason: str


def export_once(
    cache: ExportCache,
    out: Path,
    sources: Sequence[Source],
    settings: Mapping[str, Any],
    make: Callable[[Verdict], Made],
    *,
    force: bool = False,
) -> Done:
    """Have `make` write `out` unless it is there, made of the same; note that it was.

    Args:
        settings: all that determines the export beside its sources, plain JSON.
        make: gets the reason.
        force: make it in any case.

    Raises:
        UsageError: when a source is not there, given twice or holds `out`.
        ClusterError: when another process is making it.
        DataError: when the notes cannot be read.
    """
    found = cache.look(out, sources, settings, force=force)
    if not found.valid:
        with claimed(out):
            # Once more: whoever had it until now may have made it.
            found = cache.look(out, sources, settings, force=force)
            if not found.valid:
                made = make(found)
                if made.whole:
                    cache.record(found.seen, games=made.games, samples=made.samples)
                return Done(made.games, made.samples, False, found.reason)
    return Done(found.games or 0, found.samples or 0, True, found.reason)


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Let no other export write to `out` meanwhile. Raises ClusterError when one does."""
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise ClusterError(
            f"{out} is being written by another export",
            why=f"another process holds {lock.lock_file}",
            fix="wait for it, or export to another place",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def open_cache(runs: Path) -> Iterator[ExportCache]:
    """Give the notes on exports that belong to a folder of runs. Raises DataError when they cannot be read."""
    database = Database(runs / CONTROL_FILE, TABLES)
    try:
        yield ExportCache(database)
    finally:
        database.close()


@dataclass(frozen=True, slots=True)
class Held:
    """What the replay of a run holds: games of `game`, and rows of them; `game` is None when there are none."""

    folder: Path
    game: str | None
    games: int
    rows: int

    @property
    def source(self) -> Source:
        return Source(self.folder / "replay", self.games)


def held_in(folder: Path) -> Held:
    """Return what the replay of a run holds, by its newest and its oldest sound chunk: each has the counters so far."""
    files = chunk_files(folder)
    newest = _first_sound(files)
    oldest = _first_sound(files[::-1])
    if newest is None or oldest is None:
        return Held(folder, None, 0, 0)
    (last, chunk), (first, earliest) = newest, oldest
    games = last.total_games - first.total_games + earliest.num_games
    return Held(folder, chunk.game, games, last.total_rows - first.total_rows + earliest.num_rows)


def _first_sound(files: Sequence[Path]) -> tuple[StoredChunk, Chunk] | None:
    for file in files:
        try:
            stored = StoredChunk.decode(file.read_bytes(), source=str(file))
            return stored, Chunk.decode(stored.chunk, source=str(file))
        except (OSError, DataError):  # the export tells of those that are damaged; one may be gone by now
            continue
    return None


@dataclass(frozen=True, slots=True)
class Keep:
    """Which rows a selection takes, as `pipeline.searched_rows.export_searched` asks."""

    selection: Selection

    def __call__(self, games: np.ndarray, plies: np.ndarray) -> np.ndarray:
        """Return bool [R] of rows with games uint64 [R] and plies int64 [R]."""
        if self.selection.stride == 1:
            return np.ones(len(plies), bool)
        kept = np.zeros(len(plies), bool)
        for game in np.unique(games):
            own = np.flatnonzero(games == game)
            taken = self.selection.positions(str(game), int(plies[own].max()) + 1)
            kept[own] = np.isin(plies[own], taken)
        return kept


@dataclass(frozen=True, slots=True)
class RowsOrder:
    """A data set of self-play that is wanted.

    Attributes:
        game: that was played.
        held: what is in the folders it is made of.
        out: its own folder.
        selection: of games and positions.
        validation_share: of games, kept apart.
        seed: of the order of rows.
    """

    game: str
    held: tuple[Held, ...]
    out: Path
    selection: Selection
    validation_share: float
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines it beside what the folders hold; of another schema it is another."""
        return {
            "form": "rows",
            "schema": SEARCHED_SCHEMA,
            "game": self.game,
            "max_games": self.selection.max_games,
            "stride": str(self.selection.stride),
            "sample_seed": self.selection.seed,
            "validation_share": self.validation_share,
            "seed": self.seed,
        }


def export_rows_once(
    cache: ExportCache, order: RowsOrder, make: Callable[[Verdict], Made], *, force: bool = False
) -> Done:
    """Have `make` make a data set unless it is there, made of the same; see `export_once`."""
    sources = [held.source for held in order.held]
    return export_once(cache, order.out, sources, order.settings, make, force=force)


@dataclass(frozen=True, slots=True)
class Watch:
    """Where an export tells how far it is, and learns that it is to end.

    Attributes:
        progress: takes (done, total, unit).
        should_stop: whether to leave off.
        say: takes a line for people.
    """

    progress: Callable[[float, float, str], None]
    should_stop: Callable[[], bool]
    say: Callable[[str], None]


@contextmanager
def watched(name: str, place: Path, *, quiet: bool) -> Iterator[Watch]:
    """Show on stderr how far the step `name`, which writes to `place`, is, if it is a long one.

    Raises:
        KeyboardInterrupt: when it was asked to stop, and did.
        OSError: with a name of a file, also where the system gives none.
    """
    display = StepDisplay(console(stderr=True), plain=quiet, line_seconds=SHOWN_AFTER_SECONDS)
    began = time.monotonic()

    def progress(done: float, total: float, unit: str) -> None:
        if time.monotonic() - began >= SHOWN_AFTER_SECONDS:
            display.progress(done, total, unit)

    try:
        with stop_request() as stop, display:
            display.begin(name)
            yield Watch(progress, lambda: stop.requested, display.say)
    except Stopped:
        raise KeyboardInterrupt from None
    except OSError as error:
        # A full disk does not say where.
        raise OSError(error.errno, error.strerror, error.filename or str(place)) from error


def export_rows(
    folders: Sequence[Path],
    out: Path,
    *,
    max_games: int | None = None,
    sample_every: int | None = None,
    validation_share: float = 0.05,
    seed: int = 0,
    force: bool,
    runs: Path,
    quiet: bool = False,
    config: ExportConfig | None = None,
) -> dict[str, Any]:
    """Make a data set in `out` of the games in folders of runs or of self-play; once.

    Args:
        max_games, sample_every: instead of what the number of games would have: only so many, the newest; and one
            position of so many, whatever the game.
        validation_share: of games, kept apart.
        seed: of the sample, and of the order of rows.
        force: make it also when nothing has changed.
        runs: folder where it is noted what was exported.
        config: how much is exported by how many games there are; None: the defaults.

    Raises:
        UsageError: when a number is out of its range; when a folder is not there, has no games or those of another
            game; when something else is in `out`.
        ClusterError: when another process is making it.
        DataError: when the notes cannot be read.
    """
    if not 0 <= validation_share < 1:
        raise UsageError(
            f"validation_share={validation_share:g} is not allowed",
            why="it must be at least 0 and less than 1: something is left to learn from",
            fix="give for example 0.05",
        )
    held = tuple(map(held_in, newest_first(folders)))
    game = _only_game(held)
    check_target(out, game)
    config = override_export(
        config or ExportConfig(), game, max_games=max_games, sample_every=sample_every, seed=seed
    )
    settings = rows_settings(game, held, config)
    order = RowsOrder(game, held, out, settings.selection, validation_share, seed)
    made: list[Exported] = []

    def make(verdict: Verdict) -> Made:
        tell_why(verdict, quiet=quiet)
        if not quiet:
            _tell_plan(game, settings)
        made.append(_export_rows(order, quiet=quiet))
        return Made(made[0].games, made[0].rows)

    with open_cache(runs) as cache:
        done = export_rows_once(cache, order, make, force=force)
    estimated = settings.estimated_samples
    off = (done.samples - estimated) / estimated if estimated else None
    if not quiet:
        told = f"{whole(done.samples)} rows of {whole(done.games)} games in {out}"
        if not done.cached and off is not None:
            by = f"{abs(off):.1%} {'more' if off > 0 else 'fewer'} than" if off else "as"
            told += f", {by} estimated"
        tell_done(told, done)
    return {
        "form": "rows",
        "game": game,
        "off": off,
        **_as_json(done, settings, made, read_searched_set(out)),
        "out": str(out),
    }


def _as_json(
    done: Done, settings: ExportSettings, made: Sequence[Exported], about: SearchedSet
) -> dict[str, Any]:
    """Return what there is to tell; what only the making tells is None where `made` is empty."""
    return {
        "games": done.games,
        "rows": done.samples,
        "train_rows": about.train_rows,
        "validation_rows": about.validation_rows,
        "cached": done.cached,
        "reason": done.reason,
        "tier": settings.tier,
        "max_games": settings.selection.max_games,
        "stride": float(settings.selection.stride),
        "estimated_rows": settings.estimated_samples,
        "damaged_chunks": made[0].damaged if made else None,
        "vanished_chunks": made[0].vanished if made else None,
        "duplicates": made[0].duplicates if made else None,
        "digest": about.digest,
    }


def _export_rows(order: RowsOrder, *, quiet: bool) -> Exported:
    from games.catalog import make_game

    with watched("exporting", order.out, quiet=quiet) as watch:
        return export_searched(
            [held.folder for held in order.held],
            make_game(order.game),
            order.out,
            SearchedExportSettings(
                max_games=order.selection.max_games,
                validation_share=order.validation_share,
                seed=order.seed,
            ),
            keep=Keep(order.selection),
            log=watch.say,
            progress=watch.progress,
            should_stop=watch.should_stop,
        )


def _only_game(held: Sequence[Held]) -> str:
    """Return the game that was played in all folders. Raises UsageError when there is none, or several are."""
    for each in held:
        if each.game is None or not each.games:
            raise UsageError(
                f"there are no games in {each.folder}",
                why=f"no chunk that is whole and has a game is in {each.source.path}",
                fix="play first, with `tamen selfplay`; or leave the folder out",
            )
    games = {str(each.game): each.folder for each in held}
    if len(games) > 1:
        (first, here), (second, there), *_ = sorted(games.items())
        raise UsageError(
            "games of several kinds cannot be exported together",
            why=f"{here} has games of {first}, {there} those of {second}",
            fix="export each kind to a folder of its own",
        )
    return next(iter(games))


def rows_settings(game: str, held: Sequence[Held], config: ExportConfig) -> ExportSettings:
    """Return how games in folders, the newest first, are exported, by how many rows those have that are taken."""
    games = sum(each.games for each in held)

    def given_of(most: int | None) -> ExportSettings:
        left, rows = games if most is None else min(most, games), 0.0
        taken = left
        for each in held:
            here = min(left, each.games)
            rows, left = rows + here * each.rows / each.games, left - here
        return export_settings(game, games, config, moves_per_game=rows / taken)

    return given_of(given_of(None).selection.max_games)


def _tell_plan(game: str, settings: ExportSettings) -> None:
    selection = settings.selection
    taken = settings.games - selection.first_game(settings.games)
    which = (
        f"the newest {whole(taken)} of {whole(settings.games)}" if taken < settings.games else whole(taken)
    )
    every = "every position" if selection.stride == 1 else f"one position in {float(selection.stride):g}"
    rows = whole(settings.estimated_samples)
    console().print(
        Text(f"{game}, tier {settings.tier}: {every} of {which} games, about {rows} rows"), soft_wrap=True
    )


def tell_why(verdict: Verdict | None, *, quiet: bool) -> None:
    """Print why what was exported before is exported again."""
    if verdict is not None and verdict.cause != "unknown" and not quiet:
        console().print(Text(f"made again: {verdict.reason}"), soft_wrap=True)


def tell_done(what: str, done: Done) -> None:
    """Print what is there now, and why nothing had to be done for it."""
    unchanged = f"nothing to do: {done.reason}\n" if done.cached else ""
    console().print(Text(f"{unchanged}{what}"), soft_wrap=True)
