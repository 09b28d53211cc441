"""Situations are drawn by their laws, and each by its number alone."""

from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.seeds import derive_rng
from poker.sampling import POT_LAW, Law, Situation, draw_board, draw_group, draw_pot, draw_range, quantised
from tests.poker.networks import few_rivers


def any_form(pot_half: int) -> int:
    return 0


def by_size(pot_half: int) -> int:
    return int(np.log(20_000 / pot_half) / np.log(3))


def same(one: Situation, other: Situation) -> bool:
    facts = [(each.number, each.board, each.pot_half, each.ranges.tobytes()) for each in (one, other)]
    return facts[0] == facts[1]


def test_pots_are_of_all_intervals_alike_and_of_nothing_between() -> None:
    rng = derive_rng(1, "pots")
    pots = [draw_pot(rng) for _ in range(20_000)]
    counts = Counter(next(k for k, (low, high) in enumerate(POT_LAW) if low <= pot <= high) for pot in pots)
    assert max(abs(count - 4000) for count in counts.values()) < 5 * np.sqrt(3200)
    assert not any(100 < pot < 200 for pot in pots)
    assert min(pots) == 100
    assert max(pots) > 19_900


def test_boards_are_five_different_cards_each_as_often() -> None:
    rng = derive_rng(2, "boards")
    boards = [draw_board(rng, 5) for _ in range(5000)]
    assert all(len(set(board)) == 5 and list(board) == sorted(board) for board in boards)
    counts = np.bincount(np.array(boards).ravel(), minlength=52)
    assert abs(counts - 25_000 / 52).max() < 5 * np.sqrt(25_000 / 52)


@given(st.integers(1, 300), st.integers(0, 10))
def test_a_range_is_a_distribution(hands: int, seed: int) -> None:
    masses = draw_range(derive_rng(seed, "range"), np.arange(hands) // 3)
    assert masses.shape == (hands,)
    assert (masses >= 0).all()
    assert np.isclose(masses.sum(), 1)


def plain_range(draws: list[float], hands: list[int], mass: float, masses: dict[int, float]) -> None:
    if len(hands) == 1:
        masses[hands[0]] = mass
        return
    weaker = mass * draws.pop(0)
    plain_range(draws, hands[: len(hands) // 2], weaker, masses)
    plain_range(draws, hands[len(hands) // 2 :], mass - weaker, masses)


def test_a_range_is_that_of_the_recursion() -> None:
    strengths = np.array([3.0, 1.0, 2.0, 9.0, 5.0, 4.0, 8.0])
    rng = derive_rng(3, "range")
    rng.random(7)
    draws, masses = rng.random(7).tolist(), dict[int, float]()
    plain_range(draws, np.argsort(strengths).tolist(), 1.0, masses)
    found = draw_range(derive_rng(3, "range"), strengths)
    assert np.allclose(found, [masses[hand] for hand in range(7)], rtol=1e-12)


def test_half_of_the_mass_goes_to_the_weaker_half_on_average() -> None:
    rng = derive_rng(4, "range")
    weak = [draw_range(rng, np.arange(100))[:50].sum() for _ in range(2000)]
    assert abs(np.mean(weak) - 0.5) < 0.03
    assert abs(np.std(weak) - np.sqrt(1 / 12)) < 0.02


def test_equally_strong_hands_are_treated_alike() -> None:
    rng = derive_rng(5, "range")
    means = np.mean([draw_range(rng, np.zeros(8)) for _ in range(4000)], axis=0)
    assert abs(means - 1 / 8).max() < 0.02


def test_what_is_stored_is_what_is_solved() -> None:
    masses = draw_range(derive_rng(6, "range"), np.arange(1081))
    stored = quantised(np.stack([masses, masses]))
    situation = Situation(0, (0, 1, 2, 3, 4), 100, stored)
    assert stored.dtype == np.float16
    assert np.array_equal(quantised(situation.masses), stored)
    assert abs(situation.masses.sum(1) - 1).max() < 0.01


def test_a_group_shares_a_board_and_a_form_and_nothing_else() -> None:
    law = Law(seed=7, group=20)
    forms = set()
    for number in range(6):
        group = draw_group(law, number, by_size)
        assert len({situation.board for situation in group}) == 1
        assert len({by_size(situation.pot_half) for situation in group}) == 1
        assert [situation.number for situation in group] == list(range(20 * number, 20 * number + 20))
        assert len({situation.ranges.tobytes() for situation in group}) == 20
        forms.add(by_size(group[0].pot_half))
    assert len(forms) > 1


def test_a_situation_depends_on_seed_and_number() -> None:
    law = Law(seed=8, group=4)
    assert all(map(same, draw_group(law, 3, by_size), draw_group(law, 3, by_size)))
    other = draw_group(Law(seed=9, group=4), 3, by_size)
    assert not any(map(same, draw_group(law, 3, by_size), other))


def test_pots_keep_their_law_whatever_forms_there_are() -> None:
    pots = [
        situation.pot_half
        for number in range(400)
        for situation in draw_group(Law(seed=10, cards=5, group=1), number, by_size)
    ]
    counts = Counter(next(k for k, (low, high) in enumerate(POT_LAW) if low <= pot <= high) for pot in pots)
    assert max(abs(count - 80) for count in counts.values()) < 45


@pytest.mark.parametrize("width", [1, 7])
def test_however_narrow_forms_are_pots_are_found(width: int) -> None:
    group = draw_group(Law(seed=11, group=5), 0, lambda pot_half: pot_half // width)
    assert len({situation.pot_half // width for situation in group}) == 1


@pytest.mark.parametrize("cards", [0, 3, 4, 5])
def test_ranges_are_of_the_hands_of_any_board(cards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with few_rivers(monkeypatch, 8):
        group = draw_group(Law(seed=12, cards=cards, group=2), 0, any_form)
    for situation in group:
        assert len(situation.board) == cards
        assert situation.ranges.shape == (2, comb(52 - cards, 2))
        assert (situation.ranges > 0).all()
        assert abs(situation.masses.sum(1) - 1).max() < 0.01


def test_the_weaker_half_of_a_turn_gets_half_of_the_mass_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    with few_rivers(monkeypatch, 8):
        group = [one for number in range(12) for one in draw_group(Law(13, 4, 16), number, any_form)]
    weaker = [situation.masses[:, :564].sum(1) for situation in group]
    assert abs(np.mean(weaker) - 0.5) < 4 * np.sqrt(1 / 12 / (2 * len(group)))
    assert abs(np.std(weaker) - np.sqrt(1 / 12)) < 0.04
