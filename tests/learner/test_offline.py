"""A network learns rows at rest, and whatever interrupts it, the result is the same."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.fitting import FitSettings
from configs.schema import NetworkConfig, StepConfig
from core.errors import DataError, TamenError, UsageError
from games.hex import Hex
from learner.board_fitting import Fitting, fit, judge
from learner.checkpoint import CheckpointStore
from learner.mixing import DataSet, validation_rows
from learner.offline import METRICS_FILE, Around, OfflineLearner
from learner.step import MAX_FAULTS_IN_A_ROW
from networks.build import build_net, new_net
from networks.precision import resolve
from networks.weights import Weights
from tests.learner.shuffled import make_data_set

GAME = Hex(5)
NETWORK = NetworkConfig(blocks=2, channels=16, precision="fp32")
LEARNER = StepConfig(batch_rows=64, microbatch_rows=64, learning_rate=4e-3, ema_decay=0.9)
SETTINGS = FitSettings(epochs=2, mini_epoch_rows=500, half_turns="unused")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("rows"), games=60)


@dataclass
class FakePublisher:
    published: list[Weights] = field(default_factory=list)

    def publish(self, weights: Weights) -> None:
        self.published.append(weights)

    def newest_version(self) -> int | None:
        return self.published[-1].version if self.published else None


@dataclass
class Told:
    """What a fitting told, and when it is to stop."""

    stop_after: int | None = None
    seconds_a_look: float = 0.0
    publisher: FakePublisher = field(default_factory=FakePublisher)
    lines: list[str] = field(default_factory=list)
    progress: list[tuple[float, float, str]] = field(default_factory=list)
    now: float = 0.0

    def around(self) -> Around:
        return Around(
            publisher=self.publisher,
            progress=lambda *told: self.progress.append(told),
            should_stop=lambda: self.stop_after is not None and len(self.progress) >= self.stop_after,
            log=self.lines.append,
            clock=self.clock,
        )

    def clock(self) -> float:
        self.now += self.seconds_a_look
        return self.now


def fitting(folder: Path, **changes: Any) -> Fitting:
    return Fitting(
        game=GAME,
        sets=(DataSet(folder),),
        settings=SETTINGS.model_copy(update=changes.pop("settings", {})),
        network=NETWORK.model_copy(update=changes.pop("network", {})),
        learner=LEARNER.model_copy(update=changes.pop("learner", {})),
        seed=changes.pop("seed", 7),
        model="main",
    )


def test_moves_and_winners_are_learnt(rows: Path, tmp_path: Path) -> None:
    many = make_data_set(tmp_path / "rows", games=400)
    precision = resolve("fp32", "cpu")
    kept_apart = [DataSet(many)]
    before = judge(
        new_net(GAME.board, NETWORK, seed=1), validation_rows(kept_apart, most=9999), GAME, precision
    )
    told = Told()
    counts = fit(fitting(many), tmp_path / "fit", told.around())
    after = counts["validation"]
    assert after["policy_top1"] > 0.7 > before["policy_top1"]
    assert after["value_accuracy"] > 0.75 > before["value_accuracy"]
    (weights,) = told.publisher.published
    again = judge(build_net(weights), validation_rows(kept_apart, most=9999), GAME, precision)
    assert again["policy_top1"] == after["policy_top1"]


def test_each_mini_epoch_is_judged_and_written_down(rows: Path, tmp_path: Path) -> None:
    told = Told()
    counts = fit(fitting(rows), tmp_path, told.around())
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [line["rows"] for line in lines[:-1]] == [500 * (k + 1) for k in range(len(lines) - 1)]
    assert lines[-1]["rows"] == counts["rows"] == told.progress[-1][0] == told.progress[-1][1]
    assert lines[-1]["validation"]["by_ply"]
    assert {"policy_loss", "value_loss"} <= lines[0]["losses"].keys()
    assert counts["finished"]
    assert counts["version"] == 1
    assert len(told.lines) == len(lines)


@pytest.mark.parametrize("stop_after", [1, 5, 8, 12])
def test_stopped_and_gone_on_with_it_ends_with_the_same_bytes(
    rows: Path, tmp_path: Path, stop_after: int
) -> None:
    straight, broken = Told(), Told(stop_after=stop_after)
    fit(fitting(rows), tmp_path / "straight", straight.around())
    first = fit(fitting(rows), tmp_path / "broken", broken.around())
    assert not first["finished"]
    assert not broken.publisher.published
    second = Told(publisher=broken.publisher)
    assert fit(fitting(rows), tmp_path / "broken", second.around())["finished"]
    (one,), (other,) = straight.publisher.published, second.publisher.published
    assert one.to_bytes() == other.to_bytes()
    assert len(straight.progress) == len(broken.progress) + len(second.progress)

    def figures(folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]

    assert figures(tmp_path / "straight") == figures(tmp_path / "broken")


def test_what_is_finished_is_published_again_but_not_done_again(rows: Path, tmp_path: Path) -> None:
    first, second = Told(), Told()
    fit(fitting(rows), tmp_path, first.around())
    counts = fit(fitting(rows), tmp_path, second.around())
    assert counts["finished"]
    assert not second.progress
    (one,), (other,) = first.publisher.published, second.publisher.published
    assert (one.version, one.to_bytes()) == (other.version, other.to_bytes())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": {"epochs": 3}}, "fit.epochs: 2 -> 3"),
        ({"learner": {"learning_rate": 1e-3}}, "learner.learning_rate: 0.004 -> 0.001"),
        ({"seed": 8}, "seed: 7 -> 8"),
    ],
)
def test_other_settings_are_refused_unless_told(
    rows: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    fit(fitting(rows), tmp_path, Told(stop_after=2).around())
    with pytest.raises(UsageError, match=named.replace(".", r"\.")) as caught:
        fit(fitting(rows, **changes), tmp_path, Told().around())
    assert len(str(caught.value).splitlines()) == 3
    settings = changes.pop("settings", {}) | {"accept_changes": True}
    told = Told()
    assert fit(fitting(rows, settings=settings, **changes), tmp_path, told.around())["finished"]
    assert any(named in line for line in told.lines)


def test_another_network_or_other_rows_are_never_the_same(rows: Path, tmp_path: Path) -> None:
    fit(fitting(rows), tmp_path / "fit", Told(stop_after=2).around())
    accepted = {"accept_changes": True}
    with pytest.raises(UsageError, match=r"network\.blocks: 2 -> 3"):
        fit(fitting(rows, network={"blocks": 3}, settings=accepted), tmp_path / "fit", Told().around())
    other = make_data_set(tmp_path / "other", games=20, first=500)
    with pytest.raises(UsageError, match=r"data\.0"):
        fit(fitting(other), tmp_path / "fit", Told().around())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"settings": {"optimizer": "adam"}}, {}),
        ({}, {"settings": {"half_turns": "tied"}}),
        ({}, {"learner": {"ema_decay": 0.0}}),
        ({"learner": {"ema_decay": 0.0}}, {}),
    ],
)
def test_what_a_checkpoint_has_no_state_for_is_never_accepted(
    rows: Path, tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    fit(fitting(rows, **dict(before)), tmp_path, Told(stop_after=2).around())
    settings = after.get("settings", {}) | {"accept_changes": True}
    with pytest.raises(UsageError, match="this one cannot go on"):
        fit(fitting(rows, **after | {"settings": settings}), tmp_path, Told().around())


def test_another_decay_of_the_average_may_be_accepted(rows: Path, tmp_path: Path) -> None:
    fit(fitting(rows), tmp_path, Told(stop_after=2).around())
    changed = fitting(rows, learner={"ema_decay": 0.5}, settings={"accept_changes": True})
    assert fit(changed, tmp_path, Told().around())["finished"]


def test_a_full_disk_costs_a_checkpoint_and_not_the_fitting(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: CheckpointStore, **given: Any) -> None:
        if len(told.progress) < 10:
            raise TamenError("a checkpoint was not written", why="No space left on device", fix="make room")
        save(self, **given)

    save, told = CheckpointStore.save, Told()
    monkeypatch.setattr(CheckpointStore, "save", full)
    assert fit(fitting(rows), tmp_path, told.around())["finished"]
    assert any("no checkpoint: a checkpoint was not written: No space left" in line for line in told.lines)


def test_the_time_ends_it_and_the_rate_falls_with_it(rows: Path, tmp_path: Path) -> None:
    told = Told(seconds_a_look=0.5)
    settings = {"epochs": 10_000, "minutes": 1.0}
    counts = fit(fitting(rows, settings=settings), tmp_path, told.around())
    assert counts["finished"]
    assert 60 <= counts["seconds"] < 70
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * LEARNER.learning_rate


def test_rows_without_an_outcome_teach_moves(tmp_path: Path) -> None:
    unknown = make_data_set(tmp_path / "rows", games=30, tagged=False)
    counts = fit(fitting(unknown), tmp_path / "fit", Told().around())
    assert counts["validation"]["value_accuracy"] is None
    assert counts["validation"]["policy_top1"] > 0


def test_without_games_kept_apart_there_is_no_report(tmp_path: Path) -> None:
    few = make_data_set(tmp_path / "rows", games=10, shards=1)
    manifest = json.loads((few / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["name"].startswith("train/")]
    (few / "manifest.json").write_text(json.dumps(manifest))
    assert fit(fitting(few), tmp_path / "fit", Told().around())["validation"] is None


def test_a_batch_that_is_no_number_is_set_aside_and_told(
    rows: Path, tmp_path: Path, spoiled: Callable[[set[int]], None]
) -> None:
    spoiled({3})
    told = Told()
    counts = fit(fitting(rows), tmp_path, told.around())
    assert counts["finished"]
    assert counts["rows_set_aside"] == 64
    assert any("set aside" in line for line in told.lines)
    assert all(np.isfinite(tensor).all() for tensor in told.publisher.published[0].tensors.values())


def test_batch_after_batch_that_is_no_number_ends_it(
    rows: Path, tmp_path: Path, spoiled: Callable[[set[int]], None]
) -> None:
    spoiled(set(range(2, 100)))
    with pytest.raises(DataError, match=f"{MAX_FAULTS_IN_A_ROW} batches in a row"):
        fit(fitting(rows), tmp_path, Told().around())


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Let the outcomes of batches by their number be no numbers."""

    def spoil(numbers: set[int]) -> None:
        plain, made = OfflineLearner._batches, [0]

        def batches(learner: OfflineLearner) -> Any:
            for batch in plain(learner):
                outcome = batch["outcome"]
                yield {**batch, "outcome": np.full_like(outcome, np.nan)} if made[0] in numbers else batch
                made[0] += 1

        monkeypatch.setattr(OfflineLearner, "_batches", batches)

    return spoil


def test_settings_can_be_adam_and_smoothed(rows: Path, tmp_path: Path) -> None:
    settings = {"optimizer": "adam", "label_smoothing": 0.1, "half_turns": "shown", "epochs": 1}
    assert fit(fitting(rows, settings=settings), tmp_path, Told().around())["finished"]
