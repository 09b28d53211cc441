"""What a seat sees of a decision, as arrays of a fixed size: `observe` makes a row of a question and of the game.

Everything comes from a `Decision`, out of which the other seat's hand was taken when it was read. All numbers are whole
and within `LARGEST`, so that float16 holds them exactly; what they are measured in is the network's business.

    of the game       turn, whose turn, phase, kind of decision, stack, combat
    of both seats     own first: life, cards, mana, creatures; a bag of the battlefield's cards
    of the own hand   a bag of its cards, where the daemon shows it
    of the question   what it is about, how much may be chosen
    of each slot      the candidate there: cost, size, whose it is, a code of its name; zeros where there is none

A bag counts cards in `CARD_BUCKETS` buckets by a hash of their names. A code is `CODE_SIGNS` signs, the first bits of
that hash. Both are the same on every machine. Whoever changes what a number means raises `OBSERVATION_SCHEMA`.

Shapes: `F` numbers to see (`NUM_FEATURES`), `S` slots.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from core.seeds import derive_seed
from engines.forge_decisions import KINDS, JsonObject, Seat, seat_of
from engines.questions import NUM_SLOTS, Question

OBSERVATION_SCHEMA = 1
LARGEST = 2000
CARD_BUCKETS = 32
CODE_SIGNS = 8

PHASES = (
    *("UNTAP", "UPKEEP", "DRAW", "MAIN1", "COMBAT_BEGIN", "COMBAT_DECLARE_ATTACKERS"),
    *("COMBAT_DECLARE_BLOCKERS", "COMBAT_FIRST_STRIKE_DAMAGE", "COMBAT_DAMAGE", "COMBAT_END"),
    *("MAIN2", "END_OF_TURN", "CLEANUP"),
)
_COUNTED = ("life", "poison", "hand_size", "library_size", "lands_played_this_turn", "max_land_plays")
_MANA = ("total", "white", "blue", "black", "red", "green", "colorless")

_OF_GAME = 9 + len(PHASES) + 1 + len(KINDS)
_OF_PLAYER = len(_COUNTED) + 2 + 6 + len(_MANA) + CARD_BUCKETS
_OF_HAND = 1 + CARD_BUCKETS
_OF_CARD = 8 + CODE_SIGNS
_OF_QUESTION = 6 + _OF_CARD
NUM_FEATURES = _OF_GAME + 2 * _OF_PLAYER + _OF_HAND + _OF_QUESTION + NUM_SLOTS * _OF_CARD

_SYMBOL = re.compile(r"\{([^{}]*)\}")


def observe(question: Question) -> tuple[np.ndarray, np.ndarray]:
    """Return what the seat that is asked sees, float32 [F], and which slots hold a candidate, bool [S].

    Raises:
        ValueError, LookupError, TypeError, AttributeError: when a field of the decision is not what it should be.
    """
    own, other = _players(question.decision.state, question.decision.seat)
    sides = _sides(own, other)
    numbers = [
        *_of_game(question, question.decision.seat),
        *_of_player(own),
        *_of_player(other),
        *_of_hand(own),
        *_of_question(question, sides),
    ]
    slots = np.zeros((NUM_SLOTS, _OF_CARD), np.float32)
    mask = np.zeros(NUM_SLOTS, bool)
    for candidate, slot in zip(question.candidates, question.slots, strict=True):
        mask[slot] = True
        slots[slot] = _of_card(candidate.entry, len(candidate.answers), sides, name=candidate.name)
    vector = np.concatenate([np.array(numbers, np.float32), slots.ravel()])
    return np.clip(np.trunc(vector), -LARGEST, LARGEST), mask


def observe_waiting(question: Question) -> np.ndarray:
    """Return what the other seat sees while a question is not for it, float32 [F]: what lies open on the table.

    Its own hand is not among that, for whoever is asked is not told of it; nor is the question.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: as `observe`.
    """
    decision = question.decision
    seat: Seat = 1 if decision.seat == 0 else 0
    own, other = _players(decision.state, seat)
    numbers = [*_of_game(question, seat), *_of_player(own), *_of_player(other)]
    vector = np.zeros(NUM_FEATURES, np.float32)
    vector[: len(numbers)] = numbers
    return np.clip(np.trunc(vector), -LARGEST, LARGEST)


def _players(state: JsonObject, seat: Seat) -> tuple[JsonObject, JsonObject]:
    by_seat = {seat_of(player["name"]): player for player in state["players"]}
    return by_seat[seat], by_seat[1 if seat == 0 else 0]


def _sides(own: JsonObject, other: JsonObject) -> dict[Any, int]:
    """Return whose each player and card in play is, by name or number: own 1, the other's -1."""
    sides: dict[Any, int] = {other["name"]: -1, own["name"]: 1}
    for player, side in ((other, -1), (own, 1)):
        sides |= {card["id"]: side for card in player.get("battlefield", ())}
    return sides


