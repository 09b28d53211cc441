"""`tamen data …`: look at files of games, clean them, and write games in other forms."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.cli.verbs import AsJson, Runs, add_verb, print_json

data = typer.Typer(
    help="See what is in files of games, clean and convert them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, data)

Files = Annotated[
    list[str], typer.Argument(help="files of games, or folders that hold some", metavar="FILES…")
]
Source = Annotated[str, typer.Argument(help="a folder that `import` made, or files of games", metavar="PATH")]
RepeatedCell = Annotated[
    Literal["reject", "swap"],
    typer.Option(help="what it is when the second move takes the cell of the first"),
]


def _import(
    files: Files,
    out: Annotated[
        Path | None, typer.Option(help="folder for the cleaned games (default: only count)", metavar="FOLDER")
    ] = None,
    chunk_games: Annotated[int, typer.Option(help="games in a file", min=1, metavar="N")] = 10_000,
    repeated_cell: RepeatedCell = "reject",
    as_json: AsJson = False,
) -> None:
    """Clean files of games: check each, drop duplicates, set aside what is none.

    Exit code 1 when a file could not be read whole; the rest was. The same command goes on after an interruption.
    """
    from cluster.data.files import import_games

    counts = import_games(files, out, chunk_games=chunk_games, repeated_cell=repeated_cell, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["files_set_aside"]:
        raise typer.Exit(1)


verb(_import, "import")


@verb
def stats(path: Source, as_json: AsJson = False) -> None:
    """Tell how many games there are, how long, and who won.

    Exit code 1 when a file could not be read whole.
    """
    from cluster.data.files import games_stats

    counts = games_stats(path, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["files_set_aside"]:
        raise typer.Exit(1)


@verb
def check(files: Files, repeated_cell: RepeatedCell = "reject", as_json: AsJson = False) -> None:
    """Tell of each line that is no game where it is and why.

    Exit code 1 when there is one, or a file that cannot be read.
    """
    from cluster.data.files import check_files

    counts = check_files(files, repeated_cell=repeated_cell, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["rejected"] or counts["files_set_aside"]:
        raise typer.Exit(1)


@verb
def export(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="a folder that `import` made, or files of games; for rows folders of runs or of self-play",
            metavar="PATHS…",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="where to; .gz is packed, rows are a folder", metavar="FILE|FOLDER")
    ],
    form: Annotated[
        Literal["trmph", "hexworld", "sgf", "rows"],
        typer.Option(help="how games are written; rows: to train on, with what the search found"),
    ] = "trmph",
    max_games: Annotated[
        int | None,
        typer.Option(help="only so many, the newest (default: by how many there are)", metavar="N"),
    ] = None,
    sample_every: Annotated[
        int | None,
        typer.Option(help="one position of so many (default: by how many games there are)", metavar="N"),
    ] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="of the games, kept apart (default: 0.05)", metavar="SHARE")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="of the sample and the order (default: 0)", metavar="N")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="also when nothing has changed")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write games in another form, each on a line; or their positions as rows to train on.

    Nothing is done when sources, settings and output are as they were.

    Exit code 1 when a file could not be read whole; the games of the rest are written.
    """
    given = {
        "max_games": max_games,
        "sample_every": sample_every,
        "validation_share": validation_share,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if form == "rows":
        from cluster.data.export import export_rows

        result = export_rows(list(map(Path, paths)), out, force=force, runs=runs, quiet=as_json, **given)
    else:
        from cluster.data.files import export_games, only_path

        path = only_path(paths, form, given)
        result = export_games(path, form, out, force=force, runs=runs, quiet=as_json)
    if as_json:
        print_json(result)
    if result.get("files_set_aside"):
        raise typer.Exit(1)
