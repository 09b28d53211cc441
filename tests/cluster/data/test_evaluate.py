"""What `tamen evaluate` says of a model is what a slow count with the net itself finds."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.data.evaluate import evaluate_model
from configs.schema import NetworkConfig
from core.errors import DataError, UsageError
from games.hex import Hex
from networks.build import new_net, to_weights
from tests.cluster.commands import run_here
from tests.learner.shuffled import make_data_set

GAME = Hex(5)
LINES = (
    "# Model: none",
    "#5,a1b1a2b2a3b3a4b4a5 b",
    "http://www.trmph.com/hex/board#5,c3b2a1e5d4 r",
    "#5,c3b2a1e5d4 r",
    "#5,a1a1 b",
    "#4,a1b1a2b2a3b3a4 b",
    "#5,e5a1d5",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = new_net(GAME.board, NetworkConfig(blocks=1, channels=8), seed=3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    path = tmp_path / "kept.safetensors"
    path.write_bytes(to_weights(net, model="main", version=1, game=GAME.name).to_bytes())
    return path


@pytest.fixture
def games(tmp_path: Path) -> Path:
    path = tmp_path / "games.trmph.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    return path


def counted_plainly(model: Path) -> dict[str, float]:
    """Judge the three games of 5×5, move by move, with the net itself."""
    from networks.build import build_net
    from networks.weights import Weights

    net = build_net(Weights.from_bytes(model.read_bytes(), source="test")).eval()
    first = three = moves = right = known = late = late_right = positions = 0
    for text, winner in (("a1b1a2b2a3b3a4b4a5", 0), ("c3b2a1e5d4", 1), ("e5a1d5", None)):
        cells = [GAME.parse_action(text[k : k + 2]) for k in range(0, len(text), 2)]
        states, root = GAME.new_states(1), np.zeros(1, np.int32)
        GAME.new(states, root)
        for ply in range(len(cells) + 1):
            arrays, views = GAME.encode(states, root, np.zeros(1, np.int16))
            with torch.inference_mode():
                outputs = net({"cells": torch.from_numpy(arrays["cells"])})
            positions += 1
            if winner is not None:
                good = (float(outputs["value"][0]) > 0) == (winner == ply % 2)
                known, right = known + 1, right + good
                if 2 * ply >= len(cells):
                    late, late_right = late + 1, late_right + good
            if ply == len(cells):
                break
            logits = outputs["policy"][0][torch.from_numpy(GAME.views[views[0]].astype(np.int64))]
            legal = np.flatnonzero(GAME.legal(states, root)[0])
            best = sorted(legal, key=lambda action: -float(logits[action]))
            if ply >= 2:
                moves += 1
                first += best[0] == cells[ply]
                three += cells[ply] in best[:3]
            GAME.play(states, root, np.array([cells[ply]], np.int16), root)
    return {
        "games": 3,
        "positions": positions,
        "policy_top1": first / moves,
        "policy_top3": three / moves,
        "value_accuracy": right / known,
        "value_accuracy_second_half": late_right / late,
    }


def test_figures_are_those_of_a_plain_count(
    model: Path, games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate_model(str(model), [str(games)], runs=tmp_path, as_json=True)
    for name, expected in counted_plainly(model).items():
        assert report[name] == pytest.approx(expected), name
    assert (report["duplicates"], report["rejected"], report["game"]) == (1, 1, "hex5")
    assert {"value_mse", "calibration", "by_ply"} <= report.keys()
    assert capsys.readouterr().out == ""
    json.dumps(report, allow_nan=False)


def test_people_see_the_same_figures(
    model: Path, games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate_model(str(model), [str(games)], runs=tmp_path, as_json=False)
    shown = capsys.readouterr().out
    assert "3 games, 20 positions" in shown
    assert f"{100 * report['value_accuracy']:.1f} %" in shown


def test_of_shuffled_rows_those_kept_apart_are_used(model: Path, tmp_path: Path) -> None:
    folder = make_data_set(tmp_path / "rows", games=30)
    report = evaluate_model(str(model), [str(folder)], runs=tmp_path, as_json=True)
    assert report["games"] == 3
    fewer = evaluate_model(str(model), [str(folder)], runs=tmp_path, as_json=True, max_rows=20)
    assert fewer["positions"] == 20


def test_games_of_another_board_are_no_measure(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.trmph"
    path.write_text("#4,a1b1a2b2a3b3a4 b\n")
    with pytest.raises(DataError, match=r"(?s)no games of hex5.*4×4"):
        evaluate_model(str(model), [str(path)], runs=tmp_path, as_json=True)
    rows = make_data_set(tmp_path / "rows", size=4)
    with pytest.raises(UsageError, match=r"(?s)its rows are of hex4"):
        evaluate_model(str(model), [str(rows)], runs=tmp_path, as_json=True)


def test_what_is_not_there_is_a_usage_error(model: Path, games: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        evaluate_model("nobody", [str(games)], runs=tmp_path, as_json=True)
    with pytest.raises(UsageError, match="no file or folder"):
        evaluate_model(str(model), [str(tmp_path / "none.trmph")], runs=tmp_path, as_json=True)


def test_games_with_the_swap_are_not_in_files(tmp_path: Path, games: Path) -> None:
    game = Hex(5, swap=True)
    net = new_net(game.board, NetworkConfig(blocks=1, channels=8), seed=3)
    path = tmp_path / "swap.safetensors"
    path.write_bytes(to_weights(net, model="main", version=1, game=game.name).to_bytes())
    with pytest.raises(UsageError, match="without the swap"):
        evaluate_model(str(path), [str(games)], runs=tmp_path, as_json=True)


def test_a_file_that_cannot_be_read_whole_ends_in_1_and_the_rest_is_judged(
    model: Path, games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.trmph.gz"
    short.write_bytes(games.read_bytes()[:-9])
    said = run_here(capsys, "evaluate", model, "--data", short, "--data", games, "--json")
    report = json.loads(said.out.splitlines()[-1])
    assert (said.code, report["games"]) == (1, 3)
    assert [file["reason"] for file in report["files_set_aside"]] == ["file cut short"]
    said = run_here(capsys, "evaluate", model, "--data", short, "--data", games)
    assert (said.code, "file cut short" in said.out) == (1, True)
