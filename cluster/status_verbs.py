"""`tamen status | stop`: how runs and autopilots stand, and that they end."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.verbs import AsJson, Runs, print_json


def status(
    name: Annotated[str | None, typer.Argument(help="a run (default: all of them)", metavar="RUN")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="the autopilots instead, and their trainings")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how runs stand: games, steps, strength, running or not."""
    if auto:
        from cluster.autopilot_status import show_autopilots

        result: object = show_autopilots(runs, quiet=as_json)
    else:
        from cluster.status import show_status

        result = show_status(name, runs=runs, quiet=as_json)
    if as_json:
        print_json(result)


def stop(
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Let the autopilots leave off; what they have finished is kept.

    The same `tamen train --auto` goes on later.
    """
    from cluster.autopilot_status import stop_autopilots

    stopped = stop_autopilots(runs, quiet=as_json)
    if as_json:
        print_json({"stopped": stopped})
