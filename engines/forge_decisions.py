"""What a Forge daemon asks of a player, read from its JSON, and how a choice is written back.

Both seats' decisions come over one connection, each with the full state of the game. `read_decision` keeps of that
only what the deciding seat may know: the other hand is taken out, and so is every field that is not known to be
open. Whoever gets a `Decision` cannot see more.

In observation mode the daemon's own AI decides, and the decision carries what it chose. In interactive mode
`reply_line` writes what we choose. The daemon takes a bad reply for some reply (a pass, the first index), so that a
record would tell another choice than the one that was played: what is no legal choice is refused before it is sent.

Indices are those of the daemon's `index` fields, which may have gaps.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

from core.errors import UsageError
from engines.errors import EngineFault, shown

DecisionKind: TypeAlias = Literal[
    "choose_action",
    "declare_attackers",
    "declare_blockers",
    "choose_ability",
    "choose_cards",
    "choose_entity",
    "play_trigger",
    "play_from_effect",
    "confirm_action",
    "announce_value",
    "reveal",
]
KINDS: tuple[DecisionKind, ...] = get_args(DecisionKind)

Seat: TypeAlias = Literal[0, 1]
JsonObject: TypeAlias = dict[str, Any]

Choice: TypeAlias = bool | int | tuple[int, ...] | tuple[tuple[int, int], ...] | None
"""An index or -1 (`choose_action`, `choose_ability`, `choose_entity`), a value (`announce_value`), indices
(`declare_attackers`, `choose_cards`), pairs of blocker and attacker (`declare_blockers`), or yes and no (the rest).
None: nothing to choose (`reveal`), or a choice of the daemon's AI that is not among what it offered."""

PASS = -1
LARGEST_VALUE = 2**31 - 1
_CUT = 100
"""A daemon cuts the descriptions of actions at this length, but not that of the one its AI chose."""

_OPTIONS: dict[DecisionKind, str] = {
    "choose_action": "actions",
    "declare_attackers": "attackers",
    "declare_blockers": "blockers",
    "choose_ability": "abilities",
    "choose_cards": "cards",
    "choose_entity": "entities",
}
"""Under which name the options of a decision are."""

_OPEN_IN_GAME = {"is_game_over", "active_player", "priority_player", "stack", "combat"}
_OPEN_OF_PLAYER = {
    *("name", "life", "poison", "has_lost", "lands_played_this_turn", "max_land_plays", "mana_pool"),
    *("hand_size", "library_size", "graveyard", "battlefield", "exile"),
    *("battlefield_creatures", "battlefield_lands", "battlefield_other"),
}
"""What both seats may see. A field that is not named here goes to nobody."""
_DETAILS = {
    *_OPTIONS.values(),
    *(
        "defenders",
        "card",
        "title",
        "min",
        "max",
        "optional",
        "trigger_card",
        "trigger",
        "spell",
        "mode",
        "message",
    ),
    *("ability", "announce", "zone", "owner"),
}
"""What the daemon tells the deciding seat with a decision."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of one seat.

    Attributes:
        kind: what is to be decided.
        number: the daemon's count of this seat's decisions, from 0.
        seat: 0 for the first deck, 1 for the second.
        turn, phase: where the game is.
        state: what `seat` may know of the game.
        details: the fields of this kind of decision: its options under `actions`, `attackers`, …
        choice: what was chosen; see `Choice`.
    """

    kind: DecisionKind
    number: int
    seat: Seat
    turn: int
    phase: str
    state: JsonObject
    details: JsonObject
    choice: Choice = None


def options(decision: Decision) -> tuple[int, ...]:
    """Return the indices that a choice may be made of, in the daemon's order; pass is -1. Empty for other kinds."""
    if decision.kind not in _OPTIONS:
        return ()
    return _indices(decision.details[_OPTIONS[decision.kind]])


def read_decision(text: str, engine: str) -> Decision:
    """Read the JSON of a DECISION line.

    Raises:
        EngineFault: `protocol` when a field is missing or is not what it should be.
    """
    try:
        # Not strict: a daemon escapes line breaks and tabs in card texts, and leaves other control characters.
        return _decision(json.loads(text, strict=False))
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        why = f"it sent the decision {shown(text)}: {type(error).__name__}: {error}"
        raise EngineFault("protocol", engine, why=why) from error


def masked_state(state: JsonObject, seat: Seat) -> JsonObject:
    """Return what `seat` may know of a game's state: no other hand, no library.

    Raises:
        LookupError, ValueError, TypeError, AttributeError: when it is no state of a game.
    """
    shown_state = {key: value for key, value in state.items() if key in _OPEN_IN_GAME}
    return shown_state | {"players": [_masked_player(player, seat) for player in state["players"]]}


def seat_of(name: str) -> Seat:
    """Return the seat that a player's name tells, `Ai(1)-deck` or the like. Raises ValueError."""
    head, separator, _ = name.partition(")-")
    prefix, _, number = head.partition("(")
    if not separator or not prefix.isalpha() or number not in ("1", "2"):
        raise ValueError(f"{shown(name)} names no seat")
    return 0 if number == "1" else 1


