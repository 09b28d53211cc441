"""The searches decide exactly as their plain counterparts do."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from configs.schema import SearchConfig
from games.connect_four import ConnectFour
from games.game import Game
from games.hex import Hex
from games.tic_tac_toe import TicTacToe
from search.contract import Decisions
from search.factory import make_search
from search.hash_evaluator import HashEvaluator
from tests.search.fakes import decide, pile, play_at_random, positions
from tests.search.oracles import Answer, GumbelOracle, PuctOracle

ORACLES = {"gumbel": GumbelOracle, "puct": PuctOracle}
GAMES: list[Game] = [TicTacToe(), ConnectFour(), Hex(3), Hex(4), Hex(5), Hex(4, swap=True), pile()]

CLOSE = 1e-6
"""Scores that are no further apart may come out in either order, in float32."""

rows = st.tuples(
    st.integers(1, 30),  # plies before the end of a random game
    st.integers(1, 64),  # budget
    st.integers(0, 2**64 - 1),  # key
    st.booleans(),  # noise
)


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
@settings(max_examples=30)
@given(
    game=st.sampled_from(GAMES),
    seed=st.integers(0, 2**32),
    batch=st.lists(rows, min_size=1, max_size=4),
    considered=st.sampled_from([1, 2, 3, 5, 16]),
    symmetric=st.booleans(),
)
@example(game=GAMES[0], seed=1, batch=[(1, 64, 1, True), (2, 64, 2, False)], considered=16, symmetric=True)
@example(game=GAMES[2], seed=2, batch=[(3, 64, 3, True), (9, 1, 4, True)], considered=16, symmetric=True)
@example(game=GAMES[6], seed=3, batch=[(9, 64, 5, True), (3, 32, 6, False)], considered=3, symmetric=False)
def test_a_search_decides_as_its_oracle_does(
    algorithm: Literal["gumbel", "puct"],
    game: Game,
    seed: int,
    batch: list[tuple[int, int, int, bool]],
    considered: int,
    symmetric: bool,
) -> None:
    config = SearchConfig(
        algorithm=algorithm, simulations=64, gumbel_considered_actions=considered, root_symmetry=symmetric
    )
    evaluate = HashEvaluator(game.num_actions, salt=seed)
    rng = np.random.default_rng(seed)
    lines = [play_at_random(game, rng, plies_left=plies_left) for plies_left, *_ in batch]
    _, budgets, keys, noise = zip(*batch, strict=True)

    search = make_search(config, game, len(batch) + 2)
    decisions = decide(search, game, lines, evaluate, budgets=budgets, keys=keys, noise=noise)

    for i, line in enumerate(lines):
        pool, _ = positions(game, [line], rows_per_game=65)
        oracle = ORACLES[algorithm](config, game, pool, evaluate, key=keys[i], noise=noise[i])
        answer = oracle.search(budgets[i])
        assume(oracle.closest > CLOSE)
        assert_same(decisions, i, answer)


def assert_same(decisions: Decisions, row: int, answer: Answer) -> None:
    visits = {int(a): int(decisions.visits[row, a]) for a in np.flatnonzero(decisions.visits[row])}
    assert visits == answer.visits
    assert decisions.actions[row] == answer.action
    policy = np.zeros(decisions.policies.shape[1])
    policy[list(answer.policy)] = list(answer.policy.values())
    np.testing.assert_allclose(decisions.policies[row], policy, atol=1e-5)
    assert decisions.values[row] == pytest.approx(answer.value, abs=1e-5)
