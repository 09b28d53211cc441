"""`tamen data …`: what is in files of games, and games in other forms: as lines of text, or as rows to train on."""

import gzip
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from rich.table import Table
from rich.text import Text

from cluster.cli.terminal import console, percent, sparkline, whole
from cluster.data.export import Done, Made, claimed, export_once, open_cache, tell_done, tell_why, watched
from control.export_cache import Source, Verdict
from core.errors import DataError, UsageError
from core.files import open_atomic, write_atomic
from games.formats.reading import read_game, write_game
from games.formats.record import Form
from pipeline.checking import RepeatedCell
from pipeline.contract import Context, Stopped
from pipeline.executors import Inline, Processes
from pipeline.preprocess import MANIFEST, REJECTED, PreprocessStep
from pipeline.reading import PIECE_BYTES
from pipeline.storage import is_url

_SETTINGS = "import.json"
_BARS = 24
_TOLD_GAMES = 1000
"""Between two words of how many are written."""


def import_games(
    paths: Sequence[str],
    out: Path | None,
    *,
    chunk_games: int = 10_000,
    repeated_cell: RepeatedCell = "reject",
    quiet: bool = False,
) -> dict[str, Any]:
    """Clean files of games into `out`, or only count what is in them; return the counts, and print them unless `quiet`.

    The same call goes on with a folder that an interrupted one left.

    Raises:
        UsageError: when a file is not there, or `out` holds something else.
        DataError: when there is not one game in the files.
        OSError: when `out` cannot be written; nothing in it is half written.
        KeyboardInterrupt: when asked to stop; what was done stays done.
    """
    step = PreprocessStep(paths, chunk_games=chunk_games, repeated_cell=repeated_cell)
    with _cleaned(step, out, quiet=quiet) as (folder, counts):
        if not quiet:
            show_counts(counts, rejected=folder / REJECTED if out else None)
            if out and counts["games"]:
                console().print(Text(f"\nnext: tamen pipeline --data {out}"))
        _refuse_nothing(counts, paths)
        return counts


def games_stats(path: str, *, quiet: bool = False) -> dict[str, Any]:
    """Return the counts of a folder of cleaned games as its manifest has them, or of other files by reading them."""
    manifest = Path(path) / MANIFEST
    if not manifest.exists():
        return import_games([path], None, quiet=quiet)
    counts = _manifest(manifest)["counts"]
    if not quiet:
        show_counts(counts, rejected=manifest.with_name(REJECTED))
    return counts


def check_files(
    paths: Sequence[str], *, repeated_cell: RepeatedCell = "reject", quiet: bool = False
) -> dict[str, Any]:
    """Return the counts of files, and print `file:line: reason: detail` of all that import would set aside."""
    step = PreprocessStep(paths, repeated_cell=repeated_cell)
    with _cleaned(step, None, quiet=quiet) as (folder, counts):
        target = console()
        with (folder / REJECTED).open(encoding="utf-8") as lines:
            for line in lines:
                if quiet:
                    break
                about = json.loads(line)
                where = f"{about['file']}:{about['line']}" if about["line"] else about["file"]
                target.print(Text(f"{where}: {about['reason']}: {about['detail']}"), soft_wrap=True)
        if not quiet:
            kinds = ("lines", "games", "duplicates", "rejected")
            target.print(Text(", ".join(f"{whole(counts[kind])} {kind}" for kind in kinds)))
        return counts


def export_games(
    path: str, form: Form, out: Path, *, force: bool, runs: Path, quiet: bool = False
) -> dict[str, Any]:
    """Write the games of a folder of cleaned games, or of other files, cleaned, as lines of `form`; once.

    What is at a URL, or could not be read whole, is written each time. For swaps see `pipeline.checking`.

    Args:
        out: packed when it is called `.gz`, and replaced in one step.
        force: write it also when nothing has changed.
        runs: folder where it is noted what was exported.

    Returns:
        "form", "games", "cached", "reason" and "out"; in "files_set_aside" of each file that could not be read whole
        "file", "reason" and "detail".

    Raises:
        UsageError, DataError, ClusterError: as `cluster.data.export.export_once` says; also without games, and when
            `out` is a folder.
        KeyboardInterrupt: when asked to stop; `out` is as it was.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder", why=f"games as {form} are one file", fix="give a name in it")
    is_clean = (Path(path) / MANIFEST).exists()
    aside: list[dict[str, str]] = []

    def write(verdict: Verdict | None) -> Made:
        tell_why(verdict, quiet=quiet)
        with _clean_games(path, quiet=quiet) as (folder, counts):
            aside.extend(counts["files_set_aside"])
            games = _export(folder, form, out, quiet=quiet)
        return Made(games, games, whole=is_clean or not aside)

    if is_url(path):
        with claimed(out):
            made = write(None)
        done = Done(made.games, made.samples, False, "what is at a URL is not looked at")
    else:
        with open_cache(runs) as cache:
            done = export_once(cache, out, [Source(Path(path))], {"form": form}, write, force=force)
    if done.cached and is_clean:
        aside += _manifest(Path(path) / MANIFEST)["counts"]["files_set_aside"]
    if not quiet:
        tell_done(f"{whole(done.games)} games in {out}", done)
        tell_set_aside({"files_set_aside": aside})
    return {
        "form": form,
        "games": done.games,
        "cached": done.cached,
        "reason": done.reason,
        "out": str(out),
        "files_set_aside": aside,
    }


def only_path(paths: Sequence[str], form: Form, given: Mapping[str, Any]) -> str:
    """Return the one path of an export as text. Raises UsageError when there are several, or settings of rows."""
    if given:
        option = next(iter(given)).replace("_", "-")
        raise UsageError(
            f"--{option} says nothing to {form}",
            why="games are written whole, and all of them",
            fix="leave it out, or add --form rows",
        )
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} paths cannot be written as {form} at a time",
            why="only rows are made of several",
            fix="clean them into one folder first: tamen data import PATHS --out FOLDER",
        )
    return paths[0]


def show_counts(counts: dict[str, Any], *, rejected: Path | None) -> None:
    """Print the counts as one table, and below it files that could not be read whole."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    games, lengths = counts["games"], counts["lengths"]
    where = f"see {rejected}" if rejected and counts["rejected"] else ""
    rows = [
        ("lines", counts["lines"], "without headers and blank lines"),
        ("games", games, "each once"),
        ("duplicates", counts["duplicates"], ""),
        ("rejected", counts["rejected"], where),
        *((f"  {reason}", number, "") for reason, number in counts["rejected_reasons"].items()),
        ("unfinished", counts["unfinished"], "games without a winning chain"),
        ("swapped", counts["swapped"], "mirrored"),
        *(
            (f"won by {who}", number, percent(number / games) if games else "")
            for who, number in counts["won"].items()
        ),
        *((f"{size}×{size}", number, "") for size, number in counts["by_size"].items()),
    ]
    for name, number, remark in rows:
        if number or name in ("lines", "games", "duplicates", "rejected", "unfinished"):
            table.add_row(name, whole(number), Text(remark, style="dim"))
    if games:
        bars = sparkline(list(lengths["histogram"].values()), _BARS)
        span = f"{lengths['min']}–{lengths['max']}"
        table.add_row("moves", span, f"{bars} mean {lengths['mean']:.1f}, median {lengths['median']:.0f}")
    target = console()
    target.print(table)
    tell_set_aside(counts)


