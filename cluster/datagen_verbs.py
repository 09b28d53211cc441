"""`tamen datagen …`: training data for poker, and what it is drawn from."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.verbs import AsJson, add_verb, print_json

datagen = typer.Typer(
    help="See how poker is played in logs of hands.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, datagen)
# A typer application of one verb would take that verb's name for an argument.
datagen.callback()(lambda: None)


@verb
def analyze_hands(
    logs: Annotated[
        list[str], typer.Argument(help="logs of hands, plain or .gz, as ACPC programs write", metavar="LOGS…")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file, or a folder for one with a stamp (default: only count)", metavar="FILE"
        ),
    ] = None,
    raises: Annotated[
        Literal["by", "round", "total"] | None,
        typer.Option(
            help="what r200 says: chips on top of a call, or put in in this round, or in all"
            " (default: what the results say)"
        ),
    ] = None,
    blinds: Annotated[
        str | None, typer.Option(help="such as 50/100 (default: what the results say)", metavar="SMALL/BIG")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell on which streets players decide and how large they bet.

    Exit code 1 when lines were set aside, or a file could not be read whole; the rest was.
    """
    from cluster.analyze_hands import analyze_logs

    counts = analyze_logs(logs, out, raises=raises, blinds=blinds, quiet=as_json)
    if as_json:
        print_json(counts)
    if counts["set_aside"] or counts["files_set_aside"]:
        raise typer.Exit(1)
