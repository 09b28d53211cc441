"""A decision as a series of small questions, each with a few candidates: what a network with a fixed policy can answer.

Which attackers, which cards, which blockers: there are too many ways to number them. So each attacker is asked about
by itself, in the daemon's order, and of each blocker whom it blocks. A question with a single candidate is not asked.

A candidate has one of `NUM_SLOTS` slots, where the policy has its number. The slot follows from what the candidate is,
"cast Bolt" or "attack", so that it is mostly the same one wherever it is offered; where two fall together, the later
takes the next that is free. Slot 0 is kept for doing nothing: to pass, no, none.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from core.seeds import derive_seed
from engines.forge_decisions import PASS, Choice, Decision, JsonObject, options

NUM_SLOTS = 32
"""S, the most candidates of a question. Beyond them candidates are left out, and counted."""
MOST_VALUES = 21
"""A value that is announced is one of 0 to 20."""

Answer: TypeAlias = bool | int | None
"""What a candidate stands for: yes or no, an index or value, or None: no attacker is blocked."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to answer.

    Attributes:
        answers: what it stands for; several are copies of one card, and the first is given.
        name: from which its slot follows.
        entry: what the daemon tells of it.
    """

    answers: tuple[Answer, ...]
    name: str
    entry: JsonObject = field(default_factory=dict)

    @property
    def is_nothing(self) -> bool:
        answer = self.answers[0]
        return answer is None or answer is False or answer == PASS


@dataclass(frozen=True, slots=True)
class Question:
    """A choice among candidates.

    Attributes:
        decision: that it is a part of.
        candidates: at least two.
        slots: of each of them.
        left_out: candidates that found no slot.
        about: index of the attacker, blocker or card that it is about; None: it is not about one of several.
        subject: what the daemon tells of that.
        taken: cards or attackers that were taken before.
    """

    decision: Decision
    candidates: tuple[Candidate, ...]
    slots: tuple[int, ...]
    left_out: int
    about: int | None
    subject: JsonObject
    taken: int


Questions: TypeAlias = Generator[Question, int, Choice]
"""Yields questions, is sent the slot of each one's answer, and returns the choice that they come to."""


def questions(decision: Decision) -> Questions:
    """Ask what is to be decided.

    Raises:
        ValueError: when the decision leaves nothing to choose, or a slot is sent that no candidate has.
    """
    match decision.kind:
        case "declare_attackers":
            return (yield from _subset(decision, "attackers", at_least=0, at_most=len(options(decision))))
        case "declare_blockers":
            return (yield from _blocks(decision))
        case "choose_cards":
            return (yield from _cards(decision))
        case "reveal":
            return None
        case _:
            return (yield from _ask(decision, _candidates(decision)))


def answers_to(decision: Decision) -> list[tuple[Question, int]] | None:
    """Return the questions of a decision with the slots that `decision.choice` answers them by.

    None when the choice is not known, or a question does not offer it.
    """
    if decision.choice is None:
        return None
    answered: list[tuple[Question, int]] = []
    asked = questions(decision)
    try:
        question = next(asked)
        while True:
            slot = _slot_of(question, decision.choice)
            if slot is None:
                return None
            answered.append((question, slot))
            question = asked.send(slot)
    except StopIteration as end:
        # Without a question there was one way only; where that is not what was chosen, the label is none.
        return answered if _is_same(end.value, decision) else None


def _is_same(found: Choice, decision: Decision) -> bool:
    choice = decision.choice
    if isinstance(found, tuple) and isinstance(choice, tuple):
        return set(found) == set(choice)
    return found == choice or decision.kind == "choose_action"  # of copies the first is found


def _slot_of(question: Question, choice: Choice) -> int | None:
    """Return the slot of the candidate that a choice of the whole decision means."""
    wanted: Any = choice
    match question.decision.kind:
        case "declare_attackers" | "choose_cards":
            assert isinstance(choice, tuple)
            wanted = bool(choice) if question.about is None else question.about in choice
        case "declare_blockers":
            assert isinstance(choice, tuple)
            wanted = dict(choice).get(question.about)  # pyright: ignore[reportArgumentType,reportCallIssue]
    for candidate, slot in zip(question.candidates, question.slots, strict=True):
        if wanted in candidate.answers:
            return slot
    return None


