"""From the counters that parts keep to the metrics that monitoring reads, by the driver, once an interval.

The driver is the one process that sees every part and lives as long as the run, so there is one series a metric,
not one for each process that ever was. Histograms are observed where their events happen.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.monitoring.snapshot import Snapshot
from core.metrics import Metrics

Stats = Mapping[str, Mapping[str, Any]]

COUNTERS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("tamen_games_total", "replay", "games", {}),
    ("tamen_moves_total", "actor", "moves", {}),
    ("tamen_replay_duplicates_total", "replay", "duplicates", {}),
    ("tamen_games_set_aside_total", "actor", "set_aside", {}),
    ("tamen_requests_failed_total", "inference", "failed_requests", {}),
    ("tamen_requests_resent_total", "actor", "resent_requests", {}),
    ("tamen_requests_spilled_total", "actor", "spilled_requests", {}),
    ("tamen_chunks_refused_total", "replay", "refused_chunks", {}),
    ("tamen_actor_seconds_total", "actor", "search_seconds", {"activity": "search"}),
    ("tamen_actor_seconds_total", "actor", "wait_seconds", {"activity": "wait"}),
    ("tamen_actor_seconds_total", "actor", "deliver_seconds", {"activity": "deliver"}),
    ("tamen_actor_seconds_total", "actor", "held_back_seconds", {"activity": "held_back"}),
    ("tamen_positions_evaluated_total", "inference", "rows", {}),
    ("tamen_cache_hits_total", "inference", "cached_rows", {}),
    ("tamen_learner_steps_total", "learner", "learner_steps", {}),
    ("tamen_learner_steps_refused_total", "learner", "batches_set_aside", {}),
    ("tamen_rows_too_old_total", "learner", "rows_too_old", {}),
    ("tamen_mirror_failures_total", "mirror", "failures", {}),
    ("tamen_spot_notices_total", "machines", "spot_notices", {}),
    ("tamen_games_lost_total", "machines", "games_lost", {}),
    ("tamen_games_taken_over_total", "machines", "games_taken_over", {}),
    *(
        ("tamen_restarts_total", role, "restarts", {"role": role})
        for role in ("store", "replay", "learner", "colearner", "inference", "actor", "evaluator")
    ),
)
"""Metric, role, name of the counter in the stats of its parts, and tags."""
PERSISTENT = (
    ("replay", "games"),
    ("learner", "learner_steps"),
    ("learner", "batches_set_aside"),
    ("learner", "rows_too_old"),
)
"""Counters of the run, not of a process: a part that died may come back with a little less, never with zero.

What they were at the first look is of earlier lives of the run. All others begin at zero with their process, and count
in full at the first look at it.
"""


class Exporter:
    """Writes what changed since the last time.

    Args:
        metrics: where to; several for Ray's own metrics beside a Prometheus port.
    """

    def __init__(self, metrics: Iterable[Metrics]) -> None:
        self._metrics = tuple(metrics)
        self._seen: dict[tuple[str, str], float] = {}
        self._ended: dict[str, int] = {}

    def record(self, stats: Stats, snapshot: Snapshot) -> None:
        """Take in one moment of the run: all parts that there are, and those that have left since the last one.

        No part has the name of one that has left.
        """
        self._seen = {seen: value for seen, value in self._seen.items() if seen[0] in stats}
        for metrics in self._metrics:
            for name, value, tags in (*_gauges(snapshot), *_gauges_of_machines(stats)):
                if value is not None:
                    metrics.gauge(name, value, **tags)
        for name, role, counter, tags in COUNTERS:
            grown = sum(self._growth(part, counter, stats[part]) for part in stats if part.startswith(role))
            for metrics in self._metrics:
                metrics.count(name, grown, **tags)
        for how, count in (snapshot.ends or {}).items():
            grown = count - self._ended.get(how, 0)
            self._ended[how] = count
            for metrics in self._metrics:
                metrics.count("tamen_episodes_ended_total", grown, how=how)

    def _growth(self, part: str, counter: str, values: Mapping[str, Any]) -> float:
        """Return how much a counter grew."""
        if counter not in values:
            return 0.0
        now, persistent = float(values[counter]), (part, counter) in PERSISTENT
        before = self._seen.get((part, counter), now if persistent else 0.0)
        self._seen[part, counter] = now
        if now >= before or persistent:
            return max(0.0, now - before)
        return now  # the part was restarted and counts from zero


def _gauges_of_machines(stats: Stats) -> Iterable[tuple[str, float | None, dict[str, str]]]:
    mirror, machines = stats.get("mirror", {}), stats.get("machines", {})
    yield "tamen_mirror_seconds", mirror.get("seconds"), {}
    yield "tamen_mirror_lag_seconds", mirror.get("lag_seconds"), {}
    yield "tamen_mirror_behind", mirror.get("behind"), {}
    yield "tamen_effective_ratio", machines.get("effective_ratio"), {}
    yield "tamen_spare_actors", machines.get("spares"), {}


def _gauges(snapshot: Snapshot) -> Iterable[tuple[str, float | None, dict[str, str]]]:
    learner, replay = snapshot.learner, snapshot.replay
    yield "tamen_replay_rows", replay.rows, {}
    yield "tamen_samples_per_insert", replay.samples_per_insert, {}
    yield "tamen_inference_busy_ratio", snapshot.inference.busy_ratio, {}
    yield "tamen_weights_version", learner.newest_version, {}
    yield "tamen_learner_loss", learner.policy_loss, {"part": "policy"}
    yield "tamen_learner_loss", learner.value_loss, {"part": "value"}
    yield "tamen_learner_data_wait_ratio", learner.data_wait_ratio, {}
    yield "tamen_policy_lag_versions", learner.lag_versions, {}
    if snapshot.rollout is not None:
        yield "tamen_episode_return", snapshot.rollout.training_return, {"of": "training"}
        yield "tamen_episode_return", snapshot.rollout.evaluated_return, {"of": "evaluation"}
        yield "tamen_policy_entropy", snapshot.rollout.policy_entropy, {}
        yield "tamen_policy_kl", snapshot.rollout.kl, {}
        yield "tamen_policy_clip_ratio", snapshot.rollout.clip_share, {}
        yield "tamen_policy_ratio_error", snapshot.rollout.ratio_error, {}
    for opponent, score in (snapshot.strength or {}).items():
        yield "tamen_strength_score", score.score, {"opponent": opponent}
