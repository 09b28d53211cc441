"""Decisions as a Forge daemon sends them, made by hypothesis."""

import json
from typing import Any

from hypothesis import strategies as st

from engines.forge_decisions import KINDS, Choice, Decision, DecisionKind, options

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(0, 300)
CARDS = st.lists(st.fixed_dictionaries({"id": NUMBERS, "name": WORDS, "cmc": NUMBERS}), max_size=2)
NAMES = ("Agent(1)-Red vs (2)-Blue", "Agent(2)-Blue")


def player(name: str) -> st.SearchStrategy[dict[str, Any]]:
    lists = dict.fromkeys(("hand", "graveyard", "battlefield", "exile"), CARDS)
    numbers = dict.fromkeys(("life", "hand_size", "library_size"), st.integers(-5, 60))
    return st.fixed_dictionaries({"name": st.just(name), **lists, **numbers})


STATES = st.fixed_dictionaries(
    {
        "is_game_over": st.booleans(),
        "active_player": st.sampled_from(NAMES),
        "players": st.tuples(player(NAMES[0]), player(NAMES[1])).map(list),
        "stack": st.lists(st.fixed_dictionaries({"description": WORDS}), max_size=2),
    }
)


@st.composite
def entries(
    draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]], *, least: int = 0
) -> list[dict[str, Any]]:
    """Options whose indices ascend and may have gaps."""
    indices = sorted(draw(st.sets(st.integers(0, 12), min_size=least, max_size=5)))
    return [{"index": index, **draw(st.fixed_dictionaries(fields))} for index in indices]


@st.composite
def actions(draw: st.DrawFn) -> list[dict[str, Any]]:
    named = {
        "card": st.sampled_from(["Bolt", "Field"]),
        "description": st.text("ab", max_size=110),
        "is_land": st.booleans(),
    }
    listed = draw(entries(named))
    cut = [{**entry, "description": entry["description"][:100]} for entry in listed]
    return [*cut, {"index": -1, "card": "", "description": "Pass priority", "is_land": False}]


@st.composite
def details(draw: st.DrawFn, kind: DecisionKind) -> dict[str, Any]:
    named: dict[str, st.SearchStrategy[Any]] = {"name": WORDS}
    match kind:
        case "choose_action":
            return {"actions": draw(actions())}
        case "declare_attackers":
            return {"attackers": draw(entries(named)), "defenders": []}
        case "declare_blockers":
            return {"blockers": draw(entries(named)), "attackers": draw(entries(named, least=1))}
        case "choose_ability":
            return {"card": "Charm", "abilities": draw(entries({"description": WORDS}, least=1))}
        case "choose_cards":
            cards = draw(entries(named, least=1))
            most = draw(st.integers(0, len(cards)))
            bounds = {"min": draw(st.integers(0, most)), "max": most, "optional": draw(st.booleans())}
            return {"title": draw(WORDS), "cards": cards, **bounds}
        case "choose_entity":
            return {"title": "", "entities": draw(entries(named, least=1)), "optional": draw(st.booleans())}
        case "reveal":
            return {"zone": "Hand", "owner": NAMES[0], "cards": draw(st.lists(WORDS, max_size=3))}
        case _:
            return {"message": draw(WORDS)}


@st.composite
def messages(draw: st.DrawFn, kinds: tuple[DecisionKind, ...] = KINDS) -> dict[str, Any]:
    """The JSON of a decision, without a label."""
    kind = draw(st.sampled_from(kinds))
    return {
        "decision_type": kind,
        "decision_id": draw(NUMBERS),
        "player": draw(st.sampled_from(NAMES)),
        "turn": draw(NUMBERS),
        "phase": "MAIN1",
        "game_state": draw(STATES),
        **draw(details(kind)),
    }


@st.composite
def legal_choices(draw: st.DrawFn, decision: Decision) -> Choice:
    """A choice that a decision allows."""
    offered = options(decision)
    match decision.kind:
        case "choose_action" | "choose_ability":
            return draw(st.sampled_from(offered))
        case "choose_entity":
            return draw(st.sampled_from([*offered, -1] if decision.details["optional"] else offered))
        case "declare_attackers":
            return tuple(draw(st.lists(st.sampled_from(offered), unique=True))) if offered else ()
        case "declare_blockers":
            blocking = draw(st.lists(st.sampled_from(offered), unique=True)) if offered else []
            attackers = [entry["index"] for entry in decision.details["attackers"]]
            return tuple((blocker, draw(st.sampled_from(attackers))) for blocker in blocking)
        case "choose_cards":
            least, most = decision.details["min"], decision.details["max"]
            some = st.lists(st.sampled_from(offered), unique=True, min_size=least, max_size=most)
            return tuple(draw(some | st.just([]) if decision.details["optional"] else some))
        case "announce_value":
            return draw(st.integers(0, 2**31 - 1))
        case "reveal":
            return None
        case _:
            return draw(st.booleans())


def heard(decision: Decision, line: str | None) -> Choice:
    """Return what a daemon takes a reply for: a second reading of the protocol, beside the one that is tested."""
    if line is None:
        return None
    match decision.kind:
        case "choose_action" | "choose_ability" | "choose_entity" | "announce_value":
            return int(line)
        case "declare_attackers" | "choose_cards":
            return tuple(int(word) for word in line.split(",")) if line != "none" else ()
        case "declare_blockers":
            pairs = [pair.split(":") for pair in line.split(",")] if line != "none" else []
            return tuple((int(blocker), int(attacker)) for blocker, attacker in pairs)
        case _:
            return line.startswith("y")


def text(message: object) -> str:
    """JSON on one line, with control characters as the daemon leaves them."""
    return json.dumps(message, ensure_ascii=False).replace("\\u0007", "\x07")
