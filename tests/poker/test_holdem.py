"""Strengths of hands are those of a slow evaluator, and hand sets are in their order."""

from itertools import combinations

import numpy as np
import pytest

from core.seeds import derive_rng
from poker.cards import HANDS, NUM_HANDS, hand_number, live_hands, parse_cards
from poker.holdem import BoardHands, board_hands, strengths
from poker.ranges import parse_range
from tests.poker.networks import few_rivers
from tests.poker.seven_cards import strength


@pytest.mark.parametrize("seed", range(4))
def test_the_greater_strength_wins_and_equal_ones_share(seed: int) -> None:
    rng = derive_rng(seed, "boards")
    board = tuple(int(card) for card in rng.choice(52, 5, replace=False))
    found = strengths(board)
    live = live_hands(board)
    assert len(live) == 1081
    assert (found[np.setdiff1d(np.arange(NUM_HANDS), live)] == -1).all()
    slow = {number: strength((*HANDS[number].tolist(), *board)) for number in live.tolist()}
    for one, other in rng.choice(live, (3000, 2)).tolist():
        assert np.sign(found[one] - found[other]) == (slow[one] > slow[other]) - (slow[one] < slow[other])


def test_hands_are_numbered_in_the_order_of_their_cards() -> None:
    assert [hand_number(*cards) for cards in HANDS.tolist()] == list(range(NUM_HANDS))
    assert hand_number(51, 50) == NUM_HANDS - 1


def test_hands_of_a_river_come_from_the_weakest_to_the_strongest() -> None:
    river = board_hands(parse_cards("Td9d6hQc3s"))
    worth = strengths(river.board)[river.numbers]
    (order,) = river.hands.boards
    assert (np.diff(worth) >= 0).all()
    assert np.array_equal(order.hands, np.arange(1081))
    assert np.array_equal(np.flatnonzero(np.diff(worth)) + 1, order.ends[:-1])
    assert order.ends[-1] == 1081
    assert np.array_equal(river.strengths, worth)
    assert river.equities is None
    assert river.next_cards == ()


def test_a_turn_has_an_order_for_each_river() -> None:
    turn = board_hands(parse_cards("Td9d6hQc"))
    assert (len(turn.numbers), len(turn.next_cards), len(turn.hands.boards)) == (1128, 48, 48)
    for card, order in list(zip(turn.next_cards, turn.hands.boards, strict=True))[::11]:
        numbers = turn.numbers[order.hands]
        assert sorted(numbers) == sorted(live_hands((*turn.board, card)))
        assert (np.diff(strengths((*turn.board, card))[numbers]) >= 0).all()


def of(hands: BoardHands, text: str) -> int:
    """Return the place of a hand."""
    (place,) = np.flatnonzero(hands.numbers == hand_number(*parse_cards(text)))
    return int(place)


def by_all_rivers(board: tuple[int, ...], one: int, other: int) -> float:
    """Return how often a hand wins less how often it loses, over all boards of five that two hands leave."""
    mine, his = HANDS[one].tolist(), HANDS[other].tolist()
    left = [card for card in range(52) if card not in (*board, *mine, *his)]
    results = []
    for more in combinations(left, 5 - len(board)):
        won, lost = (strength((*cards, *board, *more)) for cards in (mine, his))
        results.append((won > lost) - (won < lost))
    return sum(results) / len(results)


@pytest.mark.parametrize(("text", "pairs"), [("Td9d6hQc", 40), ("2c2d2h2s", 20), ("7h8h9h", 4)])
def test_equities_are_those_of_all_rivers_pair_by_pair(text: str, pairs: int) -> None:
    board = parse_cards(text)
    hands = board_hands(board)
    assert hands.equities is not None
    rng = derive_rng(pairs, text)
    cards = HANDS[hands.numbers]
    seen = 0
    while seen < pairs:
        one, other = rng.choice(len(cards), 2, replace=False).tolist()
        if set(cards[one].tolist()) & set(cards[other].tolist()):
            assert hands.equities[one, other] == 0
            continue
        wanted = by_all_rivers(board, hands.numbers[one], hands.numbers[other])
        assert hands.equities[one, other] == pytest.approx(wanted, abs=1e-6)
        seen += 1
    assert_sound(hands)


