"""Every metric of the system, declared once, and the one way to write them.

    metrics.count("tamen_games_total", 12)
    metrics.gauge("tamen_learner_loss", 1.41, part="policy")
    metrics.observe("tamen_inference_batch_size", rows)

Whoever measures is given a `Metrics`; whoever starts it decides where the numbers go: nowhere (`NoMetrics`),
to Prometheus (`core.prometheus`) or to Ray (`cluster.metrics_sinks`). docs/metrics.md says what is healthy.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: begins with "tamen_"; that of a counter, and no other, ends with "_total".
        unit: of its values: seconds, rows, games, ratio (0 to 1), …
        tags: what values are told apart by; every value is given with all of them.
        buckets: upper bounds of a histogram's buckets, rising, above 0.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, unit: str, text: str, *tags: str) -> MetricSpec:
    return MetricSpec(name, "counter", unit, text, tags)


def _gauge(name: str, unit: str, text: str, *tags: str) -> MetricSpec:
    return MetricSpec(name, "gauge", unit, text, tags)


def _histogram(name: str, unit: str, text: str, *buckets: float) -> MetricSpec:
    return MetricSpec(name, "histogram", unit, text, buckets=buckets)


_WAITS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_SYNCS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_DURATIONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_ENGINE_GAMES = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0),
)
_ROWS = tuple(2.0**k for k in range(17))
_PLIES = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 200.0, 400.0, 1000.0)

SPECS: tuple[MetricSpec, ...] = (
    _counter("tamen_games_total", "games", "finished games or episodes the replay took in"),
    _counter("tamen_moves_total", "moves", "moves played, or steps of environments"),
    _histogram("tamen_game_duration_seconds", "seconds", "from a game's first move to its last", *_DURATIONS),
    _histogram("tamen_game_plies", "plies", "moves of a finished game", *_PLIES),
    _counter("tamen_games_set_aside_total", "games", "games given up because their evaluation failed twice"),
    _counter("tamen_episodes_ended_total", "episodes", "episodes by how they ended", "how"),
    _counter("tamen_requests_resent_total", "requests", "requests sent again because their answer was lost"),
    _counter("tamen_requests_spilled_total", "requests", "requests sent to another server than their home"),
    _counter("tamen_chunks_refused_total", "chunks", "chunks that the replay refused for what is in them"),
    _counter("tamen_actor_seconds_total", "seconds", "where the actors' time went", "activity"),
    _counter("tamen_positions_evaluated_total", "positions", "positions answered, from the cache or not"),
    _counter("tamen_requests_failed_total", "requests", "requests that a server could not answer"),
    _counter("tamen_cache_hits_total", "positions", "positions answered from the cache"),
    _histogram("tamen_inference_batch_size", "rows", "positions of one batch", *_ROWS),
    _histogram("tamen_inference_wait_seconds", "seconds", "a request's wait before its batch began", *_WAITS),
    _gauge("tamen_inference_busy_ratio", "ratio", "share of its time that a server evaluates"),
    _histogram(
        "tamen_weights_sync_seconds",
        "seconds",
        "from publishing new weights to a server's first answer",
        *_SYNCS,
    ),
    _gauge("tamen_weights_version", "version", "newest version of the weights"),
    _gauge("tamen_replay_rows", "rows", "training rows the replay keeps"),
    _counter("tamen_replay_duplicates_total", "games", "games, or rows of no game, taken in before"),
    _gauge("tamen_samples_per_insert", "ratio", "rows the learner drew for each row that came in"),
    _counter("tamen_learner_steps_total", "steps", "optimiser steps taken"),
    _counter("tamen_learner_steps_refused_total", "steps", "steps not taken because a number was not finite"),
    _counter("tamen_rows_too_old_total", "rows", "rows drawn and dropped because their weights were too old"),
    _gauge("tamen_learner_loss", "nats", "loss of the last steps", "part"),
    _gauge("tamen_learner_data_wait_ratio", "ratio", "share of its time that the learner waits for rows"),
    _gauge("tamen_policy_lag_versions", "versions", "mean age of the weights that made the sampled rows"),
    _gauge("tamen_episode_return", "reward", "mean return of the last episodes", "of"),
    _gauge("tamen_policy_entropy", "nats", "entropy of the policy that learns"),
    _gauge("tamen_policy_kl", "nats", "how far the policy has moved from the one that acted"),
    _gauge("tamen_policy_clip_ratio", "ratio", "share of the steps whose probability ratio was clipped"),
    _gauge("tamen_policy_ratio_error", "ratio", "how far the net that learns began from the one that acted"),
    _gauge("tamen_strength_score", "ratio", "points won of points played in the newest match", "opponent"),
    _counter("tamen_restarts_total", "restarts", "parts that died and were started again", "role"),
    _counter("tamen_engine_games_total", "games", "games that engines played to their end", "outcome"),
    _histogram(
        "tamen_engine_game_duration_seconds",
        "seconds",
        "that a game took in its daemon",
        *_ENGINE_GAMES,
    ),
    _gauge(
        "tamen_engine_game_quantile_seconds",
        "seconds",
        "that a share of the games did not take longer than in their daemons",
        "quantile",
    ),
    _gauge("tamen_engine_games_left", "games", "games that are played or wait to be played"),
    _counter("tamen_engine_retries_total", "games", "games asked for again because they broke", "reason"),
    _counter("tamen_engine_games_set_aside_total", "games", "games given up after their last try", "reason"),
    _gauge(
        "tamen_engine_busy_ratio", "ratio", "share of its time that a daemon has a game in play", "daemon"
    ),
    _counter("tamen_engine_restarts_total", "restarts", "daemons that were started again", "daemon"),
)

_BY_NAME = {spec.name: spec for spec in SPECS}


class Metrics(Protocol):
    """Where measured numbers go. Any thread may call; nothing here blocks.

    Values may be numpy scalars. All three raise ValueError for a name, kind or tags that are not as declared:
    a mistake in the program, which every implementation finds.
    """

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        """Add `amount` ≥ 0 to a counter."""
        ...

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        """Set a gauge to its present value."""
        ...

    def observe(self, name: str, value: float, /, **tags: str) -> None:
        """Add one measurement to a histogram."""
        ...


class NoMetrics:
    """Checks what it is given and keeps nothing."""

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        checked_amount(name, amount)
        checked_spec(name, "counter", tags)

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        checked_spec(name, "gauge", tags)

    def observe(self, name: str, value: float, /, **tags: str) -> None:
        checked_spec(name, "histogram", tags)


def checked_spec(name: str, kind: Kind, tags: Iterable[str]) -> MetricSpec:
    """Return the specification of `name`. Raises ValueError unless it is of this kind and has these tags."""
    spec = _BY_NAME.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"metric {name!r} is not declared in core/metrics.py{hint}")
    if spec.kind != kind:
        raise ValueError(f"metric {name!r} is a {spec.kind}, not a {kind}")
    if set(spec.tags) != set(tags):
        raise ValueError(f"metric {name!r} takes the tags {sorted(spec.tags)}, not {sorted(tags)}")
    return spec


def checked_amount(name: str, amount: float) -> float:
    """Return `amount` as a Python number. Raises ValueError when a counter would go down."""
    if not amount >= 0:
        raise ValueError(f"counter {name!r} can only go up, not by {amount}")
    return float(amount)
