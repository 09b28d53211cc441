"""`tamen models …`: which models there are, where they came from, and who is champion."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.cli.verbs import AsJson, Runs, add_verb, print_json

models = typer.Typer(
    help="See models and where they came from; say who is champion.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verb = functools.partial(add_verb, models)

Name = Annotated[
    str,
    typer.Argument(help="an id or alias: hex5_2p-v3, hex5_2p@champion", metavar="MODEL", show_default=False),
]
KeyText = Annotated[
    str, typer.Argument(help="a game and its players: hex5_2p", metavar="KEY", show_default=False)
]
Why = Annotated[str, typer.Option(help="what the history says", metavar="TEXT")]


def _list(
    key: Annotated[
        str | None,
        typer.Argument(help="a game and its players, such as hex5_2p (default: all)", metavar="KEY"),
    ] = None,
    stage: Annotated[
        Literal["development", "staging", "production", "archived", "rejected"] | None,
        typer.Option(help="only those in this stage"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="read every file whole, also those that look untouched")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List models: stage, aliases, parent, games, Elo, and whether their files are as they were.

    Exit code 1 when a file is gone or altered.
    """
    from cluster.run.registry_view import list_models

    found = list_models(key, runs=runs, stage=stage, verify=verify, quiet=as_json)
    if as_json:
        print_json(found)
    if any(model["file_state"] != "ok" for model in found):
        raise typer.Exit(1)


_list.__name__ = "list"  # which is a name of Python's, but the natural one for the verb
verb(_list)


@verb
def show(model: Name, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show the card of a model: what it was made of, how it played, and what became of it.

    Exit code 1 when its file is gone or altered.
    """
    from cluster.run.registry_view import show_model

    told = show_model(model, runs=runs, quiet=as_json)
    if as_json:
        print_json(told)
    if told["file_state"] != "ok":
        raise typer.Exit(1)


@verb
def promote(
    model: Name,
    to: Annotated[
        Literal["champion", "candidate", "development", "archived", "rejected"],
        typer.Option(help="what it becomes"),
    ] = "champion",
    expected: Annotated[
        str | None,
        typer.Option(
            help="only if that one is champion (or candidate) now; none: nobody (default: whoever is)",
            metavar="ID",
        ),
    ] = None,
    why: Why = "by hand",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Make a model champion of its key, or candidate; or put it aside, or take it back.

    The champion before is archived, and `tamen models rollback` brings it back; so does the autopilot when games show
    that it is the stronger one, see promotion.watch_minutes.
    """
    from cluster.run.registry_view import promote_model

    told = promote_model(model, to, expected=expected, why=why, runs=runs, quiet=as_json)
    if as_json:
        print_json(told)


@verb
def rollback(key: KeyText, why: Why = "by hand", runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Make the champion before this one champion again."""
    from cluster.run.registry_view import roll_back

    told = roll_back(key, why=why, runs=runs, quiet=as_json)
    if as_json:
        print_json(told)


@verb
def lineage(
    name: Annotated[
        str,
        typer.Argument(help="a key, for all its models; or a model", metavar="KEY|MODEL", show_default=False),
    ],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Draw which model was made of which."""
    from cluster.run.registry_view import show_lineage

    told = show_lineage(name, runs=runs, quiet=as_json)
    if as_json:
        print_json(told)
