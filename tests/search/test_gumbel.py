"""What the paper says of the search, in numbers that can be checked by hand."""

import math

import numpy as np
import pytest

from configs.schema import SearchConfig
from games.connect_four import ConnectFour
from games.hex import Hex
from games.tic_tac_toe import TicTacToe
from search.gumbel import GumbelSearch, fill_schedule
from search.hash_evaluator import HashEvaluator
from search.policy_play import PolicyPlay
from tests.search.fakes import EvenEvaluator, decide
from tests.search.oracles import considered_visits

# x on a1 and b1, o on a2 and b2, x to move: c1 wins, and if x does not play it, o plays c2.
WIN_IN_ONE = [0, 3, 1, 4]
# x on a1 and b1, o on b2, o to move: only c1 stops x.
BLOCK_IN_ONE = [0, 4, 1]


def schedule(considered: int, simulations: int) -> list[int]:
    visits = np.zeros(simulations, np.int32)
    fill_schedule(visits, considered, simulations)
    return visits.tolist()


@pytest.mark.parametrize(
    ("considered", "simulations", "expected"),
    [
        # Two phases of four: each of 4 once; then each of 2 twice.
        (4, 8, [0, 0, 0, 0, 1, 1, 2, 2]),
        # Four phases of eight; the first needs sixteen all the same, so the last one never comes.
        (16, 32, [0] * 16 + [1] * 8 + [2] * 4 + [3] * 4),
        # Two phases of five, the halves of 3 being 3 and 2; what is left over goes to the last two.
        (3, 10, [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]),
        # Three phases of twenty: 8 twice (16), 4 five times (20), 2 ten times (20), and 4 more.
        (8, 60, [0] * 8 + [1] * 8 + [v for v in range(2, 7) for _ in range(4)]
         + [v for v in range(7, 19) for _ in range(2)]),
        (2, 5, [0, 0, 1, 1, 2]),
        (1, 4, [0, 1, 2, 3]),
        # Fewer simulations than moves: the best ones are looked at once.
        (16, 5, [0] * 5),
    ],
)  # fmt: skip
def test_halving_shares_the_simulations(considered: int, simulations: int, expected: list[int]) -> None:
    assert schedule(considered, simulations) == expected


def test_every_schedule_is_that_of_halving_played_through() -> None:
    for considered in range(1, 18):
        for simulations in range(1, 101):
            assert schedule(considered, simulations) == considered_visits(considered, simulations)


def test_two_simulations_improve_the_policy_as_the_formula_says() -> None:
    # x x o / o o . / x x . and o to move: 5 wins; after 8 the model sees nobody ahead. With even priors and
    # sigma(q) = (50 + 1) · 0.02 · (q + 1) / 2 their logits are 1.02 and 0.51 above log 1/2.
    config = SearchConfig(simulations=2, cheap_simulations=2, gumbel_value_scale=0.02)
    search = GumbelSearch(config, TicTacToe(), games=1)
    decisions = decide(search, TicTacToe(), [[0, 2, 1, 3, 6, 4, 7]], EvenEvaluator(9), budgets=[2])
    share = 1 / (1 + math.exp(-0.51))
    assert decisions.visits[0].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1]
    assert decisions.policies[0, [5, 8]] == pytest.approx([share, 1 - share], abs=1e-6)
    assert decisions.values[0] == pytest.approx(share, abs=1e-6)


def test_moves_without_visits_get_the_mixed_value() -> None:
    # One simulation from x x o / o o . / x x . : 5 wins, 8 is not looked at. The model gives the position
    # 0.5, so 8 is taken to be worth (0.5 + 1 · 1) / (1 + 1) = 0.75.
    config = SearchConfig(simulations=1, cheap_simulations=1, gumbel_value_scale=0.02)
    search, evaluate = GumbelSearch(config, TicTacToe(), games=1), EvenEvaluator(9, value=0.5)
    decisions = decide(search, TicTacToe(), [[0, 2, 1, 3, 6, 4, 7]], evaluate, budgets=[1])
    share = 1 / (1 + math.exp(-51 * 0.02 * (1 - 0.75) / 2))
    assert decisions.policies[0, [5, 8]] == pytest.approx([share, 1 - share], abs=1e-6)
    assert decisions.values[0] == pytest.approx(share + (1 - share) * 0.75, abs=1e-6)


@pytest.mark.parametrize("line", [WIN_IN_ONE, BLOCK_IN_ONE], ids=["win", "block"])
def test_it_wins_in_one_and_blocks_whatever_the_noise(line: list[int]) -> None:
    game, num_rows = TicTacToe(), 30
    search = GumbelSearch(SearchConfig(simulations=100), game, games=num_rows)
    decisions = decide(
        search, game, [line] * num_rows, EvenEvaluator(9), budgets=[100] * num_rows, noise=True
    )
    assert decisions.actions.tolist() == [2] * num_rows
    assert (decisions.policies[:, 2] > 0.99).all()
    few = decide(search, game, [line] * num_rows, EvenEvaluator(9), budgets=[1] * num_rows, noise=True)
    assert few.actions.tolist() != [2] * num_rows


def test_no_more_moves_are_considered_than_configured() -> None:
    game = Hex(5)
    search = GumbelSearch(SearchConfig(gumbel_considered_actions=4), game, games=3)
    decisions = decide(search, game, [[]] * 3, HashEvaluator(25), budgets=[32, 4, 3], noise=True)
    assert np.count_nonzero(decisions.visits, axis=1).tolist() == [4, 4, 3]


def test_the_considered_moves_are_drawn_by_their_priors() -> None:
    # Gumbel-top-1 sampling is sampling: with one considered move it is drawn from the policy itself.
    game, num_rows = ConnectFour(), 2000
    config = SearchConfig(
        simulations=1, cheap_simulations=1, gumbel_considered_actions=1, root_symmetry=False
    )
    search = GumbelSearch(config, game, games=num_rows)
    evaluate = HashEvaluator(7, salt=1)  # whose policy is far from even
    decisions = decide(search, game, [[]] * num_rows, evaluate, budgets=[1] * num_rows, noise=True)
    model = decide(PolicyPlay(game, games=1), game, [[]], evaluate, budgets=[1])
    drawn = np.bincount(decisions.actions, minlength=7) / num_rows
    np.testing.assert_allclose(drawn, model.policies[0], atol=4 * 0.5 / math.sqrt(num_rows))
    assert model.policies[0].max() > 0.3  # so drawing evenly would fail
