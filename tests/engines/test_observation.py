"""What a seat sees: of fixed size, the same for equal decisions, and nothing of what the other seat holds."""

import hashlib
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.forge_decisions import read_decision, seat_of
from engines.observation import (
    CARD_BUCKETS,
    LARGEST,
    NUM_FEATURES,
    OBSERVATION_SCHEMA,
    mana_value,
    observe,
)
from engines.questions import NUM_SLOTS, Question, questions
from tests.engines.duel_daemon import action_json, decision_json, player_json
from tests.engines.forge_texts import CARDS, messages, text

Json = dict[str, Any]
OF_CARD = 16
"""Numbers of a candidate."""


def first_question(message: Json) -> Question | None:
    """Return what is asked first; None where nothing is."""
    return next(questions(read_decision(text(message), "daemon")), None)  # pyright: ignore[reportArgumentType]


def a_message(own: Json | None = None, other: Json | None = None, **details: Any) -> Json:
    players = [player_json(0, deck="Red", **own or {}), player_json(1, deck="Blue", **other or {})]
    actions = [action_json(0, "Bolt"), action_json(-1, "")]
    return decision_json("choose_action", 0, players=players, **{"actions": actions, **details})


def seen(message: Json) -> tuple[np.ndarray, np.ndarray]:
    question = first_question(message)
    assert question is not None
    return observe(question)


@given(messages())
def test_a_row_has_its_size_and_numbers_that_half_precision_holds(message: Json) -> None:
    question = first_question(message)
    if question is None:
        return
    vector, mask = observe(question)
    assert (vector.shape, vector.dtype) == ((NUM_FEATURES,), np.float32)
    assert (mask.shape, mask.dtype) == ((NUM_SLOTS,), bool)
    assert np.array_equal(vector.astype(np.float16).astype(np.float32), vector)
    assert np.flatnonzero(mask).tolist() == sorted(question.slots)
    again, _ = seen(deepcopy(message))
    assert np.array_equal(again, vector)


@given(messages(), CARDS, st.integers(0, 300))
def test_what_the_other_seat_holds_changes_nothing(message: Json, hand: list[Json], number: int) -> None:
    if first_question(message) is None:
        return
    other = deepcopy(message)
    seat = seat_of(message["player"])
    player = other["game_state"]["players"][1 - seat]
    player |= {"hand": hand, "library": hand, "top_card": "Ogre", "seed": number}
    other["game_state"] |= {"library": hand, "random_state": number}
    assert np.array_equal(seen(other)[0], seen(message)[0])


def test_the_own_hand_is_seen() -> None:
    assert not np.array_equal(seen(a_message({"hand": []}))[0], seen(a_message())[0])
    assert not np.array_equal(
        seen(a_message({"hand": [{"name": "Ogre"}]}))[0], seen(a_message({"hand": [{"name": "Bolt"}]}))[0]
    )


@pytest.mark.parametrize("field", ["life", "poison", "hand_size", "library_size", "max_land_plays"])
def test_each_seats_numbers_stand_in_places_of_their_own(field: str) -> None:
    plain, _ = seen(a_message({field: 1}, {field: 1}))
    own, _ = seen(a_message({field: 7}, {field: 1}))
    other, _ = seen(a_message({field: 1}, {field: 7}))
    (at_own,), (at_other,) = np.flatnonzero(own != plain), np.flatnonzero(other != plain)
    assert own[at_own] == other[at_other] == 7
    assert at_own < at_other


def test_both_seats_see_a_game_alike_from_where_they_sit() -> None:
    players = [player_json(0, deck="Red", life=3), player_json(1, deck="Blue", life=9)]
    mirrored = [player_json(0, deck="Red", life=9), player_json(1, deck="Blue", life=3)]
    for each in (*players, *mirrored):
        each["hand"] = [{"name": "Bolt"}]
    details = {"actions": [action_json(0, "Bolt"), action_json(-1, "")]}
    first = decision_json("choose_action", 0, players=players, **details)
    second = decision_json("choose_action", 1, players=mirrored, **details)
    second["game_state"]["active_player"] = mirrored[1]["name"]
    assert np.array_equal(seen(first)[0], seen(second)[0])


