"""The comparison with peers counts what it says, and the peers' games are those of tamen."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyspiel
import pytest
import torch

from benchmarks.peers.compare import MeasurementFailedError, Side, choose_sides, measure, with_setting
from benchmarks.peers.comparison import summarise, to_markdown, to_table
from benchmarks.peers.gumbel_mcts_game import fast_step, get_valid_mask
from benchmarks.peers.measuring import Task, Work
from benchmarks.peers.measuring import measure as measure_work
from benchmarks.peers.open_spiel_mcts import NetEvaluator, SelfPlay, to_cells
from benchmarks.peers.tamen_net import CONNECT_FOUR, TamenNet
from games.connect_four import ConnectFour

ROOT = Path(__file__).resolve().parents[2]
GAME = ConnectFour()
ROW = np.zeros(1, np.int32)
NO_SYMMETRY = np.zeros(1, np.int8)


def random_positions(games: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (moves so far, moves that are legal) for every position of some random games, the last ones included."""
    for seed in range(games):
        random, state = np.random.default_rng(seed), spiel_after([])
        yield [], state.legal_actions()
        while not state.is_terminal():
            state.apply_action(int(random.choice(state.legal_actions())))
            yield state.history(), state.legal_actions()


def ours_after(moves: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return tamen's view [42] of the position after `moves`, and which moves are legal in it."""
    states = GAME.new_states(1)
    GAME.new(states, ROW)
    for move in moves:
        GAME.play(states, ROW, np.array([move], np.int16), ROW)
    arrays, _ = GAME.encode(states, ROW, NO_SYMMETRY)
    return arrays["cells"][0], GAME.legal(states, ROW)[0]


def spiel_after(moves: list[int]) -> pyspiel.State:
    state = pyspiel.load_game("connect_four").new_initial_state()
    for move in moves:
        state.apply_action(move)
    return state


def run_fake_peer(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fake_peer", "--seconds", "0.2", *arguments]
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_board_is_that_of_the_peers_network() -> None:
    assert GAME.board == CONNECT_FOUR


def test_open_spiel_shows_the_network_what_tamen_shows_it() -> None:
    for moves, legal in random_positions(3):
        if legal:
            state = spiel_after(moves)
            cells = to_cells(np.asarray(state.observation_tensor(), np.int8), state.current_player())
            np.testing.assert_array_equal(cells, ours_after(moves)[0])


def test_the_evaluator_tells_each_player_its_own_value_and_asks_once_for_a_position() -> None:
    net = TamenNet(blocks=1, channels=8)
    evaluator, state = NetEvaluator(net), spiel_after([3])
    values = evaluator.evaluate(state)
    assert values[1] == -values[0] == float(net(torch.from_numpy(ours_after([3])[0][None]))[1][0])
    assert sum(probability for _, probability in evaluator.prior(state)) == pytest.approx(1.0)
    assert net.rows == 2  # one of them for the line above


def test_open_spiel_plays_on_after_the_end_of_a_game() -> None:
    games = SelfPlay(Task(simulations=4, blocks=1, channels=8, batch=1, seconds=1.0))
    moves, evals = np.array([games.play_move() for _ in range(60)]).T
    assert moves.tolist() == [1] * 60
    assert 0 < evals.sum() <= 4 * 60


def test_the_rules_that_gumbel_mcts_plays_by_are_those_of_tamen() -> None:
    for moves, legal in random_positions(6):
        board, (reward, winner, over) = np.zeros((6, 7), np.int8), (0.0, 0, False)
        for ply, move in enumerate(moves):
            reward, winner, over, _ = fast_step(board, move, 1 + ply % 2)
        cells, _ = ours_after(moves)
        own = 1 + len(moves) % 2
        np.testing.assert_array_equal(np.where(board == 0, 0, np.where(board == own, 1, -1)).ravel(), cells)
        assert over == (not legal)
        if over:
            won = bool(spiel_after(moves).returns()[(len(moves) - 1) % 2])
            assert (reward, winner) == (float(won), 3 - own if won else 0)
        else:
            assert np.flatnonzero(get_valid_mask(board, own)).tolist() == legal


def test_rates_are_counted_over_the_time_that_passed() -> None:
    ticks = itertools.count()
    work = Work(play=lambda: (6, 60), evaluate=lambda: 100)
    rates = measure_work(work, seconds=4.0, clock=lambda: float(next(ticks)))
    # Reading the clock takes a second: the fourth reading after the beginning ends four seconds with three calls.
    assert (rates["moves_per_s"], rates["evals_per_s"]) == (4.5, 45.0)


def test_workers_measure_together_and_the_best_setting_is_told() -> None:
    result = run_fake_peer("--processes", "1,2")
    told = json.loads(result.stdout)
    assert [(one["processes"], one["batch"]) for one in told["tried"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert told["batch"] == 2
    assert told["moves_per_s"] == max(one["moves_per_s"] for one in told["tried"])


def test_a_worker_that_ends_ends_the_peer() -> None:
    result = run_fake_peer("--simulations", "13")
    assert result.returncode != 0
    assert "exit code 3" in result.stderr


def test_a_peer_without_an_environment_is_left_out() -> None:
    sides, left_out = choose_sides({"mctx_pgx": "/p/python"}, simulations=32, settings=[])
    assert [side.name for side in sides] == ["tamen", "tamen_cached", "mctx_pgx", "open_spiel"]
    assert list(left_out) == ["gumbel_mcts"]


def test_a_known_setting_is_not_tried_again() -> None:
    side = with_setting(Side(name="a", command=("a",), tries=True), 2, 32)
    assert (side.command, side.tries) == (("a", "--processes", "2", "--batch", "32"), False)


@pytest.mark.parametrize(
    ("code", "timeout_seconds", "reason"),
    [
        ("import sys; sys.exit(4)", 60.0, "exit code 4"),
        ("print('no figures')", 60.0, "JSON"),
        ("import time; time.sleep(60)", 0.5, "more than"),
    ],
)
def test_a_side_without_figures_says_why(code: str, timeout_seconds: float, reason: str) -> None:
    side = Side(name="bad", command=(sys.executable, "-c", code))
    with pytest.raises(MeasurementFailedError, match=reason):
        measure(side, seconds=1.0, timeout_seconds=timeout_seconds)


def test_the_last_line_of_a_side_is_its_figures() -> None:
    side = Side(name="good", command=(sys.executable, "-c", "print('hello'); print('{\"moves_per_s\": 3}')"))
    assert measure(side, seconds=1.0, timeout_seconds=60.0) == {"moves_per_s": 3}


def rates(moves: float) -> dict[str, float]:
    return {"moves_per_s": moves, "evals_per_s": 33 * moves, "raw_per_s": 50 * moves}


def test_ratios_are_taken_within_a_round() -> None:
    # The second round was twice as slow for both: no ratio may see that.
    rounds = [
        {"tamen": rates(100), "a": rates(20)},
        {"tamen": rates(50), "a": rates(10)},
        {"tamen": rates(80)},
    ]
    sides = summarise(rounds, ours="tamen")
    assert sides["a"]["ours_over"]["rounds"] == [5.0, 5.0]
    assert sides["tamen"]["moves_per_s"] == {"median": 80, "low": 50, "high": 100, "rounds": [100, 50, 80]}


def test_the_page_shows_every_side_and_why_one_is_missing() -> None:
    settings = {"peer": "a 1", "processes": 2, "batch": 64}
    result = {
        "machine": "2 cores",
        "simulations": 32,
        "seconds": 20.0,
        "commands": {"tamen": "tamen bench selfplay", "a": "python -m a"},
        "left_out": {"b": "no environment"},
        "tried": {},
        "sides": summarise([{"tamen": rates(100), "a": rates(20) | settings}], ours="tamen"),
    }
    table = to_table(result, ours="tamen")
    assert "| a (2 × batch 64) | 20.0 (20.0 to 20.0) | 5.00 × (5.00 to 5.00) | 660 | 1,000 |" in table
    assert "b was left out: no environment" in table
    assert table in to_markdown(result, ours="tamen")
