"""Dashboard and alerts tell of every declared metric and of nothing else; each alert says what mends it."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.monitoring.dashboard import Watched, dashboard, prometheus, provisioned_folder, rules
from cluster.monitoring.dashboard_alerts import ALERTS
from cluster.monitoring.dashboard_panels import CONTROL_ALERTS, RAY_SERIES, ROWS, panel_of, panels
from control.health import HealthReport
from control.health_text import HELP, prometheus_text
from core.errors import UsageError
from core.metrics import SPECS, spec_of
from tests.cluster.commands import assert_three_lines, run_here

DOCS = Path(__file__).parents[3] / "docs"
KNOWN = {
    *(f"{front}{spec.name}" for spec in SPECS for front in ("", "ray_") if spec.kind != "histogram"),
    *(
        f"ray_{spec.name}_{part}"
        for spec in SPECS
        for part in ("bucket", "sum", "count")
        if spec.kind == "histogram"
    ),
    *HELP,
    *CONTROL_ALERTS,
    *RAY_SERIES,
}
Capsys = pytest.CaptureFixture[str]


def expressions() -> Iterator[str]:
    for row in ROWS:
        for panel in panels(row):
            yield from (query.expression for query in panel.queries)
    yield from (alert.expression for alert in ALERTS)


def names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:ray|tamen)_\w+", expression))


def boxes(kind: str) -> list[dict[str, Any]]:
    return [box for box in dashboard()["panels"] if box["type"] == kind]


def test_every_metric_in_a_query_is_there() -> None:
    assert {name for expression in expressions() for name in names(expression)} - KNOWN == set()


def test_every_declared_metric_is_drawn_in_its_row() -> None:
    for spec in SPECS:
        drawn = {
            name for panel in panels(spec.row) for query in panel.queries for name in names(query.expression)
        }
        assert {f"ray_{spec.name}", f"ray_{spec.name}_bucket"} & drawn, spec.name


def test_brackets_and_quotes_of_every_query_are_closed() -> None:
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', "", expression)
        assert '"' not in bare
        while (shorter := re.sub(r"\([^(){}\[\]]*\)|\{[^(){}\[\]]*\}|\[[^(){}\[\]]*\]", "", bare)) != bare:
            bare = shorter
        assert not set(bare) & set("(){}[]"), expression


def test_the_names_of_the_control_plane_are_those_it_writes() -> None:
    written = prometheus_text(HealthReport(at=0.0, status="healthy", keys=(), active_alerts=()))
    assert {f"# TYPE {name} gauge" for name in (*HELP, *CONTROL_ALERTS)} == {
        line for line in written.splitlines() if line.startswith("# TYPE")
    }


def test_rows_come_in_order_and_no_two_panels_overlap() -> None:
    assert [box["title"] for box in boxes("row")] == list(ROWS)
    ids = [box["id"] for box in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    places = [box["gridPos"] for box in dashboard()["panels"]]
    for one, other in combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_what_is_healthy_is_green() -> None:
    (busy,) = (box for box in boxes("timeseries") if box["title"] == "inference busy ratio")
    steps = busy["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [
        ("red", None),
        ("green", 0.7),
        ("red", 1.0),
    ]
    assert "healthy: 0.7 to 1" in busy["description"]


def test_mishaps_are_shown_in_all_and_progress_by_the_second() -> None:
    assert "rate" not in panel_of(spec_of("tamen_restarts_total")).queries[0].expression
    assert "rate" in panel_of(spec_of("tamen_games_total")).queries[0].expression


def test_the_files_are_read_as_they_are_meant(tmp_path: Path, capsys: Capsys) -> None:
    said = run_here(
        capsys, "dashboard", "--out", tmp_path, "--ray-folder", tmp_path / "ray", "--metrics-port", 30001
    )
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "tamen_dashboard.json").read_text()) == dashboard()
    assert yaml.safe_load((tmp_path / "tamen_alerts.yaml").read_text()) == rules(ALERTS)
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert config == prometheus(Watched(tmp_path / "ray", 30001))
    assert (tmp_path / config["rule_files"][0]).exists()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
    assert f"--config.file={tmp_path / 'prometheus.yml'}" in said.out.replace("\n", "")


def test_json_names_what_was_written(tmp_path: Path, capsys: Capsys) -> None:
    said = run_here(capsys, "dashboard", "--out", tmp_path, "--json")
    told = json.loads(said.out)
    assert told["rules"] == len(ALERTS)
    assert all(Path(path).exists() for path in (*told["dashboards"], told["alerts"], told["prometheus"]))


def test_the_grafana_of_a_running_ray_is_given_the_dashboard(tmp_path: Path, capsys: Capsys) -> None:
    there = tmp_path / "ray" / "session_latest" / "metrics" / "grafana" / "dashboards"
    there.mkdir(parents=True)
    given = ("dashboard", "--out", tmp_path / "out", "--ray-folder", tmp_path / "ray", "--provision")
    assert run_here(capsys, *given).code == 0
    assert [path.name for path in there.iterdir()] == ["tamen_dashboard.json"]


def test_where_no_ray_runs_nothing_is_written(tmp_path: Path, capsys: Capsys) -> None:
    given = ("dashboard", "--out", tmp_path / "out", "--ray-folder", tmp_path, "--provision")
    said = run_here(capsys, *given)
    assert_three_lines(said, code=2, mentions=["session_latest", "--ray-folder"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError):
        provisioned_folder(tmp_path)


def test_every_alert_has_a_row_on_the_page_and_points_to_one_that_is_there() -> None:
    page = (DOCS / "dashboards.md").read_text()
    told = [(cells[1].strip(" `"), cells[2].strip()) for cells in _rows(page) if "`Tamen" in cells[1]]
    assert told == [(alert.name, alert.severity) for alert in ALERTS]
    for alert in ALERTS:
        file, anchor = alert.page.removeprefix("docs/").split("#")
        headings = re.findall(r"^#+ (.*)$", (DOCS / file).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, alert


def test_what_is_declared_a_mishap_of_a_run_wakes_somebody_or_heals_by_itself() -> None:
    heals = {"tamen_requests_resent_total", "tamen_replay_duplicates_total", "tamen_engine_retries_total"}
    mishaps = {spec.name for spec in SPECS if str(spec.healthy) == "0"}
    alarmed = {name for alert in ALERTS for name in names(alert.expression)}
    assert mishaps - alarmed == heals


def _rows(page: str) -> Iterator[list[str]]:
    return (line.split("|") for line in page.splitlines() if line.startswith("| `"))
