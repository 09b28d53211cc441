"""`tamen dashboard`: files for Grafana and Prometheus, made from the list of metrics."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.cli.terminal import console
from cluster.monitoring.dashboard_alerts import ALERTS, Alert
from cluster.monitoring.dashboard_panels import ROWS, Panel, panels
from core.errors import UsageError
from core.files import write_atomic
from core.metrics import Healthy

DASHBOARD_FILE = "tamen_dashboard.json"
ALERTS_FILE = "tamen_alerts.yaml"
PROMETHEUS_FILE = "prometheus.yml"
RAY_DISCOVERY_FILE = "prom_metrics_service_discovery.json"
"""Which machines there are, written by Ray's head every 5 s for Prometheus."""
PROVISIONED = Path("session_latest", "metrics", "grafana", "dashboards")
"""Where the Grafana that Ray's own configuration starts looks for dashboards, below Ray's folder."""
SCRAPE_SECONDS = 10
"""Ray's own interval; a shorter one reads the same numbers twice."""
WIDTH, HEIGHT, IN_ALL = 8, 7, 24
"""Of a panel, in the units of Grafana's grid, and how wide that is."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Watched:
    """Where numbers come from.

    Attributes:
        ray_folder: of Ray on the head (`ray start --temp-dir`).
        metrics_port: of `tamen train --metrics-port`.
    """

    ray_folder: Path
    metrics_port: int


def write_dashboard(out: Path, watched: Watched, *, provision: bool, quiet: bool) -> dict[str, Any]:
    """Write all files into `out`, and return and print unless `quiet` what they are.

    Args:
        provision: whether the Grafana of the Ray that runs on this machine gets the dashboard too.

    Raises:
        UsageError: when no such Ray runs with its dashboard; then nothing was written.
        OSError: when a file cannot be written.
    """
    places = [out / DASHBOARD_FILE]
    if provision:
        places.append(provisioned_folder(watched.ray_folder) / DASHBOARD_FILE)
    for place in places:
        _write(place, (json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n").encode())
    _write(out / ALERTS_FILE, _yaml(rules(ALERTS)))
    _write(out / PROMETHEUS_FILE, _yaml(prometheus(watched)))
    told = {
        "dashboards": [str(place) for place in places],
        "alerts": str(out / ALERTS_FILE),
        "prometheus": str(out / PROMETHEUS_FILE),
        "panels": sum(len(panels(row)) for row in ROWS),
        "rules": len(ALERTS),
    }
    if not quiet:
        _say(told, out, provisioned=provision)
    return told


def provisioned_folder(ray_folder: Path) -> Path:
    """Return where the running Ray's Grafana reads dashboards. Raises UsageError when there is no such folder."""
    folder = ray_folder / PROVISIONED
    if not folder.is_dir():
        raise UsageError(
            f"Ray's Grafana has no folder {folder}",
            why="no Ray runs on this machine with its dashboard, or it has another folder",
            fix="do this on the head after `ray start --head`, with --ray-folder if it has a --temp-dir",
        )
    return folder


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it (its schema 38: Grafana 10 and newer)."""
    boxes: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        boxes.append(
            {"id": len(boxes) + 1, "type": "row", "title": row, "collapsed": False, "panels": []}
            | {"gridPos": {"x": 0, "y": top, "w": IN_ALL, "h": 1}}
        )
        top += 1
        shown = panels(row)
        for number, panel in enumerate(shown):
            across, down = number % (IN_ALL // WIDTH), number // (IN_ALL // WIDTH)
            place = {"x": across * WIDTH, "y": top + down * HEIGHT, "w": WIDTH, "h": HEIGHT}
            boxes.append(_box(panel) | {"id": len(boxes) + 1, "gridPos": place})
        top += -(-len(shown) // (IN_ALL // WIDTH)) * HEIGHT
    return {
        "uid": "tamen",
        "title": "tamen",
        "tags": ["tamen"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _runs()]},
        "panels": boxes,
    }


def rules(alerts: Iterable[Alert]) -> dict[str, Any]:
    """Return rules for Prometheus."""
    return {
        "groups": [
            {
                "name": "tamen",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expression,
                        "for": f"{alert.minutes}m",
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.summary, "runbook": f"{alert.fix} ({alert.page})"},
                    }
                    for alert in alerts
                ],
            }
        ]
    }


def prometheus(watched: Watched) -> dict[str, Any]:
    """Return the configuration of a Prometheus that reads every machine of a cluster, and a run's own port."""
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [ALERTS_FILE],
        "scrape_configs": [
            {
                "job_name": "ray",
                "file_sd_configs": [{"files": [str(watched.ray_folder.absolute() / RAY_DISCOVERY_FILE)]}],
            },
            {
                "job_name": "tamen",
                "static_configs": [{"targets": [f"127.0.0.1:{watched.metrics_port}"]}],
            },
        ],
    }


def _box(panel: Panel) -> dict[str, Any]:
    bounds = _bounds(panel.healthy)
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE}
            | {"expr": query.expression, "legendFormat": query.legend}
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": bounds},
                "custom": {"thresholdsStyle": {"mode": "dashed" if len(bounds) > 1 else "off"}},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _bounds(healthy: Healthy | None) -> list[dict[str, Any]]:
    """Return from which values on a panel is green or red; the first step has no value."""
    if healthy is None or healthy.rises:
        return [{"color": "green", "value": None}]
    steps: list[dict[str, Any]] = [{"color": "green" if healthy.low is None else "red", "value": None}]
    if healthy.low is not None:
        steps.append({"color": "green", "value": healthy.low})
    if healthy.high is not None:
        steps.append({"color": "red", "value": healthy.high})
    return steps


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "source", "type": "datasource", "query": "prometheus"}


def _runs() -> dict[str, Any]:
    return {
        "name": "run",
        "type": "query",
        "datasource": _SOURCE,
        "query": 'label_values({__name__=~"(ray_)?tamen_replay_rows"}, run)',
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _write(path: Path, content: bytes) -> None:
    """Write a file that Grafana and Prometheus, which are other users of the machine, can read."""
    write_atomic(path, content)
    path.chmod(0o644)


def _yaml(content: dict[str, Any]) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, width=1000, allow_unicode=True).encode()


def _say(told: dict[str, Any], out: Path, *, provisioned: bool) -> None:
    lines: Sequence[str] = [
        *(f"{place}: {told['panels']} panels in {len(ROWS)} rows" for place in told["dashboards"]),
        f"{told['alerts']}: {told['rules']} rules",
        f"{told['prometheus']}: reads the machines that Ray names, and a run's --metrics-port",
        f"next: prometheus --web.listen-address=127.0.0.1:9090 --config.file={told['prometheus']}",
    ]
    if not provisioned:
        lines = [
            *lines,
            "      tamen dashboard --provision    while Ray runs here: its Grafana shows the dashboard too",
        ]
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)
