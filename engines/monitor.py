"""What a driver tells monitoring of games and daemons that other processes see to, from what these say of themselves.

monitor = EngineMonitor(metrics, counts_games=True)
monitor.take(book.stats(), engines)         # now and then
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.metrics import Metrics
from engines.timings import EngineRecorder

QUANTILES = {0.5: "p50_s", 0.95: "p95_s", 0.99: "p99_s"}


class EngineMonitor:
    """Counts what has grown since the last look, and nothing from before the first.

    Args:
        metrics: where to.
        counts_games: whether games are told too; those who play in this process tell of them on their own.
    """

    def __init__(self, metrics: Metrics, *, counts_games: bool) -> None:
        self._metrics = metrics
        self._recorder = EngineRecorder(metrics)
        self._counts_games = counts_games
        self._seen: dict[tuple[str, str], float] = {}
        self._has_looked = False

    def take(self, book: Mapping[str, Any], engines: Sequence[Mapping[str, Any]]) -> None:
        """Take in one moment.

        Args:
            book: what `engines.book.GameBook.stats` has returned.
            engines: of each machine `daemons`, with number, restarts and busy_share of each, and if there are several
                its `host`.
        """
        if self._counts_games:
            self._recorder.games_stand(
                book["waiting"] + book["out"], {share: book[name] for share, name in QUANTILES.items()}
            )
            self._count("tamen_engine_games_total", "outcome", book["endings"].items())
            self._count("tamen_engine_retries_total", "reason", book["retried"].items())
            self._count("tamen_engine_games_set_aside_total", "reason", book["set_aside_by"].items())
        for machine in engines:
            before = f"{machine['host']}/" if len(engines) > 1 else ""
            daemons = {f"{before}{daemon['number']}": daemon for daemon in machine["daemons"]}
            self._count(
                "tamen_engine_restarts_total",
                "daemon",
                ((name, daemon["restarts"]) for name, daemon in daemons.items()),
            )
            for name, daemon in daemons.items():
                if daemon["busy_share"] is not None:
                    self._metrics.gauge("tamen_engine_busy_ratio", daemon["busy_share"], daemon=name)
        self._has_looked = True

    def _count(self, metric: str, tag: str, values: Iterable[tuple[str, float]]) -> None:
        for value, now in values:
            grown = now - self._seen.get((metric, value), 0.0 if self._has_looked else now)
            self._seen[metric, value] = now
            # Who was itself started again counts from zero.
            self._metrics.count(metric, grown if grown >= 0 else now, **{tag: value})
