"""What a driver tells of games and daemons in other processes: what has grown since its first look, each once."""

from typing import Any

from core.metrics import SPECS
from core.prometheus import PrometheusMetrics
from engines.monitor import EngineMonitor
from engines.timings import EngineRecorder


def values(metrics: PrometheusMetrics) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in metrics.text().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def book(**changed: Any) -> dict[str, Any]:
    return {
        "waiting": 5,
        "out": 2,
        "endings": {},
        "retried": {},
        "set_aside_by": {},
        "p50_s": None,
        "p95_s": None,
        "p99_s": None,
    } | changed


def machine(*restarts: int, host: str = "a", busy: float | None = 0.5) -> dict[str, Any]:
    daemons = [{"number": n, "restarts": count, "busy_share": busy} for n, count in enumerate(restarts)]
    return {"host": host, "daemons": daemons}


def test_games_that_were_there_at_the_first_look_are_not_counted_and_later_ones_are() -> None:
    metrics = PrometheusMetrics()
    monitor = EngineMonitor(metrics, counts_games=True)
    for endings in ({"first": 10}, {"first": 12}, {"first": 12, "draw": 3}, {"first": 13, "draw": 3}):
        monitor.take(book(endings=endings, p95_s=0.25), [])
    monitor.take(book(endings=endings, retried={"died": 2}, set_aside_by={"timeout": 1}, waiting=0), [])

    told = values(metrics)
    assert told['tamen_engine_games_total{outcome="first"}'] == 3
    assert told['tamen_engine_games_total{outcome="draw"}'] == 3
    assert told['tamen_engine_retries_total{reason="died"}'] == 2
    assert told['tamen_engine_games_set_aside_total{reason="timeout"}'] == 1
    assert told["tamen_engine_games_left"] == 2
    assert told['tamen_engine_game_quantile_seconds{quantile="0.95"}'] == 0.25
    assert 'tamen_engine_game_quantile_seconds{quantile="0.5"}' not in told  # it was not measured


def test_who_plays_in_this_process_tells_of_games_alone() -> None:
    metrics = PrometheusMetrics()
    monitor = EngineMonitor(metrics, counts_games=False)
    monitor.take(book(endings={"first": 1}), [machine(0)])
    monitor.take(book(endings={"first": 5}), [machine(2)])

    assert values(metrics) == {
        'tamen_engine_busy_ratio{daemon="0"}': 0.5,
        'tamen_engine_restarts_total{daemon="0"}': 2,
    }


def test_restarts_are_counted_as_they_grow_over_lives_of_the_supervisor() -> None:
    metrics = PrometheusMetrics()
    monitor = EngineMonitor(metrics, counts_games=False)
    for restarts in (3, 4, 4, 6, 1, 2):  # three by then, then three more, then a new supervisor's two
        monitor.take(book(), [machine(restarts, 0, busy=None)])

    told = values(metrics)
    assert told['tamen_engine_restarts_total{daemon="0"}'] == 5
    assert told['tamen_engine_restarts_total{daemon="1"}'] == 0
    assert 'tamen_engine_busy_ratio{daemon="1"}' not in told  # it was not measured


def test_daemons_of_several_machines_are_told_apart() -> None:
    metrics = PrometheusMetrics()
    monitor = EngineMonitor(metrics, counts_games=False)
    monitor.take(book(), [machine(0, busy=0.25), machine(0, host="b", busy=1.0)])

    told = values(metrics)
    assert told['tamen_engine_busy_ratio{daemon="a/0"}'] == 0.25
    assert told['tamen_engine_busy_ratio{daemon="b/0"}'] == 1.0


def test_every_metric_of_engines_has_someone_who_writes_it() -> None:
    metrics = PrometheusMetrics()
    monitor = EngineMonitor(metrics, counts_games=True)
    quantiles = {"p50_s": 0.1, "p95_s": 0.2, "p99_s": 0.3}
    monitor.take(
        book(endings={"draw": 1}, retried={"died": 1}, set_aside_by={"died": 1}, **quantiles), [machine(0)]
    )
    EngineRecorder(metrics).game_finished("draw", 1.0)

    written = metrics.text()
    assert [spec.name for spec in SPECS if "_engine_" in spec.name and spec.name not in written] == []
