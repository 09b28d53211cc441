"""Ranges that play leads to follow from a number, stay with their hands, and are what is left of those before."""

from collections.abc import Sequence

import numpy as np
import pytest

from core.hands import BOARD_CARDS, Street
from core.seeds import derive_rng
from poker import reaching
from poker.betting import Betting
from poker.cards import NUM_HANDS
from poker.holdem import board_hands
from poker.leaves import shown
from poker.reaching import with_reached_ranges
from poker.sampling import Law, Situation, draw_group, quantised

BETTING = Betting(20_000.0)
SEED = 5


def group(street: Street, size: int, number: int = 0) -> list[Situation]:
    law = Law(seed=1, cards=BOARD_CARDS[street], group=size, pots=((7000, 12_000),))
    return draw_group(law, number, lambda pot_half: 0)


def reached(
    situations: Sequence[Situation], street: Street, smallest_pot: float = 1500.0, betting: Betting = BETTING
) -> list[Situation]:
    return with_reached_ranges(situations, betting, street=street, smallest_pot=smallest_pot, seed=SEED)


def mean_places(situations: Sequence[Situation]) -> np.ndarray:
    """Mean place [situations, 2] of what players hold among all hands, from 0, the weakest, to 1, the strongest."""
    ranges = np.stack([situation.masses for situation in situations])
    return (ranges * np.linspace(0, 1, ranges.shape[2])).sum(2) / ranges.sum(2)


@pytest.mark.parametrize("street", ["river", "turn_end", "turn", "flop_end"])
def test_only_ranges_become_others(street: Street) -> None:
    drawn = group(street, 3)
    found = reached(drawn, street, 600.0, Betting(20_000.0, (0.5, 1.0)))
    for one, other in zip(drawn, found, strict=True):
        assert (one.number, one.board, one.pot_half) == (other.number, other.board, other.pot_half)
        assert (other.ranges.shape, other.ranges.dtype) == (one.ranges.shape, np.float16)
        assert (other.ranges > 0).all()
        assert abs(other.masses.sum(1) - 1).max() < 0.01
        assert not np.array_equal(one.ranges, other.ranges)


@pytest.mark.parametrize("street", ["flop", "preflop_end"])
def test_where_nothing_was_played_before_ranges_stay(street: Street) -> None:
    drawn = [Situation(0, (), 100, np.ones((2, 3), np.float16))]
    assert reached(drawn, street) == drawn


def test_what_comes_of_one_does_not_depend_on_the_others() -> None:
    drawn = group("river", 36)  # of one form more than there are lanes
    together = [situation.ranges.tobytes() for situation in reached(drawn, "river")]
    assert len(set(together)) == len(drawn)
    for some in ([0], [35], [30, 3, 8]):
        found = reached([drawn[k] for k in some], "river")
        assert [situation.ranges.tobytes() for situation in found] == [together[k] for k in some]


def test_where_all_in_is_the_only_bet_both_have_checked() -> None:
    drawn = group("turn_end", 4)
    checked = reached(drawn, "turn_end", 0.0, Betting(20_000.0, ()))
    for one, two in zip(checked, drawn, strict=True):
        assert one.pot_half == two.pot_half
        assert not np.array_equal(one.ranges, two.ranges)


def test_the_seed_decides() -> None:
    drawn = group("river", 2)
    other = with_reached_ranges(drawn, BETTING, street="river", smallest_pot=1500.0, seed=SEED + 1)
    for one, two in zip(reached(drawn, "river"), other, strict=True):
        assert not np.array_equal(one.ranges, two.ranges)
    boards = {reaching._board_before((0, 1, 2, 3, 4), 4, seed) for seed in range(40)}
    assert len(boards) == 5


@pytest.mark.parametrize("street", ["river", "turn"])
def test_masses_stay_with_their_hands(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has learnt nothing plays alike with all hands, so what they had is what they have."""
    drawn = group(street, 2)
    hands = board_hands(drawn[0].board)
    earlier = board_hands(reaching._board_before(hands.board, len(hands.board) - 1, SEED))
    masses = derive_rng(1, "masses").uniform(0.5, 1.5, NUM_HANDS)

    def draw(rng: np.random.Generator, strengths: np.ndarray) -> np.ndarray:
        return masses[earlier.numbers] / masses[earlier.numbers].sum()

    monkeypatch.setattr(reaching, "ITERATIONS", 0)
    monkeypatch.setattr(reaching, "draw_range", draw)
    expected = quantised(masses[hands.numbers] / masses[hands.numbers].sum())
    for situation in reached(drawn, street):
        assert np.allclose(situation.ranges, expected, rtol=3e-3)


def test_who_bets_or_calls_holds_more_than_before_and_who_checks_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = group("turn_end", 48)
    played = reached(drawn, "turn_end", smallest_pot=700.0)
    checked = reached(drawn, "turn_end", smallest_pot=20_000.0)
    monkeypatch.setattr(reaching, "ITERATIONS", 0)
    before = mean_places(reached(drawn, "turn_end"))
    bet = [not np.array_equal(one.ranges, two.ranges) for one, two in zip(played, checked, strict=True)]
    assert 20 < sum(bet) < 44  # two thirds
    assert ((mean_places(played) - before)[bet].mean(0) > 0.03).all()
    assert ((mean_places(checked) - before).mean(0) < -0.03).all()


def test_each_number_of_raises_is_drawn_as_often_and_fewer_for_small_pots() -> None:
    hands = board_hands((0, 5, 10, 15))
    subgame = reaching.Subgame("turn", Betting(20_000.0), to_the_end=False)
    situations = [Situation(number, hands.board, 9000, np.ones((2, 1128))) for number in range(300)]

    def counts(smallest_pot: float) -> list[int]:
        starts = [
            reaching._draw_start(each, hands, subgame, smallest_pot=smallest_pot, seed=0)
            for each in situations
        ]
        growths = [start.growth for start in starts]
        return [growths.count(growth) for growth in (1.0, 3.0, 9.0)]

    assert min(counts(1000.0)) > 70
    none, one, two = counts(1000.0)
    assert counts(1001.0) == [none, one + two, 0]
    assert counts(3001.0) == [300, 0, 0]


def test_values_of_leaves_are_those_of_showdowns_and_of_each_lane_alone() -> None:
    equities = board_hands((0, 5, 10, 15)).equities
    assert equities is not None
    masses = derive_rng(2, "masses").dirichlet(np.ones(len(equities)), (2, 3, 5)).transpose(0, 1, 3, 2)
    masses = masses.astype(np.float32)
    values = shown(equities, masses)
    assert np.allclose(values, np.einsum("ij,pljc->plic", equities, masses[::-1], optimize=True), atol=1e-6)
    assert np.array_equal(shown(equities, masses[..., 2:3]), values[..., 2:3])
