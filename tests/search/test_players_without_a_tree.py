"""The players that do not search with a model: rollouts, the bare policy, and any legal move."""

import numpy as np

from core.messages import Request
from games.hex import Hex
from games.tic_tac_toe import TicTacToe
from search.contract import Search
from search.hash_evaluator import HashEvaluator
from search.policy_play import PolicyPlay
from search.random_play import RandomPlay
from search.rollout import RolloutSearch
from tests.search.fakes import EvenEvaluator, decide

WIN_IN_ONE, BLOCK_IN_ONE = [0, 3, 1, 4], [0, 4, 1]  # x at 2 wins; o must go there


def test_rollouts_win_in_one_and_block() -> None:
    game, num_rows = TicTacToe(), 40
    search = RolloutSearch(game, simulations=200, games=num_rows)
    lines = [WIN_IN_ONE, BLOCK_IN_ONE] * (num_rows // 2)
    decisions = decide(search, game, lines, EvenEvaluator(9), budgets=[200] * num_rows)
    assert decisions.actions.tolist() == [2] * num_rows
    at_random = decide(RandomPlay(), game, lines, EvenEvaluator(9), budgets=[200] * num_rows)
    assert at_random.actions.tolist() != [2] * num_rows


def test_rollouts_know_who_is_ahead() -> None:
    # An empty board of Hex favours whoever moves; one stone in the middle, the one who has it.
    game = Hex(3)
    search = RolloutSearch(game, simulations=200, games=2)
    values = decide(search, game, [[], [4]], EvenEvaluator(9), budgets=[200, 200]).values
    assert values[0] > 0.1
    assert values[1] < -0.1


def test_rollouts_play_both_sides_of_a_match_better_than_chance() -> None:
    game, num_games = TicTacToe(), 60
    rollouts, chance = RolloutSearch(game, simulations=50, games=num_games), RandomPlay()
    score = match(rollouts, chance, num_games) - match(chance, rollouts, num_games)
    assert score > 1.5  # of 2
    assert abs(match(chance, chance, num_games)) < 0.75


def match(first: Search, second: Search, num_games: int) -> float:
    """Return the mean result of games of tic-tac-toe for the one who begins."""
    game, results = TicTacToe(), []
    lines: list[list[int]] = [[] for _ in range(num_games)]
    for ply in range(9):
        keys = [1 + ply + 9 * i for i in range(len(lines))]
        player = (first, second)[ply % 2]
        decisions = decide(player, game, lines, EvenEvaluator(9), budgets=[50] * len(lines), keys=keys)
        lines = [[*line, int(action)] for line, action in zip(lines, decisions.actions, strict=True)]
        states = game.new_states(1)
        row = np.zeros(1, np.int32)
        going_on = []
        for line in lines:
            game.new(states, row)
            for action in line:
                game.play(states, row, np.array([action], np.int16), row)
            (ended,), (value,) = game.outcome(states, row)
            if ended:
                results.append(value if game.to_play(states, row)[0] == 0 else -value)
            else:
                going_on.append(line)
        lines = going_on
        if not lines:
            break
    return float(np.mean(results))


def test_the_policy_is_brought_back_from_the_view_of_either_side() -> None:
    # Red sees the board transposed, so its logit for cell (r, c) stands at (c, r).
    game, evaluate = Hex(3), HashEvaluator(9)
    decisions = decide(PolicyPlay(game, games=2), game, [[], [1]], evaluate, budgets=[1, 1])
    for i, transposed in enumerate((False, True)):
        cells = np.zeros((1, 9), np.int8)
        cells[0, [3] * transposed] = -1  # blue's stone at (0, 1)
        (logits,) = evaluate(Request("hash", {"cells": cells})).arrays["policy"].astype(float)
        expected = np.exp(logits.reshape(3, 3).T.ravel() if transposed else logits)
        expected[[1] * transposed] = 0
        np.testing.assert_allclose(decisions.policies[i], expected / expected.sum(), rtol=1e-5)
        assert decisions.actions[i] == expected.argmax()


def test_a_sampled_policy_follows_its_shares() -> None:
    game, num_rows = TicTacToe(), 3000
    search, evaluate = PolicyPlay(game, games=num_rows), HashEvaluator(9)
    decisions = decide(search, game, [[]] * num_rows, evaluate, budgets=[1] * num_rows, sample=True)
    drawn = np.bincount(decisions.actions, minlength=9) / num_rows
    np.testing.assert_allclose(drawn, decisions.policies[0], atol=0.04)
    assert decisions.policies[0].max() > 0.2


def test_random_play_plays_every_legal_move_as_often() -> None:
    game, num_rows = TicTacToe(), 4000
    decisions = decide(RandomPlay(), game, [[0, 4]] * num_rows, EvenEvaluator(9), budgets=[1] * num_rows)
    shares = np.bincount(decisions.actions, minlength=9) / num_rows
    np.testing.assert_allclose(shares, [0, *[1 / 7] * 3, 0, *[1 / 7] * 4], atol=0.03)
    assert decisions.weights_version == -1
