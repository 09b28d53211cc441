"""What happens between a search and whoever evaluates."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from configs.schema import SearchConfig
from core.errors import EvaluationError
from core.messages import Reply, Request
from games.connect_four import ConnectFour
from games.hex import Hex
from games.tic_tac_toe import TicTacToe
from search.contract import Search
from search.gumbel import GumbelSearch
from search.hash_evaluator import HashEvaluator
from search.puct import PuctSearch
from tests.search.fakes import FailingEvaluator, decide

GAME = ConnectFour()
EVALUATE = HashEvaluator(GAME.num_actions)


def search(*, games: int = 4) -> Search:
    return GumbelSearch(SearchConfig(simulations=8), GAME, games=games)


def altered(
    change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]],
) -> Callable[[Request], Reply]:
    """Return an evaluator whose first reply is changed."""
    calls = 0

    def evaluate(request: Request) -> Reply:
        nonlocal calls
        calls += 1
        reply = EVALUATE(request)
        return Reply(change(dict(reply.arrays)), 0) if calls == 1 else reply

    return evaluate


@pytest.mark.parametrize("failing_call", [0, 3])
def test_an_evaluation_that_failed_once_changes_nothing(failing_call: int) -> None:
    evaluate = FailingEvaluator(EVALUATE, {failing_call})
    plain = decide(search(), GAME, [[]] * 4, EVALUATE, budgets=[8] * 4, noise=True)
    retried = decide(search(), GAME, [[]] * 4, evaluate, budgets=[8] * 4, noise=True)
    np.testing.assert_array_equal(retried.visits, plain.visits)
    assert evaluate.calls == 10


def test_an_evaluation_that_failed_twice_ends_the_search() -> None:
    evaluate = FailingEvaluator(EVALUATE, {3, 4})
    with pytest.raises(EvaluationError, match="no answer"):
        decide(search(), GAME, [[]] * 4, evaluate, budgets=[8] * 4)
    assert evaluate.calls == 5


def test_a_search_that_was_given_up_can_be_used_again() -> None:
    used = search()
    with pytest.raises(EvaluationError):
        decide(used, GAME, [[3, 3]] * 4, FailingEvaluator(EVALUATE, {5, 6}), budgets=[8] * 4)
    again = decide(used, GAME, [[]] * 4, EVALUATE, budgets=[8] * 4, noise=True)
    fresh = decide(search(), GAME, [[]] * 4, EVALUATE, budgets=[8] * 4, noise=True)
    np.testing.assert_array_equal(again.visits, fresh.visits)
    np.testing.assert_array_equal(again.policies, fresh.policies)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused_with_their_rows(bad: float) -> None:
    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays["policy"][2, 5] = bad
        return arrays

    with pytest.raises(EvaluationError, match=r"in state rows \[18\]"):  # row 2 of 9 each
        decide(search(), GAME, [[]] * 4, altered(spoil), budgets=[8] * 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -1.01])
def test_values_outside_their_range_are_refused_with_their_rows(bad: float) -> None:
    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays["value"][[0, 3]] = bad
        return arrays

    with pytest.raises(EvaluationError, match=r"in state rows \[ 0 27\]"):
        decide(search(), GAME, [[]] * 4, altered(spoil), budgets=[8] * 4)


def test_logits_of_illegal_moves_may_be_anything() -> None:
    column_3_is_full = [3] * 6
    plain = decide(search(), GAME, [column_3_is_full], EVALUATE, budgets=[8])

    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays["policy"][0, 3] = np.nan
        return arrays

    spoilt = decide(search(), GAME, [column_3_is_full], altered(spoil), budgets=[8])
    np.testing.assert_array_equal(spoilt.policies, plain.policies)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {**arrays, "policy": arrays["policy"][:, :-1]},
        lambda arrays: {**arrays, "value": arrays["value"][:-1]},
        lambda arrays: {**arrays, "value": arrays["value"][:, None]},
        lambda arrays: {"policy": arrays["policy"]},
    ],
)
def test_the_reply_of_another_game_is_refused(
    change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]],
) -> None:
    with pytest.raises(EvaluationError, match="it gave arrays of"):
        decide(search(), GAME, [[]] * 4, altered(change), budgets=[8] * 4)


def test_a_move_that_the_model_rules_out_stays_legal() -> None:
    def evaluate(request: Request) -> Reply:
        arrays = EVALUATE(request).arrays
        return Reply({**arrays, "policy": (arrays["policy"] * 30000).astype(np.float16)}, 0)

    searching = GumbelSearch(SearchConfig(simulations=64), GAME, games=4)
    decisions = decide(searching, GAME, [[], [3], [3, 3], [0]], evaluate, budgets=[64] * 4, noise=True)
    assert (decisions.visits > 0).all()
    np.testing.assert_allclose(decisions.policies.sum(axis=1), 1.0, atol=1e-5)


def test_a_move_that_is_further_behind_than_numbers_go_stays_legal() -> None:
    def evaluate(request: Request) -> Reply:
        arrays = dict(EVALUATE(request).arrays)
        arrays["policy"] = np.full(arrays["policy"].shape, -3e38, np.float32)
        arrays["policy"][:, 0] = 3e38
        return Reply(arrays, 0)

    decisions = decide(search(), GAME, [[]] * 4, evaluate, budgets=[8] * 4, noise=True)
    assert (decisions.visits > 0).all()
    assert np.isfinite(decisions.policies).all()


def test_the_precision_of_the_reply_does_not_matter() -> None:
    def wide(request: Request) -> Reply:
        arrays = EVALUATE(request).arrays
        return Reply({"policy": arrays["policy"].astype(np.float32), "value": arrays["value"]}, 0)

    narrow_decisions = decide(search(), GAME, [[]] * 4, EVALUATE, budgets=[8] * 4)
    wide_decisions = decide(search(), GAME, [[]] * 4, wide, budgets=[8] * 4)
    np.testing.assert_array_equal(wide_decisions.policies, narrow_decisions.policies)


def test_the_oldest_weights_are_told() -> None:
    versions = iter([7, 5, 6, 7, 8, 9, 9, 9, 9])

    def evaluate(request: Request) -> Reply:
        return Reply(EVALUATE(request).arrays, next(versions))

    assert decide(search(), GAME, [[]], evaluate, budgets=[8]).weights_version == 5


def test_simulations_that_end_the_game_cost_no_request() -> None:
    # x x o / o o . / x x . and o to move: of the four positions from here on two are the end of the game.
    game, line = TicTacToe(), [0, 2, 1, 3, 6, 4, 7]
    for search_type in (GumbelSearch, PuctSearch):
        evaluate = FailingEvaluator(HashEvaluator(9), set())
        searching = search_type(SearchConfig(simulations=64), game, games=3)
        decisions = decide(searching, game, [line] * 3, evaluate, budgets=[64, 9, 64])
        assert decisions.visits.sum(axis=1).tolist() == [64, 9, 64]
        assert evaluate.calls == 2


def test_each_node_is_shown_under_its_own_symmetry() -> None:
    game = Hex(5)
    seen: list[np.ndarray] = []

    def evaluate(request: Request) -> Reply:
        seen.append(request.arrays["cells"].copy())
        return HashEvaluator(25)(request)

    line = [[6]] * 16
    for symmetric, count in ((True, 2), (False, 1)):
        seen.clear()
        config = SearchConfig(root_symmetry=symmetric)
        decide(GumbelSearch(config, game, games=16), game, line, evaluate, budgets=[1] * 16)
        assert len(np.unique(seen[0], axis=0)) == count


@pytest.mark.parametrize(
    ("games", "budget", "complaint"), [(3, 8, "4 games"), (4, 9, "a budget of 9"), (4, 0, "a budget of 0")]
)
def test_more_than_there_is_room_for_is_refused(games: int, budget: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        decide(search(games=games), GAME, [[]] * 4, EVALUATE, budgets=[budget] * 4)
