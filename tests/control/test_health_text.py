"""What Prometheus reads of how training goes, judged by its own parser."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from control.database import Database
from control.health import TABLES, HealthMonitor, HealthReport, KeyHealth
from control.health_rules import KeyRecord
from control.health_text import prometheus_text
from control.keys import Key

KEY, OTHER = Key("hex5"), Key("tic_tac_toe")
NOW = 1.8e9


@pytest.fixture
def monitor(tmp_path: Path) -> HealthMonitor:
    return HealthMonitor(Database(tmp_path / "control.sqlite", TABLES), wall_clock=lambda: NOW)


def test_prometheus_reads_the_text(monitor: HealthMonitor) -> None:
    monitor.record_training_start(KEY, "first")
    for _ in range(3):
        monitor.record_training_complete(OTHER, success=False)
    monitor.record_training_complete(KEY, success=True)
    monitor.record_training_start(KEY, "second")
    monitor.record_data_update(KEY, 50_000)
    monitor.record_win_rate(KEY, 0.25)
    monitor.record_model(KEY, 15)
    families = list(text_string_to_metric_families(prometheus_text(monitor.report())))

    assert all(family.type == "gauge" and family.documentation for family in families)
    samples = {
        (sample.name, sample.labels.get("key")): sample.value
        for family in families
        for sample in family.samples
    }
    hex5, other = "hex5_2p", "tic_tac_toe_2p"
    assert samples == {
        ("tamen_training_is_running", hex5): 1,
        ("tamen_training_is_running", other): 0,
        ("tamen_training_consecutive_failures", hex5): 0,
        ("tamen_training_consecutive_failures", other): 3,
        ("tamen_training_model_count", hex5): 15,
        ("tamen_training_win_rate", hex5): 0.25,
        ("tamen_training_last_success_timestamp_seconds", hex5): NOW,
        ("tamen_training_games", hex5): 50_000,
        ("tamen_training_alerts_critical", None): 1,
        ("tamen_training_alerts_warning", None): 1,
    }


def test_help_and_type_stand_before_each_metric(monitor: HealthMonitor) -> None:
    monitor.record_win_rate(KEY, 0.5)
    text = prometheus_text(monitor.report())
    lines = text.splitlines()
    helped = [line.split()[2] for line in lines if line.startswith("# HELP ")]
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert helped == typed
    assert len(helped) == 8
    assert {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")} <= set(helped)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20))
def test_a_label_is_escaped_whatever_stands_in_it(name: str) -> None:
    game = f'{name}"\\\n'
    key = Key(game)
    report = _report_of(key)
    (family,) = [
        family
        for family in text_string_to_metric_families(prometheus_text(report))
        if family.name == "tamen_training_win_rate"
    ]
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"key": str(key)}, 0.5)]


def _report_of(key: Key) -> HealthReport:
    record = KeyRecord(key, since=0.0, win_rate=0.5)
    return HealthReport(0.0, "healthy", (KeyHealth("healthy", record, None, ()),), ())
