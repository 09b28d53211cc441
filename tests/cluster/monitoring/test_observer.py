"""From counters to a picture: rates, shares, restarts, stop bounds, and what went wrong in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.monitoring.observer import EVENTS_KEPT, WINDOW_SECONDS, Observer, newest_evaluations
from cluster.monitoring.snapshot import FaultsPart, Score, Snapshot
from tests.cluster.tiny import tiny_config

Stats = dict[str, dict[str, Any]]


def watch(*moments: tuple[float, Stats], **config: Any) -> Snapshot:
    """Show an observer some moments, and return the last picture."""
    observer = Observer("run", tiny_config(**config))
    pictures = [observer.take(stats, elapsed_seconds=seconds) for seconds, stats in moments]
    return pictures[-1]


def test_before_anything_was_measured_everything_is_unknown() -> None:
    picture = watch((0.0, {}))

    assert picture.games.played is None
    assert picture.games.per_hour is None
    assert picture.learner.steps is None
    assert picture.inference.busy_ratio is None
    assert picture.loss is None
    assert picture.events == ()


def test_one_moment_tells_counts_but_no_rates() -> None:
    picture = watch((1.0, {"replay": {"games": 7}, "learner": {"learner_steps": 3}}))

    assert (picture.games.played, picture.games.per_hour) == (7, None)
    assert (picture.learner.steps, picture.learner.steps_per_second) == (3, None)


def test_rates_are_differences_over_time() -> None:
    picture = watch(
        (
            0.0,
            {
                "replay": {"games": 100},
                "learner": {"learner_steps": 50},
                "inference": {"rows": 0, "batches": 0},
            },
        ),
        (
            2.0,
            {
                "replay": {"games": 110},
                "learner": {"learner_steps": 58},
                "inference": {"rows": 600, "batches": 6},
            },
        ),
    )

    assert picture.games.per_hour == pytest.approx(5 * 3600)
    assert picture.learner.steps_per_second == pytest.approx(4)
    assert picture.inference.positions_per_second == pytest.approx(300)
    assert picture.inference.mean_batch_rows == pytest.approx(100)


def test_rates_forget_what_is_older_than_the_window() -> None:
    games = [(float(second), {"replay": {"games": 1000 if second > 5 else 0}}) for second in range(40)]
    picture = watch(*games)

    assert picture.games.per_hour == 0.0
    assert WINDOW_SECONDS < 30


def actor(games: int, seconds: float, *, plies: int = 0) -> dict[str, Any]:
    return {"games": games, "plies": plies, "search_seconds": seconds, "wait_seconds": 0.0}


def test_shares_of_time_are_means_over_all_actors() -> None:
    picture = watch(
        (0.0, {"actor-0": actor(0, 0.0), "actor-1": actor(0, 0.0)}),
        (4.0, {"actor-0": actor(2, 4.0, plies=20), "actor-1": actor(3, 2.0, plies=40)}),
    )

    assert picture.actors.search_share == pytest.approx(0.75)
    assert picture.actors.wait_share == 0.0
    assert picture.games.mean_plies == pytest.approx(12)


def test_a_part_that_restarted_counts_from_zero_and_not_backwards() -> None:
    picture = watch(
        (0.0, {"actor-0": actor(90, 90.0, plies=900), "actor-1": actor(50, 50.0, plies=500)}),
        (4.0, {"actor-0": actor(1, 1.0, plies=10), "actor-1": actor(52, 52.0, plies=520)}),
    )

    assert picture.games.mean_plies == pytest.approx(10)
    assert picture.actors.search_share == pytest.approx(3 / 8)


def test_counters_of_the_run_that_came_back_a_little_lower_are_no_growth() -> None:
    picture = watch(
        (0.0, {"replay": {"games": 500}, "learner": {"learner_steps": 500}}),
        (2.0, {"replay": {"games": 500}, "learner": {"learner_steps": 480}}),
    )

    assert picture.learner.steps_per_second == 0.0
    assert picture.games.per_hour == 0.0


def test_shares_and_ratios_never_pass_one() -> None:
    picture = watch(
        (0.0, {"actor": actor(0, 0.0), "inference": {"busy_seconds": 0.0}}),
        (1.0, {"actor": actor(0, 5.0), "inference": {"busy_seconds": 3.0}}),
    )

    assert picture.actors.search_share == picture.inference.busy_ratio == 1.0


@pytest.mark.parametrize(
    ("bounds", "words", "seconds"),
    [
        ({}, "", None),
        ({"stop__minutes": 2}, "2 min", 116.0),
        ({"stop__games": 1000}, "1,000 games", 180.0),
        ({"stop__learner_steps": 40}, "40 steps", 10.0),
        ({"stop__minutes": 2, "stop__games": 1000, "stop__learner_steps": 40}, "40 steps", 10.0),
        ({"stop__learner_steps": 10}, "10 steps", 0.0),
    ],
)
def test_the_nearest_stop_bound_is_told(bounds: dict[str, Any], words: str, seconds: float | None) -> None:
    picture = watch(
        (0.0, {"replay": {"games": 80}, "learner": {"learner_steps": 12}}),
        (4.0, {"replay": {"games": 100}, "learner": {"learner_steps": 20}}),
        **bounds,
    )

    assert (picture.stop, picture.remaining_seconds) == (words, seconds)


def test_a_bound_that_nothing_approaches_has_no_time_left_to_tell() -> None:
    standing = {"replay": {"games": 5}}
    picture = watch((0.0, standing), (4.0, standing), stop__games=10)

    assert (picture.stop, picture.remaining_seconds) == ("10 games", None)


def test_the_newest_notes_are_kept_and_all_of_them_are_logged() -> None:
    observer, log = Observer("run", tiny_config()), list[str]()
    observer.log_to(log.append)
    texts = [f"note {k}" for k in range(EVENTS_KEPT + 3)]
    for text in texts:
        observer.note(text)
    picture = observer.take({}, elapsed_seconds=1.0)

    assert [event.text for event in picture.events] == texts[-EVENTS_KEPT:]
    assert log == texts


def test_a_trouble_is_told_once_until_it_changes_or_comes_again() -> None:
    observer, log = Observer("run", tiny_config()), list[str]()
    observer.log_to(log.append)
    for second, trouble in enumerate(["", "full", "full", "", "full", "still\n  full"]):
        observer.take({"actor-1": {"trouble": trouble}, "learner": {}}, elapsed_seconds=float(second))

    assert log == ["actor-1: full", "actor-1: full", "actor-1: still full"]


def test_of_parts_that_have_left_sums_are_kept_and_nothing_else() -> None:
    observer = Observer("run", tiny_config())
    picture = observer.take({}, elapsed_seconds=0.0)
    for number in range(200):
        left = {
            f"actor-{number}": {"set_aside": 2, "resent_requests": 1, "ends": {"won": 1}, "trouble": "full"}
        }
        picture = observer.take(left, elapsed_seconds=float(number))

    assert picture.faults == FaultsPart(games_set_aside=400, resent_requests=200)
    assert picture.ends == {"won": 200}
    assert {part for part, _ in observer._troubles} == {"actor-199"}
    assert {part for part, _ in observer._faults._seen} == {"actor-199"}


def aside(games: int, cause: str = "it is away") -> dict[str, Any]:
    return {"set_aside": games, "set_aside_cause": cause}


def test_games_set_aside_are_told_at_once_and_then_now_and_then() -> None:
    observer, log = Observer("run", tiny_config()), list[str]()
    observer.log_to(log.append)
    for second in range(0, 41, 10):
        parts = {"actor-0": aside(512 * second), "actor-1": aside(256 * second if second > 10 else 0)}
        observer.take(parts, elapsed_seconds=float(second))

    assert log == [
        "actor-0 set 5,120 games aside: it is away",
        "2 actors set 25,600 games aside: it is away",
    ]


def test_faults_are_summed_over_all_parts_and_their_lives() -> None:
    lives = [(3, 10, 1, 0), (5, 12, 1, 0), (1, 2, 0, 2)]
    moments = [
        (
            float(second),
            {
                "actor-0": {"set_aside": a, "resent_requests": c},
                "actor-1": {"set_aside": 7, "resent_requests": 1},
                "inference": {"failed_requests": b, "requests": 0},
                "replay": {"refused_chunks": d},
            },
        )
        for second, (a, b, c, d) in enumerate(lives)
    ]
    picture = watch(*moments)

    assert picture.faults == FaultsPart(
        games_set_aside=5 + 1 + 7, failed_requests=12 + 2, resent_requests=1 + 1, refused_chunks=2
    )
    flat = picture.flat()
    assert [flat[f"faults/{name}"] for name in ("games_set_aside", "failed_requests")] == [13, 14]
    assert [flat[f"faults/{name}"] for name in ("resent_requests", "refused_chunks")] == [2, 2]


def test_ends_of_episodes_are_summed_over_all_actors_and_their_lives() -> None:
    observer = Observer("first", tiny_config())
    assert observer.take({}, elapsed_seconds=0.0).ends == {}
    observer.take({"actor-0": {"ends": {"won": 2}}, "actor-1": {"ends": {"lost": 5}}}, elapsed_seconds=1.0)
    ends = observer.take(
        {"actor-0": {"ends": {"won": 1}}, "actor-1": {"ends": {"lost": 6}}}, elapsed_seconds=2.0
    )
    assert ends.ends == {"lost": 6, "won": 3}


def test_the_share_of_requests_that_fail_is_that_of_the_window() -> None:
    picture = watch(
        (0.0, {"inference": {"requests": 100, "failed_requests": 5}}),
        (1.0, {"inference": {"requests": 106, "failed_requests": 7}}),
    )

    assert picture.inference.failure_ratio == pytest.approx(0.25)


def test_the_traceback_behind_a_note_is_for_the_log_alone() -> None:
    observer, logged = Observer("run", tiny_config()), []
    observer.log_to(logged.append)
    observer.note("the learner failed: why\nTraceback")

    assert [event.text for event in observer.take({}, elapsed_seconds=0.0).events] == [
        "the learner failed: why"
    ]
    assert logged == ["the learner failed: why\nTraceback"]


def test_a_damaged_file_or_checkpoint_is_told() -> None:
    picture = watch(
        (
            0.0,
            {
                "learner": {"skipped_checkpoints": "checkpoint 3 is damaged"},
                "replay": {"damaged": "set aside x"},
            },
        )
    )

    assert [event.text for event in picture.events] == [
        "learner: checkpoint 3 is damaged",
        "replay: set aside x",
    ]


def test_the_newest_score_against_each_opponent_counts(tmp_path: Path) -> None:
    lines = [
        {"version": 1, "perfect_share": 0.25},
        {"version": 1, "opponent": "random", "score": 0.5, "low": 0.4, "high": 0.6},
        {"version": 1, "opponent": "mcts:64", "score": 0.0, "low": 0.0, "high": 0.1},
        {"version": 2, "perfect_share": 0.75},
        {"version": 2, "opponent": "random", "score": 1.0, "low": 0.9, "high": 1.0},
    ]
    path = tmp_path / "evaluations.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"version": 2, "oppo')

    assert newest_evaluations(path) == {
        "strength": {"random": Score(1.0, 0.9, 1.0), "mcts:64": Score(0.0, 0.0, 0.1)},
        "perfect_share": 0.75,
    }
    observer = Observer("run", tiny_config(), evaluations_file=path)
    assert observer.take({}, elapsed_seconds=0.0).perfect_share == 0.75


def test_where_nobody_evaluates_there_is_no_strength(tmp_path: Path) -> None:
    assert newest_evaluations(None) == newest_evaluations(tmp_path / "none") == {}
