"""The end of a street is worth the mean of what the next one is worth, over the cards that may come."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest

from core.messages import Request, without_asking
from inference_server.client import InlineClient, drive
from poker.batches import Solved, Stop
from poker.betting import Betting
from poker.cards import NUM_HANDS
from poker.deals import _boards_after, value_deals_by_network, value_deals_by_solving
from poker.holdem import board_hands
from poker.leaves import ask
from poker.sampling import Law, Situation, draw_group, quantised
from poker.schedules import make_schedule
from poker.showdowns import values_of_showdowns
from poker.solver import Solver
from poker.subgames import Subgame
from tests.poker.networks import always, answered, few_rivers, shows

STACK = 20_000.0
EVERY_DEAL = 64


def drawn(cards: int, group: int, *, seed: int = 1) -> list[Situation]:
    law = Law(seed=seed, cards=cards, group=group, pots=((4000, 9000),))
    return draw_group(law, 0, lambda pot_half: 0)


@pytest.fixture(scope="module")
def turn() -> list[Situation]:
    return drawn(4, 3)


def by_showing(
    situations: list[Situation], *, most: int = EVERY_DEAL, seed: int = 0, asked: list[Request] | None = None
) -> list[Solved]:
    steps = value_deals_by_network(situations, STACK, model="next", most_deals=most, seed=seed)
    return answered(steps, shows, asked)


def shown_at_once(situations: list[Situation]) -> np.ndarray:
    masses = np.stack([situation.masses for situation in situations])
    return values_of_showdowns(board_hands(situations[0].board), masses)


@pytest.mark.parametrize("cards", [4, 3])
def test_where_a_network_says_what_showdowns_do_the_mean_is_that_of_all_cards_to_come(cards: int) -> None:
    situations = drawn(cards, 3)
    asked: list[Request] = []
    found = by_showing(situations, asked=asked)
    wanted = shown_at_once(situations)
    for each, situation, values in zip(found, situations, wanted, strict=True):
        assert each.situation is situation
        assert (np.abs(each.values - values) * situation.masses).sum(1).max() < 1e-4
        assert np.abs(each.values - values).max() < 2e-3  # of which float16 makes some
        assert np.isnan(each.exploitability)
        assert (each.iterations, each.exact) == (0, True)
    boards = 52 - cards
    assert len(asked) == boards
    assert {request.num_rows for request in asked} == {3}


def test_each_river_is_asked_for_with_the_ranges_that_its_card_leaves(turn: list[Situation]) -> None:
    asked: list[Request] = []
    by_showing(turn, asked=asked)
    place = np.full(NUM_HANDS, -1)
    place[board_hands(turn[0].board).numbers] = np.arange(1128)
    cards = [card for card in range(52) if card not in turn[0].board]
    for card, request in list(zip(cards, asked, strict=True))[::9]:
        river = board_hands(tuple(sorted((*turn[0].board, card))))
        left = np.stack([situation.masses for situation in turn])[:, :, place[river.numbers]]
        shares = left / left.sum(2, keepdims=True)
        assert request.model == "next"
        assert np.allclose(request.arrays["pot"], [situation.pot_half / STACK for situation in turn])
        assert np.allclose(request.arrays["ranges"], shares * 1081, rtol=1e-3, atol=1e-7)
        shown = values_of_showdowns(river, shares)
        assert np.allclose(request.arrays["showdown"], shown, rtol=1e-3, atol=1e-6)


class CountingClient(InlineClient):
    """Knows how many requests came together."""

    def __init__(self) -> None:
        super().__init__(shows)
        self.sizes: list[int] = []

    def submit(self, requests: tuple[Request, ...], *, stream: int = 0) -> int:
        self.sizes.append(len(requests))
        return super().submit(requests, stream=stream)


def test_requests_come_in_bundles_that_are_not_too_large() -> None:
    client = CountingClient()
    steps = value_deals_by_network(drawn(4, 30), STACK, model="m", most_deals=EVERY_DEAL, seed=0)
    found = drive(steps, client, should_stop=lambda: False)
    assert found is not None
    assert len(found) == 30
    assert sum(client.sizes) == 48
    assert max(client.sizes) * 30 < 256 + 30
    assert len(client.sizes) > 2


def test_some_deals_are_the_mean_of_all_on_average(turn: list[Situation]) -> None:
    situations, seeds = turn[:2], 80
    every = np.stack([each.values for each in by_showing(situations)])
    some = np.array([[each.values for each in by_showing(situations, most=5, seed=k)] for k in range(seeds)])
    weights = np.stack([situation.masses for situation in situations])
    # Some fixed sums over hands, of which each draw gives one.
    tests = [weights, weights * (np.arange(1128) % 2), weights * (np.arange(1128) > 564)]
    for test in tests:
        off = ((some - every) * test).sum(3)
        error = off.std(0, ddof=1) / np.sqrt(seeds)
        assert (off.std(0) > 0).all()
        assert (np.abs(off.mean(0)) < 4.5 * error).all()
    assert np.abs(some.mean(0) - every).mean() < 0.35 * np.abs(some[0] - every).mean()


def test_what_is_drawn_follows_from_the_seed_and_is_the_same_for_all(turn: list[Situation]) -> None:
    one, again, other = (by_showing(turn, most=5, seed=seed) for seed in (1, 1, 2))
    assert [each.values.tobytes() for each in one] == [each.values.tobytes() for each in again]
    assert one[0].values.tobytes() != other[0].values.tobytes()
    alone = by_showing(turn[2:], most=5, seed=1)
    assert np.allclose(alone[0].values, one[2].values, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("board", "deals"), [((0, 5, 10, 15), 48), ((0, 5, 10), 49), ((), comb(52, 3))])
def test_deals_are_all_that_may_come_or_so_many_of_them(board: tuple[int, ...], deals: int) -> None:
    more = 1 if board else 3
    every = _boards_after(board, deals, seed=0)
    assert len(every) == len(set(every)) == deals
    left = [card for card in range(52) if card not in board]
    assert set(every) == {tuple(sorted((*board, *some))) for some in combinations(left, more)}
    some = _boards_after(board, 40, seed=3)
    assert len(some) == 40
    assert set(some) <= set(every)
    assert some == _boards_after(board, 40, seed=3) != _boards_after(board, 40, seed=4)


def test_boards_are_drawn_alike() -> None:
    cards = np.concatenate([_boards_after((), 40, seed) for seed in range(200)]).ravel()
    counts = np.bincount(cards, minlength=52)
    assert abs(counts - 24_000 / 52).max() < 4.5 * np.sqrt(24_000 / 52)


@pytest.mark.parametrize("cards", [4, 0])
def test_a_hand_counts_where_its_cards_and_those_of_the_other_may_still_come(
    cards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with few_rivers(monkeypatch, 8):
        board = tuple(range(cards))
        hands = board_hands(board).hands
        even = np.ones((2, hands.number), np.float16)
        steps = value_deals_by_network(
            [Situation(0, board, 5000, even)], STACK, model="m", most_deals=48 if cards else 2, seed=1
        )
        (found,) = answered(steps, always(1.0, 0.0))
        dealt, left = (1, 48) if cards else (3, 52)
        # Against a hand with no card in common all is as it should be: what the network says. It also says it of hands
        # that have one in common, or are the same: these leave more deals than two hands do.
        pairs = comb(left - 4, dealt)
        shares = [comb(left - 2 - k, dealt) / pairs for k in (0, 1, 2)]
        numbers = [1, 2 * (left - 2), comb(left - 2, 2)]
        wanted = float(np.dot(shares, numbers)) / hands.number
        assert sum(numbers) == hands.number
        # Each deal leaves as many hands, so that of some of them the mean over all hands is right.
        assert found.values[0].mean() == pytest.approx(wanted, rel=1e-5)
        assert not found.values[1].any()
        if cards:
            assert np.allclose(found.values[0], wanted, rtol=1e-5)


RIVER = Subgame("river", Betting(STACK, ()))
SCHEDULE = make_schedule("dcfr6")


@pytest.fixture(scope="module")
def all_in_or_nothing() -> list[Situation]:
    """Two turns; on the second one player 0 mostly has the ace of spades or of hearts, so these rarely come."""
    law = Law(seed=2, cards=4, group=2, pots=((9000, 12_000),))
    one, other = draw_group(law, 0, RIVER.form)
    cards = board_hands(other.board).hands.cards
    assert not set(other.board) & {50, 51}
    masses = other.masses.copy()
    masses[0, (cards >= 50).any(1)] += 0.1
    return [one, replace(other, ranges=quantised(masses / masses.sum(1, keepdims=True)))]


def test_rivers_that_are_solved_are_those_of_a_plain_solver_one_by_one(
    all_in_or_nothing: list[Situation],
) -> None:
    iterations = 10
    steps = value_deals_by_solving(all_in_or_nothing, RIVER, SCHEDULE, Stop(None, iterations))
    found = without_asking(steps)
    for each, situation in zip(found, all_in_or_nothing, strict=True):
        assert each.situation is situation
        hands, masses = board_hands(situation.board), situation.masses
        wanted, gained = np.zeros(masses.shape), 0.0
        place = np.full(NUM_HANDS, -1)
        place[hands.numbers] = np.arange(1128)
        for card in hands.next_cards:
            river = board_hands(tuple(sorted((*situation.board, card))))
            of = place[river.numbers]
            tree = RIVER.tree(situation.pot_half)
            plain = Solver(tree, river.hands, lanes=False)
            plain.begin(0, tree, masses[:, of])
            plain.iterate(SCHEDULE, iterations)
            wanted[:, of] += plain.values()[..., 0] / 44
            gained += (plain.best_values()[..., 0] * masses[:, of]).sum() / 44
        meet = (masses[0] * hands.hands.compatible(masses[1])).sum()
        assert (np.abs(each.values - wanted) * masses).sum(1).max() < 1e-3
        assert each.exploitability == pytest.approx(gained / meet / 4, rel=1e-4)
        assert (each.iterations, each.exact) == (48 * iterations, True)


def test_a_turn_is_as_exact_as_the_least_exact_of_its_rivers(all_in_or_nothing: list[Situation]) -> None:
    def solved(stop: Stop) -> list[Solved]:
        return without_asking(value_deals_by_solving(all_in_or_nothing[:1], RIVER, SCHEDULE, stop))

    (hurried,) = solved(Stop(1e-9, 20))
    assert (hurried.exact, hurried.iterations) == (False, 48 * 20)
    (patient,) = solved(Stop(0.02, 1000))
    assert patient.exact
    assert 0 < patient.exploitability <= 0.02


Value = Callable[[list[Situation]], list[Solved]]


@pytest.mark.parametrize(
    "value",
    [
        by_showing,
        lambda some: without_asking(value_deals_by_solving(some, RIVER, SCHEDULE, Stop(None, 20))),
    ],
    ids=["network", "solving"],
)
def test_what_is_won_is_lost(value: Value, all_in_or_nothing: list[Situation]) -> None:
    for each in value(all_in_or_nothing):
        one, other = (each.values.astype(np.float64) * each.situation.masses).sum(1)
        assert abs(one + other) < 1e-4


def test_a_request_is_in_the_units_of_networks() -> None:
    masses = np.random.default_rng(1).dirichlet(np.full(1081, 0.5), (3, 2))
    request = ask("m", np.array([0.1, 0.5, 0.25]), masses, -masses)
    assert (request.model, request.num_rows) == ("m", 3)
    assert np.allclose(request.arrays["ranges"].mean(2, dtype=np.float64), 1, atol=1e-3)
    assert (request.arrays["ranges"] > 0).all()  # as in samples
    assert request.arrays["pot"].dtype == np.float32
    assert np.array_equal(request.arrays["showdown"], (-masses).astype(np.float16))