def _ask(
    decision: Decision,
    candidates: Sequence[Candidate],
    *,
    about: int | None = None,
    subject: JsonObject | None = None,
    taken: int = 0,
) -> Generator[Question, int, Any]:
    """Ask one question, unless there is but one way to answer; return the answer."""
    if not candidates:
        raise ValueError(f"a decision {decision.kind!r} offers nothing to choose")
    if len(candidates) == 1:
        return candidates[0].answers[0]
    placed = _placed(candidates)
    kept = tuple(candidate for candidate, _ in placed)
    slots = tuple(slot for _, slot in placed)
    left_out = len(candidates) - len(kept)
    slot = yield Question(decision, kept, slots, left_out, about, subject or {}, taken)
    return kept[slots.index(slot)].answers[0]


def _placed(candidates: Iterable[Candidate]) -> list[tuple[Candidate, int]]:
    """Give slots to as many candidates as there are slots for."""
    free = set(range(1, NUM_SLOTS))
    placed = []
    for candidate in candidates:
        if candidate.is_nothing:
            placed.append((candidate, 0))
        elif free:
            first = 1 + derive_seed(0, "slot", candidate.name) % (NUM_SLOTS - 1)
            slot = min(free, key=lambda at, first=first: (at - first) % NUM_SLOTS)
            free.remove(slot)
            placed.append((candidate, slot))
    return placed


def _yes_or_no(name: str) -> tuple[Candidate, Candidate]:
    return Candidate((False,), "no"), Candidate((True,), name)


def _subset(
    decision: Decision, entries: str, *, at_least: int, at_most: int
) -> Generator[Question, int, tuple[int, ...]]:
    """Ask about each of several in turn, as long as there are two ways."""
    taken: list[int] = []
    left = len(decision.details[entries])
    for entry in decision.details[entries]:
        index: int = entry["index"]
        may_take, may_leave = len(taken) < at_most, len(taken) + left - 1 >= at_least
        no, yes = _yes_or_no(f"{decision.kind}: yes")
        ways = [way for way, may in ((no, may_leave), (yes, may_take)) if may]
        if (yield from _ask(decision, ways, about=index, subject=entry, taken=len(taken))):
            taken.append(index)
        left -= 1
    return tuple(taken)


def _cards(decision: Decision) -> Generator[Question, int, tuple[int, ...]]:
    details, count = decision.details, len(options(decision))
    least = min(details["min"], count)
    if details["optional"] and least and not (yield from _ask(decision, _yes_or_no("choose_cards: any"))):
        return ()
    return (yield from _subset(decision, "cards", at_least=least, at_most=details["max"]))


def _blocks(decision: Decision) -> Generator[Question, int, tuple[tuple[int, int], ...]]:
    attackers: list[JsonObject] = decision.details["attackers"]
    ways = [
        Candidate((None,), "no block"),
        *(Candidate((entry["index"],), f"block {entry['name']}", entry) for entry in attackers),
    ]
    pairs = []
    for blocker in decision.details["blockers"]:
        index: int = blocker["index"]
        attacker = yield from _ask(decision, ways, about=index, subject=blocker, taken=len(pairs))
        if attacker is not None:
            pairs.append((index, attacker))
    return tuple(pairs)


def _candidates(decision: Decision) -> list[Candidate]:
    """Return the candidates of a decision that is one question."""
    details = decision.details
    match decision.kind:
        case "choose_action":
            return _actions(details["actions"])
        case "choose_ability":
            return [Candidate((each["index"],), each["description"], each) for each in details["abilities"]]
        case "choose_entity":
            entities = [Candidate((each["index"],), each["name"], each) for each in details["entities"]]
            return [Candidate((PASS,), "none"), *entities] if details["optional"] else entities
        case "announce_value":
            return [Candidate((value,), f"value {value}") for value in range(MOST_VALUES)]
        case kind:
            return list(_yes_or_no(f"{kind}: yes"))


def _actions(entries: list[JsonObject]) -> list[Candidate]:
    """Return the actions, copies of one card being one, and to pass first."""
    by_look: dict[str, list[JsonObject]] = {}
    for entry in entries:
        name = f"{entry['card']}: {entry['description']}"
        by_look.setdefault("pass" if entry["index"] == PASS else name, []).append(entry)
    found = [
        Candidate(tuple(entry["index"] for entry in same), name, same[0]) for name, same in by_look.items()
    ]
    return sorted(found, key=lambda candidate: not candidate.is_nothing)
