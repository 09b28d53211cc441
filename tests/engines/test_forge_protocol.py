"""What is said to a daemon, and which of its lines may come when."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from engines import forge_protocol
from engines.errors import EngineFault
from engines.forge_protocol import GameInProgress, GameRequest, Mode, Outcome, checked_deck, read_status
from tests.engines.forge_texts import WORDS

DECKS = ("red.dck", "blue.dck")
PREFIXES = {"result": "Ai", "observe": "AiObs", "interact": "Agent"}
DECK_NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)


def decision(number: int = 0, *, seat: int = 1, prefix: str = "Agent", **fields: Any) -> str:
    names = [f"{prefix}(1)-Red", f"{prefix}(2)-Blue"]
    message = {
        "decision_type": "confirm_action",
        "decision_id": number,
        "player": names[seat - 1],
        "turn": 1,
        "phase": "MAIN1",
        "game_state": {"players": [{"name": name} for name in names]},
    }
    return "DECISION:" + json.dumps(message | fields)


def played(lines: list[str], request: GameRequest | None = None) -> Outcome | None:
    game = GameInProgress(request or GameRequest(DECKS), "forge")
    for line in lines:
        asked = game.take(line)
        if asked is not None:
            assert game.answer(asked, choice=True) == "y"
    return game.outcome


def fault_of(lines: list[str], request: GameRequest | None = None) -> EngineFault:
    with pytest.raises(EngineFault) as caught:
        played(lines, request)
    return caught.value


@given(WORDS | st.text("ab -./\t\n", min_size=1, max_size=6))
def test_a_deck_is_refused_or_reaches_the_daemon_as_one_word(deck: str) -> None:
    try:
        checked_deck(deck)
    except UsageError:
        return
    assert f"NEWGAME {deck} other".split() == ["NEWGAME", deck, "other"]
    assert GameRequest((deck, "other")).line().startswith(f"NEWGAME {deck} other -q")


@pytest.mark.parametrize(
    "deck", ["", "two words", "a\nSHUTDOWN", "a\x00", "-q", "x" * 201, "a\u2028b", "a\u00a0b"]
)
def test_a_deck_that_would_be_taken_for_something_else_is_refused(deck: str) -> None:
    with pytest.raises(UsageError, match="cannot be asked for"):
        GameRequest(("red.dck", deck))


@pytest.mark.parametrize("deck", ["red.dck", "/decks/red-1_(x).dck", "Grün", "a'b"])
def test_a_plain_deck_passes(deck: str) -> None:
    assert checked_deck(deck) == deck


def test_a_request_is_one_line() -> None:
    full = GameRequest(DECKS, "interact", 60, 3, seed=-7, quiet=False, extra=("-x", "fault=lie"))
    assert full.line() == "NEWGAME red.dck blue.dck -i -c 60 -t 3 -s -7 -x fault=lie"
    assert GameRequest(DECKS, "observe").line() == "NEWGAME red.dck blue.dck -o -q -c 120 -t 5"


@pytest.mark.parametrize(
    "wrong",
    [
        {"game_seconds": 0},
        {"decision_seconds": 10**6},
        {"seed": 2**63},
        {"extra": ("a b",)},
        {"extra": ("x\n",)},
    ],
)
def test_a_request_that_cannot_be_told_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no daemon can be asked"):
        GameRequest(DECKS, **wrong)


@given(
    DECK_NAMES,
    DECK_NAMES,
    st.sampled_from(get_args(Mode)),
    st.integers(0, 10**9),
    st.integers(0, 2),
    st.booleans(),
)
def test_a_result_is_read_whatever_the_decks_are_called(
    first: str, second: str, mode: Mode, milliseconds: int, winner: int, quiet: bool
) -> None:
    name = (first, second)[winner - 1]
    who = f"{PREFIXES[mode]}({winner})-{name} won" if winner else "Draw"
    heads = [] if quiet else ["SEED: 5", f"GAME_START: {first} vs {second}"]
    outcome = played(
        [*heads, f"GAME_RESULT: {who} in {milliseconds}ms"], GameRequest(DECKS, mode, quiet=quiet)
    )
    assert outcome is not None
    assert outcome.winner == (winner - 1 if winner else None)
    assert outcome.milliseconds == milliseconds
    assert outcome.seed == (None if quiet else 5)


def test_the_last_of_several_wins_counts() -> None:
    outcome = played(["GAME_RESULT: Ai(2)-who won in 3ms won in 40ms"])
    assert outcome is not None
    assert (outcome.winner, outcome.milliseconds) == (1, 40)


@pytest.mark.parametrize("broken_off", ["GAME_TIMEOUT: Game exceeded 120 seconds", "GAME_ERROR: null"])
def test_a_result_follows_what_broke_a_game_off(broken_off: str) -> None:
    assert played([broken_off]) is None
    outcome = played([broken_off, "GAME_RESULT: Draw in 120001ms"], GameRequest(DECKS, seed=9))
    assert outcome is not None
    assert outcome.winner is None
    assert outcome.seed == 9
    assert outcome.timed_out == broken_off.startswith("GAME_TIMEOUT")
    assert outcome.error == (None if outcome.timed_out else "null")


def test_decisions_are_kept_with_what_was_chosen() -> None:
    lines = [
        decision(0, seat=2),
        decision(1, decision_type="reveal"),
        decision(0),
        "GAME_RESULT: Draw in 1ms",
    ]
    outcome = played(lines, GameRequest(DECKS, "interact"))
    assert outcome is not None
    assert [(kept.seat, kept.kind, kept.choice) for kept in outcome.decisions] == [
        (1, "confirm_action", True),
        (0, "reveal", None),
        (0, "confirm_action", True),
    ]


def test_observed_decisions_are_not_answered() -> None:
    game = GameInProgress(GameRequest(DECKS, "observe"), "forge")
    line = decision(
        prefix="AiObs", decision_type="declare_attackers", attackers=[{"index": 2}], ai_choice=[2]
    )
    assert game.take(line) is None
    game.take("GAME_RESULT: AiObs(1)-Red won in 5ms")
    assert game.outcome is not None
    assert [kept.choice for kept in game.outcome.decisions] == [(2,)]


def test_decisions_of_a_game_that_was_broken_off_are_nobodys() -> None:
    game = GameInProgress(GameRequest(DECKS, "interact"), "forge")
    assert game.take("GAME_TIMEOUT: Game exceeded 1 seconds") is None
    assert game.take(decision()) is None
    game.take("GAME_RESULT: Draw in 1000ms")
    assert game.outcome is not None
    assert game.outcome.decisions == ()


@pytest.mark.parametrize(
    ("bound", "most"), [("MAX_DECISIONS", 3), ("MAX_DECISION_CHARACTERS", 3 * len(decision()))]
)
def test_a_game_of_endless_decisions_is_given_up(
    bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forge_protocol, bound, most)
    request = GameRequest(DECKS, "interact")
    assert played([decision(number) for number in range(3)], request) is None
    assert str(most) in fault_of([decision(number) for number in range(4)], request).why


@pytest.mark.parametrize("refusal", ["ERROR: Could not load deck: red.dck", "ERROR: Usage: NEWGAME …"])
def test_a_refusal_says_why_and_what_to_do(refusal: str) -> None:
    fault = fault_of([refusal])
    assert fault.kind == "refused"
    assert refusal.removeprefix("ERROR: ") in fault.why
    assert ("path of a .dck file" in fault.fix) == ("load deck" in refusal)


RESULT = "GAME_RESULT: Ai(1)-Red won in 5ms"


@pytest.mark.parametrize(
    ("lines", "request_of"),
    [
        (["hello"], {}),
        ([""], {}),
        (["GAME_RESULT: Ai(3)-Red won in 5ms"], {}),
        (["GAME_RESULT: Ai(1)-Red won in -5ms"], {}),
        (["GAME_RESULT: Ai(1)-Red won in 5 ms"], {}),
        (["GAME_RESULT: Draw"], {}),
        (["GAME_RESULT: Agent(1)-Red won in 5ms"], {}),  # of another mode
        (["GAME_START: Grey vs Blue", RESULT], {}),  # of other decks
        (["GAME_START: Red vs Red", "GAME_RESULT: Ai(2)-Green won in 5ms"], {}),
        (["SEED: 6"], {"seed": 5}),  # of another seed
        (["SEED: x"], {}),
        (["SEED: 1", "SEED: 1"], {}),
        (["GAME_START: Red"], {}),
        (["GAME_START: Red vs Blue", "GAME_START: Red vs Blue"], {}),
        (["GAME_START: Red vs Blue", "SEED: 1"], {}),
        (["GAME_START: Red vs Blue", "ERROR: Could not load deck: x"], {}),
        (["SEED: 1", "ERROR: Could not load deck: x"], {}),
        (["GAME_TIMEOUT: a", "GAME_TIMEOUT: b"], {}),
        (["GAME_ERROR: a", "GAME_ERROR: b"], {}),
        ([RESULT, RESULT], {}),
        ([RESULT, "GAME_TIMEOUT: late"], {}),
        ([decision()], {}),  # unasked
        (["DECISION:{}"], {"mode": "observe"}),
        ([decision(), "ERROR: Invalid number: y"], {"mode": "interact"}),  # it did not take our reply
    ],
)
def test_a_line_that_may_not_come_is_the_daemons_fault(lines: list[str], request_of: dict[str, Any]) -> None:
    request = GameRequest(DECKS, **request_of)
    played(lines[:-1], request)
    assert fault_of(lines, request).kind == "protocol"


def test_the_status_is_read() -> None:
    lines = ["FORGE DAEMON STATUS", "  Active games: 3", "  Total games played: 1234"]
    status = read_status([*lines, "  Memory: 812MB / 4096MB", "  Max concurrent: 10"], "forge")
    assert status == forge_protocol.Status(3, 1234, 812, 4096, 10)


@pytest.mark.parametrize("place", range(5))
def test_a_status_with_another_line_is_refused(place: int) -> None:
    lines = ["X STATUS", "Active games: 3", "Total games played: 4", "Memory: 8MB / 9MB", "Max concurrent: 1"]
    assert read_status(lines, "forge").active_games == 3
    lines[place] = "something else"
    with pytest.raises(EngineFault, match="broke its protocol"):
        read_status(lines, "forge")
