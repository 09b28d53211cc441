"""`tamen dashboard`: what Grafana and Prometheus need to watch runs."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.verbs import AsJson, print_json


def dashboard(
    out: Annotated[Path, typer.Option(help="where the files go", metavar="FOLDER")] = Path("dashboards"),
    provision: Annotated[
        bool, typer.Option("--provision", help="give it to the Grafana of the Ray that runs here, too")
    ] = False,
    ray_folder: Annotated[
        Path, typer.Option(help="of Ray on the head, its --temp-dir", metavar="FOLDER")
    ] = Path("/tmp/ray"),  # noqa: S108 (Ray's own default)
    metrics_port: Annotated[
        int, typer.Option(help="that runs are given as --metrics-port", min=1, max=65535, metavar="PORT")
    ] = 9464,
    as_json: AsJson = False,
) -> None:
    """Write a dashboard for Grafana, and alert rules for Prometheus.

    Both are made from the list of metrics, with what is healthy; each alert names what mends it.
    """
    from cluster.monitoring.dashboard import Watched, write_dashboard

    told = write_dashboard(out, Watched(ray_folder, metrics_port), provision=provision, quiet=as_json)
    if as_json:
        print_json(told)
