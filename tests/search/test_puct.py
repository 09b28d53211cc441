"""PUCT finds what is there to be found, and explores and samples as it says."""

import numpy as np
import pytest

from configs.schema import SearchConfig
from games.connect_four import ConnectFour
from games.hex import Hex
from games.solver import Solver
from games.tic_tac_toe import TicTacToe
from search.hash_evaluator import HashEvaluator
from search.puct import PuctSearch
from tests.search.fakes import EvenEvaluator, decide, play_at_random, positions


def test_with_many_simulations_it_plays_perfectly_without_a_model() -> None:
    game, rng = TicTacToe(), np.random.default_rng(1)
    lines = [play_at_random(game, rng, plies_left=int(rng.integers(3, 9))) for _ in range(20)]
    config = SearchConfig(algorithm="puct", simulations=4000)
    search = PuctSearch(config, game, games=len(lines))
    many = decide(search, game, lines, EvenEvaluator(9), budgets=[4000] * len(lines))
    few = decide(search, game, lines, EvenEvaluator(9), budgets=[1] * len(lines))

    states, roots = positions(game, lines, rows_per_game=1)
    values = np.stack([Solver(game).action_values(states, int(root)) for root in roots])
    best = np.nanmax(values, axis=1)
    rows = np.arange(len(lines))
    assert (values[rows, many.actions] == best).all()
    assert not (values[rows, few.actions] == best).all()  # or the positions are too easy


def test_noise_reaches_moves_that_the_model_does_not() -> None:
    game = Hex(5)
    config = SearchConfig(algorithm="puct", dirichlet_share=0.9)
    search, evaluate = PuctSearch(config, game, games=20), HashEvaluator(25)
    plain = decide(search, game, [[]] * 20, evaluate, budgets=[32] * 20, keys=[1] * 20)
    noisy = decide(search, game, [[]] * 20, evaluate, budgets=[32] * 20, noise=True)
    assert np.count_nonzero(noisy.visits.sum(axis=0)) > np.count_nonzero(plain.visits.sum(axis=0))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_moves_are_drawn_from_the_visits_by_temperature(temperature: float) -> None:
    game, num_rows = ConnectFour(), 4000
    config = SearchConfig(algorithm="puct", temperature=temperature, root_symmetry=False)
    search = PuctSearch(config, game, games=num_rows)
    evaluate = HashEvaluator(7, salt=7)  # which spreads the visits over several moves
    budgets = [32] * num_rows
    decisions = decide(search, game, [[]] * num_rows, evaluate, budgets=budgets, sample=True)
    weights = (decisions.visits[0] / 32) ** (1 / temperature)
    drawn = np.bincount(decisions.actions, minlength=7) / num_rows
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=0.03)
    assert np.count_nonzero(drawn > 0.05) >= 2


def test_without_temperature_the_most_visited_move_is_played() -> None:
    game = ConnectFour()
    search = PuctSearch(SearchConfig(algorithm="puct", temperature=0.0), game, games=50)
    decisions = decide(search, game, [[]] * 50, HashEvaluator(7), budgets=[32] * 50, sample=True)
    visits_of_played = decisions.visits[np.arange(50), decisions.actions]
    assert (visits_of_played == decisions.visits.max(axis=1)).all()
    np.testing.assert_allclose(decisions.policies, decisions.visits / 32)
