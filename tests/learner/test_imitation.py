"""A network learns what an engine chose, better than who sees nothing, and whatever interrupts it."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.imitation import ImitationFitSettings
from configs.schema import NetworkConfig, StepConfig
from core.errors import DataError, UsageError
from learner.imitation import (
    Imitation,
    ImitationObjective,
    Majority,
    environment_of,
    imitate,
    judge_imitation,
    with_observation,
)
from learner.offline import METRICS_FILE, Around
from networks.actor_critic import ActorCritic
from networks.build import build_net, new_net
from networks.precision import resolve
from networks.weights import Weights
from replay.decision_shards import DecisionWriter, decision_files, read_decisions
from replay.splitting import is_validation
from tests.replay.decision_rows import ABOUT, SLOTS, game_rows, write_games

NETWORK = NetworkConfig(layers=(32, 16), precision="fp32")
LEARNER = StepConfig(batch_rows=64, microbatch_rows=48, learning_rate=5e-3, ema_decay=0.9, weight_decay=0)
FP32 = resolve("fp32", "cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("games")
    write_games(folder, 200)
    return folder


@dataclass
class Told:
    """What a fitting told and published, and after how many steps it is to stop."""

    stop_after: int | None = None
    published: list[Weights] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    steps: int = 0

    def publish(self, weights: Weights) -> None:
        self.published.append(weights)

    def newest_version(self) -> int | None:
        return None

    def progress(self, *_: Any) -> None:
        self.steps += 1

    def around(self) -> Around:
        return Around(
            publisher=self,
            progress=self.progress,
            should_stop=lambda: self.steps == self.stop_after,
            log=self.lines.append,
            clock=lambda: 0.0,
        )


def imitation(folder: Path, **changes: Any) -> Imitation:
    given = {"game": "gym:toy", "network": NETWORK, "learner": LEARNER, "seed": 7}
    settings = {"epochs": 2}
    for name, value in changes.items():
        (settings if name in ImitationFitSettings.model_fields else given)[name] = value
    return Imitation(folder=folder, settings=ImitationFitSettings(**settings), **given)


def fitted(folder: Path, target: Path, **changes: Any) -> tuple[dict[str, Any], Weights, Told]:
    told = Told()
    counts = imitate(imitation(folder, **changes), target, told.around())
    (weights,) = told.published
    return counts, weights, told


def figures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def kept_apart(folder: Path) -> dict[str, np.ndarray]:
    columns = read_decisions(folder).columns
    apart = is_validation(columns["game"], 0.1)
    return {name: column[apart] for name, column in columns.items()}


def test_what_was_chosen_is_learnt_and_who_won(games: Path, tmp_path: Path) -> None:
    counts, weights, told = fitted(games, tmp_path, epochs=30)
    report = counts["best"]["validation"]
    untrained = new_net(environment_of(ABOUT), NETWORK, seed=1)
    rows, objective = kept_apart(games), ImitationObjective(LEARNER)
    majority = Majority(read_decisions(games).columns)
    before = judge_imitation(untrained, rows, objective, FP32, majority)
    assert report["accuracy"] > 0.93 > 0.7 > max(report["majority_accuracy"], before["accuracy"])
    assert report["value_loss"] < 0.1 < 0.5 < before["value_loss"]
    assert report["rows"] == len(rows["game"]) == sum(kind["rows"] for kind in report["kinds"].values())
    assert report["games"] == len(np.unique(rows["game"]))
    assert all(kind["accuracy"] > kind["majority_accuracy"] + 0.2 for kind in report["kinds"].values())
    assert (
        judge_imitation(build_net(weights), rows, objective, FP32, majority)["accuracy"] == report["accuracy"]
    )
    assert counts["lost"] == {"labels_missing": sum(game % 3 for game in range(200))}
    assert "the usual one is right in" in told.lines[-1]


def test_the_net_is_the_one_of_the_environment_and_chooses_what_may_be_chosen(
    games: Path, tmp_path: Path
) -> None:
    _, weights, _ = fitted(games, tmp_path)
    net = build_net(weights)
    assert isinstance(net, ActorCritic)
    assert net.accepts(replace(weights, network=ActorCritic(environment_of(ABOUT), NETWORK).network))
    rows = with_observation(game_rows(3, 50))
    with torch.inference_mode():
        policy = net({"observation": torch.from_numpy(rows["observation"])})["policy"].softmax(1).numpy()
    assert (policy[~game_rows(3, 50)["mask"]] == 0).all()
    np.testing.assert_allclose(policy.sum(1), 1, rtol=1e-5)


def test_what_is_seen_is_measured_in_deviations_of_the_rows_learnt_from(games: Path, tmp_path: Path) -> None:
    _, weights, _ = fitted(games, tmp_path, epochs=1)
    columns = read_decisions(games).columns
    train = columns["vector"][~is_validation(columns["game"], 0.1)].astype(np.float64)
    np.testing.assert_allclose(weights.tensors["normaliser.mean"], train.mean(0), atol=1e-6)
    np.testing.assert_allclose(weights.tensors["normaliser.inverse_deviation"], 1 / train.std(0), rtol=1e-5)


def test_a_row_whose_outcome_is_not_known_teaches_no_value() -> None:
    objective = ImitationObjective(LEARNER)
    batch = with_observation(game_rows(2, 4)) | {"value_weight": np.array([1, 0, 0, 1], np.float32)}
    part = {name: torch.from_numpy(batch[name]) for name in objective.columns}
    value = torch.tensor([0.5, 3.0, -9.0, 0.0], requires_grad=True)
    policy = torch.zeros(4, SLOTS, requires_grad=True)
    losses = objective.losses({"policy": policy, "value": value}, part, objective.totals(batch))
    outcome = batch["outcome"]
    assert losses["value_loss"].item() == pytest.approx(((0.5 - outcome[0]) ** 2 + outcome[3] ** 2) / 2)
    assert losses["policy_loss"].item() == pytest.approx(np.log(SLOTS))
    losses["loss"].backward()
    assert value.grad is not None
    assert value.grad[1:3].tolist() == [0, 0]
    none_known = objective.totals(batch | {"value_weight": np.zeros(4, np.float32)})
    assert none_known["value_weight"] > 0


def test_the_baseline_takes_the_most_frequent_of_what_may_be_chosen() -> None:
    rows = {
        "kind": np.array([0, 0, 0, 1, 1], np.int16),
        "choice": np.array([2, 2, 1, 3, 0]),
        "mask": np.ones((5, 4), bool),
    }
    majority = Majority(rows)
    asked = {
        "kind": np.array([0, 0, 0, 1, 9], np.int16),
        "mask": np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]], bool),
    }
    assert majority.foretold(asked).tolist() == [2, 1, 0, 3, 1]


@pytest.mark.parametrize("stop_after", [1, 17, 30])
def test_stopped_and_gone_on_with_it_ends_with_the_same_bytes(
    games: Path, tmp_path: Path, stop_after: int
) -> None:
    changes = {"mini_epoch_rows": 500}
    _, straight, _ = fitted(games, tmp_path / "straight", **changes)
    broken = Told(stop_after=stop_after)
    first = imitate(imitation(games, **changes), tmp_path / "broken", broken.around())
    assert not first["finished"]
    assert broken.published == []
    counts, other, _ = fitted(games, tmp_path / "broken", **changes)
    assert counts["finished"]
    assert straight.to_bytes() == other.to_bytes()
    assert figures(tmp_path / "straight") == figures(tmp_path / "broken")
    assert [line["rows"] for line in figures(tmp_path / "straight")][:2] == [500, 1000]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 3}, "fit.epochs: 2 -> 3"),
        ({"validation_share": 0.2}, "fit.validation_share: 0.1 -> 0.2"),
        ({"seed": 8}, "seed: 7 -> 8"),
        ({"network": NetworkConfig(layers=(8,), precision="fp32")}, "network.layers"),
    ],
)
def test_with_other_settings_it_does_not_go_on(
    games: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    imitate(imitation(games), tmp_path, Told(stop_after=2).around())
    with pytest.raises(UsageError) as caught:
        imitate(imitation(games, **changes), tmp_path, Told().around())
    assert named in str(caught.value)


def test_with_more_games_it_does_not_go_on(tmp_path: Path) -> None:
    write_games(tmp_path / "games", 40)
    imitate(imitation(tmp_path / "games"), tmp_path / "fit", Told(stop_after=2).around())
    write_games(tmp_path / "games", 1, first=40)
    with pytest.raises(UsageError, match="data:"):
        imitate(imitation(tmp_path / "games"), tmp_path / "fit", Told().around())


def test_without_games_kept_apart_the_last_weights_are_published(games: Path, tmp_path: Path) -> None:
    counts, _, told = fitted(games, tmp_path, validation_share=0.0)
    assert counts["best"] is None
    assert counts["finished"]
    assert "foretold" not in told.lines[-1]


def test_nothing_to_learn_from_is_told(games: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows to learn from"):
        imitate(imitation(games, validation_share=0.999999), tmp_path, Told().around())


def test_games_in_which_nothing_was_chosen_are_told(tmp_path: Path) -> None:
    writer = DecisionWriter(tmp_path, ABOUT)
    writer.add(3, {name: column[:0] for name, column in game_rows(3).items()}, {"labels_missing": 5})
    writer.flush()
    with pytest.raises(UsageError, match="in its games nothing was chosen"):
        imitate(imitation(tmp_path), tmp_path / "fit", Told().around())


def test_a_damaged_shard_is_told_before_anything_is_learnt(tmp_path: Path) -> None:
    write_games(tmp_path, 3)
    (path,) = decision_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError):
        imitate(imitation(tmp_path), tmp_path / "fit", Told().around())
    assert not (tmp_path / "fit").exists()
