"""`tamen data …`: look at files of games, clean them, and write them in other forms."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.verbs import AsJson, add_verb, print_json

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
    from cluster.data import import_games

    counts = import_games(files, out, chunk_games=chunk_games, repeated_cell=repeated_cell, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["files_set_aside"]:
        raise typer.Exit(1)


_import.__name__ = "import"  # which is no name for a function, but the natural one for the verb
verb(_import)


@verb
def stats(path: Source, as_json: AsJson = False) -> None:
    """Tell how many games there are, how long, and who won.

    Exit code 1 when a file could not be read whole.
    """
    from cluster.data import games_stats

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
    from cluster.data import check_files

    counts = check_files(files, repeated_cell=repeated_cell, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["rejected"] or counts["files_set_aside"]:
        raise typer.Exit(1)


@verb
def export(
    path: Source,
    out: Annotated[Path, typer.Option(help="where to; .gz is packed", metavar="FILE")],
    form: Annotated[
        Literal["trmph", "hexworld", "sgf"], typer.Option(help="how games are written")
    ] = "trmph",
    as_json: AsJson = False,
) -> None:
    """Write games in another form, each on a line.

    Exit code 1 when a file could not be read whole; the games of the rest are written.
    """
    from cluster.data import export_games

    games, set_aside = export_games(path, form, out, quiet=as_json)
    if as_json:
        print_json({"games": games, "out": str(out), "files_set_aside": set_aside})
    if set_aside:
        raise typer.Exit(1)
