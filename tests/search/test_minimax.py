"""Minimax with widths looks at what it says, asks as rarely as it says, and sees what is there to be seen."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.schema import SearchConfig, minimax_positions
from core.errors import EvaluationError
from core.messages import Reply, Request
from games.connect_four import ConnectFour
from games.game import Game
from games.hex import Hex
from games.solver import Solver
from games.tic_tac_toe import TicTacToe
from search.drive import run
from search.hash_evaluator import HashEvaluator
from search.minimax import MinimaxSearch, narrowings
from search.policy_play import PolicyPlay
from search.split import split
from tests.search.fakes import EvenEvaluator, FailingEvaluator, decide, pile, play_at_random, positions
from tests.search.oracles_minimax import MinimaxOracle, narrowed

# x on a1 and b1, o on a2 and b2, x to move: c1 wins, and if x does not play it, o plays c2.
WIN_IN_ONE = [0, 3, 1, 4]
# x on a1 and b1, o on b2, o to move: only c1 stops x.
BLOCK_IN_ONE = [0, 4, 1]

GAMES: list[Game] = [TicTacToe(), ConnectFour(), Hex(3), Hex(4), Hex(5), Hex(4, swap=True), pile()]
WIDTHS = [(1,), (3,), (2, 2), (13, 8), (3, 2, 2), (2, 3, 1, 2), (4, 4, 4)]

rows = st.tuples(
    st.integers(1, 30),  # plies before the end of a random game
    st.integers(1, 117),  # budget
    st.integers(0, 2**64 - 1),  # key
    st.booleans(),  # noise
    st.booleans(),  # sample
)


def minimax(game: Game, widths: Sequence[int], *, games: int = 8, **options) -> MinimaxSearch:
    simulations = max(8, minimax_positions(widths))
    config = SearchConfig(
        algorithm="minimax", minimax_widths=tuple(widths), simulations=simulations, **options
    )
    return MinimaxSearch(config, game, games=games)


class Recorder:
    """Passes requests on and keeps them."""

    def __init__(self, evaluate) -> None:
        self.evaluate = evaluate
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.evaluate(request)

    @property
    def num_rows(self) -> list[int]:
        return [request.num_rows for request in self.requests]


@settings(max_examples=60)
@given(
    game=st.sampled_from(GAMES),
    seed=st.integers(0, 2**32),
    batch=st.lists(rows, min_size=1, max_size=4),
    widths=st.sampled_from(WIDTHS),
    symmetric=st.booleans(),
    temperature=st.sampled_from([0.0, 0.02, 0.5, 1.0, 1.5]),
)
@example(
    game=GAMES[0], seed=1, batch=[(1, 117, 1, True, True), (3, 117, 2, False, False)], widths=(13, 8),
    symmetric=True, temperature=1.5,
)  # fmt: skip
@example(
    game=Hex(13), seed=2, batch=[(90, 117, 3, True, True), (60, 117, 4, False, False), (9, 8, 5, True, False)],
    widths=(13, 8), symmetric=True, temperature=1.5,
)  # fmt: skip
@example(
    game=GAMES[6], seed=3, batch=[(9, 84, 5, True, False), (3, 84, 6, False, False)], widths=(4, 4, 4),
    symmetric=False, temperature=1.0,
)  # fmt: skip
def test_it_decides_as_its_oracle_does(
    game: Game,
    seed: int,
    batch: list[tuple[int, int, int, bool, bool]],
    widths: tuple[int, ...],
    symmetric: bool,
    temperature: float,
) -> None:
    evaluate, rng = HashEvaluator(game.num_actions, salt=seed), np.random.default_rng(seed)
    lines = [play_at_random(game, rng, plies_left=plies_left) for plies_left, *_ in batch]
    _, budgets, keys, noise, sample = zip(*batch, strict=True)
    config = SearchConfig(
        algorithm="minimax", simulations=117, minimax_widths=widths, root_symmetry=symmetric,
        temperature=temperature,
    )  # fmt: skip
    search = MinimaxSearch(config, game, games=len(batch) + 2)
    decisions = decide(search, game, lines, evaluate, budgets=budgets, keys=keys, noise=noise, sample=sample)

    for i, line in enumerate(lines):
        pool, _ = positions(game, [line], rows_per_game=len(widths) + 1)
        drawing = noise[i] or sample[i]
        answer = MinimaxOracle(config, game, pool, evaluate, key=keys[i], drawing=drawing).search(budgets[i])
        assert decisions.actions[i] == answer.action
        assert decisions.values[i] == answer.value
        visits = {int(a): int(decisions.visits[i, a]) for a in np.flatnonzero(decisions.visits[i])}
        assert visits == answer.visits
        policy = np.zeros(game.num_actions)
        policy[list(answer.policy)] = list(answer.policy.values())
        np.testing.assert_allclose(decisions.policies[i], policy, atol=1e-6)


@pytest.mark.parametrize("game", [TicTacToe(), Hex(3)], ids=lambda game: game.name)
def test_with_full_widths_to_the_end_it_plays_perfectly_without_a_model(game: Game) -> None:
    rng = np.random.default_rng(1)
    lines = [play_at_random(game, rng, plies_left=int(rng.integers(1, 6))) for _ in range(200)]
    lines = [line for line in lines if len(line) >= 4]
    num_rows = len(lines)
    assert num_rows > 50
    widths = (5, 4, 3, 2, 1)
    search, evaluate = minimax(game, widths, games=num_rows), HashEvaluator(game.num_actions)
    budgets = [minimax_positions(widths)] * num_rows
    decisions = decide(search, game, lines, evaluate, budgets=budgets, noise=True)
    few = decide(search, game, lines, evaluate, budgets=[1] * num_rows)

    states, roots = positions(game, lines, rows_per_game=1)
    solver = Solver(game)
    values = np.stack([solver.action_values(states, int(root)) for root in roots])
    best = np.nanmax(values, axis=1)
    assert decisions.values.tolist() == best.tolist()
    assert (values[np.arange(num_rows), decisions.actions] == best).all()
    assert not (values[np.arange(num_rows), few.actions] == best).all()  # or the positions are too easy


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("game", [*GAMES[:5], Hex(13)], ids=lambda game: game.name)
def test_it_asks_once_a_level_and_never_twice_about_a_position(game: Game, widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    for plies_left in (1, 2, 3, 5, 9, 99):
        line = play_at_random(game, rng, plies_left=plies_left)
        recorder = Recorder(HashEvaluator(game.num_actions))
        budget = minimax_positions(widths)
        decide(minimax(game, widths), game, [line], recorder, budgets=[budget], noise=True)
        assert len(recorder.requests) <= len(widths) + 1
        seen = np.concatenate([request.arrays["cells"] for request in recorder.requests])
        assert len(np.unique(seen, axis=0)) == len(seen) <= 1 + budget


def test_ends_of_games_and_what_need_not_be_known_are_never_asked_about() -> None:
    # x x o / o o . / x x . and o to move: 5 wins; behind 8 x has only 5, which ends the game in a draw.
    game, line, recorder = TicTacToe(), [0, 2, 1, 3, 6, 4, 7], Recorder(EvenEvaluator(9))
    decisions = decide(minimax(game, (9, 9)), game, [line, WIN_IN_ONE], recorder, budgets=[90, 90])
    assert recorder.num_rows == [2]
    assert decisions.actions.tolist() == [5, 2]
    assert decisions.values.tolist() == [1, 1]
    assert decisions.visits.sum(axis=1).tolist() == [1, 1]


def test_a_game_that_is_decided_lets_the_others_go_on() -> None:
    recorder = Recorder(EvenEvaluator(9))
    lines = [WIN_IN_ONE, [], BLOCK_IN_ONE]
    decisions = decide(minimax(TicTacToe(), (9, 8)), TicTacToe(), lines, recorder, budgets=[81] * 3)
    # Behind each of o's six moves x has five; it wins at once behind all but the block.
    assert recorder.num_rows == [3, 9 + 6, 72 + 5]
    assert decisions.actions[[0, 2]].tolist() == [2, 2]
    assert decisions.values[[0, 2]].tolist() == [1, 0]


def test_the_example_of_two_plies_comes_out_as_by_hand() -> None:
    # Two moves, two answers each. The model gives leaves 0.5 and -0.25, then 0.125 and 0.75, as the player of
    # the root sees them; the other player chooses -0.25 and 0.125, and so 0.125 is the best of the worst.
    game = ConnectFour()
    by_stones = {0: -0.9, 1: 0.9}
    leaf_values = np.array([0.5, -0.25, 0.125, 0.75], np.float32)

    def evaluate(request: Request) -> Reply:
        logits = np.tile(np.arange(7, 0, -1, dtype=np.float16), (request.num_rows, 1))
        stones = int(abs(request.arrays["cells"][0]).sum())
        values = leaf_values if stones == 2 else np.full(request.num_rows, by_stones[stones], np.float32)
        return Reply({"policy": logits, "value": values}, 3)

    search = minimax(game, (2, 2), root_symmetry=False)
    decisions = decide(search, game, [[]], evaluate, budgets=[6])
    assert decisions.actions.tolist() == [1]
    assert decisions.values.tolist() == [0.125]
    assert decisions.visits[0].tolist() == [3, 3, 0, 0, 0, 0, 0]
    mean_q = (math.exp(7) * -0.25 + math.exp(6) * 0.125) / (math.exp(7) + math.exp(6))
    completed = [-0.25, 0.125, *[(-0.9 + 6 * mean_q) / 7] * 5]
    weights = np.exp(np.arange(7, 0, -1) + (50 + 3) * (np.array(completed) + 1) / 2)
    np.testing.assert_allclose(decisions.policies[0], weights / weights.sum(), atol=1e-6)
    assert decisions.weights_version == 3


@pytest.mark.parametrize("line", [WIN_IN_ONE, BLOCK_IN_ONE], ids=["win", "block"])
def test_it_wins_in_one_and_blocks(line: list[int]) -> None:
    game, num_rows = TicTacToe(), 30
    search = minimax(game, (6, 5), games=num_rows)
    decisions = decide(search, game, [line] * num_rows, HashEvaluator(9), budgets=[36] * num_rows, noise=True)
    assert decisions.actions.tolist() == [2] * num_rows
    few = decide(search, game, [line] * num_rows, HashEvaluator(9), budgets=[1] * num_rows, noise=True)
    assert few.actions.tolist() != [2] * num_rows


def test_a_budget_narrows_the_widest_level_first() -> None:
    widths, counts = narrowings((13, 8))
    assert widths[-1].tolist() == [13, 8]
    assert counts[-1] == 117
    allowed = dict(zip(counts.tolist(), widths.tolist(), strict=True))
    assert [allowed[count] for count in (30, 6, 4, 2, 1)] == [[5, 5], [2, 2], [2, 1], [1, 1], [1, 0]]


@given(widths=st.lists(st.integers(1, 9), min_size=1, max_size=4), budget=st.integers(1, 9000))
def test_the_widths_of_a_budget_are_the_first_that_it_allows(widths: list[int], budget: int) -> None:
    chain, counts = narrowings(widths)
    assert (np.diff(counts) > 0).all()
    assert chain[counts <= budget][-1].tolist() == narrowed(widths, budget)


def test_each_row_has_the_widths_of_its_own_budget() -> None:
    game, recorder = Hex(13), Recorder(HashEvaluator(169))
    decisions = decide(minimax(game, (13, 8)), game, [[]] * 4, recorder, budgets=[117, 32, 8, 1])
    assert decisions.visits.sum(axis=1).tolist() == [117, 30, 6, 1]
    assert np.count_nonzero(decisions.visits, axis=1).tolist() == [13, 5, 2, 1]
    assert recorder.num_rows == [4, 13 + 5 + 2 + 1, 104 + 25 + 4]


def test_the_roots_moves_are_drawn_without_replacement_by_the_policy_and_its_temperature() -> None:
    game, num_rows, temperature = ConnectFour(), 4000, 1.5
    search = minimax(game, (2,), games=num_rows, temperature=temperature, root_symmetry=False)
    evaluate = HashEvaluator(7)
    decisions = decide(search, game, [[]] * num_rows, evaluate, budgets=[2] * num_rows, sample=True)
    model = decide(PolicyPlay(game, games=1), game, [[]], evaluate, budgets=[1])
    shares = model.policies[0] ** (1 / temperature)
    shares /= shares.sum()
    # The first of two, or the second behind any other first.
    expected = [
        p + sum(other / (1 - other) * p for j, other in enumerate(shares) if j != i)
        for i, p in enumerate(shares)
    ]
    assert (decisions.visits.sum(axis=1) == 2).all()
    np.testing.assert_allclose(decisions.visits.mean(axis=0), expected, atol=0.03)
    assert max(expected) - min(expected) > 0.2  # so drawing evenly would fail


@pytest.mark.parametrize(
    ("temperature", "noise", "sample", "various"),
    [
        (1.0, False, True, True),
        (1.0, True, False, True),
        (1.0, False, False, False),
        (0.02, True, True, False),
    ],
)
def test_luck_needs_noise_or_sampling_and_a_temperature(
    temperature: float, noise: bool, sample: bool, various: bool
) -> None:
    game = ConnectFour()
    search = minimax(game, (2, 2), games=40, temperature=temperature, root_symmetry=False)
    decisions = decide(
        search, game, [[]] * 40, HashEvaluator(7), budgets=[6] * 40, noise=noise, sample=sample
    )
    assert (len(np.unique(decisions.visits > 0, axis=0)) > 1) == various


def test_all_positions_of_a_search_are_seen_under_one_symmetry() -> None:
    game = Hex(5)
    search = minimax(game, (1, 1, 1))
    for key in range(8):
        recorder = Recorder(EvenEvaluator(25))
        decide(search, game, [[6]], recorder, budgets=[3], keys=[key])
        red_sees, blue_sees = recorder.requests[0], recorder.requests[1]
        turned_for_red = red_sees.arrays["cells"][0, 18] == -1
        turned_for_blue = blue_sees.arrays["cells"][0, 18] == 1
        assert turned_for_red == turned_for_blue


@pytest.mark.parametrize("failing_call", [0, 1, 2])
def test_an_evaluation_that_failed_once_changes_nothing(failing_call: int) -> None:
    game, evaluate = ConnectFour(), HashEvaluator(7)
    plain = decide(minimax(game, (4, 3)), game, [[]] * 4, evaluate, budgets=[16] * 4, noise=True)
    failing = FailingEvaluator(evaluate, {failing_call})
    retried = decide(minimax(game, (4, 3)), game, [[]] * 4, failing, budgets=[16] * 4, noise=True)
    np.testing.assert_array_equal(retried.policies, plain.policies)
    assert failing.calls == 4


def test_a_search_that_was_given_up_can_be_used_again() -> None:
    game, evaluate, used = ConnectFour(), HashEvaluator(7), minimax(ConnectFour(), (4, 3))
    with pytest.raises(EvaluationError, match="no answer"):
        decide(used, game, [[3, 3]] * 4, FailingEvaluator(evaluate, {2, 3}), budgets=[16] * 4)
    again = decide(used, game, [[]] * 4, evaluate, budgets=[16] * 4, noise=True)
    fresh = decide(minimax(game, (4, 3)), game, [[]] * 4, evaluate, budgets=[16] * 4, noise=True)
    np.testing.assert_array_equal(again.policies, fresh.policies)


@pytest.mark.parametrize("bad", [np.nan, 1.5])
def test_a_leaf_value_that_is_none_is_refused_with_its_row(bad: float) -> None:
    def evaluate(request: Request) -> Reply:
        reply = HashEvaluator(7)(request)
        reply.arrays["value"][-1:] = bad if request.num_rows == 12 else 0
        return reply

    with pytest.raises(EvaluationError, match=r"in state rows \[16\]"):
        decide(minimax(ConnectFour(), (4, 3)), ConnectFour(), [[]], evaluate, budgets=[16])


@pytest.mark.parametrize(("num_rows", "matters"), [(4, True), (12, False)])
def test_a_policy_matters_only_where_moves_are_chosen_by_it(num_rows: int, matters: bool) -> None:
    def evaluate(request: Request) -> Reply:
        reply = HashEvaluator(7)(request)
        reply.arrays["policy"][:] = np.nan if request.num_rows == num_rows else 0
        return reply

    search = minimax(ConnectFour(), (4, 3))
    if matters:
        with pytest.raises(EvaluationError, match="logits must be finite"):
            decide(search, ConnectFour(), [[]], evaluate, budgets=[16])
    else:
        decisions = decide(search, ConnectFour(), [[]], evaluate, budgets=[16])
        # Of moves that the model likes equally the lowest are looked at.
        assert decisions.visits.tolist() == [[4, 4, 4, 4, 0, 0, 0]]


@pytest.mark.parametrize(
    ("games", "budget", "complaint"), [(3, 8, "4 games"), (4, 17, "a budget of 17"), (4, 0, "a budget of 0")]
)
def test_more_than_there_is_room_for_is_refused(games: int, budget: int, complaint: str) -> None:
    search = minimax(ConnectFour(), (4, 3), games=games)
    with pytest.raises(ValueError, match=complaint):
        decide(search, ConnectFour(), [[]] * 4, HashEvaluator(7), budgets=[budget] * 4)


@pytest.mark.parametrize(
    ("max_rows", "sequential"), [(1, True), (1, False), (5, True), (7, False), (99, True)]
)
def test_it_plays_the_same_in_requests_of_any_size(max_rows: int, sequential: bool) -> None:
    game, evaluate = Hex(5), HashEvaluator(25)
    lines = [[], [12], [12, 6], [0, 1, 2]]
    whole = decide(minimax(game, (4, 3)), game, lines, evaluate, budgets=[16] * 4, noise=True)
    search = minimax(game, (4, 3))
    states, roots = positions(game, lines, rows_per_game=search.rows_per_game)
    steps = search.decide(
        game,
        states,
        roots,
        budgets=np.full(4, 16, np.int32),
        keys=np.arange(1, 5, dtype=np.uint64),
        model="fake",
        noise=np.ones(4, np.bool_),
        sample=np.zeros(4, np.bool_),
    )
    recorder = Recorder(evaluate)
    cut = run(split(steps, max_rows=max_rows, sequential=sequential), recorder)
    assert max(recorder.num_rows) <= max_rows
    assert sum(recorder.num_rows) == 4 + 16 + 48
    np.testing.assert_array_equal(cut.actions, whole.actions)
    np.testing.assert_array_equal(cut.policies, whole.policies)
    np.testing.assert_array_equal(cut.values, whole.values)