def tell_set_aside(counts: Mapping[str, Any]) -> None:
    """Print which files could not be read whole, and why."""
    for about in counts["files_set_aside"]:
        console().print(Text(f"{about['file']}: {about['reason']}: {about['detail']}"), soft_wrap=True)


@contextmanager
def _cleaned(step: PreprocessStep, out: Path | None, *, quiet: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Have `step` clean its files into `out`, or a folder that is gone afterwards; give the folder and the counts."""
    if out is not None:
        _claim(out, json.dumps(step.settings))
        yield out, _clean(step, out, quiet=quiet)
        return
    with tempfile.TemporaryDirectory(prefix="tamen-") as folder:
        yield Path(folder), _clean(step, Path(folder), quiet=quiet)


@contextmanager
def _clean_games(path: str, *, quiet: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a folder of cleaned games, and its counts: `path` itself, or one that its files are cleaned into."""
    manifest = Path(path) / MANIFEST
    if manifest.exists():
        yield manifest.parent, _manifest(manifest)["counts"]
        return
    with _cleaned(PreprocessStep([path]), None, quiet=quiet) as (folder, counts):
        _refuse_nothing(counts, [path])
        yield folder, counts


def _clean(step: PreprocessStep, folder: Path, *, quiet: bool) -> dict[str, Any]:
    sizes = [source.get("bytes", 0) for source in step.settings["sources"]]
    workers = min(len(os.sched_getaffinity(0)), max(len(sizes), sum(sizes) // PIECE_BYTES))
    alone = workers <= 1 or sum(sizes) < PIECE_BYTES  # processes take longer to begin than this to read
    with (
        watched("reading", folder, quiet=quiet) as watch,
        Inline() if alone else Processes(workers) as executor,
    ):
        context = Context(executor, watch.progress, watch.should_stop, lambda line: None)
        return step.run({}, folder, context)


def _claim(out: Path, settings: str) -> None:
    """See that nothing else is in `out`, and let it be known whose it is. Raises UsageError when something is."""
    mark = out / _SETTINGS
    if mark.exists() and mark.read_text() == settings:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} is not free",
            why="it holds games of other files or settings" if mark.exists() else "something else is in it",
            fix="give another folder, or delete this one",
        )
    write_atomic(mark, settings.encode())


def _export(folder: Path, form: Form, out: Path, *, quiet: bool) -> int:
    manifest = _manifest(folder / MANIFEST)
    games, total = 0, manifest["counts"]["games"]
    with watched("writing", out, quiet=quiet) as watch, open_atomic(out) as raw:
        packed = out.suffix == ".gz"
        file = cast("BinaryIO", gzip.GzipFile(fileobj=raw, mode="wb", mtime=0)) if packed else raw
        for about in manifest["files"]:
            with (folder / about["name"]).open(encoding="utf-8") as lines:
                for line in lines:
                    file.write(f"{write_game(read_game(line), form)}\n".encode())
                    games += 1
                    if games % _TOLD_GAMES == 0:
                        watch.progress(games, total, "games")
                        if watch.should_stop():
                            raise Stopped
        if packed:
            file.close()
    return games


def _manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_bytes())
        if not isinstance(manifest["files"], list) or "lines" not in manifest["counts"]:
            raise ValueError("it has no files and counts")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is no manifest of cleaned games",
            why=f"{type(error).__name__}: {error}",
            fix="make the folder anew: tamen data import FILES --out FOLDER",
        ) from error
    return manifest


def _refuse_nothing(counts: dict[str, Any], paths: Sequence[str]) -> None:
    if counts["games"]:
        return
    reasons = [f"{number} × {reason}" for reason, number in counts["rejected_reasons"].items()]
    reasons += [f"{about['file']}: {about['reason']}" for about in counts["files_set_aside"][:3]]
    raise DataError(
        f"there is not one game in {', '.join(map(str, paths))}",
        why="; ".join(reasons) or "there are only headers and blank lines",
        fix="`tamen data check` tells what is wrong with each line",
    )
