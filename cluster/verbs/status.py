"""`tamen status | scale | stop`: how runs and autopilots stand, how many play, and that they end."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.verbs import AsJson, Runs, print_json


def status(
    name: Annotated[str | None, typer.Argument(help="a run (default: all of them)", metavar="RUN")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="the autopilots instead, and their trainings")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how runs stand: games, steps, strength, running or not.

    Of one run that goes on, also what each of its machines does.
    """
    if auto:
        from cluster.autopilot.status import show_autopilots

        result: object = show_autopilots(runs, quiet=as_json)
    else:
        from cluster.monitoring.status import show_status

        result = show_status(name, runs=runs, quiet=as_json)
    if as_json:
        print_json(result)


def scale(
    name: Annotated[str, typer.Argument(help="a run that goes on", metavar="RUN")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="actors_per_machine=12, servers_per_machine=auto; by kind: '{home: 1, spot: 12}'",
            metavar="SETTING",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say or change how many actors each machine of a run has.

    It takes force within seconds and lasts until the run stops: the command that resumes it says anew what
    actors.count and inference.servers are. Actors that are too many deliver what they have finished.
    """
    from cluster.machines.scaling import scale_run

    result = scale_run(name, settings or [], runs=runs, quiet=as_json)
    if as_json:
        print_json(result)


def stop(
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Let the autopilots leave off; what they have finished is kept.

    The same `tamen train --auto` goes on later.
    """
    from cluster.autopilot.status import stop_autopilots

    stopped = stop_autopilots(runs, quiet=as_json)
    if as_json:
        print_json({"stopped": stopped})
