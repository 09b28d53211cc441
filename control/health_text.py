"""How training goes as Prometheus reads it; what was never recorded of a key is not written of it."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from control.health import HealthReport, KeyHealth

HELP = {
    "tamen_training_is_running": "whether a training of the key is under way: 1, or 0",
    "tamen_training_consecutive_failures": "trainings that failed since the last that succeeded",
    "tamen_training_model_count": "models of the key",
    "tamen_training_win_rate": "share of its games that the newest model wins, from 0 to 1",
    "tamen_training_last_success_timestamp_seconds": "when the last training succeeded, since 1970",
    "tamen_training_games": "games there are to learn from",
}
"""Gauges with the label "key"."""


def prometheus_text(report: HealthReport) -> str:
    """Return `report` in Prometheus' text format."""
    registry = CollectorRegistry()  # of its own, so that no key is left over from another report
    gauges = {name: Gauge(name, text, ["key"], registry=registry) for name, text in HELP.items()}
    for key in report.keys:
        for name, value in _values(key).items():
            if value is not None:
                gauges[name].labels(key=str(key.record.key)).set(value)
    for severity, text in (("critical", "open alerts that are critical"), ("warning", "open warnings")):
        number = sum(alert.severity == severity for alert in report.active_alerts)
        Gauge(f"tamen_training_alerts_{severity}", text, registry=registry).set(number)
    return generate_latest(registry).decode()


def _values(key: KeyHealth) -> dict[str, float | None]:
    record = key.record
    return {
        "tamen_training_is_running": float(key.running_seconds is not None),
        "tamen_training_consecutive_failures": record.failures,
        "tamen_training_model_count": record.models,
        "tamen_training_win_rate": record.win_rate,
        "tamen_training_last_success_timestamp_seconds": record.last_success,
        "tamen_training_games": record.games,
    }
