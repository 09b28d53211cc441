"""Analytics: made of hands, written, read again; what cannot be is refused with value, range and fix."""

import json
import math
import os
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, UsageError
from poker.acpc import STREETS, Hand, LogReader, Raises, Terms, find_terms
from poker.analysis import Bet, Tally, choose_sizes, make_analytics, sizes_in_chips, street_distribution
from poker.analytics import (
    FLAT_KEYS,
    WEIGHT_KEYS,
    Analytics,
    newest_analytics,
    parse_analytics,
    read_analytics,
    street_weights,
)

DATA = Path(__file__).resolve().parents[1] / "data"
REAL = DATA / "analytics_2025-10-18_10-38-23.json"
FLAT = dict(zip(FLAT_KEYS, (0.2, 0.35, 0.25, 0.2), strict=True))
BY_NAME = dict(zip(STREETS, (0.2, 0.35, 0.25, 0.2), strict=True))
MADE = datetime(2026, 1, 2, 3, 4, 5)

weights = st.tuples(*[st.floats(0, 1e6)] * 4).filter(any)
floors = st.floats(0, 0.3)
alphas = st.floats(0, 1)


def parsed(**given: Any) -> Analytics:
    return parse_analytics(given, source="it")


def tally(name: str) -> Tally:
    file, counted = str(DATA / name), Tally()
    for hand in LogReader(file, find_terms(file)):
        assert isinstance(hand, Hand)
        counted.add(hand)
    return counted


def test_a_real_file_is_read() -> None:
    read = read_analytics(REAL)

    assert read.weights == (0.3912841798827547, 0.08447899421771156, 0.13347249214232587, 0.39076433375720787)
    assert (read.smoothing, read.cfr_iterations) == (0.12, 2000)
    assert read.sizes == ((), (0.75, 1.4, 2.0), (0.5, 0.94, 1.2, 1.5), (0.55, 1.0, 1.33, 2.0))
    assert read.information["source"] == "official_deepstack_handhistory"
    assert read.notes == ("bet_sizing_override.flop has 0.75 more than once: 3 of 4 sizes are left",)


@pytest.mark.parametrize("keys", [("0", "1", "2", "3"), (0, 1, 2, 3), STREETS, ("0", 1, "turn", "3")])
@pytest.mark.parametrize("spelling", [*WEIGHT_KEYS, "flat"])
@pytest.mark.parametrize("sizes", ["bet_sizing_override", "bet_sizing"])
def test_every_spelling_means_the_same(keys: tuple[Any, ...], spelling: str, sizes: str) -> None:
    by_street = dict(zip(keys, FLAT.values(), strict=True))
    given = FLAT if spelling == "flat" else {spelling: by_street}
    read = parsed(**given, **{sizes: {keys[1]: [0.5, 1], keys[3]: [2.0]}})

    assert read.weights == (0.2, 0.35, 0.25, 0.2)
    assert read.sizes == ((), (0.5, 1.0), (), (2.0,))


def test_what_is_not_given_is_noted() -> None:
    assert parsed(**FLAT).notes == (
        "smoothing_alpha is not given: 0.12 is taken",
        "cfr_iterations is not given: the profile decides",
        "no bet sizes are given: the profile decides",
    )
    assert parsed(**FLAT, bet_sizing={1: [1]}).notes[-1] == (
        "no bet sizes are given for turn, river: the profile decides"
    )


def test_spellings_that_agree_are_taken_and_others_refused() -> None:
    as_percent = {name: 100 * weight for name, weight in BY_NAME.items()}

    assert parsed(**FLAT, street_probs=as_percent).weights == tuple(as_percent.values())
    with pytest.raises(UsageError, match=r"street_weights and .*river_weight contradict each other"):
        parsed(**FLAT, street_weights={**BY_NAME, "flop": 0.3})
    with pytest.raises(UsageError, match="bet_sizing_override and bet_sizing contradict"):
        parsed(**FLAT, bet_sizing={1: [1]}, bet_sizing_override={1: [2]})
    with pytest.raises(UsageError, match="has the flop twice"):
        parsed(**FLAT, bet_sizing={1: [1], "flop": [2]})


