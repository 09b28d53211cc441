"""What holds for every search; a new one joins by one line."""

from collections.abc import Callable

import numpy as np
import pytest

from configs.schema import SearchConfig
from core.messages import Reply, Request
from games.connect_four import ConnectFour
from games.game import Game
from games.hex import Hex
from games.tic_tac_toe import TicTacToe
from search.contract import Decisions, Search
from search.drive import run
from search.gumbel import GumbelSearch
from search.hash_evaluator import HashEvaluator
from search.minimax import MinimaxSearch
from search.policy_play import PolicyPlay
from search.puct import PuctSearch
from search.random_play import RandomPlay
from search.rollout import RolloutSearch
from tests.search.fakes import decide, pile, play_at_random, positions

BUDGETS = [32, 1, 7, 2, 32, 19, 16, 5]
GAMES: list[Game] = [TicTacToe(), ConnectFour(), Hex(4), pile()]
MINIMAX = SearchConfig(algorithm="minimax", minimax_widths=(5, 5))
SEARCHES: dict[str, Callable[[Game], Search]] = {
    "gumbel": lambda game: GumbelSearch(SearchConfig(), game, games=8),
    "puct": lambda game: PuctSearch(SearchConfig(), game, games=8),
    "minimax": lambda game: MinimaxSearch(MINIMAX, game, games=8),
    "rollout": lambda game: RolloutSearch(game, simulations=32, games=8),
    "policy": lambda game: PolicyPlay(game, games=8),
    "random": lambda game: RandomPlay(),
}
WITHOUT_SIMULATIONS = ("policy", "random")
LEVEL_BY_LEVEL = ("minimax",)

every_search = pytest.mark.parametrize("name", SEARCHES)
every_game = pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)


def lines_of(game: Game) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [play_at_random(game, rng, plies_left=plies_left) for plies_left in (1, 1, 2, 3, 4, 6, 9, 99)]


def decide_all(name: str, game: Game, *, noise: bool = True, sample: bool = True) -> Decisions:
    evaluate = HashEvaluator(game.num_actions)
    search = SEARCHES[name](game)
    return decide(search, game, lines_of(game), evaluate, budgets=BUDGETS, noise=noise, sample=sample)


@every_search
@every_game
def test_a_decision_has_the_shapes_and_types_of_the_contract(name: str, game: Game) -> None:
    decisions = decide_all(name, game)
    num_rows, num_actions = len(BUDGETS), game.num_actions
    assert (decisions.actions.dtype, decisions.actions.shape) == (np.int16, (num_rows,))
    assert (decisions.policies.dtype, decisions.policies.shape) == (np.float32, (num_rows, num_actions))
    assert (decisions.values.dtype, decisions.values.shape) == (np.float32, (num_rows,))
    assert (decisions.visits.dtype, decisions.visits.shape) == (np.int32, (num_rows, num_actions))


@every_search
@every_game
def test_what_is_played_and_wished_is_legal(name: str, game: Game) -> None:
    decisions = decide_all(name, game)
    legal = game.legal(*positions(game, lines_of(game), rows_per_game=1))
    assert legal[np.arange(len(legal)), decisions.actions].all()
    assert (decisions.policies[~legal] == 0).all()
    assert (decisions.policies >= 0).all()
    assert (decisions.visits[~legal] == 0).all()
    np.testing.assert_allclose(decisions.policies.sum(axis=1), 1.0, atol=1e-5)
    assert (abs(decisions.values) <= 1).all()


@every_search
@every_game
def test_visits_sum_to_the_budget(name: str, game: Game) -> None:
    visits = decide_all(name, game).visits.sum(axis=1)
    if name in LEVEL_BY_LEVEL:  # which spend what fits, and nothing on what is decided
        assert (visits >= 1).all()
        assert (visits <= BUDGETS).all()
        return
    assert visits.tolist() == ([0] * len(BUDGETS) if name in WITHOUT_SIMULATIONS else BUDGETS)


@every_search
@every_game
def test_a_decision_does_not_depend_on_what_stands_beside_it(name: str, game: Game) -> None:
    together = decide_all(name, game)
    search, evaluate = SEARCHES[name](game), HashEvaluator(game.num_actions)
    for i, line in enumerate(lines_of(game)):
        alone = decide(
            search, game, [line], evaluate, budgets=[BUDGETS[i]], keys=[i + 1], noise=True, sample=True
        )
        assert alone.actions[0] == together.actions[i]
        np.testing.assert_array_equal(alone.policies[0], together.policies[i])
        np.testing.assert_array_equal(alone.values[0], together.values[i])
        np.testing.assert_array_equal(alone.visits[0], together.visits[i])


@every_search
def test_positions_to_decide_on_stay_as_they_are(name: str) -> None:
    game, search = Hex(4), SEARCHES[name](Hex(4))
    states, roots = positions(game, lines_of(game), rows_per_game=search.rows_per_game)
    before = [game.snapshot(states, root) for root in roots]
    on = np.ones(len(roots), bool)
    steps = search.decide(
        game,
        states,
        roots,
        budgets=np.array(BUDGETS, np.int32),
        keys=np.arange(8, dtype=np.uint64),
        model="fake",
        noise=on,
        sample=on,
    )
    run(steps, HashEvaluator(game.num_actions))
    assert [game.snapshot(states, root) for root in roots] == before


@every_search
@every_game
def test_no_request_is_empty_or_larger_than_its_search_may_ask(name: str, game: Game) -> None:
    seen: list[int] = []

    def evaluate(request: Request) -> Reply:
        seen.append(request.num_rows)
        return HashEvaluator(game.num_actions)(request)

    decide(SEARCHES[name](game), game, lines_of(game), evaluate, budgets=BUDGETS, noise=True, sample=True)
    largest = sum(BUDGETS) if name in LEVEL_BY_LEVEL else len(BUDGETS)
    assert all(1 <= num_rows <= largest for num_rows in seen)
    expected = {"policy": 1, "random": 0, "rollout": 0}
    assert len(seen) == expected[name] if name in expected else 1 < len(seen) <= 1 + max(BUDGETS)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name not in ("random", "rollout")])
def test_with_neither_noise_nor_sampling_the_key_decides_nothing(name: str) -> None:
    game = pile()  # which has no symmetries to draw from
    evaluate = HashEvaluator(game.num_actions)
    search = SEARCHES[name](game)
    decisions = decide(search, game, [[]] * 8, evaluate, budgets=[32] * 8)
    assert len(set(decisions.actions.tolist())) == 1
    assert len(np.unique(decisions.visits, axis=0)) == 1


@every_search
def test_sampling_gives_various_moves(name: str) -> None:
    game = ConnectFour()
    evaluate = HashEvaluator(game.num_actions)
    decisions = decide(SEARCHES[name](game), game, [[]] * 8, evaluate, budgets=[32] * 8, sample=True)
    assert len(set(decisions.actions.tolist())) > 1
