"""Games that were watched as rows: each question once, seen by who chose, and every loss counted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.decision_records import LEFT_OUT, MISSING, UNREADABLE, game_number, rows_of
from engines.forge_decisions import KINDS, Decision, read_decision
from engines.forge_protocol import Outcome
from engines.observation import NUM_FEATURES, OBSERVATION_SCHEMA, observe
from engines.questions import NUM_SLOTS, answers_to
from replay.decision_shards import DecisionAbout, check_valid
from tests.engines.forge_texts import legal_choices, messages, text
from tests.engines.watching import BOLT, PASS, observed

ABOUT = DecisionAbout("cards", OBSERVATION_SCHEMA, NUM_FEATURES, NUM_SLOTS)


def outcome(decisions: Sequence[Decision], **changes: Any) -> Outcome:
    facts = {"winner": 0, "milliseconds": 5, "seed": 3, "timed_out": False, "error": None}
    return Outcome(**{**facts, **changes}, decisions=tuple(decisions))


UNKNOWN = {"card": "Ogre", "description": "Ogre", "is_land": False}


def test_a_game_that_was_watched() -> None:
    rows = rows_of(outcome([observed(0, BOLT), observed(1, PASS), observed(0, UNKNOWN), observed(1, BOLT)]))
    columns = rows.columns
    assert columns["outcome"].tolist() == [1, -1, -1]
    assert columns["ply"].tolist() == [0, 1, 2]
    assert columns["choice"][0] == columns["choice"][2] != columns["choice"][1] == 0
    assert columns["value_weight"].tolist() == [1, 1, 1]
    assert (columns["kind"] == KINDS.index("choose_action")).all()
    assert (columns["game"] == np.uint64(rows.game)).all()
    assert rows.counts == {MISSING: 1, LEFT_OUT: 0}
    assert check_valid(columns, ABOUT) == []


@pytest.mark.parametrize(
    "changes", [{"timed_out": True, "winner": None}, {"error": "it fell over", "winner": None}]
)
def test_a_game_that_was_broken_off_teaches_choices_and_no_value(changes: dict[str, Any]) -> None:
    columns = rows_of(outcome([observed(0, BOLT)], **changes)).columns
    assert (columns["outcome"].tolist(), columns["value_weight"].tolist()) == ([0], [0])


def test_a_draw_is_worth_nothing_to_both() -> None:
    columns = rows_of(outcome([observed(0, BOLT), observed(1, BOLT)], winner=None)).columns
    assert (columns["outcome"].tolist(), columns["value_weight"].tolist()) == ([0, 0], [1, 1])


def test_what_cannot_be_read_is_counted_and_the_rest_stays() -> None:
    rows = rows_of(outcome([observed(0, BOLT, life="three"), observed(0, BOLT)]))
    assert rows.counts[UNREADABLE] == 1
    assert len(rows.columns["choice"]) == 1
    assert rows_of(outcome([])).columns["vector"].shape == (0, NUM_FEATURES)


def test_a_copy_of_a_game_has_its_number_and_no_other_has() -> None:
    game = [observed(0, BOLT), observed(1, PASS)]
    numbers = {
        game_number(outcome(*changed[:1], **changed[1]))
        for changed in (
            (game, {}),
            (game, {"seed": 4}),
            (game, {"winner": 1}),
            (game[:1], {}),
            ([observed(0, BOLT), observed(1, BOLT)], {}),
            ([observed(0, BOLT, life=2), observed(1, PASS)], {}),
        )
    }
    assert len(numbers) == 6
    again = outcome([observed(0, BOLT), observed(1, PASS)], milliseconds=77)
    assert game_number(again) == game_number(outcome(game))


@given(messages(), st.data())
def test_whatever_was_decided_rows_are_sound_and_are_what_was_seen(
    message: dict[str, Any], data: st.DataObject
) -> None:
    decision = read_decision(text(message), "daemon")
    decision = replace(decision, choice=data.draw(legal_choices(decision)))
    rows = rows_of(outcome([decision]))
    assert check_valid(rows.columns, ABOUT) == []
    answered = answers_to(decision)
    assert rows.counts[MISSING] == (answered is None and decision.kind != "reveal")
    for k, (question, slot) in enumerate(answered or ()):
        vector, mask = observe(question)
        assert np.array_equal(rows.columns["vector"][k].astype(np.float32), vector)
        assert np.array_equal(rows.columns["mask"][k], mask)
        assert rows.columns["choice"][k] == slot