def test_a_summary_and_the_cards_it_sums_up_count_the_same() -> None:
    board = [
        {"id": 1, "name": "Ogre", "is_creature": True, "is_land": False},
        {"id": 2, "name": "Field", "is_creature": False, "is_land": True},
    ]
    cards, _ = seen(a_message({"battlefield": board}))
    summary, _ = seen(a_message({"battlefield_creatures": 1, "battlefield_lands": 1, "battlefield_other": 0}))
    empty, _ = seen(a_message())
    counts = np.flatnonzero(summary != empty)
    assert len(counts) == 2
    assert np.array_equal(cards[counts], summary[counts])


def test_whose_a_target_is_can_be_seen() -> None:
    def target(side: str) -> np.ndarray:
        board = {side: {"battlefield": [{"id": 5, "name": "Ogre"}]}}
        entities = [{"index": 0, "card_id": 5, "name": "Ogre"}, {"index": 1, "name": "Agent(2)-Blue"}]
        message = a_message(**board) | {
            "decision_type": "choose_entity",
            "entities": entities,
            "optional": False,
        }
        question = first_question(message)
        assert question is not None
        vector, _ = observe(question)
        return vector[-NUM_SLOTS * OF_CARD :].reshape(NUM_SLOTS, OF_CARD)[question.slots[0]]

    assert (target("own") - target("other")).tolist().count(2.0) == 1


def test_numbers_beyond_all_bounds_are_held_within_them() -> None:
    vector, _ = seen(
        a_message({"life": 10**40, "hand": [{"name": "Bolt"}] * 3000}, {"life": -(10**9)}, turn=10**400)
    )
    assert np.abs(vector).max() == LARGEST
    assert {LARGEST, -LARGEST} <= set(vector.tolist())


@pytest.mark.parametrize(
    "own",
    [
        {"life": "three"},
        {"life": True},
        {"life": float("nan")},
        {"battlefield": 3},
        {"mana_pool": [1]},
        {"hand": [{}]},
    ],
)
def test_what_is_no_number_or_card_is_an_error(own: Json) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        seen(a_message(own))


@pytest.mark.parametrize(
    ("cost", "value"),
    [("", (0, 0)), ("{X}{1}{R}", (2, 1)), ("{2}{W/U}{G}", (4, 0)), ("{10}", (10, 0)), ("{C}{C}", (2, 0))],
)
def test_what_a_card_costs(cost: str, value: tuple[float, float]) -> None:
    assert mana_value(cost) == value


def test_every_phase_and_kind_of_decision_is_told_apart() -> None:
    phases = ["UNTAP", "MAIN1", "COMBAT_DAMAGE", "MAIN2", "CLEANUP", "a phase of another release"]
    rows = {seen(a_message(phase=phase))[0].tobytes() for phase in phases}
    assert len(rows) == len(phases)
    kinds = ["play_trigger", "confirm_action", "play_from_effect"]
    assert len({seen(a_message(decision_type=kind, actions=[]))[0].tobytes() for kind in kinds}) == 3


def test_the_numbers_mean_what_they_meant() -> None:
    """Whoever changes what is seen raises the schema: rows and weights of before would be misread."""
    board = [{"id": 1, "name": "Ogre", "is_creature": True, "power": 5, "toughness": 4, "tapped": True}]
    vector, mask = seen(
        a_message({"battlefield": board, "graveyard": [{"name": "Bolt"}]}, phase="MAIN2", turn=7)
    )
    told = hashlib.blake2b(vector.tobytes() + mask.tobytes(), digest_size=8).hexdigest()
    assert (OBSERVATION_SCHEMA, NUM_FEATURES, NUM_SLOTS, CARD_BUCKETS, told) == (
        1,
        707,
        32,
        32,
        "31dbd96fc002c93a",
    )
