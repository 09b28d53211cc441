"""A network learns what searches found, and whatever interrupts it, the result is the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from actors.evaluator import perfect_share
from actors.harvest import FinishedGame, GameHarvest, Row
from configs.schema import NetworkConfig, StepConfig
from configs.searched import SearchedExportSettings, SearchedFitSettings
from core.errors import DataError, UsageError
from core.messages import Reply, Request
from core.metrics import NoMetrics
from games.catalog import make_game
from games.game import Game
from games.solver import Solver, labelled_positions
from games.tic_tac_toe import TicTacToe
from learner.board_objective import BoardObjective
from learner.offline import METRICS_FILE, Around
from learner.searched_fitting import (
    SearchedBatches,
    SearchedFitting,
    Symmetries,
    fit_searched,
    judge_searched,
    load_searched_rows,
)
from networks.build import Net, build_net, new_net, to_weights
from networks.precision import resolve
from networks.weights import Weights
from pipeline.searched_rows import export_searched
from replay.searched_shards import read_searched_set
from search.drive import run
from tests.actors.playing import play_games, replay, views_of
from tests.replay.experience import open_buffer

GAME = TicTacToe()
NETWORK = NetworkConfig(blocks=2, channels=16, precision="fp32")
LEARNER = StepConfig(batch_rows=64, microbatch_rows=64, learning_rate=4e-3, ema_decay=0.9)
SETTINGS = SearchedFitSettings(epochs=2, value_mix=0.5)
FP32 = resolve("fp32", "cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def solved_games(count: int, *, seed: int) -> list[FinishedGame]:
    """Return games at random, whose rows have as policy all perfect moves alike, as value that of perfect play."""
    rng, solver = np.random.default_rng(seed), Solver(GAME)
    return [_solved_game(rng, solver) for _ in range(count)]


def _solved_game(rng: np.random.Generator, solver: Solver) -> FinishedGame:
    states, root = GAME.new_states(1), np.zeros(1, np.int32)
    GAME.new(states, root)
    actions, rows, values = [], [], []
    while not GAME.outcome(states, root)[0][0]:
        of_moves = solver.action_values(states, 0)
        perfect = (of_moves == np.nanmax(of_moves)).astype(np.float32)
        arrays, views = GAME.encode(states, root, np.array([rng.integers(8)], np.int8))
        policy = np.empty(9, np.float16)
        policy[GAME.views[views[0]]] = perfect / perfect.sum()
        rows.append(Row(len(actions), len(actions) % 2, {"cells": arrays["cells"][0].copy()}, policy))
        values.append(float(np.nanmax(of_moves)))
        actions.append(int(rng.choice(np.flatnonzero(~np.isnan(of_moves)))))
        GAME.play(states, root, np.array([actions[-1]], np.int16), root)
    plies, last = len(actions), float(GAME.outcome(states, root)[1][0])
    outcome = last if plies % 2 == 0 else -last
    return FinishedGame(actions, outcome, values, [True] * plies, [0] * plies, rows, 0, seconds=0.0)


def data_set(folder: Path, games: Sequence[FinishedGame], *, share: float = 0.1) -> Path:
    """Let a replay take games, export them, and return the folder of the data set."""
    harvest = GameHarvest(GAME.board, run="test", game=GAME.name, actor=0, epoch=0, metrics=NoMetrics())
    for each in games:
        harvest.add(each)
    chunk = harvest.take_chunk()
    assert chunk is not None
    open_buffer(folder / "run").add(chunk.encode())
    settings = SearchedExportSettings(validation_share=share, shard_rows=500)
    export_searched([folder / "run"], GAME, folder / "rows", settings)
    return folder / "rows"


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("solved"), solved_games(150, seed=1))


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
    publisher: FakePublisher = field(default_factory=FakePublisher)
    lines: list[str] = field(default_factory=list)
    progress: list[tuple[float, float, str]] = field(default_factory=list)

    def around(self) -> Around:
        return Around(
            publisher=self.publisher,
            progress=lambda *told: self.progress.append(told),
            should_stop=lambda: self.stop_after is not None and len(self.progress) >= self.stop_after,
            log=self.lines.append,
            clock=lambda: 0.0,
        )


def fitting(folder: Path, **changes: Any) -> SearchedFitting:
    settings, learner = changes.pop("settings", {}), changes.pop("learner", {})
    return SearchedFitting(
        game=changes.pop("game", GAME),
        folder=folder,
        settings=SETTINGS.model_copy(update=settings),
        network=NETWORK,
        learner=LEARNER.model_copy(update=learner),
        seed=changes.pop("seed", 7),
        **changes,
    )


def fitted(folder: Path, target: Path, **changes: Any) -> tuple[dict[str, Any], Weights]:
    told = Told()
    counts = fit_searched(fitting(folder, **changes), target, told.around())
    (weights,) = told.publisher.published
    return counts, weights


def figures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def kept_apart(folder: Path) -> dict[str, np.ndarray]:
    return load_searched_rows(folder, read_searched_set(folder), "validation")


def share_of_perfect_moves(net: Net) -> float:
    def evaluate(request: Request) -> Reply:
        with torch.inference_mode():
            outputs = net({"cells": torch.from_numpy(request.arrays["cells"])})
        return Reply({name: array.numpy() for name, array in outputs.items()}, weights_version=0)

    positions = labelled_positions(GAME, 256, np.random.default_rng(5))
    return run(perfect_share(GAME, positions, "main"), evaluate)


def a_parent(network: NetworkConfig = NETWORK, game: Game = GAME) -> Weights:
    return to_weights(new_net(game.board, network, seed=3), model="main", version=5, game=game.name)


def test_perfect_moves_and_their_values_are_learnt(solved: Path, tmp_path: Path) -> None:
    counts, weights = fitted(solved, tmp_path, settings={"epochs": 25, "value_mix": 1.0})
    untrained = new_net(GAME.board, NETWORK, seed=1)
    assert share_of_perfect_moves(build_net(weights)) > 0.85 > share_of_perfect_moves(untrained)
    report = counts["best"]["validation"]
    before = judge_searched(untrained, kept_apart(solved), BoardObjective(LEARNER, value_mix=1.0), FP32)
    assert report["policy_top1"] > 0.85 > before["policy_top1"]
    assert report["value_loss"] < 0.3 < before["value_loss"]


def test_a_child_begins_where_its_parent_ended(solved: Path, tmp_path: Path) -> None:
    _, parent = fitted(solved, tmp_path / "parent", settings={"epochs": 15})
    short = {"settings": {"epochs": 1, "warmup_share": 0.0}, "learner": {"learning_rate": 1e-6}}
    _, child = fitted(solved, tmp_path / "child", parent=parent, **short)
    _, orphan = fitted(solved, tmp_path / "orphan", **short)
    perfect = [share_of_perfect_moves(build_net(weights)) for weights in (parent, child, orphan)]
    assert perfect[1] == pytest.approx(perfect[0], abs=0.03)
    assert perfect[2] < perfect[0] - 0.1
    assert child.digest != parent.digest


def test_each_mini_epoch_is_judged_and_the_best_is_published(tmp_path: Path) -> None:
    """A few games are learnt by heart: then the last weights are not the best on others."""
    rows = data_set(tmp_path, solved_games(40, seed=6), share=0.5)
    told = Told()
    changes = {"epochs": 40, "mini_epoch_rows": 400, "symmetries": False, "final_rate_share": 1.0}
    counts = fit_searched(fitting(rows, settings=changes), tmp_path / "fit", told.around())
    lines = figures(tmp_path / "fit")
    assert [line["rows"] for line in lines[:-1]] == [400 * (k + 1) for k in range(len(lines) - 1)]
    assert lines[-1]["rows"] == counts["rows"] == 40 * read_searched_set(rows).train_rows
    lowest = min(lines, key=lambda line: line["validation"]["loss"])
    assert counts["best"] == lowest != lines[-1]
    (weights,) = told.publisher.published
    again = judge_searched(build_net(weights), kept_apart(rows), BoardObjective(LEARNER, value_mix=0.5), FP32)
    assert again == lowest["validation"]
    assert len(told.lines) == len(lines)
    assert sum("the best so far" in line for line in told.lines) == sum(line["best"] for line in lines)


def test_a_pass_is_a_mini_epoch_unless_told(solved: Path, tmp_path: Path) -> None:
    fitted(solved, tmp_path, settings={"epochs": 1.5})
    rows = read_searched_set(solved).train_rows
    assert [line["rows"] for line in figures(tmp_path)] == [rows, round(1.5 * rows)]


@pytest.mark.parametrize("stop_after", [1, 7, 20])
def test_stopped_and_gone_on_with_it_ends_with_the_same_bytes(
    solved: Path, tmp_path: Path, stop_after: int
) -> None:
    changes = {"settings": {"mini_epoch_rows": 500}, "parent": a_parent()}
    _, straight = fitted(solved, tmp_path / "straight", **dict(changes))
    broken = Told(stop_after=stop_after)
    first = fit_searched(fitting(solved, **dict(changes)), tmp_path / "broken", broken.around())
    assert not first["finished"]
    assert not broken.publisher.published
    assert len(broken.progress) == stop_after
    counts, other = fitted(solved, tmp_path / "broken", **dict(changes))
    assert counts["finished"]
    assert straight.to_bytes() == other.to_bytes()
    assert figures(tmp_path / "straight") == figures(tmp_path / "broken")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": {"value_mix": 0.25}}, "fit.value_mix: 0.5 -> 0.25"),
        ({"settings": {"symmetries": False}}, "fit.symmetries: true -> false"),
        ({"learner": {"learning_rate": 1e-3}}, "learner.learning_rate: 0.004 -> 0.001"),
        ({"seed": 8}, "seed: 7 -> 8"),
        ({"parent": a_parent()}, "parent: null ->"),
    ],
)
def test_with_other_settings_it_does_not_go_on(
    solved: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    fit_searched(fitting(solved), tmp_path, Told(stop_after=2).around())
    with pytest.raises(UsageError) as caught:
        fit_searched(fitting(solved, **changes), tmp_path, Told().around())
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_on_other_rows_it_does_not_go_on(solved: Path, tmp_path: Path) -> None:
    fit_searched(fitting(solved), tmp_path / "fit", Told(stop_after=2).around())
    other = data_set(tmp_path, solved_games(30, seed=2))
    with pytest.raises(UsageError, match="data:"):
        fit_searched(fitting(other), tmp_path / "fit", Told().around())


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "hex3", "hex3-swap"])
def test_every_symmetry_shows_a_position_that_the_game_could_show(name: str) -> None:
    game = make_game(name)
    symmetries = Symmetries.of(game)
    assert len(symmetries.cells) == game.num_symmetries
    (finished,) = play_games(name, 1)
    states, _ = replay(game, finished.actions)
    rng = np.random.default_rng(0)
    for ply in range(len(finished.actions)):
        of_moves = rng.uniform(size=game.num_actions).astype(np.float16)
        shown = []
        for cells, places in views_of(game, states, ply):
            policy = np.empty(game.num_actions, np.float16)
            policy[places] = of_moves
            shown.append((cells.tobytes(), policy.tobytes()))
        for cells, policy in shown:
            rows = {
                "cells": np.frombuffer(cells, np.int8)[None],
                "policy": np.frombuffer(policy, np.float16)[None],
            }
            turned = [symmetries.shown(rows, np.array([k])) for k in range(game.num_symmetries)]
            assert {(each["cells"].tobytes(), each["policy"].tobytes()) for each in turned} == set(shown)


def test_a_pass_has_every_row_once_whatever_the_batches(solved: Path) -> None:
    rows = load_searched_rows(solved, read_searched_set(solved), "train")
    count = len(rows["game"])

    def drawn(size: int) -> list[tuple[int, int]]:
        batches, found = SearchedBatches(rows, None, seed=1), []
        for start in range(0, 2 * count, size):
            batch = batches.batch(start, min(size, 2 * count - start))
            found += zip(batch["seq"].view(np.uint64).tolist(), batch["step"].tolist(), strict=True)
        return found

    two_passes = drawn(100)
    everything = sorted(zip(rows["game"].tolist(), rows["ply"].tolist(), strict=True))
    assert sorted(two_passes[:count]) == sorted(two_passes[count:]) == everything
    assert two_passes[:count] != two_passes[count:]
    assert drawn(777) == drawn(2 * count) == two_passes


def test_a_batch_larger_than_the_data_set_goes_through_it_again(solved: Path) -> None:
    rows = load_searched_rows(solved, read_searched_set(solved), "train")
    few = {name: column[:10] for name, column in rows.items()}
    batch = SearchedBatches(few, Symmetries.of(GAME), seed=1).batch(7, 25)
    assert len(batch["cells"]) == 25
    assert np.isin(batch["seq"].view(np.uint64), few["game"]).all()


def test_the_judge_counts_what_it_says() -> None:
    """Weights of 0 give every move the same logit, of which the first is taken, and the value 0."""
    net = new_net(GAME.board, NETWORK, seed=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    rows = {
        "cells": np.zeros((4, 9), np.int8),
        "policy": np.zeros((4, 9), np.float16),
        "policy_weight": np.array([1, 1, 1, 0], np.float32),
        "outcome": np.array([1, -1, 0, 1], np.float32),
        "search_value": np.array([0.5, 0.5, 0.5, 0.5], np.float32),
        "game": np.array([1, 1, 2, 3], np.uint64),
        "ply": np.zeros(4, np.int16),
    }
    rows["policy"][0, :2] = 0.5  # the first move is one of the best
    rows["policy"][1, 3] = 1.0
    rows["policy"][2, 0] = 1.0
    report = judge_searched(net, rows, BoardObjective(LEARNER, value_mix=1.0), FP32)
    assert (report["positions"], report["games"]) == (4, 3)
    assert report["policy_top1"] == pytest.approx(2 / 3)
    assert report["policy_loss"] == pytest.approx(np.log(9), rel=1e-5)
    assert report["value_mse"] == pytest.approx(0.75)
    assert report["value_loss"] == pytest.approx(0.25)
    none = {**rows, "policy_weight": np.zeros(4, np.float32)}
    assert judge_searched(net, none, BoardObjective(LEARNER), FP32)["policy_top1"] is None


def test_without_games_kept_apart_the_last_weights_are_published(tmp_path: Path) -> None:
    rows = data_set(tmp_path, solved_games(20, seed=3), share=0.0)
    counts, weights = fitted(rows, tmp_path / "fit")
    assert counts["finished"]
    assert counts["best"] is None
    assert weights.version == 1
    assert figures(tmp_path / "fit")[-1]["validation"] is None


def test_what_cannot_be_fitted_is_told(solved: Path, tmp_path: Path) -> None:
    deeper = a_parent(NETWORK.model_copy(update={"blocks": 3}))
    other_game = a_parent(game=make_game("hex3"))
    for changes, problem in (
        ({"game": make_game("hex3")}, "its rows are of tic_tac_toe, the network is for hex3"),
        ({"parent": deeper}, "are no parent of this network"),
        ({"parent": other_game}, "are no parent of this network"),
    ):
        with pytest.raises(UsageError, match=problem) as caught:
            fit_searched(fitting(solved, **changes), tmp_path / "fit", Told().around())
        assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(UsageError, match="no data set of searched positions"):
        fit_searched(fitting(tmp_path), tmp_path / "fit", Told().around())
    all_apart = data_set(tmp_path / "apart", solved_games(3, seed=4), share=0.999)
    with pytest.raises(UsageError, match="no rows to learn from"):
        fit_searched(fitting(all_apart), tmp_path / "fit", Told().around())


def test_a_damaged_shard_ends_it_before_it_begins(tmp_path: Path) -> None:
    rows = data_set(tmp_path, solved_games(20, seed=5))
    shard = next((rows / "train").glob("*.npz"))
    data = bytearray(shard.read_bytes())
    data[300] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        fit_searched(fitting(rows), tmp_path / "fit", Told().around())


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"epochs": float("nan")},
        {"value_mix": 1.5},
        {"value_mix": float("nan")},
        {"mini_epoch_rows": 0},
        {"validation_rows": -1},
        {"epoch": 3},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        SearchedFitSettings(**setting)