def assert_sound(hands: BoardHands) -> None:
    """Equities are of the right shape, what is won is lost, and strengths follow from them and rise."""
    equities, cards = hands.equities, HANDS[hands.numbers]
    assert equities is not None
    assert (equities.dtype, equities.shape) == (np.float32, (len(cards), len(cards)))
    assert (equities == -equities.T).all()
    meet = ~(cards[:, None, :, None] == cards[None, :, None, :]).any((2, 3))
    assert not equities[~meet].any()
    wanted = equities.sum(1, dtype=np.float64) / meet.sum(1)
    assert np.array_equal(hands.strengths, wanted)  # sums of these numbers are exact in any order
    assert (np.diff(hands.strengths) >= 0).all()
    assert -1 < hands.strengths[0] < 0 < hands.strengths[-1] <= 1
    assert sorted(hands.numbers.tolist()) == live_hands(hands.board).tolist()
    assert np.array_equal(hands.hands.cards, cards)


@pytest.mark.parametrize(("text", "suits"), [("2c7c9cJd", "hs"), ("7h8h9h", "ds")])
def test_hands_that_differ_by_suits_that_do_not_matter_are_equally_strong(text: str, suits: str) -> None:
    hands = board_hands(parse_cards(text))
    one, other = suits
    for hand in ("A0K0", "A0Ac", "T0J1", "503c", "A0A1"):
        found = (hand.replace("0", a).replace("1", b) for a, b in ((one, other), (other, one)))
        strong = [hands.strengths[of(hands, each)] for each in found]
        assert strong[0] == strong[1]
    assert hands.strengths[of(hands, f"A{one}A{other}")] > hands.strengths[of(hands, f"K{one}K{other}")]


def test_who_has_the_best_hand_of_all_wins_against_anybody() -> None:
    hands = board_hands(parse_cards("AsKsQsJs"))
    assert hands.equities is not None
    ten = (HANDS[hands.numbers] == parse_cards("Ts")[0]).any(1)
    assert hands.equities[of(hands, "Ts2c"), of(hands, "AdAc")] == 1
    assert ten[-47:].all()
    assert (hands.strengths[ten] == 1).all()


def test_a_flop_has_no_orders_of_its_rivers() -> None:
    hands = board_hands(parse_cards("7h8h9h"))
    assert (len(hands.numbers), hands.hands.boards, hands.next_cards) == (1176, (), ())
    best = [hand_number(*parse_cards(text)) for text in ("ThJh", "6hTh", "5h6h")]  # straight flushes
    assert set(best) <= set(hands.numbers[-12:].tolist())


def test_before_the_flop_equities_are_estimates_that_are_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = board_hands(())
    assert_sound(hands)
    assert (hands.hands.boards, hands.next_cards) == ((), ())
    assert hands.equities is not None
    pairs = {
        name: np.flatnonzero(parse_range(name)[hands.numbers]) for name in ("AA", "KK", "22", "AKs", "72o")
    }

    def wins(one: str, other: str) -> float:
        found = hands.equities[np.ix_(pairs[one], pairs[other])]  # pyright: ignore
        return float(found[found != 0].mean()) / 2 + 0.5

    # As tables have them.
    assert wins("AA", "KK") == pytest.approx(0.82, abs=0.015)
    assert wins("AA", "72o") == pytest.approx(0.88, abs=0.015)
    assert wins("22", "AKs") == pytest.approx(0.50, abs=0.025)
    assert set(hands.numbers[-6:]) == set(hands.numbers[pairs["AA"]])
    with few_rivers(monkeypatch, 20):
        one, other = board_hands.__wrapped__(()), board_hands.__wrapped__(())
    assert one.numbers.tobytes() == other.numbers.tobytes()
    assert one.equities.tobytes() == other.equities.tobytes()  # pyright: ignore
