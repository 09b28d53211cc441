"""`tamen doctor`: whether a machine, a cluster or a file for one is fit."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cluster import environment
from cluster.cli.addresses import cluster_to_join
from cluster.cli.verbs import AsJson, Runs
from cluster.doctor.machine import Finding, examine, show_findings
from core.errors import UsageError


def doctor(
    runs: Runs = Path("runs"),
    cluster: Annotated[
        bool, typer.Option("--cluster", help="look at each machine of a cluster that this one is in")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="of that cluster: auto or HOST:PORT (default: auto)",
            envvar="RAY_ADDRESS",
            metavar="ADDRESS",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="try a place for runs, too, such as s3://bucket/runs", metavar="URL"),
    ] = None,
    launch: Annotated[
        Path | None, typer.Option(help="look at a file for `ray up` instead", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether this machine is fit to run, and what mends it.

    With --cluster, whether all machines of a cluster are. Exit code 3 when something does not work.
    """
    if launch is not None and (cluster or storage):
        raise UsageError(
            "--launch looks at a file alone",
            why="its machines are not there yet",
            fix="first `tamen doctor --launch FILE`, then `ray up FILE`, and there `tamen doctor --cluster`",
        )
    then = "tamen demo"
    if launch is not None:
        from cluster.doctor.launch_file import examine_launch_file

        findings, then = examine_launch_file(launch), f"ray up --yes {launch}"
    elif cluster:
        findings, then = _of_cluster(address, runs), "tamen train hex7 --address auto"
    else:
        findings = examine(runs)
    if storage is not None:
        from cluster.doctor.storage import examine_storage

        findings = itertools.chain(findings, (examine_storage(url) for url in [storage]))
    if not show_findings(findings, as_json=as_json, then=then):
        raise typer.Exit(3)


def _of_cluster(address: str | None, runs: Path) -> Iterator[Finding]:
    joined = cluster_to_join(address or "auto")
    if joined is None:
        raise UsageError(
            f"--cluster looks at a cluster that is there, not at {address!r}",
            why="an address is auto (the cluster of this machine) or HOST:PORT",
            fix="leave --address away, or leave --cluster away to look at this machine alone",
        )
    environment.prepare_ray(joined)
    from cluster.doctor.cluster import examine_cluster

    return examine_cluster(joined, runs)
