"""A decision shows a seat what it may know, and a choice arrives as it was meant."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UsageError
from engines.errors import EngineFault
from engines.forge_decisions import (
    KINDS,
    Choice,
    Decision,
    DecisionKind,
    options,
    read_decision,
    reply_line,
    seat_of,
)
from tests.engines.forge_texts import CARDS, NAMES, WORDS, heard, legal_choices, messages, text

CHOOSING = ("choose_action", "declare_attackers", "declare_blockers")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 400) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
ANY_CHOICES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 14),
    st.lists(st.integers(-1, 13), max_size=4).map(tuple),
    st.lists(st.tuples(st.integers(-1, 13), st.integers(-1, 13)), max_size=3).map(tuple),
)


def read(message: object) -> Decision:
    return read_decision(text(message), "forge")


@given(messages(), CARDS, JSON, st.data())
def test_what_the_other_seat_holds_changes_nothing(
    message: dict[str, Any], hand: list[dict[str, Any]], secret: object, data: st.DataObject
) -> None:
    other = deepcopy(message)
    hidden = other["game_state"]["players"][1 - NAMES.index(message["player"])]
    hidden["hand"] = hand
    for place in (*other["game_state"]["players"], other["game_state"], other):
        for name in data.draw(st.sets(st.sampled_from(["library", "next_card", "seed"]))):
            place[name] = secret
    assert text(read(other).state) == text(read(message).state)
    assert text(read(other).details) == text(read(message).details)


@given(messages())
def test_what_the_seat_holds_and_what_lies_open_is_shown(message: dict[str, Any]) -> None:
    decision, sent = read(message), message["game_state"]
    mine, others = decision.seat, 1 - decision.seat
    assert NAMES[mine] == message["player"]
    assert decision.state["players"][mine] == sent["players"][mine]
    assert decision.state["players"][others] == {
        key: value for key, value in sent["players"][others].items() if key != "hand"
    }
    assert decision.state["stack"] == sent["stack"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_legal_choice_is_heard_as_it_was_meant(kind: DecisionKind, data: st.DataObject) -> None:
    decision = read(data.draw(messages((kind,))))
    choice = data.draw(legal_choices(decision))
    assert heard(decision, reply_line(decision, choice)) == choice


@given(messages(), ANY_CHOICES)
def test_any_choice_is_refused_or_heard_as_it_was_meant(message: dict[str, Any], choice: Choice) -> None:
    decision = read(message)
    try:
        line = reply_line(decision, choice)
    except UsageError:
        return
    assert heard(decision, line) == choice
    assert type(heard(decision, line)) is type(choice)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_what_no_decision_of_its_kind_allows_is_refused(kind: DecisionKind, data: st.DataObject) -> None:
    decision = read(data.draw(messages((kind,))))
    bad: dict[str, list[Any]] = {
        "choose_action": [99, -2, None, True, (0,), "0"],
        "declare_attackers": [(99,), (True,), 0, None, (options(decision) or (99,)) * 2],
        "declare_blockers": [((99, 0),), ((0,),), (0, 1), None, (((options(decision) or (99,))[0], 99),)],
        "choose_ability": [-1, 99, None, False],
        "choose_cards": [
            (99,),
            0,
            None,
            (*options(decision), options(decision)[0]) if options(decision) else (99,),
        ],
        "choose_entity": [99, -2, None, ()],
        "announce_value": [-1, 2**31, 1.5, None, True],
        "reveal": [0, True, ()],
    }
    for choice in bad.get(kind, [0, 1, None, "y"]):
        with pytest.raises(UsageError, match="no choice"):
            reply_line(decision, choice)


@given(st.data())
def test_what_the_daemons_ai_chose_is_found_among_what_it_offered(data: st.DataObject) -> None:
    message = data.draw(messages(CHOOSING))
    choice: Any = data.draw(legal_choices(read(message)))
    if message["decision_type"] == "choose_action":
        message["ai_choice"] = (
            {"action": "pass"}
            if choice == -1
            else next(action for action in message["actions"] if action["index"] == choice)
        )
        same = [choice]
        if choice != -1:
            keys = ("card", "description", "is_land")
            same = [
                action["index"]
                for action in message["actions"]
                if all(action[key] == message["ai_choice"][key] for key in keys)
            ]
        assert read(message).choice == same[0]
        message["ai_choice_index"] = data.draw(st.sampled_from([-1, choice]))
        assert read(message).choice in same
    elif message["decision_type"] == "declare_attackers":
        message["ai_choice"] = list(choice)
        assert read(message).choice == choice
    else:
        message["ai_choice"] = [{"blocker": blocker, "attacker": attacker} for blocker, attacker in choice]
        assert read(message).choice == choice


def action(index: int, card: str, description: str) -> dict[str, Any]:
    return {"index": index, "card": card, "description": description, "is_land": False}


@pytest.mark.parametrize(
    ("chosen", "index"),
    [
        ({"card": "Wurm", "description": "x" * 150, "is_land": False}, 4),  # the offered one is cut at 100
        ({"card": "Bear", "description": "told otherwise", "is_land": False}, 1),  # the only one of its card
        ({"card": "Elf", "description": "told otherwise", "is_land": False}, None),  # there are two
        ({"card": "Elf", "description": "second", "is_land": False}, 3),
        ({"card": "Ogre", "description": "", "is_land": False}, None),  # was not offered
    ],
)
def test_an_action_is_matched_by_its_words(chosen: dict[str, Any], index: int | None) -> None:
    offered = [
        action(0, "Wurm", "y" * 100),
        action(1, "Bear", "bear"),
        action(2, "Elf", "first"),
        action(3, "Elf", "second"),
        action(4, "Wurm", "x" * 100),
    ]
    passing = action(-1, "", "Pass priority")
    state = {"players": [{"name": NAMES[0]}, {"name": NAMES[1]}]}
    common = {
        "decision_type": "choose_action",
        "decision_id": 0,
        "player": NAMES[0],
        "turn": 1,
        "phase": "MAIN1",
    }
    message = {**common, "game_state": state, "actions": [*offered, passing], "ai_choice": chosen}
    assert read(message).choice == index


@given(messages(), st.data())
def test_a_decision_that_lacks_or_garbles_something_is_the_engines_fault(
    message: dict[str, Any], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(["decision_type", "decision_id", "player", "turn", "game_state"]))
    garbled = {**message, key: data.draw(st.sampled_from([None, [], "x", {"players": [3]}, 1.5]))}
    lacking = {name: value for name, value in message.items() if name != key}
    for bad in (garbled, lacking):
        with pytest.raises(EngineFault) as caught:
            read(bad)
        assert caught.value.kind == "protocol"


@given(messages(), st.data())
def test_whatever_a_field_holds_nothing_but_a_fault_comes_of_it(
    message: dict[str, Any], data: st.DataObject
) -> None:
    message[data.draw(st.sampled_from(sorted(message)))] = data.draw(JSON)
    message |= data.draw(st.dictionaries(st.sampled_from(["ai_choice", "ai_choice_index"]), JSON))
    try:
        decision = read(message)
    except EngineFault:
        return
    assert isinstance(options(decision), tuple)


@pytest.mark.parametrize("line", ["", "{", "[]", "3", '{"decision_type": "choose_action"', "[" * 100_000])
def test_what_is_no_decision_is_the_engines_fault(line: str) -> None:
    with pytest.raises(EngineFault, match="broke its protocol"):
        read_decision(line, "forge")


def test_two_options_of_one_index_are_refused() -> None:
    state = {"players": [{"name": NAMES[0]}, {"name": NAMES[1]}]}
    common = {"decision_id": 0, "player": NAMES[0], "turn": 1, "phase": "MAIN1", "game_state": state}
    cards = [{"index": 1, "description": ""}] * 2
    with pytest.raises(EngineFault) as caught:
        read_decision(json.dumps({**common, "decision_type": "choose_ability", "abilities": cards}), "forge")
    assert "one index" in caught.value.why


@pytest.mark.parametrize(("name", "seat"), [("Ai(1)-Red", 0), ("AiObs(2)-(1)-x", 1), ("Agent(2)-", 1)])
def test_a_seat_is_told_by_a_name(name: str, seat: int) -> None:
    assert seat_of(name) == seat


@pytest.mark.parametrize("name", ["", "Red", "Ai(3)-Red", "Ai(1)Red", "(1)-Red", "A i(1)-Red"])
def test_a_name_without_a_seat_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="seat"):
        seat_of(name)
