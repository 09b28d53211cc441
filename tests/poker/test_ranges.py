"""Ranges as text: what is written is read again, each form names the hands that people mean, and nonsense is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from poker.cards import HANDS, NUM_HANDS, hand_name, hand_number, parse_cards
from poker.ranges import SIDE, class_name, parse_range, to_grid, write_range

CLASSES = [class_name(row, column) for row in range(SIDE) for column in range(SIDE)]
WEIGHTS = st.one_of(st.just(1.0), st.floats(0.0, 1.0, exclude_min=True))


@st.composite
def ranges(draw: st.DrawFn) -> np.ndarray:
    """Weights of some classes, and of some hands their own."""
    weights = np.zeros(NUM_HANDS)
    for name, weight in draw(
        st.dictionaries(st.sampled_from(CLASSES), WEIGHTS, min_size=1, max_size=20)
    ).items():
        weights[hands_of(name)] = weight
    for hand, weight in draw(st.dictionaries(st.integers(0, NUM_HANDS - 1), WEIGHTS, max_size=20)).items():
        weights[hand] = weight
    return weights


def hands_of(text: str) -> np.ndarray:
    return np.flatnonzero(parse_range(text))


def classes_of(text: str) -> set[str]:
    """Names of the classes all of whose hands are in a range, which has no others."""
    grid = to_grid(parse_range(text))
    assert set(grid.ravel().tolist()) <= {0.0, 1.0}
    return {class_name(row, column) for row, column in np.argwhere(grid).tolist()}


@given(ranges())
def test_what_is_written_is_read_again(weights: np.ndarray) -> None:
    assert (parse_range(write_range(weights)) == weights).all()


@given(st.dictionaries(st.sampled_from(CLASSES), WEIGHTS, min_size=1, max_size=8), st.randoms())
def test_the_order_of_parts_that_do_not_overlap_is_irrelevant(parts: dict[str, float], random) -> None:
    texts = [f"{name}:{weight!r}" for name, weight in parts.items()]
    shuffled = random.sample(texts, len(texts))

    assert (parse_range(",".join(texts)) == parse_range(" , ".join(shuffled))).all()


@given(st.text(alphabet="AKT92sohcd+-:.,15 \n", max_size=12))
def test_any_text_is_a_range_or_a_usage_error(text: str) -> None:
    try:
        weights = parse_range(text)
    except UsageError:
        return
    assert ((weights >= 0) & (weights <= 1)).all()
    assert weights.any()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("AA", "AA"),
        ("AKs", "AKs"),
        ("AKo", "AKo"),
        ("AK", "AKs AKo"),
        ("kaS", "AKs"),
        ("TT+", "TT JJ QQ KK AA"),
        ("AA+", "AA"),
        ("ATs+", "ATs AJs AQs AKs"),
        ("K9+", "K9s K9o KTs KTo KJs KJo KQs KQo"),
        ("AK+", "AKs AKo"),
        ("99-66", "99 88 77 66"),
        ("66-99", "99 88 77 66"),
        ("K9s-K6s", "K9s K8s K7s K6s"),
        ("A3o-A2o", "A3o A2o"),
        ("T9s-65s", "T9s 98s 87s 76s 65s"),
        (" AA , 22 ", "AA 22"),
        ("AA, KK:0", "AA"),
    ],
)
def test_each_form_names_its_classes(text: str, names: str) -> None:
    assert classes_of(text) == set(names.split())


def test_classes_have_as_many_hands_as_there_are() -> None:
    assert [len(hands_of(name)) for name in ("AA", "AKs", "AKo", "AK", "uniform")] == [
        6,
        4,
        12,
        16,
        NUM_HANDS,
    ]
    assert {hand_name(hand) for hand in hands_of("AKs").tolist()} == {"AcKc", "AdKd", "AhKh", "AsKs"}
    assert sum(len(hands_of(name)) for name in CLASSES) == NUM_HANDS


def test_the_later_of_two_parts_counts() -> None:
    weights = parse_range("uniform, AA:0.5, AhAd:0.25, KK:0")

    assert weights[hands_of("AA")].tolist().count(0.5) == 5
    assert weights[hand_number(*parse_cards("AdAh"))] == 0.25
    assert not weights[hands_of("KK")].any()
    assert weights[hands_of("QQ")].all()


def test_blocked_hands_have_no_mass() -> None:
    board = parse_cards("AhKd2c3c4c")
    weights = parse_range("uniform", board)

    assert weights.sum() == 47 * 46 / 2
    assert not weights[np.isin(HANDS, board).any(1)].any()


def test_the_grid_has_pairs_on_the_diagonal_and_suited_above() -> None:
    grid = to_grid(parse_range("AA, AKs:0.5, AcKd"))

    assert grid[0, :3].tolist() == [1.0, 0.5, 0.0]
    assert grid[1, 0] == 1 / 12
    assert to_grid(parse_range("uniform")).min() == 1.0


@pytest.mark.parametrize(
    "text", ["", ",", "AA,", "AX", "AAs", "AKx", "AhK", "TT-AKs", "99-6", "AKs-KQo", "A", "10T"]
)
def test_what_is_no_part_is_named_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_range(f"QQ,{text}")

    assert "is no part of a range" in error.value.what
    assert repr(text.rsplit(",", maxsplit=1)[-1]) in error.value.what
    assert "ATs+" in error.value.why
    assert "TT+, AK" in error.value.fix


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("K9s-Q6s", "'K9s-Q6s' is no run"),
        ("AA:1.5", "'1.5' of 'AA:1.5'"),
        ("AA:-1", "'-1'"),
        ("AA:nan", "'nan'"),
        ("AA:", "''"),
        ("AA:0.5:1", "'0.5:1'"),
        ("AA:0", "no mass"),
        ("AhAh", "Ah is twice"),
        ("AhKd", "nobody can hold AhKd on Kd2c2d2h2s"),
        ("22", "'22' has no mass on Kd2c2d2h2s"),
    ],
)
def test_other_nonsense_is_told(text: str, mentions: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_range(text, parse_cards("Kd2c2d2h2s"))

    assert mentions in error.value.what
