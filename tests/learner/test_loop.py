"""The loop: what it publishes and saves, and that a learner which died goes on as if it had not."""

import resource
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import LearnerConfig, NetworkConfig
from core.errors import ClusterError, TamenError, UsageError
from core.messages import BoardSpec
from learner.board_objective import BoardObjective
from learner.checkpoint import STATE_FILE, CheckpointStore
from learner.feed import Waited
from learner.loop import Learner
from learner.objective import StepReport
from networks.build import new_net, to_weights
from networks.weights import Weights
from replay.records import Chunk
from replay.sampling import Wait

CONFIG = LearnerConfig(
    batch_rows=16,
    microbatch_rows=16,
    warmup_steps=2,
    publish_every_steps=3,
    checkpoint_every_seconds=1000.0,
    ema_decay=0.8,
)
SPEC = BoardSpec(4, 4)
NETWORK = NetworkConfig(blocks=1, channels=4, precision="fp32")

MakeSource = Callable[..., Any]
Publisher = Any


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def make_learner(
    source: Any,
    publisher: Publisher,
    folder: Path,
    *,
    config: LearnerConfig = CONFIG,
    network: NetworkConfig = NETWORK,
    game: str = "toy",
    seed: int = 7,
    clock: Clock | None = None,
    prefetch: int = 0,
    first: Weights | None = None,
) -> Learner:
    clock = clock or Clock()
    return Learner(
        SPEC,
        game,
        model="main",
        network=network,
        config=config,
        objective=BoardObjective(config),
        source=source,
        publisher=publisher,
        checkpoints=CheckpointStore(folder, keep=2),
        seed=seed,
        first=first,
        prefetch=prefetch,
        clock=clock,
        sleep=clock.sleep,
    )


def steps(learner: Learner, count: int) -> list[StepReport]:
    reports = [learner.step_once() for _ in range(count)]
    assert all(isinstance(report, StepReport) for report in reports)
    return [report for report in reports if isinstance(report, StepReport)]


def digests(publisher: Publisher) -> list[tuple[int, str]]:
    return [(weights.version, weights.digest) for weights in publisher.published]


def another(publisher: Publisher) -> Publisher:
    return type(publisher)()


