"""From counters of parts to metrics: what grew is counted once, whoever died meanwhile."""

from collections import Counter
from dataclasses import replace
from typing import Any

from cluster.monitoring.exporter import COUNTERS, Exporter
from cluster.monitoring.snapshot import LearnerPart, ReplayPart, RolloutPart, Score, Snapshot
from core.metrics import NoMetrics

PICTURE = Snapshot(
    run="run",
    game="hex5",
    elapsed_seconds=1.0,
    learner=LearnerPart(policy_loss=1.5, value_loss=0.5, newest_version=3),
    replay=ReplayPart(rows=40),
    strength={"random": Score(0.75, 0.5, 1.0)},
)


class Noted(NoMetrics):
    """Keeps the sums of counters and the last values of gauges, by name and tags."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.gauges: dict[tuple[str, ...], float] = {}

    def count(self, name: str, amount: float = 1.0, /, **tags: str) -> None:
        super().count(name, amount, **tags)
        self.counted[name, *tags.values()] += amount  # pyright: ignore[reportArgumentType]

    def gauge(self, name: str, value: float, /, **tags: str) -> None:
        super().gauge(name, value, **tags)
        self.gauges[name, *tags.values()] = value


def recorded(*moments: dict[str, dict[str, Any]]) -> Noted:
    metrics = Noted()
    exporter = Exporter([metrics])
    for stats in moments:
        exporter.record(stats, PICTURE)
    return metrics


def test_what_a_resumed_run_had_before_is_not_counted_again() -> None:
    metrics = recorded({"replay": {"games": 1000}}, {"replay": {"games": 1005}}, {"replay": {"games": 1009}})

    assert metrics.counted["tamen_games_total",] == 9


def test_what_a_part_did_before_the_first_look_at_it_counts() -> None:
    metrics = recorded(
        {"actor-0": {"moves": 5}, "replay": {"games": 100}},
        {"actor-0": {"moves": 6}, "actor-1": {"moves": 40}, "replay": {"games": 100}},
    )

    assert metrics.counted["tamen_moves_total",] == 46
    assert metrics.counted["tamen_games_total",] == 0


def test_nothing_is_kept_of_parts_that_have_left() -> None:
    metrics = Noted()
    exporter = Exporter([metrics])
    for number in range(1000):
        exporter.record({f"actor-{number}": {"moves": 3, "set_aside": 1}}, PICTURE)

    assert metrics.counted["tamen_moves_total",] == 3000
    assert metrics.counted["tamen_games_set_aside_total",] == 1000
    assert {part for part, _ in exporter._seen} == {"actor-999"}


def test_the_parts_of_a_role_are_counted_together() -> None:
    metrics = recorded(
        {"actor-0": {"set_aside": 0}, "actor-1": {"set_aside": 0}},
        {"actor-0": {"set_aside": 2}, "actor-1": {"set_aside": 3}},
    )

    assert metrics.counted["tamen_games_set_aside_total",] == 5


def test_requests_that_failed_or_were_lost_and_chunks_refused_are_counted() -> None:
    metrics = recorded(
        {
            "actor-0": {"resent_requests": 0, "spilled_requests": 0},
            "inference": {"failed_requests": 0},
            "replay": {"refused_chunks": 0},
        },
        {
            "actor-0": {"resent_requests": 4, "spilled_requests": 2},
            "inference": {"failed_requests": 2},
            "replay": {"refused_chunks": 1},
        },
    )

    assert metrics.counted["tamen_requests_resent_total",] == 4
    assert metrics.counted["tamen_requests_spilled_total",] == 2
    assert metrics.counted["tamen_requests_failed_total",] == 2
    assert metrics.counted["tamen_chunks_refused_total",] == 1


def test_how_episodes_ended_is_counted_from_picture_to_picture() -> None:
    metrics = Noted()
    exporter = Exporter([metrics])
    for ends in (None, {"won": 3}, {"won": 5, "out of time": 1}):
        exporter.record({}, replace(PICTURE, ends=ends))

    counted = {
        key[1]: number for key, number in metrics.counted.items() if key[0] == "tamen_episodes_ended_total"
    }
    assert counted == {"won": 5, "out of time": 1}


def test_a_process_that_restarted_counts_from_zero() -> None:
    metrics = recorded({"inference": {"rows": 0}}, {"inference": {"rows": 900}}, {"inference": {"rows": 30}})

    assert metrics.counted["tamen_positions_evaluated_total",] == 930


def test_a_learner_that_came_back_a_few_steps_lower_did_not_take_all_of_them_again() -> None:
    steps = [{"learner": {"learner_steps": steps}} for steps in (100, 150, 140, 155)]

    assert recorded(*steps).counted["tamen_learner_steps_total",] == 50 + 15


def test_gauges_have_the_newest_values_and_unknown_ones_are_not_written() -> None:
    gauges = recorded({}).gauges

    assert gauges["tamen_learner_loss", "policy"] == 1.5
    assert gauges["tamen_learner_loss", "value"] == 0.5
    assert gauges["tamen_strength_score", "random"] == 0.75
    assert gauges["tamen_replay_rows",] == 40
    assert ("tamen_policy_lag_versions",) not in gauges


def test_how_the_mirror_and_the_machines_stand_is_told_where_there_are_such() -> None:
    mirror = {"lag_seconds": 150.0, "behind": True, "failures": 2}
    gauges = recorded({"mirror": mirror, "machines": {"effective_ratio": 0.97, "spares": 3}}).gauges

    names = ("mirror_lag_seconds", "mirror_behind", "effective_ratio", "spare_actors")
    assert [gauges[f"tamen_{name}",] for name in names] == [150.0, 1.0, 0.97, 3.0]
    assert not {(f"tamen_{name}",) for name in names} & recorded({}).gauges.keys()


def test_every_place_that_is_given_gets_everything() -> None:
    first, second = Noted(), Noted()
    exporter = Exporter([first, second])
    for games in (1, 4):
        exporter.record({"replay": {"games": games}}, PICTURE)

    assert first.counted == second.counted
    assert first.gauges == second.gauges


def test_restarts_are_told_by_role() -> None:
    roles = {tags["role"] for name, _, _, tags in COUNTERS if name == "tamen_restarts_total"}
    metrics = recorded({"learner": {"restarts": 0}}, {"learner": {"restarts": 1}})

    assert roles == {"store", "replay", "learner", "colearner", "inference", "actor", "evaluator"}
    assert metrics.counted["tamen_restarts_total", "learner"] == 1


def test_what_a_restarted_learner_remembers_of_refused_steps_and_old_rows_is_not_counted_twice() -> None:
    before, after = (
        {"batches_set_aside": 5, "rows_too_old": 70},
        {"batches_set_aside": 3, "rows_too_old": 40},
    )
    metrics = recorded({"learner": dict.fromkeys(before, 0)}, {"learner": before}, {"learner": after})

    assert metrics.counted["tamen_learner_steps_refused_total",] == 5
    assert metrics.counted["tamen_rows_too_old_total",] == 70


def test_of_environments_it_is_told_how_the_policy_moves() -> None:
    metrics = Noted()
    part = RolloutPart(policy_entropy=0.6, kl=0.01, clip_share=0.2, ratio_error=1e-7)
    Exporter([metrics]).record({}, replace(PICTURE, rollout=part))

    names = ("entropy", "kl", "clip_ratio", "ratio_error")
    assert [metrics.gauges[f"tamen_policy_{name}",] for name in names] == [0.6, 0.01, 0.2, 1e-7]
    assert not [name for name, *_ in recorded({}).gauges if name.startswith("tamen_policy_kl")]
