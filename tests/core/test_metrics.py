"""Every sink takes what is declared and refuses the rest; the page on metrics tells of all of them."""

import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from cluster.monitoring.sinks import RayMetrics
from core.errors import UsageError
from core.metrics import SPECS, Metrics, NoMetrics
from core.prometheus import PrometheusMetrics


@pytest.fixture(params=[NoMetrics, PrometheusMetrics, RayMetrics], ids=lambda kind: kind.__name__)
def metrics(request: pytest.FixtureRequest) -> Metrics:
    return request.param()


def test_every_declared_metric_can_be_written(metrics: Metrics) -> None:
    for spec in SPECS:
        tags = dict.fromkeys(spec.tags, "some")
        if spec.kind == "counter":
            metrics.count(spec.name, 2, **tags)
        elif spec.kind == "gauge":
            metrics.gauge(spec.name, 2, **tags)
        else:
            metrics.observe(spec.name, 2, **tags)


@pytest.mark.parametrize("number", [3, 0.5, np.int64(3), np.float32(0.5), np.float64(2)])
def test_numpy_scalars_are_numbers(metrics: Metrics, number: float) -> None:
    metrics.count("tamen_games_total", number)
    metrics.gauge("tamen_replay_rows", number)
    metrics.observe("tamen_game_plies", number)


def test_counting_nothing_is_allowed(metrics: Metrics) -> None:
    metrics.count("tamen_games_total", 0)


@pytest.mark.parametrize("amount", [-1, float("nan")])
def test_a_counter_only_goes_up(metrics: Metrics, amount: float) -> None:
    with pytest.raises(ValueError, match="can only go up"):
        metrics.count("tamen_games_total", amount)


def test_an_unknown_name_is_refused_and_the_nearest_one_offered(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="did you mean 'tamen_games_total'"):
        metrics.count("tamen_game_total")


def test_a_wrong_kind_is_refused(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="is a counter, not a gauge"):
        metrics.gauge("tamen_games_total", 1)
    with pytest.raises(ValueError, match="is a gauge, not a histogram"):
        metrics.observe("tamen_replay_rows", 1)
    with pytest.raises(ValueError, match="is a histogram, not a counter"):
        metrics.count("tamen_game_plies", 1)


def test_missing_and_foreign_tags_are_refused(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="takes the tags"):
        metrics.gauge("tamen_learner_loss", 1.0)
    with pytest.raises(ValueError, match="takes the tags"):
        metrics.count("tamen_games_total", 1, colour="red")


def test_names_are_well_formed_and_declared_once() -> None:
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"tamen_[a-z_]+[a-z]", name)] == []
    assert all(spec.name.endswith("_total") == (spec.kind == "counter") for spec in SPECS)
    assert all((spec.kind == "histogram") == bool(spec.buckets) for spec in SPECS)
    assert all(spec.kind == "counter" for spec in SPECS if str(spec.healthy) == "rises")
    assert all(spec.kind != "histogram" for spec in SPECS if str(spec.healthy) == "0")
    assert all(
        0 < low < high for spec in SPECS for low, high in zip(spec.buckets, spec.buckets[1:], strict=False)
    )


def test_prometheus_text_holds_what_was_measured_and_nothing_else() -> None:
    metrics = PrometheusMetrics()
    metrics.count("tamen_games_total", 2)
    metrics.count("tamen_games_total", 3)
    metrics.gauge("tamen_learner_loss", 1.5, part="policy")
    metrics.gauge("tamen_learner_loss", 1.25, part="policy")
    metrics.observe("tamen_inference_batch_size", 64)
    values = [
        line for line in metrics.text().splitlines() if not line.startswith("#") and "_bucket" not in line
    ]
    assert values == [
        "tamen_games_total 5.0",
        'tamen_learner_loss{part="policy"} 1.25',
        "tamen_inference_batch_size_count 1.0",
        "tamen_inference_batch_size_sum 64.0",
    ]


def test_prometheus_text_tells_whose_values_they_are() -> None:
    metrics = PrometheusMetrics({"run": "hex5"})
    metrics.count("tamen_games_total", 2)
    metrics.gauge("tamen_learner_loss", 1.5, part="policy")
    values = [line for line in metrics.text().splitlines() if not line.startswith("#")]
    assert values == ['tamen_games_total{run="hex5"} 2.0', 'tamen_learner_loss{part="policy",run="hex5"} 1.5']


def test_two_prometheus_sinks_do_not_meet() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.count("tamen_games_total")
    assert second.text() == ""


def test_served_metrics_can_be_read_until_closed() -> None:
    metrics = PrometheusMetrics()
    metrics.count("tamen_games_total", 7)
    port = metrics.serve(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        assert "tamen_games_total 7.0" in page.read().decode()
    metrics.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_taken_port_is_told() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    port = first.serve(0)
    with pytest.raises(UsageError, match=f"port {port}"):
        second.serve(port)
    first.close()


def test_the_page_on_metrics_has_a_row_for_each_as_declared() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in page.splitlines()
        if line[:3] == "| `"
    ]
    declared = [[f"`{spec.name}`", spec.kind, spec.unit, ", ".join(spec.tags) or "–"] for spec in SPECS]
    assert [row[:4] for row in rows] == declared
    assert [row[0] for row in rows if len(row) != 7 or not all(row)] == []
    healthy = [str(spec.healthy or "") for spec in SPECS]
    assert [row[0] for row, bounds in zip(rows, healthy, strict=True) if bounds not in row[6]] == []