def test_the_untrained_net_is_version_0_and_each_publication_one_more(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    assert learner.resume().version == 0
    assert publisher.versions == [0]
    steps(learner, 7)
    assert publisher.versions == [0, 1, 2]
    learner.finish()
    assert publisher.versions == [0, 1, 2, 3]
    assert {weights.model for weights in publisher.published} == {"main"}
    assert len({weights.digest for weights in publisher.published}) == 4


def test_weights_to_begin_with_are_version_0_until_there_is_a_checkpoint(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    given = to_weights(new_net(SPEC, NETWORK, seed=99), model="other", version=5, game="toy")
    learner = make_learner(make_source(), publisher, tmp_path, first=given)
    learner.resume()
    assert digests(publisher) == [(0, given.digest)]
    steps(learner, 3)
    learner.finish()
    later = make_learner(make_source(), another(publisher), tmp_path, first=given)
    assert later.resume().version == 1
    assert later._weights.digest == publisher.published[-1].digest != given.digest


def test_finishing_publishes_nothing_twice(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    learner.resume()
    steps(learner, 3)
    learner.finish()
    learner.finish()
    assert publisher.versions == [0, 1]


def test_two_runs_with_one_seed_are_the_same_bit_for_bit(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    publishers = [publisher, another(publisher), another(publisher)]
    for each, seed in zip(publishers, (7, 7, 8), strict=True):
        learner = make_learner(make_source(), each, tmp_path / str(id(each)), seed=seed)
        learner.resume()
        steps(learner, 6)
    assert digests(publishers[0]) == digests(publishers[1])
    assert digests(publishers[0]) != digests(publishers[2])


def test_what_is_published_is_the_average_of_the_weights(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    learner.resume()
    steps(learner, 6)
    learner.finish()
    found = CheckpointStore(tmp_path, keep=2).load_newest()
    assert found is not None
    published = publisher.published[-1].tensors["stem.weight"]
    assert np.array_equal(published, found.trainer_state["average"]["stem.weight"].numpy())
    assert not np.array_equal(published, found.trainer_state["net"]["stem.weight"].numpy())


@pytest.mark.parametrize("saved_after", [1, 5])
def test_a_resumed_learner_equals_one_that_was_never_stopped(
    saved_after: int, make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    straight = another(publisher)
    learner = make_learner(make_source(), straight, tmp_path / "straight")
    learner.resume()
    expected = steps(learner, 9)

    source = make_source()
    learner = make_learner(source, publisher, tmp_path / "stopped")
    learner.resume()
    steps(learner, saved_after)
    learner.save()
    learner = make_learner(source, publisher, tmp_path / "stopped", seed=99)
    resumed = learner.resume()
    assert (resumed.checkpoint, resumed.learner_steps) == (1, saved_after)
    found = steps(learner, 9 - saved_after)
    assert [r.losses["loss"] for r in found] == [r.losses["loss"] for r in expected[saved_after:]]
    assert digests(publisher) == digests(straight)


def test_steps_after_the_last_checkpoint_are_done_again_and_published_above_what_is_out(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    source = make_source()
    learner = make_learner(source, publisher, tmp_path)
    learner.resume()
    steps(learner, 3)
    learner.save()
    first = steps(learner, 6)
    assert publisher.versions == [0, 1, 2, 3]
    learner = make_learner(source, publisher, tmp_path)
    assert learner.resume().version == 4
    assert publisher.published[4].digest == publisher.published[1].digest
    assert [r.losses["loss"] for r in steps(learner, 6)] == [r.losses["loss"] for r in first]
    assert publisher.versions == [0, 1, 2, 3, 4, 5, 6]
    assert publisher.published[6].digest == publisher.published[3].digest


def test_a_publisher_that_lost_its_weights_is_given_them_back_first(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    learner.resume()
    steps(learner, 7)
    learner.save()
    emptied = another(publisher)
    make_learner(make_source(), emptied, tmp_path).resume()
    assert digests(emptied) == digests(publisher)[-1:]


def test_a_damaged_checkpoint_is_told_of(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    learner.resume()
    steps(learner, 1)
    learner.save()
    steps(learner, 1)
    learner.save()
    (tmp_path / "0000000002" / STATE_FILE).write_bytes(b"")
    learner = make_learner(make_source(), publisher, tmp_path)
    resumed = learner.resume()
    assert (resumed.checkpoint, resumed.learner_steps, len(resumed.skipped)) == (1, 1, 1)
    assert "checkpoint 2 is damaged" in str(learner.stats()["skipped_checkpoints"])


@pytest.mark.parametrize(
    "change", [{"game": "chess"}, {"network": NETWORK.model_copy(update={"channels": 8})}]
)
def test_a_checkpoint_of_something_else_is_refused(
    change: dict[str, Any], make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    learner.resume()
    learner.save()
    with pytest.raises(UsageError, match="checkpoint 1 cannot be resumed"):
        make_learner(make_source(), publisher, tmp_path, **change).resume()


def test_checkpoints_are_written_by_the_clock(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    clock = Clock()
    config = CONFIG.model_copy(update={"checkpoint_every_seconds": 10.0})
    learner = make_learner(make_source(), publisher, tmp_path, config=config, clock=clock)
    learner.resume()
    saved = []
    for now in (1.0, 9.9, 10.0, 15.0, 20.0, 31.0):
        clock.seconds = now
        steps(learner, 1)
        saved.append(learner.stats().get("checkpoint"))
    assert saved == [None, None, 1, 1, 2, 3]


def test_a_full_disk_is_told_of_and_training_goes_on_until_there_is_room(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    clock = Clock()
    config = CONFIG.model_copy(update={"checkpoint_every_seconds": 10.0})
    learner = make_learner(make_source(), publisher, tmp_path, config=config, clock=clock)
    learner.resume()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        clock.seconds = 10.0
        steps(learner, 1)
        assert "could not be written" in str(learner.stats()["checkpoint_trouble"])
        with pytest.raises(TamenError, match="could not be written"):
            learner.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    clock.seconds = 20.0
    steps(learner, 1)
    assert learner.stats()["checkpoint_trouble"] == ""
    assert learner.stats()["checkpoint"] == 1


def test_what_was_learnt_is_saved_at_the_end_though_it_cannot_be_published(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path)
    learner.resume()
    steps(learner, 5)
    publisher.failure = ClusterError("the store is gone", why="w", fix="f")
    with pytest.raises(ClusterError, match="the store is gone"):
        learner.finish()
    publisher.failure = None
    learner = make_learner(make_source(), publisher, tmp_path)
    assert learner.resume().learner_steps == 5
    learner.finish()
    assert publisher.versions == [0, 1, 2]


def test_a_checkpoint_that_is_due_is_written_though_publishing_fails(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    clock = Clock()
    config = CONFIG.model_copy(update={"publish_every_steps": 1, "checkpoint_every_seconds": 10.0})
    learner = make_learner(make_source(), publisher, tmp_path, config=config, clock=clock)
    learner.resume()
    clock.seconds = 10.0
    publisher.failure = ClusterError("the store is gone", why="w", fix="f")
    with pytest.raises(ClusterError, match="the store is gone"):
        learner.step_once()
    assert (learner.stats()["checkpoint"], learner.stats()["learner_steps"]) == (1, 1)


def test_rows_older_than_the_bound_are_left_out_and_counted(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    source = make_source(version=0)
    source.chunks |= {k + 3: data for k, data in make_source(version=2).chunks.items()}
    config = CONFIG.model_copy(update={"max_lag_versions": 1, "publish_every_steps": 1})
    learner = make_learner(source, publisher, tmp_path, config=config)
    learner.resume()
    fresh_rows = [report.rows for report in steps(learner, 3)]
    assert fresh_rows[:2] == [16, 16]
    assert 0 < fresh_rows[2] < 16
    assert learner.stats()["rows_too_old"] == 16 - fresh_rows[2]
    assert learner.stats()["rows_trained"] == sum(fresh_rows)


def test_a_batch_of_old_rows_alone_is_no_step(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_lag_versions": 1, "publish_every_steps": 1})
    learner = make_learner(make_source(), publisher, tmp_path, config=config)
    learner.resume()
    steps(learner, 2)
    waited = learner.step_once()
    assert isinstance(waited, Waited)
    assert "max_lag_versions" in waited.reason
    assert learner.stats()["waiting_for"] == waited.reason
    assert learner.stats()["learner_steps"] == 2


def test_while_the_rate_limiter_holds_it_the_learner_says_what_it_waits_for(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    source = make_source()
    source.wait = Wait(0.2, "actors are behind")
    learner = make_learner(source, publisher, tmp_path)
    learner.resume()
    waited = learner.step_once()
    assert isinstance(waited, Waited)
    assert 0 < waited.seconds <= 0.2
    assert learner.stats()["waiting_for"] == "actors are behind"
    source.wait = None
    steps(learner, 1)
    assert learner.stats()["waiting_for"] == ""


def test_a_poisoned_batch_is_counted_and_does_not_publish(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    source = make_source()
    config = CONFIG.model_copy(update={"publish_every_steps": 1})
    learner = make_learner(source, publisher, tmp_path, config=config)
    learner.resume()
    steps(learner, 1)
    source.chunks = {9: poisoned(source.chunks[1])}
    (report,) = steps(learner, 1)
    assert not report.applied
    assert publisher.versions == [0, 1]
    stats = learner.stats()
    assert (stats["batches_set_aside"], stats["rows_set_aside"], stats["rows_trained"]) == (1, 16, 16)
    assert str(stats["last_refusal"]).startswith("the loss is not finite (rows of ")
    assert "of actor 3 in its life 1" in str(stats["last_refusal"])
    assert np.isfinite(float(stats["loss"]))


def poisoned(data: bytes) -> bytes:
    chunk = Chunk.decode(data)
    nowhere = np.full(chunk.num_rows, np.nan, np.float32)
    return replace(chunk, columns={**chunk.columns, "outcome": nowhere}).encode()


def test_nothing_is_told_before_it_was_measured(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    clock = Clock()
    learner = make_learner(make_source(), publisher, tmp_path, clock=clock)
    learner.resume()
    assert "loss" not in learner.stats()
    steps(learner, 1)
    assert "loss" in learner.stats()
    assert "steps_per_second" not in learner.stats()
    clock.seconds = 4.0
    steps(learner, 1)
    assert learner.stats()["steps_per_second"] == 0.25
    assert learner.stats()["rows_per_second"] == 4.0


def test_the_lag_is_told_in_versions(make_source: MakeSource, publisher: Publisher, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"publish_every_steps": 1})
    learner = make_learner(make_source(), publisher, tmp_path, config=config)
    learner.resume()
    steps(learner, 3)
    assert learner.stats()["policy_lag_versions"] == pytest.approx((0 + 1 + 2) / 3)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_run_learns_until_it_is_told_to_stop_then_publishes_and_saves(
    prefetch: int, make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    learner = make_learner(make_source(), publisher, tmp_path, prefetch=prefetch)
    learner.resume()
    learner.run(lambda: int(learner.stats()["learner_steps"]) >= 7)
    assert learner.stats()["learner_steps"] == 7
    assert publisher.versions == [0, 1, 2, 3]
    found = CheckpointStore(tmp_path, keep=2).load_newest()
    assert found is not None
    assert (found.state["learner_steps"], found.weights.version) == (7, 3)
    assert not any(thread.name == "feed" for thread in threading.enumerate())


def test_run_can_be_stopped_while_there_is_no_data(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    source = make_source()
    source.wait = Wait(3600.0, "nobody plays")
    clock = Clock()
    learner = make_learner(source, publisher, tmp_path, clock=clock)
    learner.resume()
    learner.run(lambda: clock.seconds > 2.0)
    assert clock.seconds < 3.0


def test_after_a_failure_of_the_source_the_same_learner_resumes(
    make_source: MakeSource, publisher: Publisher, tmp_path: Path
) -> None:
    source = make_source()
    learner = make_learner(source, publisher, tmp_path, prefetch=1)
    learner.resume()
    steps(learner, 4)
    source.failure = ClusterError("the replay is gone", why="w", fix="f")
    with pytest.raises(ClusterError, match="the replay is gone"):
        learner.run(lambda: False)
    source.failure = None
    trained = int(learner.stats()["learner_steps"])
    assert learner.resume().learner_steps == trained
    learner.run(lambda: int(learner.stats()["learner_steps"]) >= trained + 3)
    assert publisher.versions == sorted(set(publisher.versions))
