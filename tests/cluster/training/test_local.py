"""The circle in one process: the same seed gives the same weights, and a run that was stopped goes on."""

from pathlib import Path
from typing import Any

import pytest

from cluster.monitoring.observer import Observer
from cluster.run.run_folder import RunFolder
from cluster.training.local_engine import LocalEngine
from core.errors import DataError
from tests.cluster.tiny import (
    checkpoints,
    game_lines,
    games_on_disk,
    newest_digest,
    tiny_config,
    tiny_run,
)

LONG_SECONDS = 60.0
"""Far more than a run of these tests takes; the stop bound ends it."""


def run_until(folder: Path, **changed: Any) -> tuple[RunFolder, dict[str, Any]]:
    """Run in `folder` until a stop bound; return it and the counters of all parts at that moment."""
    config = tiny_config(**changed)
    run = tiny_run(folder, config)
    engine = LocalEngine(config, run)
    engine.start()
    engine.advance(LONG_SECONDS)
    stats = engine.stats()
    engine.stop()
    return run, stats


def test_one_seed_makes_the_same_games_and_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    runs = [
        run_until(tmp_path / str(k) / "run", stop__learner_steps=20, seed=seed)[0]
        for k, seed in enumerate((1, 1, 2))
    ]
    digests = [newest_digest(run) for run in runs]
    texts = [b"".join(path.read_bytes() for path in sorted(run.games.iterdir())) for run in runs]

    assert digests[0] == digests[1] != digests[2]
    assert texts[0] == texts[1] != texts[2]


def test_the_circle_turns(tmp_path: Path) -> None:
    run, stats = run_until(tmp_path / "run", stop__learner_steps=20)

    assert stats["learner"]["version"] == 20 // 4
    assert stats["replay"]["games"] > 0
    assert stats["replay"]["rows"] == stats["replay"]["total_rows"] >= 64
    assert stats["actor-0"]["games"] >= stats["replay"]["games"]
    assert stats["inference-0"]["cached_rows"] > 0
    assert stats["replay"]["newest_actions"]
    assert len(games_on_disk(run)) == game_lines(run) >= stats["replay"]["games"]


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_the_bound_of_learner_steps_is_exact(tmp_path: Path, steps: int) -> None:
    _, stats = run_until(tmp_path / "run", stop__learner_steps=steps)

    assert stats["learner"]["learner_steps"] == steps


def test_a_bound_of_games_stops_the_turning(tmp_path: Path) -> None:
    run, stats = run_until(tmp_path / "run", stop__games=60)
    in_play = 2 * 8

    # A chunk is taken in whole, and what was finished but not sent yet is brought in at the end.
    assert 60 <= stats["replay"]["games"] <= len(games_on_disk(run)) <= 60 + 64 + in_play


def test_a_reached_bound_is_not_passed_when_the_run_is_started_again(tmp_path: Path) -> None:
    run_until(tmp_path / "run", stop__learner_steps=7)
    _, again = run_until(tmp_path / "run", stop__learner_steps=7)

    assert again["learner"]["learner_steps"] == 7


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    run, first = run_until(tmp_path / "run", stop__learner_steps=12)
    games = games_on_disk(run)
    digest = newest_digest(run)
    _, second = run_until(tmp_path / "run", stop__learner_steps=24)

    assert (first["learner"]["learner_steps"], second["learner"]["learner_steps"]) == (12, 24)
    assert second["learner"]["version"] > first["learner"]["version"]
    assert second["replay"]["games"] > len(games)
    assert second["learner"]["rows_trained"] == 24 * 32
    assert games_on_disk(run)[: len(games)] == games
    assert len(set(games_on_disk(run))) == len(games_on_disk(run))
    assert {epoch for _, epoch, _ in games_on_disk(run)} == {0, 1}
    assert newest_digest(run) != digest


def test_stopping_saves_what_was_learnt_and_brings_in_what_was_played(tmp_path: Path) -> None:
    config = tiny_config(stop__learner_steps=6, learner__checkpoint_every_seconds=1e9)
    run = tiny_run(tmp_path / "run", config)
    engine = LocalEngine(config, run)
    engine.start()
    engine.advance(LONG_SECONDS)
    assert checkpoints(run) == []
    finished = engine.stats()["actor-0"]["games"]
    engine.stop()

    assert checkpoints(run) == [1]
    assert len(games_on_disk(run)) == finished
    assert engine.stats()["learner"]["version"] == 2  # one at step 4, and one of the rest


def damage(run: RunFolder, number: int) -> None:
    path = run.checkpoints / f"{number:010d}" / "trainer.pt"
    path.write_bytes(path.read_bytes()[:-100])


def test_a_damaged_newest_checkpoint_costs_an_interval_and_is_told(tmp_path: Path) -> None:
    run, _ = run_until(tmp_path / "run", stop__learner_steps=12)
    kept = checkpoints(run)
    damage(run, kept[-1])
    config = tiny_config(stop__learner_steps=13)
    engine = LocalEngine(config, run)
    engine.start()
    picture = Observer("run", config).take(engine.stats(), elapsed_seconds=0.0)
    engine.stop()

    assert picture.learner.steps is not None
    assert picture.learner.steps < 12
    assert f"learner: checkpoint {kept[-1]} is damaged" in picture.events[0].text


def test_a_run_whose_checkpoints_are_all_damaged_is_left_as_it_is(tmp_path: Path) -> None:
    run, _ = run_until(tmp_path / "run", stop__learner_steps=12)
    kept = checkpoints(run)
    for number in kept:
        damage(run, number)
    engine = LocalEngine(tiny_config(), run)
    with pytest.raises(DataError, match="none of the"):
        engine.start()
    engine.stop()

    assert checkpoints(run) == kept
