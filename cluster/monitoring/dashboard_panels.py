"""What a dashboard shows: a panel for each declared metric, and for each machine what Ray measures of it.

Queries are in PromQL. Our names leave a run twice: by Ray's port on each machine, with "ray_" in front, and by
`--metrics-port`. A query takes the one that is there, and Ray's where both are, so nothing is counted twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from control.health_text import HELP as CONTROL_HELP
from core.metrics import SPECS, Healthy, MetricSpec, Row

ROWS: tuple[Row, ...] = get_args(Row)
RATE_WINDOW = "$__rate_interval"
"""Grafana's variable: four scrapes at least, and longer where a day is drawn."""
OF_RUN = '{run=~"$run"}'
CONTROL_ALERTS = {
    f"tamen_training_alerts_{severity}": f"alerts of the control plane that are open and {severity}"
    for severity in ("critical", "warning")
}
RAY_SERIES = (
    "ray_node_cpu_count",
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_node_disk_utilization_percentage",
    "ray_node_gpus_utilization",
    "ray_node_network_send_speed",
    "ray_node_network_receive_speed",
    "ray_object_store_memory",
    "ray_actors",
)
"""What Ray 2.60 itself measures, as far as it is used here. The tags of a machine are instance and RayNodeType."""


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and how each series of it is called: "{{tag}}" stands for the tag's value."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph over time.

    Attributes:
        unit: as Grafana names them.
        healthy: what is drawn as healthy; None draws no bounds.
    """

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    healthy: Healthy | None = None


def panels(row: Row) -> list[Panel]:
    """Return the panels of one row, in the order of the declarations."""
    own = [panel_of(spec) for spec in SPECS if spec.row == row]
    if row == "machines":
        return [*_of_machines(), *own]
    return own + (_of_control() if row == "control" else [])


def either(name: str, make: Callable[[str], str]) -> str:
    """Return the expression that `make` gives of a metric's name on Ray, or else of the name itself."""
    return f"({make(f'ray_{name}')} or {make(name)})"


def tags_of(spec: MetricSpec) -> tuple[str, ...]:
    """Return what series of a metric are told apart by: engines are numbered on each machine, all else is of a run."""
    return ("instance" if spec.row == "engines" else "run", *spec.tags)


def panel_of(spec: MetricSpec) -> Panel:
    """Return the panel of a declared metric: its value, its rate, or the middle and the slow end of its values."""
    title = spec.name.removeprefix("tamen_").removesuffix("_total").replace("_", " ")
    tags = tags_of(spec)
    by, legend = ", ".join(tags), " ".join(f"{{{{{tag}}}}}" for tag in tags)
    chosen = "" if spec.row == "engines" else OF_RUN
    text = f"{spec.help}; healthy: {spec.healthy}" if spec.healthy else spec.help
    if spec.kind == "histogram":
        by = f"{by}, le"
        queries = tuple(
            Query(f"histogram_quantile({share}, {_rate(f'ray_{spec.name}_bucket', chosen, by)})", called)
            for share, called in ((0.5, f"{legend} median"), (0.95, f"{legend} 95 of 100"))
        )
        return Panel(title, f"{text} (on Ray only)", _unit(spec), queries, spec.healthy)
    if spec.kind == "gauge":
        value = either(spec.name, lambda name: f"max by ({by}) ({name}{chosen})")
        return Panel(title, text, _unit(spec), (Query(value, legend),), spec.healthy)
    if spec.healthy is not None and spec.healthy.high == 0:  # few enough to be counted by eye
        total = either(spec.name, lambda name: f"sum by ({by}) ({name}{chosen})")
        return Panel(f"{title}, in all", text, "short", (Query(total, legend),), spec.healthy)
    rate = either(spec.name, lambda name: _rate(name, chosen, by))
    return Panel(f"{title} per second", text, f"suffix: {spec.unit}/s", (Query(rate, legend),))


def _rate(name: str, chosen: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}{chosen}[{RATE_WINDOW}]))"


def _unit(spec: MetricSpec) -> str:
    if spec.unit == "ratio":  # others than shares may be far above 1
        return "percentunit" if spec.name.endswith("_ratio") else "short"
    return "s" if spec.unit == "seconds" else f"suffix: {spec.unit}"


def _of_machines() -> list[Panel]:
    machine, each = "{{instance}} {{RayNodeType}}", "max by (instance, RayNodeType)"
    used = f"{each} (ray_node_mem_used) / {each} (ray_node_mem_total)"
    games = _rate("ray_tamen_game_duration_seconds_count", OF_RUN, "instance")
    rows = _rate("ray_tamen_inference_batch_size_sum", OF_RUN, "instance")
    actors = 'sum by (instance, Name) (ray_actors{Source="executor", State!="DEAD"})'
    store = "sum by (instance, Location) (ray_object_store_memory)"
    return [
        _machines(
            "machines", "that Ray's discovery names", "short", ("count(ray_node_cpu_count)", "machines")
        ),
        _machines(
            "games per second, by machine", "finished there", "suffix: games/s", (games, "{{instance}}")
        ),
        _machines(
            "rows per second, by machine",
            "that went through the network there; Ray estimates it from the sizes of batches",
            "suffix: rows/s",
            (rows, "{{instance}}"),
        ),
        _machines(
            "actors, by machine", "parts of runs, by class", "short", (actors, "{{instance}} {{Name}}")
        ),
        _machines("processor", "in use", "percent", (f"{each} (ray_node_cpu_utilization)", machine)),
        _machines("memory", "in use; at 95 % Ray ends processes", "percentunit", (used, machine)),
        _machines("disk", "in use", "percent", (f"{each} (ray_node_disk_utilization_percentage)", machine)),
        _machines(
            "GPU",
            "in use; empty without one",
            "percent",
            ("max by (instance, GpuIndex) (ray_node_gpus_utilization)", "{{instance}} GPU {{GpuIndex}}"),
        ),
        _machines("object store", "bytes, by where they lie", "bytes", (store, "{{instance}} {{Location}}")),
        _machines(
            "network",
            "bytes a second",
            "Bps",
            (f"{each} (ray_node_network_send_speed)", f"{machine} out"),
            (f"{each} (ray_node_network_receive_speed)", f"{machine} in"),
        ),
    ]


def _machines(title: str, text: str, unit: str, *queries: tuple[str, str]) -> Panel:
    return Panel(title, text, unit, tuple(Query(*query) for query in queries))


def _of_control() -> list[Panel]:
    keyed = [_of_keys(name, text) for name, text in CONTROL_HELP.items()]
    alerts = [
        Panel(_control_title(name), text, "short", (Query(f"max({name})", "open"),), Healthy(high=0.0))
        for name, text in CONTROL_ALERTS.items()
    ]
    return alerts + keyed


def _of_keys(name: str, text: str) -> Panel:
    value = f"max by (key) ({name})"
    if name.endswith("_timestamp_seconds"):
        title = f"since {_control_title(name.removesuffix('_timestamp_seconds'))}"
        return Panel(title, f"{text}, as an age", "s", (Query(f"time() - {value}", "{{key}}"),))
    return Panel(_control_title(name), text, "short", (Query(value, "{{key}}"),))


def _control_title(name: str) -> str:
    return name.removeprefix("tamen_training_").replace("_", " ")
