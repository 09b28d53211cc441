"""Decisions of a finished game as rows to learn from: what was seen, what could be chosen, what was, and who won.

The columns are those of `replay.decision_shards`, which keeps them. A decision becomes a row for each question that it
asks (see `engines.questions`). One whose choice is not among what was offered teaches nothing and is counted.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np

from engines.forge_decisions import KINDS, Decision, Seat
from engines.forge_protocol import Outcome
from engines.observation import NUM_FEATURES, observe
from engines.questions import NUM_SLOTS, answers_to

MISSING, LEFT_OUT, UNREADABLE = "labels_missing", "candidates_left_out", "decisions_unreadable"


@dataclass(frozen=True, slots=True, eq=False)
class GameRows:
    """What a game leaves.

    Attributes:
        game: its number, 64 bits, which follows from all that was told of it: a copy has the same.
        columns: of R rows, in the order in which they were asked.
        counts: `MISSING` decisions whose choice was not among what was offered, `LEFT_OUT` candidates without a slot,
            and decisions that are `UNREADABLE`.
    """

    game: int
    columns: dict[str, np.ndarray]
    counts: Counter[str]


def rows_of(outcome: Outcome) -> GameRows:
    """Return the rows of a game whose decisions were observed, or were ours.

    A game that was broken off teaches what was chosen, but not what it was worth: its `value_weight` is 0.
    """
    seen: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    facts: list[tuple[int, float, int]] = []
    counts: Counter[str] = Counter()
    for decision in outcome.decisions:
        if decision.kind == "reveal":
            continue
        try:
            answered = answers_to(decision)
            shown = [(observe(question), question, slot) for question, slot in answered or ()]
        except (ValueError, LookupError, TypeError, AttributeError):
            counts[UNREADABLE] += 1
            continue
        counts[MISSING] += answered is None
        for (vector, mask), question, slot in shown:
            counts[LEFT_OUT] += question.left_out
            seen.append(vector)
            masks.append(mask)
            facts.append((slot, _worth(outcome, decision.seat), KINDS.index(decision.kind)))
    count, game = len(seen), game_number(outcome)
    known = outcome.error is None and not outcome.timed_out
    columns = {
        "vector": np.array(seen, np.float16).reshape(count, NUM_FEATURES),
        "mask": np.array(masks, bool).reshape(count, NUM_SLOTS),
        "choice": np.array([slot for slot, _, _ in facts], np.int64),
        "outcome": np.array([worth for _, worth, _ in facts], np.float32),
        "value_weight": np.full(count, known, np.float32),
        "kind": np.array([kind for _, _, kind in facts], np.int16),
        "game": np.full(count, game, np.uint64),
        "ply": np.arange(count, dtype=np.int32),
    }
    return GameRows(game, columns, counts)


def game_number(outcome: Outcome) -> int:
    """Return the number of a game, of its seed, its winner, and each decision with what was seen and chosen."""
    total = hashlib.blake2b(digest_size=8)
    total.update(json.dumps([outcome.seed, outcome.winner]).encode())
    for decision in outcome.decisions:
        total.update(json.dumps(_told(decision), sort_keys=True).encode())
    return int.from_bytes(total.digest(), "little")


def _told(decision: Decision) -> list[object]:
    place = [decision.kind, decision.number, decision.seat, decision.turn, decision.phase]
    return [place, decision.state, decision.details, decision.choice]


def _worth(outcome: Outcome, seat: Seat) -> float:
    return 0.0 if outcome.winner is None else 1.0 if outcome.winner == seat else -1.0
