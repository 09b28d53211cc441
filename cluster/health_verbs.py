"""`tamen health`: whether training goes well."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.verbs import AsJson, Runs

UNHEALTHY = 3


def health(
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="threshold=value, such as stale_model_hours=48; kept", metavar="SETTING"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="look again and again, until Ctrl-C")] = False,
    every: Annotated[
        float, typer.Option(help="between two looks of --watch", min=0.5, max=3600, metavar="SECONDS")
    ] = 5.0,
    on_alert: Annotated[
        str | None,
        typer.Option(help="run this when an alert changes; it gets JSON on stdin", metavar="COMMAND"),
    ] = None,
    forget: Annotated[
        str | None, typer.Option(help="leave out a key that is trained no longer", metavar="KEY")
    ] = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="print Prometheus text")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say whether training goes well, key by key, and what is wrong.

    Exit code 3 when something is critical. Thresholds that are set count for all who look at these runs from then on.
    """
    from cluster.health import show_health

    report = show_health(
        runs,
        settings or [],
        every=every if watch else None,
        on_alert=on_alert,
        forget=forget,
        prometheus=prometheus,
        as_json=as_json,
    )
    if report.status == "unhealthy":
        raise typer.Exit(UNHEALTHY)
