"""Metrics for Prometheus, from one process: as text, or served on this machine's loopback address."""

import threading
from collections.abc import Mapping
from typing import TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from core.errors import UsageError
from core.metrics import MetricSpec, checked_amount, checked_spec

# They would be a second series for each counter and histogram, telling only when this process began.
disable_created_metrics()

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)


class PrometheusMetrics:
    """Keeps its metrics in a registry of its own; one that was never measured is not in it.

    Args:
        tags: what tells this process from others, added to every value ({"run": "hex5"}).
    """

    def __init__(self, tags: Mapping[str, str] | None = None) -> None:
        self._tags = dict(tags or {})
        self._registry = CollectorRegistry()
        self._making = threading.Lock()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._server: WSGIServer | None = None

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        spec, amount = checked_spec(name, "counter", tags), checked_amount(name, amount)
        with self._making:
            if name not in self._counters:
                self._counters[name] = Counter(name, spec.help, self._names(spec), registry=self._registry)
        _labelled(self._counters[name], self._tags | tags).inc(amount)

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        spec = checked_spec(name, "gauge", tags)
        with self._making:
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, spec.help, self._names(spec), registry=self._registry)
        _labelled(self._gauges[name], self._tags | tags).set(float(value))

    def observe(self, name: str, value: float, /, **tags: str) -> None:
        spec = checked_spec(name, "histogram", tags)
        with self._making:
            if name not in self._histograms:
                self._histograms[name] = Histogram(
                    name, spec.help, self._names(spec), buckets=spec.buckets, registry=self._registry
                )
        _labelled(self._histograms[name], self._tags | tags).observe(float(value))

    def _names(self, spec: MetricSpec) -> tuple[str, ...]:
        return (*self._tags, *spec.tags)

    def text(self) -> str:
        """Return all values in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def serve(self, port: int) -> int:
        """Serve `text()` on 127.0.0.1 until `close`; 0 takes a free port. Returns the port.

        Raises:
            UsageError: when the port is taken.
        """
        try:
            self._server, _ = start_http_server(port, addr="127.0.0.1", registry=self._registry)
        except OSError as error:
            raise UsageError(
                f"metrics cannot be served on port {port}",
                why=str(error),
                fix="choose another port, or 0 for a free one",
            ) from error
        return self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _labelled(metric: Labelled, tags: Mapping[str, str]) -> Labelled:
    return metric.labels(**tags) if tags else metric
