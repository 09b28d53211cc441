"""What the verbs of the command share: how errors and results are told, and options that several take."""

import errno
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import TamenError, of_the_system

AsJson = Annotated[bool, typer.Option("--json", help="print JSON on the last line")]
Runs = Annotated[Path, typer.Option(help="folder that holds the runs", metavar="FOLDER")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


def add_verb(app: typer.Typer, work: Callable[..., None], name: str | None = None) -> Callable[..., None]:
    """Make `work` a verb of `app`, called `name` or as the function is.

    It takes --debug, and an error of it becomes three lines and an exit code.
    """

    @functools.wraps(work)
    def told(*, debug: bool, **given: Any) -> None:
        try:
            _check_folder(given.get("runs"))
            work(**given)
        except (TamenError, OSError) as error:
            from cluster.cli.terminal import show_error

            known = error if isinstance(error, TamenError) else of_the_system(error)
            show_error(known, debug=debug)
            raise typer.Exit(known.exit_code) from error

    signature, option = inspect.signature(work), inspect.Parameter.KEYWORD_ONLY
    takes_debug = inspect.Parameter("debug", option, default=False, annotation=Debug)
    # Typer reads the options of a verb from these two.
    told.__signature__ = signature.replace(parameters=[*signature.parameters.values(), takes_debug])  # pyright: ignore[reportAttributeAccessIssue]
    told.__annotations__ = {**work.__annotations__, "debug": Debug}
    return app.command(name)(told)


def _check_folder(runs: Path | None) -> None:
    """Raise OSError when the folder of runs is none: who only looks would say that nothing is there."""
    if runs is not None and runs.exists() and not runs.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(runs))


def settings_without_preset(preset: str | None, settings: list[str] | None) -> list[str] | None:
    """Return all settings when the preset was left out, so that what stands first is a setting; else None."""
    return [preset, *(settings or [])] if preset is not None and "=" in preset else None


def print_json(result: Any) -> None:
    """Print `result` on one line, for programs."""
    sys.stdout.write(json.dumps(result) + "\n")
