"""`tamen doctor --cluster`: asks every machine of a cluster, each within bounds, and leaves nothing running there."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.doctor.machine import Finding, disk_of_runs
from cluster.doctor.node_report import BULK_SECONDS, TORCH_SECONDS, NodeProbe, NodeReport
from cluster.doctor.nodes import Answer, Clock, compare, declares_gpu
from cluster.on_ray.address import connect
from cluster.on_ray.client import Handle, get, in_one_line
from cluster.on_ray.program import dressed
from cluster.run.placement import Node
from cluster.run.program import Machine
from core.errors import ClusterError

PATIENCE_SECONDS = 60.0
"""For a machine to start a process and tell; one that has just booted reads Python from a cold disk."""
REACH_SECONDS = 2 * BULK_SECONDS
CLOCK_SECONDS = 10.0
CLOCK_READINGS = 5


def examine_cluster(
    address: str, runs: Path, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[Finding]:
    """Yield what there is to say about the cluster at `address`; `runs` is where runs are written, on this machine.

    Args:
        patience_seconds: for all machines to answer; one that does not gets a finding.
    """
    try:
        connect(address, cpus=Machine.here().cpus)
    except ClusterError as error:
        yield Finding("cluster", f"{error.what}: {error.why}", "bad", error.fix)
        return
    try:
        nodes = _nodes()
        yield of_all(nodes)
        yield from compare(_ask(nodes, patience_seconds))
        yield disk_of_runs(runs)
    finally:
        ray.shutdown()


def _nodes() -> list[Node]:
    """Return the machines of the cluster, home first."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [
        Node(
            id=each["NodeID"],
            host=each["NodeManagerHostname"],
            cpus=int(each["Resources"].get("CPU", 0)),
            gpus=int(each["Resources"].get("GPU", 0)),
            memory_bytes=int(each["Resources"].get("memory", 0)) or None,
            labels=each.get("Labels") or {},
            is_home=each["NodeID"] == here,
        )
        for each in ray.nodes()
        if each["Alive"]
    ]
    return sorted(nodes, key=lambda node: not node.is_home)


def of_all(nodes: Sequence[Node]) -> Finding:
    """Say how much there is, and whether any of it is for a run: machines without cores take no part."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    machines = f"{len(nodes)} machine{'s' if len(nodes) > 1 else ''}"
    said = f"{machines}, on which Ray counts {cpus} cores and {gpus} GPUs"
    if not cpus:
        fix = "start Ray there with --num-cpus, or without it: then all cores count"
        return Finding("cluster", f"{said}: only home would play, with one actor", "warn", fix)
    return Finding("cluster", said, "ok")


@dataclass(frozen=True, slots=True)
class _Asked:
    node: Node
    probe: Handle
    look: Any


def _ask(nodes: Sequence[Node], patience_seconds: float) -> list[Answer]:
    """Ask all at the same time, of which home is the first; afterwards no process that told is left."""
    asked = [_send(node) for node in nodes]
    patience_seconds += TORCH_SECONDS if any(declares_gpu(node) for node in nodes) else 0.0
    try:
        ray.wait([each.look for each in asked], num_returns=len(asked), timeout=patience_seconds)
        told = [(each, _report_of(each.look, patience_seconds)) for each in asked]
        others = [each for each, report in told[1:] if isinstance(report, NodeReport)]
        unreached = _reach(asked[0], others) if isinstance(told[0][1], NodeReport) else {}
        return [
            Answer(each.node, report, clock=_clock_of(each.probe), unreached=unreached.get(each.node.id, ""))
            if isinstance(report, NodeReport)
            else Answer(each.node, trouble=report)
            for each, report in told
        ]
    finally:
        for each in asked:
            ray.kill(each.probe)


def _send(node: Node) -> _Asked:
    where = NodeAffinitySchedulingStrategy(node.id, soft=False)
    probe = dressed(NodeProbe, num_cpus=0, max_restarts=0, scheduling_strategy=where).remote()
    return _Asked(node, probe, probe.look.remote(count_gpus=declares_gpu(node)))


def _report_of(look: Any, waited_seconds: float) -> NodeReport | str:
    """Return what a machine told, or why it did not."""
    try:
        return get(look, timeout_seconds=0)
    except GetTimeoutError:
        return f"no process there has answered for {waited_seconds:.0f} s"
    except Exception as error:  # Ray raises a dozen kinds, all meaning the same to the user
        return in_one_line(error)


def _reach(home: _Asked, others: Sequence[_Asked]) -> dict[str, str]:
    """Let processes of home and of each other machine call each other and fetch; return what went wrong, by its id."""
    ways = {
        "from it to home": [each.probe.reach.remote(home.probe) for each in others],
        "from home to it": [each.probe.bulk.remote() for each in others],
    }
    waiting = [reference for references in ways.values() for reference in references]
    if waiting:
        ray.wait(waiting, num_returns=len(waiting), timeout=REACH_SECONDS)
    return {
        each.node.id: "; ".join(
            f"{way}: {wrong}" for way, references in ways.items() if (wrong := _outcome(references[number]))
        )
        for number, each in enumerate(others)
    }


def _outcome(reference: Any) -> str:
    """Return what a machine said to have gone wrong, "" when nothing did."""
    try:
        came = get(reference, timeout_seconds=0)
    except GetTimeoutError:
        return f"nothing has come within {REACH_SECONDS:.0f} s"
    except Exception as error:  # Ray raises a dozen kinds, all meaning the same to the user
        return in_one_line(error)
    return came if isinstance(came, str) else ""


def _clock_of(probe: Handle) -> Clock | None:
    """Return how far a machine's clock is ahead, by the quickest of some answers; None when there was none."""
    readings = []
    try:
        for _ in range(CLOCK_READINGS):
            asked = time.time()
            there = get(probe.clock.remote(), timeout_seconds=CLOCK_SECONDS)
            answered = time.time()
            readings.append(Clock(there - (asked + answered) / 2, (answered - asked) / 2))
    except Exception:
        return None
    return min(readings, key=lambda clock: clock.within_seconds)
