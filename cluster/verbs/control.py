"""`tamen health | why | locks`: whether training goes well, what is decided and why, who trains what."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.addresses import cluster_to_join
from cluster.cli.verbs import AsJson, Runs, print_json, settings_without_preset

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
    from cluster.autopilot.health import show_health

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


def why(
    key: Annotated[
        str | None, typer.Argument(help="such as hex5_2p (default: all of them)", metavar="KEY")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="section.key=value, such as triggers.freshness_games=200", metavar="SETTING"),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say whether a key is trained, and every number that decides it.

    Settings behind the key are tried, not kept.
    """
    if (without_key := settings_without_preset(key, settings)) is not None:
        key, settings = None, without_key
    from cluster.autopilot.why import explain

    found = explain(key, settings or [], runs=runs, quiet=as_json)
    if as_json:
        print_json(found)


def locks(
    broken: Annotated[
        str | None,
        typer.Option(
            "--break", help="free this lock; what its holder still writes is refused", metavar="NAME"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray that keeps them: auto or HOST:PORT", envvar="RAY_ADDRESS", metavar="ADDRESS"),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say who holds the locks of trainings, and free one.

    Free those only whose process is of no more use: what it still writes is refused.
    """
    from cluster.autopilot.locks import show_locks

    result = show_locks(runs, broken=broken, address=cluster_to_join(address), quiet=as_json)
    if as_json:
        print_json(result)
