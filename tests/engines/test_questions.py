"""A decision's questions come to a choice that it allows, and every choice comes back as the answers that make it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.forge_decisions import KINDS, Choice, Decision, read_decision, reply_line
from engines.questions import MOST_VALUES, NUM_SLOTS, Question, answers_to, questions
from tests.engines.forge_texts import legal_choices, messages, text


def a_decision(kind: str, **details: Any) -> Decision:
    players = [{"name": f"Agent({seat})-Deck"} for seat in (1, 2)]
    message = {
        "decision_type": kind,
        "decision_id": 0,
        "player": players[0]["name"],
        "turn": 1,
        "phase": "MAIN1",
        "game_state": {"players": players},
        **details,
    }
    return read_decision(text(message), "daemon")


def named(*names: str) -> list[dict[str, Any]]:
    return [{"index": 3 * k, "name": name} for k, name in enumerate(names)]


def asked(decision: Decision, answer: Callable[[Question], int]) -> tuple[list[Question], Choice]:
    """Return the questions of a decision and what they come to."""
    found, playing = [], questions(decision)
    try:
        question = next(playing)
        while True:
            found.append(question)
            question = playing.send(answer(question))
    except StopIteration as end:
        return found, end.value


@given(messages(), st.data())
def test_whatever_is_answered_comes_to_a_choice_that_the_decision_allows(
    message: dict[str, Any], data: st.DataObject
) -> None:
    decision = read_decision(text(message), "daemon")
    found, choice = asked(decision, lambda question: data.draw(st.sampled_from(question.slots)))
    reply_line(decision, choice)  # raises where it is not allowed
    for question in found:
        assert len(question.candidates) == len(question.slots) == len(set(question.slots)) > 1
        assert all(0 <= slot < NUM_SLOTS for slot in question.slots)
        assert question.left_out == 0
    answered = answers_to(replace(decision, choice=choice))
    if decision.kind != "reveal":
        assert answered is not None
        assert [question.about for question, _ in answered] == [question.about for question in found]


@given(messages(tuple(kind for kind in KINDS if kind not in ("announce_value", "reveal"))), st.data())
def test_every_legal_choice_comes_back_from_its_answers(message: dict[str, Any], data: st.DataObject) -> None:
    decision = read_decision(text(message), "daemon")
    choice = data.draw(legal_choices(decision))
    answered = answers_to(replace(decision, choice=choice))
    assert answered is not None
    slots = iter([slot for _, slot in answered])
    _, again = asked(decision, lambda _: next(slots))
    if decision.kind == "choose_action":
        actions = {each["index"]: (each["card"], each["description"]) for each in decision.details["actions"]}
        assert actions[again] == actions[choice]  # pyright: ignore[reportArgumentType]
    elif isinstance(choice, tuple):
        assert set(again) == set(choice)  # pyright: ignore[reportArgumentType]
    else:
        assert again == choice


def test_each_attacker_is_asked_about_by_itself() -> None:
    decision = a_decision("declare_attackers", attackers=named("Scout", "Ogre", "Scout"), defenders=[])
    answered = answers_to(replace(decision, choice=(0, 6)))
    assert answered is not None
    assert [(question.about, question.taken, slot > 0) for question, slot in answered] == [
        (0, 0, True),
        (3, 1, False),
        (6, 1, True),
    ]
    assert len({slot for _, slot in answered if slot}) == 1, "to attack is one slot, whoever attacks"


def test_of_cards_only_what_is_open_is_asked() -> None:
    decision = a_decision("choose_cards", cards=named("A", "B", "C"), min=2, max=2, optional=False)
    found, choice = asked(decision, lambda question: 0)
    assert (len(found), choice) == (1, (3, 6))
    found, choice = asked(decision, lambda question: max(question.slots))
    assert (len(found), choice) == (2, (0, 3))
    optional = a_decision("choose_cards", cards=named("A", "B", "C"), min=2, max=2, optional=True)
    found, choice = asked(optional, lambda question: 0)
    assert (len(found), choice) == (1, ())


def test_copies_of_a_card_are_one_candidate() -> None:
    field = {"card": "Field", "description": "Field", "is_land": True}
    bolt = {"card": "Bolt", "description": "Bolt", "is_land": False}
    actions = [{"index": k, **each} for k, each in enumerate((field, bolt, field))]
    actions.append({"index": -1, "card": "", "description": "Pass", "is_land": False})
    (question,), choice = asked(
        a_decision("choose_action", actions=actions), lambda question: question.slots[1]
    )
    assert [candidate.answers for candidate in question.candidates] == [(-1,), (0, 2), (1,)]
    assert (question.slots[0], choice) == (0, 0)
    answered = answers_to(replace(question.decision, choice=2))
    assert answered is not None
    assert answered[0][1] == question.slots[1]


def test_an_action_keeps_its_slot_whatever_stands_before_it() -> None:
    def slots(*cards: str) -> dict[str, int]:
        actions = [
            {"index": k, "card": card, "description": card, "is_land": False} for k, card in enumerate(cards)
        ]
        actions.append({"index": -1, "card": "", "description": "Pass", "is_land": False})
        (question,), _ = asked(a_decision("choose_action", actions=actions), lambda question: 0)
        return {each.name: slot for each, slot in zip(question.candidates, question.slots, strict=True)}

    assert (
        slots("Bolt", "Ogre")["Ogre: Ogre"]
        == slots("Ogre")["Ogre: Ogre"]
        == slots("Ogre", "Bolt")["Ogre: Ogre"]
    )


def test_what_finds_no_slot_is_left_out_and_its_label_is_missing() -> None:
    actions = [{"index": k, "card": f"C{k}", "description": "", "is_land": False} for k in range(40)]
    actions.append({"index": -1, "card": "", "description": "Pass", "is_land": False})
    decision = a_decision("choose_action", actions=actions)
    (question,), _ = asked(decision, lambda question: 0)
    assert (len(question.candidates), question.left_out) == (NUM_SLOTS, 41 - NUM_SLOTS)
    assert sorted(question.slots) == list(range(NUM_SLOTS))
    assert answers_to(replace(decision, choice=30)) is not None
    assert answers_to(replace(decision, choice=31)) is None


def test_a_choice_that_is_not_offered_or_not_known_has_no_answers() -> None:
    assert answers_to(replace(a_decision("announce_value"), choice=MOST_VALUES)) is None
    assert answers_to(a_decision("announce_value")) is None
    only_pass = [{"index": -1, "card": "", "description": "Pass", "is_land": False}]
    assert answers_to(replace(a_decision("choose_action", actions=only_pass), choice=-1)) == []


@pytest.mark.parametrize(
    "decision",
    [
        a_decision("choose_ability", abilities=[]),
        a_decision("choose_entity", entities=[], optional=False),
    ],
)
def test_a_decision_that_offers_nothing_is_an_error(decision: Decision) -> None:
    with pytest.raises(ValueError, match="offers nothing"):
        next(questions(decision))
