"""A real Prometheus reads one process by `--metrics-port` and answers every query of dashboard and rules."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from cluster.monitoring.dashboard import Watched, write_dashboard
from cluster.monitoring.dashboard_alerts import ALERTS
from cluster.monitoring.dashboard_panels import ROWS, panel_of, panels
from core.metrics import SPECS
from core.prometheus import PrometheusMetrics
from tests.cluster.commands import PATIENCE_SECONDS
from tests.cluster.training.test_driver import free_ports

pytestmark = pytest.mark.soak

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Serve a value of every metric, and let Prometheus read it as the files of `tamen dashboard` say."""
    folder = tmp_path_factory.mktemp("prometheus")
    metrics = PrometheusMetrics({"run": "here"})
    for spec in SPECS:
        write = {"counter": metrics.count, "gauge": metrics.gauge, "histogram": metrics.observe}[spec.kind]
        write(spec.name, 1, **dict.fromkeys(spec.tags, "some"))
    write_dashboard(folder, Watched(folder, metrics.serve(0)), provision=False, quiet=True)
    (port,) = free_ports(1)
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)

    def asked(path: str, **given: str) -> Any:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(given)}", timeout=30) as page:
            return json.load(page)["data"]

    try:
        # A rate takes two readings.
        wait_for(lambda: asked("query", query="rate(tamen_games_total[1m])")["result"], "two readings")
        yield asked
    finally:
        process.terminate()
        process.wait(30)
        metrics.close()


def wait_for(reached: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if reached():
                return
        except URLError:
            pass  # it does not listen yet
        time.sleep(0.5)
    raise TimeoutError(what)


def series(ask: Ask, expression: str) -> list[dict[str, Any]]:
    expression = expression.replace("$__rate_interval", "1m").replace("$run", "here")
    return ask("query", query=expression)["result"]


def test_every_query_is_one(ask: Ask) -> None:
    for row in ROWS:
        for panel in panels(row):
            for query in panel.queries:
                series(ask, query.expression)  # an answer that is an error raises
    for alert in ALERTS:
        series(ask, alert.expression)


def test_counters_and_gauges_are_drawn_without_ray(ask: Ask) -> None:
    for spec in SPECS:
        if spec.kind != "histogram":
            (query,) = panel_of(spec).queries
            (drawn,) = series(ask, query.expression)
            told = {"instance": drawn["metric"].get("instance")} if spec.row == "engines" else {"run": "here"}
            assert drawn["metric"] == told | dict.fromkeys(spec.tags, "some"), spec.name


def test_every_rule_is_evaluated(ask: Ask) -> None:
    def rules() -> list[dict[str, Any]]:
        (group,) = ask("rules")["groups"]
        return group["rules"]

    wait_for(lambda: all(rule["health"] == "ok" for rule in rules()), "an evaluation without an error")
    assert [rule["name"] for rule in rules()] == [alert.name for alert in ALERTS]