def _of_game(question: Question, seat: Seat) -> list[float]:
    """Return what a seat sees of the game and of what is decided, the latter only if it is for this seat."""
    decision, state = question.decision, question.decision.state
    asked = decision.seat == seat
    stack: list[Any] = state.get("stack", [])
    combat: list[JsonObject] = (state.get("combat") or {}).get("attackers", [])
    phase = PHASES.index(decision.phase) if decision.phase in PHASES else len(PHASES)
    return [
        _number(decision.turn),
        _is_own(state.get("active_player"), seat),
        _is_own(state.get("priority_player"), seat),
        len(stack),
        len(combat),
        sum(_number(attacker.get("power")) for attacker in combat),
        sum(bool(attacker.get("blocked_by")) for attacker in combat),
        question.left_out if asked else 0.0,
        len(question.candidates) if asked else 0.0,
        *_one_of(phase, len(PHASES) + 1),
        *_one_of(KINDS.index(decision.kind) if asked else -1, len(KINDS)),
    ]


def _of_player(player: JsonObject) -> list[float]:
    battlefield: list[JsonObject] = player.get("battlefield", [])
    creatures = [card for card in battlefield if card.get("is_creature")]
    lands = sum(bool(card.get("is_land")) for card in battlefield)
    if "battlefield_creatures" in player:  # a summary, instead of the cards
        counts = [_number(player.get(f"battlefield_{kind}")) for kind in ("creatures", "lands", "other")]
    else:
        counts = [len(creatures), lands, len(battlefield) - len(creatures) - lands]
    mana = player.get("mana_pool") or {}
    return [
        *(_number(player.get(name)) for name in _COUNTED),
        len(player.get("graveyard", ())),
        len(player.get("exile", ())),
        *counts,
        sum(not card.get("tapped") for card in creatures),
        sum(_number(card.get("power")) for card in creatures),
        sum(_number(card.get("toughness")) for card in creatures),
        *(_number(mana.get(colour)) for colour in _MANA),
        *_bag(battlefield),
    ]


def _of_hand(own: JsonObject) -> list[float]:
    hand: list[JsonObject] = own.get("hand", [])
    return [float("hand" in own), *_bag(hand)]


def _of_question(question: Question, sides: Mapping[Any, int]) -> list[float]:
    details, subject = question.decision.details, question.subject
    names = (details.get(key) for key in ("card", "trigger_card", "spell", "ability", "title"))
    name = subject.get("name") or next((name for name in names if name), "")
    return [
        question.taken,
        _number(details.get("min")),
        _number(details.get("max")),
        float(bool(details.get("optional"))),
        float(question.about is not None),
        len(details.get("attackers", ())),
        *_of_card(subject, 1, sides, name=str(name)),
    ]


def _of_card(entry: JsonObject, copies: int, sides: Mapping[Any, int], *, name: str) -> list[float]:
    """Return what is known of a card, a player or an ability that the daemon names: `_OF_CARD` numbers."""
    cost, has_x = mana_value(entry.get("mana_cost") or "")
    side = sides.get(entry.get("card_id"), sides.get(entry.get("name"), 0))
    return [
        copies,
        cost,
        has_x,
        float(bool(entry.get("is_land"))),
        _number(entry.get("power")),
        _number(entry.get("toughness")),
        side,
        float(entry.get("name") in sides),
        *(_code(name) if name else (0.0,) * CODE_SIGNS),
    ]


def mana_value(cost: str) -> tuple[float, float]:
    """Return what a cost like "{X}{2}{R}{W/U}" comes to without X, and whether it has one (1 or 0)."""
    symbols: list[str] = _SYMBOL.findall(cost)
    total = sum(int(symbol) if symbol.isdecimal() else symbol != "X" for symbol in symbols)
    return _number(total), float("X" in symbols)


def _bag(cards: Iterable[JsonObject]) -> list[float]:
    bag = [0.0] * CARD_BUCKETS
    for card in cards:
        bag[_hash(card["name"]) % CARD_BUCKETS] += 1
    return bag


def _code(name: str) -> tuple[float, ...]:
    number = _hash(name)
    return tuple(1.0 if number >> bit & 1 else -1.0 for bit in range(CODE_SIGNS))


@lru_cache(maxsize=1 << 16)
def _hash(name: str) -> int:
    return derive_seed(0, "card", name)


def _is_own(name: str | None, seat: Seat) -> float:
    return float(name is not None and seat_of(name) == seat)


def _one_of(place: int, count: int) -> list[float]:
    return [float(each == place) for each in range(count)]


def _number(value: object) -> float:
    """Return a number that the daemon may leave out. Raises ValueError when it is none."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        raise ValueError(f"{str(value)[:100]!r} is no number")
    return float(min(max(value, -LARGEST), LARGEST))