def reply_line(decision: Decision, choice: Choice) -> str | None:
    """Return the line that tells the daemon `choice`, or None where it waits for none.

    Raises:
        UsageError: when `choice` is none that the decision allows.
    """
    if not _is_legal(decision, choice):
        offered = (
            f"{decision.details.get('min', 0)} to {decision.details.get('max', 'all')} of {options(decision)}"
        )
        raise UsageError(
            f"{shown(str(choice))} is no choice of the decision {decision.kind!r}",
            why=f"it offers {offered if decision.kind in _OPTIONS else 'no such thing'}",
            fix="mend the player that chose it",
        )
    if choice is None:
        return None
    if isinstance(choice, bool):
        return "y" if choice else "n"
    if isinstance(choice, int):
        return str(choice)
    parts = (f"{part[0]}:{part[1]}" if isinstance(part, tuple) else str(part) for part in choice)
    return ",".join(parts) or "none"


def _decision(fields: JsonObject) -> Decision:
    kind, seat = fields["decision_type"], seat_of(fields["player"])
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not one of its decisions")
    decision = Decision(
        kind=kind,
        number=_whole(fields["decision_id"]),
        seat=seat,
        turn=_whole(fields["turn"]),
        phase=str(fields["phase"]),
        state=masked_state(fields["game_state"], seat),
        details={key: value for key, value in fields.items() if key in _DETAILS},
    )
    if kind in _OPTIONS and len(set(options(decision))) < len(decision.details[_OPTIONS[kind]]):
        raise ValueError("two options have one index")
    _check_details(decision)
    return replace(decision, choice=_label(decision, fields)) if "ai_choice" in fields else decision


def _check_details(decision: Decision) -> None:
    """See that what `reply_line` relies on is there. Raises LookupError, ValueError."""
    details = decision.details
    if decision.kind == "declare_blockers":
        _indices(details["attackers"])
    elif decision.kind == "choose_cards" and not 0 <= _whole(details["min"]) <= _whole(details["max"]):
        raise ValueError(f"from {details['min']} to {details['max']} cards cannot be chosen")
    if decision.kind in ("choose_cards", "choose_entity") and not isinstance(details["optional"], bool):
        raise ValueError("'optional' is neither true nor false")


def _label(decision: Decision, fields: JsonObject) -> Choice:
    """Return what the daemon's AI chose, or None when that is not among what was offered."""
    chosen = fields["ai_choice"]
    match decision.kind:
        case "choose_action":
            choice = _action_label(decision, chosen, fields.get("ai_choice_index"))
        case "declare_attackers":
            choice = tuple(chosen)
        case "declare_blockers":
            choice = tuple((pair["blocker"], pair["attacker"]) for pair in chosen)
        case _:
            choice = chosen
    return choice if _is_legal(decision, choice) else None


def _action_label(decision: Decision, chosen: JsonObject, index: object) -> int | None:
    """Find the action that the AI chose. Not every daemon gives its index, and some give -1 for all."""
    if chosen.get("action") == "pass":
        return PASS
    if _is_int(index) and index != PASS:
        return index
    same = [action for action in decision.details["actions"] if _is_same(action, chosen)]
    exact = [action for action in same if action["description"] == chosen["description"][:_CUT]]
    if exact:  # several: copies of one card, between which there is nothing to choose
        return exact[0]["index"]
    return same[0]["index"] if len(same) == 1 else None


def _is_same(action: JsonObject, chosen: JsonObject) -> bool:
    is_pass = action["index"] == PASS
    return not is_pass and all(action[key] == chosen[key] for key in ("card", "is_land"))


def _masked_player(player: JsonObject, seat: Seat) -> JsonObject:
    seen = _OPEN_OF_PLAYER | ({"hand"} if seat_of(player["name"]) == seat else set())
    return {key: value for key, value in player.items() if key in seen}


def _is_legal(decision: Decision, choice: Choice) -> bool:
    offered, details, kind = options(decision), decision.details, decision.kind
    if kind == "declare_attackers":
        return _are_distinct(choice, offered)
    if kind == "declare_blockers":
        return _are_blocks(choice, offered, _indices(details["attackers"]))
    if kind == "choose_cards":
        least = 0 if details["optional"] and not choice else min(details["min"], len(offered))
        return _are_distinct(choice, offered) and least <= len(choice) <= details["max"]
    if kind == "announce_value":
        return _is_int(choice) and 0 <= choice <= LARGEST_VALUE
    if kind in ("choose_action", "choose_ability", "choose_entity"):
        may_be_none = kind == "choose_entity" and details["optional"]
        return _is_int(choice) and (choice in offered or (may_be_none and choice == PASS))
    return choice is None if kind == "reveal" else isinstance(choice, bool)


def _is_int(choice: object) -> TypeGuard[int]:
    return isinstance(choice, int) and not isinstance(choice, bool)


def _are_distinct(choice: object, offered: Collection[int]) -> TypeGuard[tuple[int, ...]]:
    return (
        isinstance(choice, tuple)
        and all(_is_int(index) and index in offered for index in choice)
        and len(set(choice)) == len(choice)
    )


def _are_blocks(choice: object, blockers: Collection[int], attackers: Collection[int]) -> bool:
    """Whether each blocker blocks one attacker at most."""
    if not isinstance(choice, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in choice
    ):
        return False
    blocking, blocked = tuple(pair[0] for pair in choice), tuple(pair[1] for pair in choice)
    return _are_distinct(blocking, blockers) and all(
        _is_int(index) and index in attackers for index in blocked
    )


def _indices(entries: list[JsonObject]) -> tuple[int, ...]:
    return tuple(_whole(entry["index"]) for entry in entries)


def _whole(value: object) -> int:
    if not _is_int(value):
        raise ValueError(f"{value!r} is no whole number")
    return value