@pytest.mark.parametrize(
    ("altered", "words"),
    [
        ({"turn_weight": -0.1}, "turn_weight is -0.1"),
        ({"turn_weight": math.nan}, "turn_weight is nan"),
        ({"turn_weight": math.inf}, "turn_weight is inf"),
        ({"turn_weight": 10**400}, "turn_weight is 1000"),
        ({"turn_weight": "0.1"}, "turn_weight is '0.1'"),
        ({"turn_weight": True}, "turn_weight is True"),
        ({"turn_weight": None}, "turn_weight is None"),
        (dict.fromkeys(FLAT_KEYS, 0), "are all 0"),
        ({"street_probs": [0.2, 0.3]}, r"street_probs is \[0.2, 0.3\]"),
        ({"street_probs": {"flop": 1, "turn": 1, "river": 1}}, "street_probs.preflop is missing"),
        ({"street_probs": {**BY_NAME, "rivr": 1}}, "a street 'rivr'(.|\n)*did you mean river"),
        ({"street_probs": {**BY_NAME, 4: 1}}, "a street 4"),
        ({"smoothing_alpha": 1.5}, "smoothing_alpha is 1.5(.|\n)*from 0 to 1"),
        ({"cfr_iterations": 0}, "cfr_iterations is 0(.|\n)*from 1 to 1,000,000"),
        ({"cfr_iterations": 2000.5}, "cfr_iterations is 2000.5"),
        ({"bet_sizing": {"1": [0.5, 0]}}, r"bet_sizing.flop\[1\] is 0(.|\n)*above 0 and at most 50"),
        ({"bet_sizing": {"1": [51]}}, r"bet_sizing.flop\[0\] is 51"),
        ({"bet_sizing": {"1": [math.nan]}}, "is nan"),
        ({"bet_sizing": {"1": []}}, r"bet_sizing.flop is \[\]"),
        ({"bet_sizing": {"1": 0.5}}, "bet_sizing.flop is 0.5"),
        ({"bet_sizing": {"1": "0.5"}}, "bet_sizing.flop is '0.5'"),
        ({"bet_sizing": [{"percentile": 25, "size": 2.0}]}, r"bet_sizing is \[\{"),
        ({"turn_wait": 1}, "no key 'turn_wait'(.|\n)*did you mean turn_weight"),
    ],
)
def test_a_value_that_cannot_be_is_refused(altered: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parsed(**{**FLAT, **altered})


def test_weights_must_be_there_and_whole() -> None:
    with pytest.raises(UsageError, match="no weights of the streets"):
        parsed(cfr_iterations=2000)
    with pytest.raises(UsageError, match="river_weight is missing"):
        parsed(**{key: FLAT[key] for key in FLAT_KEYS[:3]})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Expecting value"),
        (b"\xff", "not UTF-8"),
        (b"[1]", "not names with values"),
        (b'{"turn_weight": 1, "turn_weight": 2}', "the key 'turn_weight' is there twice"),
        (REAL.read_bytes()[:200], "is no analytics file"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_analytics(file)
    with pytest.raises(UsageError, match="there is no file"):
        read_analytics(tmp_path / "b.json")


@given(weights, floors, alphas)
def test_shares_sum_to_one_and_no_later_street_is_below_the_floor(
    given: tuple[float, ...], floor: float, alpha: float
) -> None:
    shares = street_weights(parsed(street_weights=dict(enumerate(given))), floor=floor, smoothing=alpha)

    assert sum(shares) == pytest.approx(1, abs=1e-12)
    assert all(share >= floor for share in shares[1:])
    assert shares[0] >= 0


@given(weights, floors, alphas)
def test_only_streets_below_the_floor_gain_and_the_others_keep_their_proportions(
    given: tuple[float, ...], floor: float, alpha: float
) -> None:
    analytics = parsed(street_weights=dict(enumerate(given)))
    before = street_weights(analytics, floor=0, smoothing=alpha)
    after = street_weights(analytics, floor=floor, smoothing=alpha)
    kept = [street for street in range(4) if street == 0 or after[street] > floor]
    scale = sum(after[street] for street in kept) / sum(before[street] for street in kept)

    assert scale <= 1 + 1e-12
    for street in range(4):
        if street in kept:
            assert after[street] == pytest.approx(scale * before[street], abs=1e-12)
        else:
            assert scale * before[street] <= floor + 1e-12


def test_the_floor_holds_where_raising_one_street_brings_another_below_it() -> None:
    shares = street_weights(parsed(street_weights={0: 0.9, 1: 0.0, 2: 0.0, 3: 0.051}), smoothing=0)
    once = 0.051 * 0.9 / 0.951

    assert once < 0.05
    assert shares == pytest.approx((0.85, 0.05, 0.05, 0.05))


def test_smoothing_is_what_the_file_says_unless_told_otherwise() -> None:
    analytics = parsed(street_weights={0: 1, 1: 1, 2: 2, 3: 4}, smoothing_alpha=0.5)

    assert street_weights(analytics) == pytest.approx((0.1875, 0.1875, 0.25, 0.375))
    assert street_weights(analytics, smoothing=1) == (0.25,) * 4
    with pytest.raises(UsageError, match=r"floor is 0\.4"):
        street_weights(analytics, floor=0.4)


def test_the_newest_is_by_its_name(tmp_path: Path) -> None:
    names = [
        "analytics_2025-10-18_10-38-23.json",
        "analytics_2025-10-18_10-38-24.json",
        "analytics_2024-12-31_23-59-59.json",
        "analytics_2026-13-01_00-00-00.json",
        "analytics_2027-01-01.json",
        "optimised_2028-01-01_00-00-00.json",
    ]
    with pytest.raises(UsageError, match="there are no analytics in"):
        newest_analytics(tmp_path)
    for age, name in enumerate(names):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "analytics_2029-01-01_00-00-00.json").mkdir()

    assert newest_analytics(tmp_path).name == names[1]
    with pytest.raises(UsageError, match="no such folder"):
        newest_analytics(tmp_path / "none")


def test_the_analytics_of_real_hands_are_read_again_as_they_were_made(tmp_path: Path) -> None:
    tallies = [tally("acpc_200bb_slice.log.gz"), tally("acpc_100bb_slice.log.gz")]
    made = make_analytics(tallies, source="two logs", made=MADE)
    file = tmp_path / f"{made['name']}.json"
    file.write_text(json.dumps(made))
    read = read_analytics(newest_analytics(tmp_path))

    assert list(made) == list(json.loads(REAL.read_text()))
    assert read.weights == street_distribution(tallies)
    assert read.sizes == ((), *(choose_sizes(tallies, street) for street in (1, 2, 3)))
    assert (read.notes, read.cfr_iterations, read.smoothing) == ((), 2000, 0.12)


def test_what_is_counted_of_real_hands() -> None:
    counted = tally("acpc_200bb_slice.log.gz")

    assert counted.hands == counted.reached[0] == sum(counted.ended) == 500
    assert counted.reached == [sum(counted.ended[street:]) for street in range(4)]
    assert counted.stack == 20000
    assert counted.decisions == [1093, 1198, 874, 614]
    assert sizes_in_chips([counted]) == {25: 200.0, 50: 248.0, 75: 600.0, 90: 1366.0, 95: 2400.0}
    assert [choose_sizes([counted], street) for street in (1, 2, 3)] == [
        (0.5, 0.82, 1.64),
        (0.5, 1.0),
        (0.5, 1.0),
    ]


def test_moves_of_players_who_are_all_in_are_no_decisions(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(
        "1:a,b:0cr198c/cc/cc/cc:7sTc,8sJs|/6s6dAh/Ts/Jh:-200,200\n2:b,a:0f:3c7d,2h8d|:1,-1\n"
        "3:a,b:0cc/r2r6f:3c7d,2h8d|/6s6dAh:-4,4\n"
    )
    counted = Tally()
    for hand in LogReader(str(log), Terms(Raises.BY, 1, 2)):
        assert isinstance(hand, Hand)
        counted.add(hand)

    assert counted.decisions == [6, 3, 0, 0]
    assert counted.bets == {Bet(0, 198, 4, 200): 1, Bet(1, 2, 4, 4): 1, Bet(1, 6, 8, 10): 1}
    assert choose_sizes([counted], 0) == ()
    assert choose_sizes([counted], 1) == (0.5, 0.75)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(1, 5))
def test_sizes_are_few_possible_and_of_the_bets_that_were_made(chips: list[int], most: int) -> None:
    bets = Counter(Bet(2, each, 100, 50 + each) for each in chips)
    all_in = Bet(3, 1, 100, 20_000)
    sizes = choose_sizes([Tally(bets=bets + Counter([all_in]))], 2, most=most)

    made = {min(round(each / 100, 2), 50.0) for each in chips}
    assert set(sizes) <= made
    assert 1 <= len(sizes) <= most
    assert list(sizes) == sorted(set(sizes))
    assert choose_sizes([Tally(bets=bets)], 1) == ()
